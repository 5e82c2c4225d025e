"""What else happens on the machine while something is timed, and when that is too much for a figure to
stand."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from backends.base import Backend, BenchmarkError
from benchmarks.harness.environment import available_cores, load_average
from benchmarks.harness.figures import Conditions

MOST_OTHERS = 0.1
"""Share of the cores that other processes may take: what a display, a shell and the system's own work take is
a tenth of that, one busy process on two cores five times as much."""
MOST_STOLEN = 0.05
"""Share of the machine's time: as much as neighbouring windows of steady blocks may differ by. A virtual
machine is seldom without any."""
MOST_THROTTLED = 0.01
PAUSE = 2.0
"""Seconds before a disturbed timing is repeated: time for a short disturbance to pass."""

CGROUP_STAT = Path("/sys/fs/cgroup/cpu.stat")


class ConditionsError(BenchmarkError):
    """What is computed under is not what was asked for."""


class Watch:
    """Looks at the machine from when it is made."""

    def __init__(self) -> None:
        self._load = load_average()
        self._start = time.perf_counter()
        self._machine, self._own = psutil.cpu_times(), own_seconds()
        self._throttled = _throttled_seconds()
        self._page_faults = _page_faults()

    def stop(self) -> Conditions:
        """What has happened since."""
        seconds = time.perf_counter() - self._start
        before, now = self._machine, psutil.cpu_times()
        busy = sum(
            getattr(now, kind) - getattr(before, kind)
            for kind in ("user", "nice", "system", "irq", "softirq")
            if hasattr(now, kind)
        )
        processors = os.cpu_count() or 1
        others = max(0.0, busy - (own_seconds() - self._own)) / seconds
        stolen = (now.steal - before.steal) / seconds / processors if hasattr(now, "steal") else None
        throttled = _per_second(self._throttled, _throttled_seconds(), seconds)
        page_faults = _per_second(self._page_faults, _page_faults(), seconds)
        return Conditions(
            seconds=round(seconds, 3),
            load_average=self._load,
            others=round(others, 3),
            stolen=None if stolen is None else round(stolen, 4),
            throttled=None if throttled is None else round(throttled, 4),
            megahertz=_megahertz(),
            page_faults=None if page_faults is None else round(page_faults, 1),
            noisy=_noisy(others, stolen, throttled),
        )


Result = TypeVar("Result")


def watched(work: Callable[[], Result]) -> tuple[Result, Conditions]:
    """Do the work, and say what happened on the machine meanwhile."""
    watch = Watch()
    result = work()
    return result, watch.stop()


def together(found: Sequence[Conditions]) -> Conditions:
    """What happened during several stretches of time, as if they were one."""
    seconds = sum(one.seconds for one in found)

    def mean(field: str) -> float | None:
        values = [getattr(one, field) for one in found]
        if None in values:
            return None
        total: float = sum(value * one.seconds for value, one in zip(values, found, strict=True))
        return round(total / seconds, 4)

    return Conditions(
        seconds=round(seconds, 3),
        load_average=found[0].load_average,
        others=mean("others") or 0.0,
        stolen=mean("stolen"),
        throttled=mean("throttled"),
        megahertz=found[-1].megahertz,
        page_faults=mean("page_faults"),
        noisy=tuple(dict.fromkeys(reason for one in found for reason in one.noisy)),
    )


def undisturbed(
    work: Callable[[], Result], attempts: int, *, steady: Callable[[Result], bool]
) -> tuple[Result, Conditions, list[tuple[Result, Conditions]]]:
    """Do the work, again and again while it is disturbed or does not become steady: the last result with its
    conditions, which are noisy if all were, and those given up."""
    given_up: list[tuple[Result, Conditions]] = []
    while True:
        result, conditions = watched(work)
        sound = steady(result) and not conditions.noisy
        if sound or len(given_up) + 1 >= attempts:
            return result, conditions, given_up
        given_up.append((result, conditions))
        time.sleep(PAUSE)


def require_threads(backend: Backend) -> None:
    """Raise ConditionsError unless the framework computes with as many threads as were asked for, and may use
    as many cores."""
    asked, in_use = backend.session.threads, backend.settings()["threads"]
    if in_use != asked:
        raise ConditionsError(
            f"{backend.info.name} computes with {in_use} threads where {asked} were asked for; something in"
            " its process has changed them"
        )
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < asked:
        raise ConditionsError(
            f"{asked} threads are to share {len(os.sched_getaffinity(0))} processors; widen the affinity of"
            " the process (taskset), or give it fewer threads"
        )


def own_seconds() -> float:
    """Processor time of this process, of its children that have ended, and of those that live."""
    ended = os.times()
    seconds = time.process_time() + ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            of_child = child.cpu_times()
            seconds += of_child.user + of_child.system
    return seconds


def _noisy(others: float, stolen: float | None, throttled: float | None) -> tuple[str, ...]:
    cores = available_cores()
    reasons = []
    if others > MOST_OTHERS * cores:
        reasons.append(f"other processes kept {others:.2f} of {cores} cores busy")
    if stolen is not None and stolen > MOST_STOLEN:
        reasons.append(f"the hypervisor gave {stolen:.0%} of the machine's time to others")
    if throttled is not None and throttled > MOST_THROTTLED:
        reasons.append(f"a quota stopped this container for {throttled:.0%} of the time")
    return tuple(reasons)


def _per_second(before: float | None, now: float | None, seconds: float) -> float | None:
    """How fast a count grew; None where there is none."""
    return None if before is None or now is None else (now - before) / seconds


def _throttled_seconds() -> float | None:
    """How long this container's quota has stopped it; None where there is no such account (cgroup v2)."""
    try:
        lines = CGROUP_STAT.read_text().splitlines()
    except OSError:
        return None
    found = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    return int(found["throttled_usec"]) / 1e6 if "throttled_usec" in found else None


def _page_faults() -> int | None:
    """How often this process has been given a page of memory without reading a disk."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _megahertz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return round(frequency.current, 1) if frequency and frequency.current else None
