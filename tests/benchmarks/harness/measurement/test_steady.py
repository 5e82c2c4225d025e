from __future__ import annotations

import time

from benchmarks.harness import timing


class Clock:
    """A clock that moves only when told, and a job that takes the durations it is given."""

    def __init__(self, durations):
        self.now = 0.0
        self.durations = iter(durations)
        self.pending = 0.0

    def __call__(self) -> float:
        return self.now

    def launch(self) -> None:
        """Asynchronous: the time passes when somebody waits."""
        self.pending += next(self.durations)

    def synchronize(self) -> None:
        self.now += self.pending
        self.pending = 0.0


def measure(durations, limit=1000.0) -> timing.Blocks:
    clock = Clock(durations)
    return timing.until_steady(clock.launch, clock.synchronize, limit=limit, clock=clock)


def test_a_steady_job_ends_after_two_windows():
    blocks = measure([2.0] * 100)
    assert (len(blocks.seconds), blocks.steady, blocks.median) == (2 * timing.WINDOW, True, 2.0)


def test_a_slow_start_is_waited_out_and_does_not_count():
    blocks = measure([30.0, 9.0, 5.0, 3.0] + [1.0] * 100)
    assert blocks.steady and blocks.median == 1.0
    assert blocks.seconds[0] == 30.0  # kept, not counted


def test_one_disturbed_block_moves_nothing():
    blocks = measure([1.0] * 7 + [50.0] + [1.0] * 100)
    assert blocks.steady and blocks.median == 1.0


def test_a_job_that_never_settles_says_so():
    blocks = measure((1.0 + 0.5 * index for index in range(1000)), limit=500)
    assert not blocks.steady
    assert 500 <= sum(blocks.seconds) < 600


def test_two_windows_are_measured_whatever_the_limit():
    assert len(measure([5.0] * 100, limit=0.001).seconds) == 2 * timing.WINDOW


def test_the_real_clock_measures_a_known_sleep():
    blocks = timing.until_steady(lambda: time.sleep(0.02), lambda: None, limit=5)
    assert 0.02 <= blocks.median < 0.1  # a busy machine sleeps longer, never shorter
