from __future__ import annotations

import mmap
import multiprocessing
import os
import subprocess
import sys
import time

import msgspec
import pytest

from benchmarks.harness import environment
from benchmarks.harness.figures import Conditions
from benchmarks.harness.measurement import conditions, throughput
from benchmarks.harness.measurement.conditions import MOST_OTHERS, Watch, together, undisturbed
from benchmarks.harness.measurement.throughput import LEAST_WATCHED

QUIET = Conditions(seconds=1.0, load_average=0.1, others=0.0, stolen=0.0, throttled=None, megahertz=None)
NOISY = Conditions(
    seconds=1.0, load_average=2.0, others=1.0, stolen=0.0, throttled=None, megahertz=None, noisy=("others",)
)


def test_a_busy_neighbour_is_seen_and_named(neighbour):
    watch = Watch()
    time.sleep(1.5)
    found = watch.stop()
    assert found.others > MOST_OTHERS * environment.available_cores()
    assert any("other processes kept" in reason for reason in found.noisy)


def test_own_work_is_that_of_this_process_and_of_its_children():
    before = conditions.own_seconds()
    child = multiprocessing.get_context("spawn").Process(target=burn, args=(0.5,))
    child.start()
    burn(0.5)
    child.join()
    assert conditions.own_seconds() - before >= 0.99


def test_memory_that_the_system_had_first_to_give_is_counted():
    pages = 20_000
    start = time.perf_counter()
    before = Watch()
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
    found = before.stop()
    assert found.page_faults is not None
    # A rate over the watch's seconds, of which this test has no fewer; and rounded, hence the hundredth.
    assert found.page_faults * (time.perf_counter() - start) >= 0.99 * pages


def burn(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_a_disturbed_timing_is_repeated_and_what_was_given_up_is_kept(monkeypatch):
    stops = iter([NOISY, NOISY, QUIET])
    monkeypatch.setattr(conditions.Watch, "stop", lambda _self: next(stops))
    monkeypatch.setattr(conditions, "PAUSE", 0.0)
    results = iter("abc")
    result, found, disturbed = undisturbed(lambda: next(results), 5, steady=str.islower)
    assert (result, found) == ("c", QUIET)
    assert disturbed == [("a", NOISY), ("b", NOISY)]


def test_a_timing_that_did_not_become_steady_is_repeated(monkeypatch):
    monkeypatch.setattr(conditions.Watch, "stop", lambda _self: QUIET)
    monkeypatch.setattr(conditions, "PAUSE", 0.0)
    results = iter("Abc")
    result, found, given_up = undisturbed(lambda: next(results), 3, steady=str.islower)
    assert (result, found) == ("b", QUIET)
    assert given_up == [("A", QUIET)]


def test_the_last_attempt_stays_and_is_marked(monkeypatch):
    monkeypatch.setattr(conditions.Watch, "stop", lambda _self: NOISY)
    monkeypatch.setattr(conditions, "PAUSE", 0.0)
    results = iter("abcd")
    result, found, disturbed = undisturbed(lambda: next(results), 2, steady=str.islower)
    assert (result, found.noisy) == ("b", ("others",))
    assert [given_up for given_up, _ in disturbed] == ["a"]


def test_stretches_of_time_together():
    busy = msgspec.structs.replace(NOISY, seconds=3.0, stolen=0.04, megahertz=2000.0, page_faults=8.0)
    found = together([msgspec.structs.replace(QUIET, page_faults=4.0), busy, busy])
    assert (found.seconds, found.load_average, found.megahertz) == (7.0, 0.1, 2000.0)
    assert found.others == round(6 / 7, 4) and found.stolen == round(0.24 / 7, 4)
    assert found.page_faults == round(52 / 7, 4) and found.throttled is None
    assert found.noisy == ("others",)


def test_epochs_that_were_disturbed_are_not_counted(ok_record):
    rows = [msgspec.structs.replace(ok_record.curve[0], epoch=number) for number in (2, 3, 4, 5)]
    brief = msgspec.structs.replace(QUIET, seconds=LEAST_WATCHED / 2)
    found = throughput._quiet(rows, {2: QUIET, 3: NOISY, 4: brief})  # nobody looked at the fifth
    assert [row.epoch for row in found] == [2]


@pytest.mark.parametrize(
    ("others", "stolen", "throttled", "word"),
    [
        (0.5, 0.0, None, "other processes"),
        (0.0, 0.1, None, "hypervisor"),
        (0.0, 0.0, 0.2, "quota"),
        (0.0, None, None, None),
        (0.01, 0.001, 0.0, None),
    ],
)
def test_what_makes_conditions_noisy(monkeypatch, others, stolen, throttled, word):
    monkeypatch.setattr(conditions, "available_cores", lambda: 2)
    reasons = conditions._noisy(others, stolen, throttled)
    assert [word in reason for reason in reasons] == ([True] if word else [])


def test_throttling_is_read_from_the_containers_account(monkeypatch, tmp_path):
    account = tmp_path / "cpu.stat"
    account.write_text("usage_usec 9000000\nthrottled_usec 250000\n")
    monkeypatch.setattr(conditions, "CGROUP_STAT", account)
    assert conditions._throttled_seconds() == 0.25
    account.write_text("usage_usec 9000000\n")
    assert conditions._throttled_seconds() is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_pinned_threads_have_a_core_each():
    code = (
        "import os; from benchmarks.harness import environment; environment.pin(1);"
        " print(len(os.sched_getaffinity(0)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=environment.PROJECT
    )
    assert answer.stdout.strip() == "1"
