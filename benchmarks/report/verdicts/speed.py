"""Speed: groups against each other, from cells that ran in alternation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from statistics import geometric_mean

import msgspec

from benchmarks.harness.figures import Conditions, Throughput
from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, Section, Table, table_of
from benchmarks.report.groups import Group
from benchmarks.report.statistics import ALPHA, Ratio, holm, ratio_of_means
from benchmarks.report.verdicts.accuracy import shared_columns
from benchmarks.report.verdicts.comparisons import Division, Kind, Pair, divisions, pairs
from benchmarks.report.verdicts.words import Outcome, count_of, least_ratio, p_text, verdict


class Metric(msgspec.Struct, frozen=True):
    """What is compared."""

    title: str
    rate: Callable[[Throughput], float]
    """Images/s."""
    conditions: Callable[[Throughput], Conditions | None]
    """What happened on the machine meanwhile, if anybody looked."""
    steady: Callable[[Throughput], bool | None]
    """Whether the steps were; of epochs those that they are made of. None: the record does not say."""


TRAINING = Metric(
    "Training steps",
    attrgetter("train_images_per_second"),
    attrgetter("conditions"),
    attrgetter("steady"),
)
EPOCHS = Metric(
    "Whole epochs, input included",
    attrgetter("end_to_end_images_per_second"),
    attrgetter("epoch_conditions"),
    attrgetter("steady"),
)
INFERENCE = Metric(
    "Inference",
    attrgetter("inference_images_per_second"),
    attrgetter("inference_conditions"),
    attrgetter("inference_steady"),
)
METRICS = (TRAINING, EPOCHS, INFERENCE)
KINDS: tuple[Kind, ...] = ("backends", "variants")
NO_RATE = "no rate"
"""Why a rate is none: it is infinite, or nothing."""


class Alternation(msgspec.Struct, frozen=True):
    """The two rates of one seed, taken next to each other. Images/s."""

    seed: int
    first: float
    second: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of groups, and what a paired test says of their speed."""

    pair: Pair
    alternations: tuple[Alternation, ...]
    ratio: Ratio
    """Of the first's rate to the second's."""
    tested: Outcome
    least: float
    """The smallest ratio that could have been shown, whatever became of the table's other tests."""
    margin: float

    @property
    def verdict(self) -> str:
        """In the fixed words."""
        margin = f"{100 * self.margin:g} %"
        return verdict(self.tested, *self.pair.names, margin=margin, least=least_ratio(self.least))


class Left(msgspec.Struct, frozen=True):
    """A pair of groups of which nothing can be said."""

    pair: Pair
    reason: str


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of a kind in a division in one metric: of these the p-values are Holm's."""

    kind: Kind
    division: Division
    metric: Metric
    rows: tuple[Compared, ...]
    left: tuple[Left, ...]


def families(groups: Sequence[Group], margin: float) -> list[Family]:
    """Every comparison that the groups allow, and those that cannot be made."""
    found = []
    for kind in KINDS:
        for division in divisions(kind, groups):
            for metric in METRICS:
                rows, left = compare(kind, metric, division.groups, margin)
                if rows or left:
                    found.append(
                        Family(
                            kind=kind, division=division, metric=metric, rows=tuple(rows), left=tuple(left)
                        )
                    )
    return found


def compare(
    kind: Kind, metric: Metric, groups: Sequence[Group], margin: float
) -> tuple[list[Compared], list[Left]]:
    """All comparisons of a kind in one metric as one family of tests, and those that cannot be made."""
    found: list[tuple[Pair, tuple[Alternation, ...], Ratio]] = []
    left = []
    for pair in pairs(kind, [group for group in groups if any(map(_throughput, group.records))]):
        rates, reason = _alternations(pair, metric)
        if len(rates) >= 2:
            sides = [one.first for one in rates], [one.second for one in rates]
            found.append((pair, rates, ratio_of_means(*sides, paired=True, margin=margin)))
        else:
            left.append(Left(pair, reason))
    p_values = holm([ratio.p for *_, ratio in found])
    equivalence = holm([ratio.equivalence_p for *_, ratio in found])
    compared = [
        Compared(
            pair=pair,
            alternations=rates,
            ratio=ratio,
            tested=Outcome(estimate=ratio.model.centre, p=p, equivalence_p=equivalence_p),
            least=ratio.least(ALPHA / len(found)),
            margin=margin,
        )
        for (pair, rates, ratio), p, equivalence_p in zip(found, p_values, equivalence, strict=True)
    ]
    return compared, left


