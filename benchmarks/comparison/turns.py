"""Who goes when, and what comes of it.

Turns alternate as A B, B A, A B, ...: what drifts on a machine meets both sides alike, and what is disturbed
spoils a pair and not a side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import msgspec

FEWEST_PAIRS = 3
MOST_PAIRS = 40
CONFIDENCE = 0.95
REST = 0.3
"""Seconds between the turns of two processes: threads of OpenMP keep a core for up to 0.2 s after their work,
in case that there is more."""

Turn = Callable[[], float]
"""Does a side's work; returns seconds."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of both sides, turn by turn."""

    base: tuple[float, ...]
    """What the other is held against."""
    other: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as fast as the base the other is: median seconds against median seconds."""
        return median(self.base) / median(self.other)

    def break_even(self, later: float) -> float | None:
        """Turns after which the other has caught up with the base, which began so many seconds earlier; None
        where it never does."""
        saved = median(self.base) - median(self.other)
        return max(0.0, later / saved) if saved > 0 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """That of the median pair's ratio, at `CONFIDENCE` or above; None of too few pairs."""
        return median_interval([base / other for base, other in zip(self.base, self.other, strict=True)])


def in_turns(base: Turn, other: Turn, *, seconds: float, rest: float = 0.0) -> Comparison:
    """Let both work in turns until so many seconds have passed, in pairs, `FEWEST_PAIRS` at least.

    Args:
        rest: seconds of waiting before each turn.
    """
    found: tuple[list[float], list[float]] = ([], [])
    order, start = [(base, found[0]), (other, found[1])], perf_counter()
    while len(found[0]) < FEWEST_PAIRS or (perf_counter() - start < seconds and len(found[0]) < MOST_PAIRS):
        for turn, into in order:
            time.sleep(rest)
            into.append(turn())
        order.reverse()
    return Comparison(base=tuple(found[0]), other=tuple(found[1]))


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A confidence interval of the median, between two values of the sample, whatever they are distributed
    like: the narrowest symmetric one that holds it with `CONFIDENCE` (David and Nagaraja, Order Statistics,
    7.1). None where not even the whole sample's range does, of five values or fewer."""
    ordered, count, tail, best = sorted(values), len(values), 0.0, None
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if 1 - 2 * tail < CONFIDENCE:
            break
        best = ordered[below], ordered[count - 1 - below]
    return best


def steps_per_turn(one: float, least: float) -> int:
    """Steps of so many seconds that fill a turn."""
    return max(1, math.ceil(least / one))
