"""`submit`, as a user types it: real cells, on a real Slurm and on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import backends
from benchmarks.commands.submit import batches
from benchmarks.harness import plan, record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.recipe import REFERENCE_BACKEND
from benchmarks.harness.record import Record
from benchmarks.harness.running.cluster import ClusterSettings

pytest_plugins = ("tests.slurm",)

SECONDS = 180
"""For anything to happen, on a machine that has other things to do."""


class Run:
    """A run in a folder of its own, and the commands that submit it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.options = (
            "--backend", REFERENCE_BACKEND, "--track", "native", "--protocol", "scratch", "--weights", "none",
            "--variant", "default", "--image-size", "32", "--data", str(data), "--run", str(folder),
            "--minutes", "15",
        )  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Submit, and go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "submit", *self.options, *more],
            cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def submit(self, *more: str) -> tuple[int, str]:
        """Submit; the exit code, and what was printed."""
        process = self.start(*more)
        printed, _ = process.communicate(timeout=SECONDS)
        return process.returncode, printed

    def cell(self, seed: int) -> str:
        """Its id."""
        plan = (self.folder / "plan.json").read_text()
        (found,) = re.findall(rf'"id":"([^"]+-s{seed})"', plan)
        return found

    def record(self, seed: int) -> Record | None:
        path = self.folder / "records" / f"{self.cell(seed)}.json"
        return record.read(path) if path.exists() else None

    def wait_for_an_epoch(self, seed: int) -> None:
        """Until a cell is in the middle of its training."""
        until(lambda: (self.folder / "plan.json").exists())
        until(lambda: (self.folder / "checkpoints" / f"{self.cell(seed)}.checkpoint").exists(), every=0.02)


@pytest.fixture
def run(tmp_path, data_folder) -> Run:
    return Run(tmp_path / "run", data_folder)


def until(condition: Callable[[], object], every: float = 0.1) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {SECONDS} s"
        time.sleep(every)


def said(printed: str, what: str) -> str:
    """The rest of the line that begins so."""
    return re.search(rf"^{what} +(.+)$", printed, re.MULTILINE)[1]


def ask(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.reference
def test_a_cancelled_job_s_cell_is_submitted_again(slurm, run):
    code, printed = run.submit("--no-timing", "--seeds", "3")
    assert code == 0 and "3 cells: 3 submitted now" in printed
    job = said(printed, "jobs")
    assert said(printed, "cancel") == f"scancel {job}"
    run.wait_for_an_epoch(0)
    ask("scancel", f"{job}_0")

    code, printed = run.submit("--no-timing", "--seeds", "3")
    assert code == 2 and "jobs that wait or run; --resume leaves them alone" in printed
    until(lambda: not ask("squeue", "--noheader"))
    assert run.record(0) is None
    finished = [run.record(seed) for seed in (1, 2)]
    assert [found.status for found in finished] == ["ok", "ok"]
    assert all(found.throughput is None for found in finished)

    code, printed = run.submit("--no-timing", "--seeds", "3", "--resume", "--wait")
    assert code == 0, printed
    assert "3 cells: 2 have their records, 1 submitted now" in printed
    assert "3 of 3 cells ok" in printed
    assert run.record(0).resumed  # from the checkpoint of its last epoch
    assert [run.record(seed) for seed in (1, 2)] == finished


@pytest.mark.reference
def test_a_cell_goes_on_when_its_job_s_time_is_up(slurm, run):
    process = run.start("--no-timing", "--wait")
    run.wait_for_an_epoch(0)
    (job,) = ask("squeue", "--noheader", "--format=%A").split()
    ask("scancel", "--signal=USR2", job)  # submitit's signal, as the end of a time limit sends it
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, printed
    assert run.record(0).resumed
    (log,) = (run.folder / "logs" / "cluster").glob("*_log.out")
    assert f"Requeued job {job}" in log.read_text()


@pytest.mark.reference
def test_a_timed_cell_has_a_node_of_its_own_and_ctrl_c_leaves_it_alone(slurm, run):
    process = run.start("--wait")
    until(lambda: list((run.folder / "logs" / "cluster").glob("*_submission.sh")))
    (job,) = ask("squeue", "--noheader", "--format=%A").split()
    assert "OverSubscribe=NO" in ask("scontrol", "show", "job", job)
    until(lambda: (run.folder / "logs" / "cluster" / "jobs.json").exists())
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "the jobs go on; to wait for them again: python -m benchmarks submit" in printed
    assert job in ask("squeue", "--noheader", "--format=%A")
    subprocess.run(said(printed, "to cancel them:").split(), check=True)
    until(lambda: not ask("squeue", "--noheader"))


@pytest.mark.reference
def test_on_this_machine(run):
    process = run.start("--no-timing", "--seeds", "2", "--cluster", "local", "--wait")
    run.wait_for_an_epoch(0)
    (job,) = re.findall(r'"id":"(\d+)"', (run.folder / "logs" / "cluster" / "jobs.json").read_text())
    os.kill(int(job), signal.SIGTERM)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert said(printed, "cancel") == f"kill {job}"
    for seed in (0, 1):  # one after the other, and so both were the job's
        assert f"failed: {run.cell(seed)}: no record: its job was cancelled" in printed
    assert "0 of 2 cells ok" in printed

    code, printed = run.submit("--no-timing", "--seeds", "2", "--cluster", "local", "--resume", "--wait")
    assert code == 0, printed
    assert run.record(0).resumed and run.record(1).status == "ok"


@pytest.mark.reference
def test_a_cell_that_fails_is_named(run, monkeypatch):
    monkeypatch.setenv(f"BENCHMARKS_PYTHON_{REFERENCE_BACKEND.upper()}", "/bin/false")
    code, printed = run.submit("--no-timing", "--cluster", "local", "--wait")
    assert code == 1 and "0 of 1 cells ok" in printed
    assert f"failed: {run.cell(0)}: WorkerDied: the worker process died (exit code 1)" in printed
    log = re.search(r"; the log is (\S+_log\.out)$", printed, re.MULTILINE)[1]
    assert "WorkerDied" in Path(log).read_text()


@pytest.mark.reference
def test_no_slurm_here(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, printed = run.submit()
    assert code == 2
    assert re.fullmatch(r"error: no sbatch on this machine; .*--cluster local\n", printed)


@pytest.mark.parametrize(
    ("exclusive", "no_timing", "alone"),
    [(None, False, True), (None, True, False), (False, False, False), (True, True, True)],
)
def test_a_node_for_each_timed_cell_unless_asked_otherwise(exclusive, no_timing, alone):
    options = plan.Options(seeds=2500, no_timing=no_timing, track=("native",), protocol=("scratch",))
    cells = plan.plan(options, (backends.resolve("pytorch"),))
    slurm, local = (ClusterSettings(cluster=name, folder="") for name in ("slurm", "local"))
    found = batches(cells, slurm, exclusive)
    assert [(own, len(batch)) for own, batch in found] == [(alone, 1000), (alone, 1000), (alone, 500)]
    assert [cell for _, batch in found for cell in batch] == cells
    assert batches(cells, local, exclusive) == [(False, cells)]


@pytest.mark.reference
def test_options_for_sbatch_need_a_value(run):
    code, printed = run.submit("--cluster", "local", "--sbatch", "account")
    assert code == 2
    assert printed == "error: --sbatch account: an option of sbatch and its value, such as account=vision\n"