def section(families: Sequence[Family]) -> Section:
    """A table for each family, and why others could not be compared."""
    parts = []
    for kind in KINDS:
        of_kind = [family for family in families if family.kind == kind]
        for title in dict.fromkeys(family.division.title for family in of_kind):
            blocks: list[Block] = []
            left: list[Left] = []
            for family in of_kind:
                if family.division.title == title:
                    left = list(family.left)  # the same cells in every metric
                    if family.rows:
                        name = f"{family.metric.title}, {kind}, {title}"
                        blocks += [f"{family.metric.title}:", ratio_table(name, family.rows)]
            if left:
                blocks.append(_left_in_words(left))
            parts.append(Section(f"Speed of {kind}, {title}", tuple(blocks)))
    return Section("Speed ratios", (), tuple(parts))


def ratio_table(name: str, compared: Sequence[Compared]) -> Table:
    """One row for each comparison."""
    columns: list[Column[Compared]] = [
        *shared_columns(compared[0].pair.kind),
        Column("first", lambda row: row.pair.names[0]),
        Column("second", lambda row: row.pair.names[1]),
        Column("verdict", lambda row: row.verdict),
        Column("alternations", lambda row: str(row.ratio.pairs), number=True),
        Column("first / second [95 %]", _ratio, number=True, order=lambda row: row.ratio.estimate),
        Column("p (Holm)", lambda row: p_text(row.tested.p), number=True, order=lambda row: row.tested.p),
    ]
    return table_of(name, compared, columns)


def ratio_text(estimate: float, low: float, high: float) -> str:
    """`2.30 [2.21, 2.40]`."""
    return f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


def disturbed(throughput: Throughput) -> str:
    """Why rates are compared with no others: steps that did not become steady, a machine that had other work;
    empty where they may be."""
    rates = (metric.rate(throughput) for metric in METRICS)
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        return NO_RATE
    if throughput.noisy:
        return "noisy"
    return "not steady" if False in (throughput.steady, throughput.inference_steady) else ""


def sound(timings: Iterable[Throughput]) -> list[Throughput]:
    """Those from which a rate is told: the undisturbed ones, or if there are none all that have one."""
    found = [timing for timing in timings if disturbed(timing) != NO_RATE]
    return [timing for timing in found if not disturbed(timing)] or found


def mean_rate(timings: Iterable[Throughput], metric: Metric) -> float | None:
    """Over seeds: the geometric mean of the sound ones, images/s; None where nothing has a rate."""
    rates = list(map(metric.rate, sound(timings)))
    return geometric_mean(rates) if rates else None


def rate_text(timings: Sequence[Throughput], metric: Metric) -> str:
    """The same, with what is to be held against it: `~` where steps had not become steady, `noisy` where the
    machine had other work."""
    rate = mean_rate(timings, metric)
    if rate is None:
        return ""
    told = sound(timings)
    unsteady = False in map(metric.steady, told)
    noisy = any(found is not None and found.noisy for found in map(metric.conditions, told))
    return f"{'~' if unsteady else ''}{rate:.1f}{' noisy' if noisy else ''}"


# --- How ------------------------------------------------------------------------------------------


def _alternations(pair: Pair, metric: Metric) -> tuple[tuple[Alternation, ...], str]:
    """Both sides' rates in each seed in which they ran in alternation, undisturbed; and what is to be said
    where these are too few."""
    others = {record.cell.seed: record for record in pair.second.records}
    rates, apart, unsound = [], 0, 0
    for record in pair.first.records:
        other = others.get(record.cell.seed)
        own, its = _throughput(record), _throughput(other)
        if other is None or own is None or its is None:
            continue
        if record.turn is None or other.turn is None or record.turn.sitting != other.turn.sitting:
            apart += 1
        elif disturbed(own) or disturbed(its):
            unsound += 1
        else:
            rates.append(Alternation(record.cell.seed, metric.rate(own), metric.rate(its)))
    reasons = [
        f"{count_of(apart, 'seed')} not run in alternation" if apart else "",
        f"{count_of(unsound, 'seed')} not steady or disturbed" if unsound else "",
        "one alternation only" if len(rates) == 1 else "",
    ]
    return tuple(rates), ", ".join(filter(None, reasons)) or "no seed timed in both"


def _throughput(record: Record | None) -> Throughput | None:
    return record.throughput if record is not None else None


def _ratio(row: Compared) -> str:
    return ratio_text(row.ratio.estimate, row.ratio.low, row.ratio.high)


def _left_in_words(left: Sequence[Left]) -> str:
    reasons = sorted({one.reason for one in left})
    return (
        f"Not compared: {count_of(len(left), 'pair')} ({'; '.join(reasons)}). A ratio takes two seeds or more"
        " whose cells `python -m benchmarks run --seeds N` ran in alternation."
    )
