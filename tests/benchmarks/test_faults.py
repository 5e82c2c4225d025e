"""What befalls a long run, done to it for real: after each, finished records are whole, the cell says what
became of it, and `--resume` completes the run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

import backends
from benchmarks.harness import messages, plan, record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images import data
from benchmarks.harness.messages import CellJob, EpochEnd, StartingWeights
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import REFERENCE_BACKEND, Recipe, all_recipes
from benchmarks.harness.record import Epoch, Record
from benchmarks.harness.running import runner

TINY = msgspec.structs.replace(profile_of("smoke"), image_size=32, batch_size=8, epochs=3)
PATIENCE = 120.0
"""Seconds after which something that was to happen never will."""


# --- One cell -------------------------------------------------------------------------------------


def scratch(backend: str, track: str) -> Recipe:
    if track == "matched":
        return next(r for r in all_recipes() if r.id == "matched-resnet18-scratch")
    return next(
        r for r in all_recipes() if (r.backend, r.protocol, r.track) == (backend, "scratch", "native")
    )


def job_for(backend: str, images: data.DataSet, folder: Path, track: str = "native") -> CellJob:
    cell = plan.Cell(
        backend=backend, recipe=scratch(backend, track), variant="reproducible", seed=0, profile=TINY,
        device="cpu", precision="float32", timed=False,
    )  # fmt: skip
    return CellJob(
        cell=cell,
        data=images,
        weights=StartingWeights(name="none"),
        threads=1,
        input_workers=0,
        key="key",
        snapshot=str(folder / "cell.checkpoint"),
    )


@pytest.fixture
def images(data_folder: Path) -> data.DataSet:
    return data.open_data(str(data_folder), TINY)


def run_cell(job: CellJob, folder: Path, on_event: runner.OnEvent = lambda _: None, **options) -> Record:
    return runner.run_cell(job, log=folder / "cell.log", on_event=on_event, **options)


def failure(found: Record) -> record.Failure:
    assert found.status == "failed" and found.error is not None
    assert "\n" not in found.error.message
    return found.error


def sabotaged(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, shell: str = "") -> None:
    """Let the reference backend's workers run this code before they begin."""
    script, python = folder / "sabotage.py", folder / "python"
    script.write_text(
        "import runpy, sys\nsys.argv = sys.argv[2:]\n"
        f"{code}\n"
        "runpy.run_module('benchmarks.harness.worker', run_name='__main__')\n"
    )
    real = runner.interpreter_of(backends.resolve(REFERENCE_BACKEND))
    python.write_text(f'#!/bin/sh\n{shell}\nexec {real} {script} "$@"\n')
    python.chmod(stat.S_IRWXU)
    monkeypatch.setenv(f"BENCHMARKS_PYTHON_{REFERENCE_BACKEND.upper()}", str(python))


def without_clocks(curve: tuple[Epoch, ...]) -> list[Epoch]:
    return [
        msgspec.structs.replace(row, train_seconds=0, input_wait_seconds=0, eval_seconds=0) for row in curve
    ]


@pytest.mark.reference
@pytest.mark.parametrize("track", ["native", "matched"])
def test_a_cell_killed_in_its_training_ends_bit_equal(track, images, tmp_path):
    """Three processes, of which the second is killed after its second epoch. That every backend goes on in
    another process as if it had never stopped, test_resume.py tells."""
    unbroken = run_cell(job_for(REFERENCE_BACKEND, images, tmp_path / "a", track), tmp_path / "a")
    assert unbroken.error is None and unbroken.resumed == ()

    def kill(event: messages.Event) -> None:
        if isinstance(event, EpochEnd) and event.row.epoch == 2:
            for child in psutil.Process().children():
                child.kill()

    job = job_for(REFERENCE_BACKEND, images, tmp_path / "b", track)
    assert "SIGKILL" in failure(run_cell(job, tmp_path / "b", kill)).message
    resumed = run_cell(job, tmp_path / "b")
    assert resumed.error is None and resumed.resumed in ((1,), (2,))
    assert resumed.trained_sha256 == unbroken.trained_sha256 is not None
    assert resumed.accuracy == unbroken.accuracy
    assert without_clocks(resumed.curve) == without_clocks(unbroken.curve)
    assert resumed.batches_sha256 == unbroken.batches_sha256


