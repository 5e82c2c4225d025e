"""Steady-state timing: blocks of work, synchronised at their edges, until their median is flat."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import msgspec

WINDOW = 5
"""Blocks in a rolling median. Five let one disturbed block pass unnoticed."""
FLAT = 0.05
"""Two neighbouring windows whose medians differ by less than this are steady; a shared two-core machine is
no quieter."""


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """What was timed."""

    seconds: tuple[float, ...]
    """Every block, in order."""
    steady: bool
    """Whether the last two windows agreed before the time was up."""

    @property
    def counted(self) -> tuple[float, ...]:
        """The blocks a rate is taken from: the last two windows."""
        return self.seconds[-2 * WINDOW :]

    @property
    def median(self) -> float:
        """Median seconds of a counted block."""
        return median(self.counted)


def until_steady(
    work: Callable[[], object],
    synchronize: Callable[[], None],
    *,
    limit: float,
    clock: Callable[[], float] = perf_counter,
) -> Blocks:
    """Repeat `work` until the medians of the last two windows agree, or `limit` seconds have passed.

    At least two windows are measured, whatever the limit. Nothing is dropped: the rate comes from the end.
    """
    seconds: list[float] = []
    synchronize()
    begin = clock()
    while True:
        start = clock()
        work()
        synchronize()
        end = clock()
        seconds.append(end - start)
        steady = is_steady(seconds)
        if len(seconds) >= 2 * WINDOW and (steady or end - begin >= limit):
            return Blocks(seconds=tuple(seconds), steady=steady)


def is_steady(seconds: list[float]) -> bool:
    """Whether the medians of the last two windows differ by less than `FLAT`."""
    if len(seconds) < 2 * WINDOW:
        return False
    before, last = median(seconds[-2 * WINDOW : -WINDOW]), median(seconds[-WINDOW:])
    return abs(last - before) < FLAT * before
