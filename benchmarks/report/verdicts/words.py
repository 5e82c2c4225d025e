"""The words of a verdict: there are three, and numbers in them come from tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.report.statistics import ALPHA

ENOUGH_SEEDS = 5
"""With three, a standard error has two degrees of freedom, and nine tests ask for differences of 13 of them;
with five, of 5."""
POINTS = 100
"""Accuracy is a share; differences of it are told in percentage points."""
NAMED = 3
"""Cells that a line names; it counts the others."""


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What is the reader's to say."""

    margin: float = 0.02
    """Accuracies closer than that are as good as equal. 2 points: what changes when 16 of the 800 hotdog
    photographs fall the other way, and less than another seed changes."""
    speed_margin: float = 0.05
    """Rates closer than that are: about what one machine's rates differ by from day to day."""
    thresholds: tuple[float, ...] = ()
    """Accuracies to be reached; empty: chosen from the records."""
    price: float | None = None
    """Of an hour of the machine, in whatever currency."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a family's tests, corrected for their number, said of one comparison."""

    estimate: float
    """First side's less the second's; of speeds the logarithm of their ratio."""
    p: float
    """Of no difference; Holm's."""
    equivalence_p: float
    """Of one beyond the margin; Holm's."""

    @property
    def different(self) -> bool:
        """Whether a difference was shown."""
        return self.p < ALPHA

    @property
    def equivalent(self) -> bool:
        """Whether it was shown that there is none beyond the margin."""
        return self.equivalence_p < ALPHA


def verdict(tested: Outcome, first: str, second: str, *, margin: str, least: str) -> str:
    """`A higher`, `equivalent within m`, both, or `no difference shown (could have shown d)`."""
    told = []
    if tested.different:
        told.append(f"{first if tested.estimate > 0 else second} higher")
    if tested.equivalent:
        told.append(equivalent_within(margin))
    return ", ".join(told) or no_difference_shown(least)


def equivalent_within(margin: str) -> str:
    """Both one-sided tests rule out more."""
    return f"equivalent within {margin}"


def no_difference_shown(least: str) -> str:
    """Neither a difference nor equivalence was shown."""
    return f"no difference shown (could have shown {least})"


def least_in_points(share: float) -> str:
    """The smallest difference of accuracies that could have been shown."""
    return f"{points(share)} points" if share <= MOST_DIFFERENCE else NOTHING


def least_ratio(ratio: float) -> str:
    """The smallest ratio of speeds that could have been shown."""
    return f"{ratio:.2f} x" if ratio <= MOST_RATIO else NOTHING


NOTHING = "nothing: too few seeds"
MOST_DIFFERENCE = 0.5
"""From chance to perfection, of two classes."""
MOST_RATIO = 100.0
"""No framework is so much faster than another."""


def points(share: float, *, sign: bool = False) -> str:
    """A difference of accuracies in percentage points."""
    return f"{POINTS * share:{'+' if sign else ''}.1f}"


def in_points(share: float) -> str:
    """The same with its unit; `2 points`."""
    return f"{POINTS * share:.3g} point{'' if share * POINTS == 1 else 's'}"


def p_text(p: float) -> str:
    """As much of a p-value as matters."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = list(names)
    return f"{', '.join(most)} and {last}" if most else last


def first_few(names: Sequence[str]) -> str:
    """As many as fit a line, and how many more there are; of one or more."""
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listed([*names[:NAMED], *more])


def count_of(number: int, what: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