@pytest.mark.reference
class TestWorkers:
    def test_one_that_hangs_is_killed_and_says_where_it_hung(self, images, tmp_path, monkeypatch):
        sabotaged(
            monkeypatch,
            tmp_path,
            "import time\nfrom benchmarks.harness.training import loop\n"
            "def hang_here(*_): time.sleep(1000)\n"
            "loop.evaluate = hang_here",
        )
        job = job_for(REFERENCE_BACKEND, images, tmp_path)
        error = failure(run_cell(job, tmp_path, silence=20))
        assert error.type == "WorkerHung"
        assert "said nothing for 20 s" in error.message and "hang_here (sabotage.py:" in error.message
        assert "--cell-timeout" in error.message
        stacks = (tmp_path / "cell.log").read_text()
        assert "hang_here" in stacks and "in _end_with_parent" in stacks  # all its threads
        assert not [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]

    def test_one_that_is_slow_but_talks_is_left_alone(self, images, tmp_path, monkeypatch):
        sabotaged(
            monkeypatch,
            tmp_path,
            "import time\nfrom benchmarks.harness.training import loop\n"
            "evaluate = loop.evaluate\n"
            "def slow(*given): time.sleep(4); return evaluate(*given)\n"
            "loop.evaluate = slow",
        )
        begin = time.monotonic()
        found = run_cell(job_for(REFERENCE_BACKEND, images, tmp_path), tmp_path, silence=11)
        assert found.status == "ok" and time.monotonic() - begin > 12

    def test_a_crash_of_the_framework_is_a_record_that_names_its_place(self, images, tmp_path, monkeypatch):
        sabotaged(
            monkeypatch,
            tmp_path,
            "import ctypes\nfrom benchmarks.harness.training import loop\n"
            "def crash_here(*_): ctypes.string_at(0)\n"
            "loop.evaluate = crash_here",
        )
        error = failure(run_cell(job_for(REFERENCE_BACKEND, images, tmp_path), tmp_path))
        assert error.type == "WorkerDied" and "SIGSEGV" in error.message
        assert "Segmentation fault in string_at" in error.message
        assert "crash_here" in (tmp_path / "cell.log").read_text()

    def test_memory_that_the_framework_is_refused_is_a_record_that_says_so(
        self, images, tmp_path, monkeypatch
    ):
        """Address space for Python and little more."""
        sabotaged(monkeypatch, tmp_path, "", shell="ulimit -v 700000")
        error = failure(run_cell(job_for(REFERENCE_BACKEND, images, tmp_path), tmp_path))
        assert re.search("memory|alloc|map", error.message, re.IGNORECASE)

    def test_killed_by_the_system_for_memory_is_a_record_that_says_so(self, images, tmp_path, monkeypatch):
        group = Path(f"/sys/fs/cgroup/memory/benchmarks-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(200 * 2**20))
        except OSError as error:
            pytest.skip(f"no memory group can be made here: {error}")
        try:
            sabotaged(monkeypatch, tmp_path, "", shell=f"echo $$ > {group}/cgroup.procs")
            error = failure(run_cell(job_for(REFERENCE_BACKEND, images, tmp_path), tmp_path))
        finally:
            deadline = time.monotonic() + PATIENCE
            while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            group.rmdir()
        assert error.type == "WorkerDied" and "SIGKILL" in error.message
        assert "ran out of memory" in error.message and "--image-size" in error.message

    def test_the_system_takes_a_worker_before_whoever_asked_for_it(self, images, tmp_path):
        scores = []

        def look(event: messages.Event) -> None:
            for child in psutil.Process().children():
                scores.append(int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()))

        run_cell(job_for(REFERENCE_BACKEND, images, tmp_path), tmp_path, look)
        assert max(scores) > int(Path("/proc/self/oom_score_adj").read_text())

    def test_a_disk_too_full_to_keep_the_training_is_a_record(self, images, tmp_path):
        with small_disk(tmp_path / "disk", "1m"):
            job = job_for(REFERENCE_BACKEND, images, tmp_path / "disk")
            error = failure(run_cell(job, tmp_path))
            assert error.type == "SnapshotError"
            assert "No space left on device" in error.message and "make room and --resume" in error.message
            assert list((tmp_path / "disk").iterdir()) == []  # no half of it either


