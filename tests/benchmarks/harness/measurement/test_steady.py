from __future__ import annotations

import time
from collections.abc import Iterable

from benchmarks.harness.measurement import steady
from benchmarks.harness.measurement.steady import COUNTED, WINDOW


class Clock:
    """A clock that moves only when told, and a job that takes the durations it is given."""

    def __init__(self, durations: Iterable[float]) -> None:
        self.now, self.pending, self.steps, self.read = 0.0, 0.0, 0, 0
        self.durations = iter(durations)

    def launch(self) -> None:
        """Asynchronous: the time passes when somebody waits."""
        self.pending += next(self.durations)
        self.steps += 1

    def wait(self) -> float:
        self.now += self.pending
        self.pending, self.read = 0.0, self.read + 1
        return self.now

    def stopwatch(self):
        start = self.wait()
        return lambda: self.wait() - start


def measure(durations: Iterable[float], *, limit: float = 1000.0, least: float = 0.0) -> steady.Blocks:
    clock = Clock(durations)
    return steady.until_steady(clock.launch, clock.stopwatch, limit=limit, least=least)


def test_a_steady_job_is_looked_at_for_two_windows_and_counted_after_them():
    blocks = measure([2.0] * 100)
    assert (blocks.warm_up, len(blocks.counted), blocks.steps) == (2 * WINDOW, COUNTED, 1)
    assert (blocks.steady, blocks.median) == (True, 2.0)


def test_a_slow_start_is_waited_out_and_does_not_count():
    blocks = measure([60.0, 30.0, 9.0, 5.0, 3.0] + [1.0] * 100)
    assert blocks.steady and set(blocks.counted) == {1.0}
    assert blocks.seconds[0] == 9.0  # kept: but for the first two calls, which decide how long a block is


def test_what_decides_that_a_job_is_steady_is_not_what_is_reported():
    """Two calls and two windows at 1 s end the warm-up; then it becomes slower, and that is its rate."""
    blocks = measure([1.0] * (2 + 2 * WINDOW) + [3.0] * 100)
    assert blocks.steady and blocks.median == 3.0


def test_one_disturbed_block_moves_nothing():
    blocks = measure([1.0] * 9 + [50.0] + [1.0] * 100)
    assert blocks.steady and blocks.median == 1.0


def test_a_job_that_never_settles_says_so():
    blocks = measure((1.0 + 0.5 * index for index in range(1000)), limit=500)
    assert not blocks.steady
    assert 500 <= sum(blocks.seconds[: blocks.warm_up]) < 600


def test_two_windows_and_one_that_counts_are_measured_whatever_the_limit():
    blocks = measure([5.0] * 100, limit=0.001)
    assert (blocks.warm_up, len(blocks.counted)) == (2 * WINDOW, WINDOW)


def test_blocks_that_count_last_as_long_as_is_asked_for():
    assert sum(measure([1.0] * 100, least=25.0).counted) == 25.0


def test_short_steps_are_timed_many_at_a_time_and_the_clock_is_read_at_the_edges_only():
    clock = Clock([0.001] * 100_000)
    blocks = steady.until_steady(clock.launch, clock.stopwatch, limit=10, least=0)
    assert blocks.steps == 100  # steady.BLOCK_SECONDS
    assert abs(blocks.median - 0.001) < 1e-9
    assert clock.read == 2 * (2 + len(blocks.seconds))
    assert clock.steps == 2 + 100 * len(blocks.seconds)


def test_the_real_clock_measures_a_known_sleep():
    def stopwatch():
        start = time.perf_counter()
        return lambda: time.perf_counter() - start

    blocks = steady.until_steady(lambda: time.sleep(0.02), stopwatch, limit=5, least=0)
    assert 0.02 <= blocks.median < 0.1  # a busy machine sleeps longer, never shorter
