"""Steady-state timing: blocks of steps, synchronised at their edges, until their median is flat; and from
then on the blocks that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

import msgspec

BLOCK_SECONDS = 0.1
"""The least a block lasts: a thousand times what it costs to read the clock and to wait for the device."""
WINDOW = 5
"""Blocks in a rolling median. Five let one disturbed block pass unnoticed."""
FLAT = 0.05
"""Two neighbouring windows whose medians differ by less than this are steady; a shared two-core machine is
no quieter."""
COUNTED = 10
"""Blocks that a rate is taken from, at least. They come after the decision that things are steady: what
decides is not what is reported."""
METHOD = (
    f"medians of two neighbouring windows of {WINDOW} blocks within {FLAT:.0%};"
    f" then {COUNTED} or more blocks that count"
)

Stopwatch = Callable[[], Callable[[], float]]
"""`Backend.stopwatch`."""


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """What was timed."""

    steps: int
    """In each block."""
    seconds: tuple[float, ...]
    """Per step, of every block, in order."""
    steady: bool
    """Whether two neighbouring windows agreed before the time was up."""
    warm_up: int
    """How many blocks came before those that count."""

    @property
    def counted(self) -> tuple[float, ...]:
        """The blocks a rate is taken from."""
        return self.seconds[self.warm_up :]

    @property
    def median(self) -> float:
        """Median seconds per step of the blocks that count."""
        return median(self.counted)


def until_steady(work: Callable[[], object], stopwatch: Stopwatch, *, limit: float, least: float) -> Blocks:
    """Repeat `work` until the medians of two windows agree or `limit` seconds have passed, and then for as
    many blocks and seconds as count.

    Args:
        limit: seconds that may pass until things are steady; as many may pass after that. Two windows and one
            that counts are measured whatever it is.
        least: seconds that the blocks which count last together, if the limit allows it.
    """
    timed(work, stopwatch, 1)  # it may compile
    steps = max(1, math.ceil(BLOCK_SECONDS / max(timed(work, stopwatch, 1), 1e-9)))
    seconds: list[float] = []

    def spent(blocks: Sequence[float]) -> float:
        return sum(blocks) * steps

    while not (len(seconds) >= 2 * WINDOW and (is_steady(seconds) or spent(seconds) >= limit)):
        seconds.append(timed(work, stopwatch, steps))
    steady, warm_up = is_steady(seconds), len(seconds)
    while True:
        counted = seconds[warm_up:]
        enough = len(counted) >= COUNTED and spent(counted) >= least
        if enough or (len(counted) >= WINDOW and spent(counted) >= limit):
            return Blocks(steps=steps, seconds=tuple(seconds), steady=steady, warm_up=warm_up)
        seconds.append(timed(work, stopwatch, steps))


def timed(work: Callable[[], object], stopwatch: Stopwatch, steps: int) -> float:
    """Seconds per step of one block."""
    stop = stopwatch()
    for _ in range(steps):
        work()
    return stop() / steps


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the medians of the last two windows differ by less than `FLAT`."""
    if len(seconds) < 2 * WINDOW:
        return False
    before, last = median(seconds[-2 * WINDOW : -WINDOW]), median(seconds[-WINDOW:])
    return abs(last - before) < FLAT * before