# --- A run ----------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    answer = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True
    )
    if answer.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Running:
    """`python -m benchmarks run` in the background, on two cells of the reference backend."""

    def __init__(self, images: Path, run: Path, *more: str, seeds: int = 2) -> None:
        self.run = run
        self.said = run.parent / f"said-{time.monotonic_ns()}"
        words = (
            "--backend", REFERENCE_BACKEND, "--track", "native", "--protocol", "scratch",
            "--data", str(images), "--image-size", "128",
            "--variant", "reproducible", "--no-timing", "--seeds", str(seeds),
            "--run", str(run), *more,
        )  # fmt: skip
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "run", *words],
                cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def output(self) -> str:
        return self.said.read_text()

    def wait_for(self, text: str) -> None:
        self.wait(lambda: text in self.output())

    def wait_for_training_of(self, seed: int) -> None:
        """Until its first epoch is kept, of several."""
        self.wait(lambda: any(self.run.glob(f"checkpoints/*-s{seed}.checkpoint")))

    def wait(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def ends_with(self) -> int:
        return self.process.wait(timeout=PATIENCE)


def statuses(run: Path) -> list[str]:
    return [found.status for found in record.read_all(run / "records")]


def assert_no_worker_of(run: Path) -> None:
    """Workers end when whoever asked for them is gone; none is left after a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not [
            process
            for process in psutil.process_iter(["cmdline", "environ"])
            if "benchmarks.harness.worker" in (process.info["cmdline"] or [])
            and (process.info["environ"] or {}).get("BENCHMARKS_TEST_RUN") == str(run)
        ]:
            return
        time.sleep(0.1)
    pytest.fail("a worker is left")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHMARKS_TEST_RUN", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.mark.reference
class TestRuns:
    def test_a_killed_runner_leaves_whole_records_and_resume_ends_as_if_nothing_had_been(
        self, data_folder, run, tmp_path
    ):
        undisturbed = Running(data_folder, tmp_path / "undisturbed")
        assert undisturbed.ends_with() == 0

        first = Running(data_folder, run)
        first.wait_for_training_of(1)
        first.process.kill()
        first.process.wait()
        assert_no_worker_of(run)
        assert statuses(run) == ["ok"]
        before = {path: path.stat().st_mtime_ns for path in (run / "records").iterdir()}

        resumed = Running(data_folder, run, "--resume")
        assert resumed.ends_with() == 0
        assert "1 of 2 cells have their records and are kept" in resumed.output()
        assert "goes on after epoch" in resumed.output() and "resumed, so not timed" in resumed.output()
        after = {path: path.stat().st_mtime_ns for path in (run / "records").iterdir()}
        assert after.items() > before.items() and len(after) == 2
        assert list((run / "checkpoints").iterdir()) == []
        for found, expected in zip(
            record.read_all(run / "records"),
            record.read_all(tmp_path / "undisturbed" / "records"),
            strict=True,
        ):
            assert found.trained_sha256 == expected.trained_sha256
            assert (found.accuracy, found.key) == (expected.accuracy, expected.key)

    def test_a_killed_runner_takes_a_worker_along_that_hangs_in_a_library(
        self, data_folder, run, tmp_path, monkeypatch
    ):
        """One that keeps Python's lock, so that no thread of the worker's can see its parent die."""
        sabotaged(
            monkeypatch,
            tmp_path,
            "import ctypes\nfrom benchmarks.harness.training import loop\n"
            f"def hang(*_): open({str(tmp_path / 'hangs')!r}, 'w').close(); ctypes.PyDLL(None).sleep(1000)\n"
            "loop.evaluate = hang",
        )
        first = Running(data_folder, run)
        first.wait((tmp_path / "hangs").exists)
        first.process.kill()
        first.process.wait()
        assert_no_worker_of(run)

    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_asked_to_stop_it_says_how_to_go_on(self, sent, code, data_folder, run):
        first = Running(data_folder, run)
        first.wait_for_training_of(1)
        first.process.send_signal(sent)
        assert first.ends_with() == code
        assert_no_worker_of(run)
        said = first.output()
        assert "stopped; 1 of 2 cells have their records; go on with: python -m benchmarks run" in said
        assert said.rstrip().endswith("--resume") and "Traceback" not in said
        assert statuses(run) == ["ok"]
        assert Running(data_folder, run, "--resume").ends_with() == 0
        assert statuses(run) == ["ok", "ok"]

    def test_a_killed_worker_is_a_failed_record_and_the_others_run(self, data_folder, run):
        first = Running(data_folder, run)
        first.wait_for_training_of(0)
        (worker,) = psutil.Process(first.process.pid).children()
        worker.kill()
        assert first.ends_with() == 1
        assert statuses(run) == ["failed", "ok"]
        assert "1 of 2 cells ok; --resume runs the failed ones again" in first.output()
        resumed = Running(data_folder, run, "--resume")
        assert resumed.ends_with() == 0 and "goes on after epoch" in resumed.output()
        assert statuses(run) == ["ok", "ok"]

    def test_two_runners_do_not_write_to_one_run(self, data_folder, run):
        first = Running(data_folder, run)
        first.wait_for_training_of(0)
        second = Running(data_folder, run, "--resume")
        assert second.ends_with() == 2
        assert f"process {first.process.pid} on " in second.output()
        assert "is at work on it" in second.output()
        assert first.ends_with() == 0
        assert Running(data_folder, run, "--resume").ends_with() == 0

    def test_a_full_disk_loses_no_record(self, data_folder, run):
        with small_disk(run, "200m"):
            first = Running(data_folder, run)
            first.wait_for_training_of(1)
            filler = run / "filler"
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(300 * 2**20))
            assert first.ends_with() != 0
            assert "No space left on device" in first.output() and "make room" in first.output()
            assert "Traceback" not in first.output()
            assert [s for s in statuses(run) if s == "ok"] == ["ok"]
            filler.unlink()
            assert Running(data_folder, run, "--resume").ends_with() == 0
            assert statuses(run) == ["ok", "ok"]

    def test_a_folder_that_may_not_be_written_to_is_one_line(self, data_folder, run):
        with small_disk(run, "1m"):
            subprocess.run(["mount", "-o", "remount,ro", run], check=True)
            refused = Running(data_folder, run)
            assert refused.ends_with() == 2
            said = refused.output().strip().splitlines()[-1]
            assert said.startswith(f"error: run {run}: cannot be written to")
            assert "Read-only file system" in said and "Traceback" not in refused.output()

    def test_a_damaged_record_is_made_again(self, data_folder, run):
        assert Running(data_folder, run).ends_with() == 0
        first, second = sorted((run / "records").iterdir())
        first.write_bytes(first.read_bytes()[:-100])
        untouched = second.stat().st_mtime_ns
        assert Running(data_folder, run, "--resume").ends_with() == 0
        assert statuses(run) == ["ok", "ok"] and second.stat().st_mtime_ns == untouched

    def test_a_damaged_plan_is_one_line(self, data_folder, run):
        assert Running(data_folder, run, seeds=1).ends_with() == 0
        (run / "plan.json").write_text("{")
        refused = Running(data_folder, run, "--resume")
        assert refused.ends_with() == 2 and "plan.json is damaged" in refused.output()

    def test_an_image_that_vanishes_fails_its_cell_and_nothing_else(self, data_folder, run):
        first = Running(data_folder, run)
        first.wait_for("s0  test accuracy")
        gone = next((data_folder / "train" / "red").iterdir())
        kept = gone.read_bytes()
        gone.unlink()
        assert first.ends_with() == 1
        assert statuses(run) == ["ok", "failed"] and gone.name in first.output()
        gone.write_bytes(kept)
        assert Running(data_folder, run, "--resume").ends_with() == 0
        assert statuses(run) == ["ok", "ok"]

    def test_other_images_are_not_mixed_in(self, data_folder, run):
        assert Running(data_folder, run, seeds=1).ends_with() == 0
        shutil.copy(data_folder / "test" / "red" / "0.jpg", data_folder / "train" / "red" / "99.jpg")
        for more in ((), ("--resume",), ("--resume", "--allow-dirty")):
            refused = Running(data_folder, run, *more)
            assert refused.ends_with() == 2 and "made with other data" in refused.output()
