"""What is made of a dead process's log; `test_faults.py` has the deaths."""

from __future__ import annotations

import signal

import pytest

from benchmarks.harness import autopsy

pytestmark = pytest.mark.once

STACKS = """\
warming up
Fatal Python error: Segmentation fault

Thread 0x00007f01 (most recent call first):
  File "/usr/lib/threading.py", line 10 in wait

Current thread 0x00007f02 (most recent call first):
  File "/a/kernels.py", line 7 in convolve
  File "/a/cell.py", line 70 in run_cell

Extension modules: numpy, torch (total: 2)
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "cell.log"
    path.write_text("")
    return path


def test_an_exit_code_comes_with_the_last_words(log):
    log.write_text("one\nno such module\n\n")
    said = autopsy.death(3, log, for_memory=False)
    assert "exit code 3" in said and "its last words: no such module" in said and str(log) in said


def test_a_silent_death_has_none(log):
    assert "last words" not in autopsy.death(1, log, for_memory=False)


def test_a_crash_comes_with_its_place(log):
    log.write_text(STACKS)
    said = autopsy.death(-signal.SIGSEGV, log, for_memory=False)
    assert "SIGSEGV" in said and "Segmentation fault in convolve (kernels.py:7)" in said
    assert "Extension modules" not in said


@pytest.mark.parametrize(
    ("for_memory", "words"), [(True, "the system ran out of memory"), (False, "as when memory runs out")]
)
def test_a_kill_is_of_memory_or_perhaps(log, for_memory, words):
    assert words in autopsy.death(-signal.SIGKILL, log, for_memory=for_memory)


def test_a_hung_process_without_stacks_is_told_too(log):
    assert "said nothing for 90 s and was killed;" in autopsy.hung(90, log)


def test_what_the_system_killed_is_a_count():
    assert autopsy.killed_for_memory() >= 0
