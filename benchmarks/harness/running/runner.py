"""Run jobs in the environments of their backends: one process per job, and no two frameworks in one
process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import msgspec

import backends
from backends import base
from backends.base import BackendInfo, BenchmarkError, UsageError, one_line
from benchmarks.harness import autopsy, messages
from benchmarks.harness.advise import Evidence
from benchmarks.harness.environment import PROJECT, available_cores, thread_environment
from benchmarks.harness.record import Curves, Failure, Gate, RangeTest, Record

OnEvent = Callable[[messages.Event], None]


class JobFailed(BenchmarkError):
    """A job that is not a cell could not be done."""


# --- Which interpreter ----------------------------------------------------------------------------


def interpreter_of(card: BackendInfo) -> Path | None:
    """The Python that has this backend's framework: `$BENCHMARKS_PYTHON_<BACKEND>`, else this one, else
    tox's.

    None where there is none. Nothing is imported.

    Raises:
        UsageError: the variable names no executable file.
    """
    variable = f"BENCHMARKS_PYTHON_{card.name.upper()}"
    given = os.environ.get(variable)
    if given:
        if not os.access(given, os.X_OK):
            raise UsageError(f"{variable}={given}: no such program; name the Python that has {card.title}")
        return Path(given)
    if importlib.util.find_spec(card.module) is not None:
        return Path(sys.executable)
    scripts = PROJECT / ".tox" / f"bench-{card.name}" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    return python if python.exists() else None


def available(*, here_only: bool = False) -> tuple[BackendInfo, ...]:
    """Backends that can be run; with `here_only`, those whose framework this interpreter has."""
    cards = backends.known().values()
    if here_only:
        return tuple(card for card in cards if backends.installed(card))
    return tuple(card for card in cards if interpreter_of(card) is not None)


# --- Running --------------------------------------------------------------------------------------


SILENCE = 1800.0
"""Seconds without a word after which a worker is taken for hung. A step, a batch of features, a compilation
and the timing of steps are each shorter by far."""


def run_cell(job: messages.CellJob, *, log: Path, on_event: OnEvent, silence: float = SILENCE) -> Record:
    """Run a cell and return its record, with status `failed` if anything went wrong, its process's death
    included."""
    started, begin = datetime.now(timezone.utc), time.perf_counter()
    outcome = _run(job, backends.resolve(job.cell.backend), log=log, on_event=on_event, silence=silence)
    if isinstance(outcome, messages.CellDone):
        return outcome.record
    return _failed(job, _failure(outcome), started, time.perf_counter() - begin)


def failed(job: messages.CellJob, error: BenchmarkError | OSError) -> Record:
    """The record of a cell that could not be started."""
    failure = Failure(type=type(error).__name__, message=one_line(error))
    return _failed(job, failure, datetime.now(timezone.utc), 0.0)


def pretrain(job: messages.PretrainJob, *, log: Path, on_event: OnEvent) -> messages.PretrainDone:
    """Train network A.

    Raises:
        JobFailed: says why.
    """
    card = backends.resolve(str(job.recipe.backend))
    return _expect(messages.PretrainDone, job, card, job.recipe.id, log=log, on_event=on_event)


def pass_gate(job: messages.GateJob, *, log: Path, on_event: OnEvent) -> Gate:
    """Compare a backend with the reference, or learn that it was compared before.

    Raises:
        JobFailed: the comparison itself could not be made; says why.
    """
    card = backends.resolve(job.backend)
    title = f"gate of {job.backend} {job.network.name}"
    return _expect(messages.GateDone, job, card, title, log=log, on_event=on_event).gate


def range_test(job: messages.RangeTestJob, *, log: Path, on_event: OnEvent) -> RangeTest:
    """Raise the learning rate until the loss explodes.

    Raises:
        JobFailed: says why.
    """
    card = backends.resolve(job.cell.backend)
    return _expect(messages.RangeTestDone, job, card, job.cell.id, log=log, on_event=on_event).result


def curves(job: messages.CurveJob, *, log: Path, on_event: OnEvent) -> Curves:
    """Time a network at many batch and image sizes.

    Raises:
        JobFailed: says why.
    """
    card = backends.resolve(job.cell.backend)
    title = f"curves of {job.cell.id}"
    return _expect(messages.CurveDone, job, card, title, log=log, on_event=on_event).result


def advise(job: messages.AdviseJob, *, log: Path, on_event: OnEvent) -> Evidence:
    """Measure how far the data are from the source.

    Raises:
        JobFailed: says why.
    """
    card = backends.resolve(job.cell.backend)
    return _expect(messages.AdviseDone, job, card, "advise", log=log, on_event=on_event).evidence


WeightsJob = messages.PublishedJob | messages.ReadCheckpointJob | messages.WriteCheckpointJob


def weights(job: WeightsJob, *, log: Path) -> messages.WeightsDone:
    """Read or write a checkpoint in a framework's own environment.

    Raises:
        JobFailed: says why.
    """
    card = backends.resolve(job.backend)
    return _expect(messages.WeightsDone, job, card, card.name, log=log)


def probe(card: BackendInfo, *, log: Path) -> messages.ProbeDone:
    """The version and the devices of a backend's framework, asked of the framework itself.

    Raises:
        JobFailed: it cannot be imported; says why.
    """
    return _expect(messages.ProbeDone, messages.ProbeJob(backend=card.name), card, card.title, log=log)


def require_device(card: BackendInfo, device: str, *, log: Path) -> None:
    """Ask the framework for the device before anything is planned on it.

    Raises:
        DeviceError: names the devices that it sees.
    """
    base.require_device(base.Session(device=device), probe(card, log=log).devices)


def input_workers(device: str, cores: int) -> int:
    """Workers that read images: on the CPU none, as training uses every core.

    What none means is the framework's own: torch and Gluon read between steps, tf.data in its own threads.
    """
    return 0 if device == "cpu" else min(cores, 8)


def threads() -> int:
    """Threads per operation: one for each physical core."""
    return available_cores()


def _failed(job: messages.CellJob, failure: Failure, started: datetime, seconds: float) -> Record:
    return Record(
        key=job.key,
        cell=job.description(framework_version="unknown"),
        status="failed",
        error=failure,
        gate=job.gate,
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
    )


Expected = TypeVar("Expected", bound=messages.Outcome)


def _expect(
    kind: type[Expected],
    job: messages.Job,
    card: BackendInfo,
    title: str,
    *,
    log: Path,
    on_event: OnEvent = lambda _: None,
) -> Expected:
    """Run a job that ends in this kind of outcome, or raise JobFailed."""
    outcome = _run(job, card, log=log, on_event=on_event)
    if isinstance(outcome, kind):
        return outcome
    raise JobFailed(f"{title}: {_failure(outcome).message}")


def _failure(outcome: messages.Outcome) -> Failure:
    if isinstance(outcome, messages.Failed):
        return outcome.failure
    return Failure(type="WorkerError", message=f"the worker answered with a {type(outcome).__name__}")


def _run(
    job: messages.Job, card: BackendInfo, *, log: Path, on_event: OnEvent, silence: float = SILENCE
) -> messages.Outcome:
    """Run a job to its last event, or to a `Failed` that tells how its process died."""
    python = interpreter_of(card)
    if python is None:
        raise UsageError(
            f"backend {card.name}: no environment has {card.title}; `tox run -e bench-{card.name}"
            f" --notest` makes one,"
            f" or set BENCHMARKS_PYTHON_{card.name.upper()} to a Python that has it"
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    last: messages.Event | None = None
    killed_before = autopsy.killed_for_memory()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(python), "-m", "benchmarks.harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=PROJECT,
            env={
                **os.environ,
                **thread_environment(getattr(job, "threads", threads())),
                "PYTHONPATH": str(PROJECT),
            },
            start_new_session=True,  # Ctrl-C is for the runner; it decides what becomes of its workers
        )
        assert process.stdin is not None and process.stdout is not None
        watch = Watch(process, silence)
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()  # and left open: the worker ends when it closes
            for line in process.stdout:
                watch.heard()
                last = msgspec.json.decode(line, type=messages.Event)
                on_event(last)
            code = process.wait()
        except BrokenPipeError:
            code = process.wait()
        finally:
            watch.stop()
            _end(process)
    if isinstance(last, messages.Outcome):
        return last
    if watch.fired:
        return messages.Failed(failure=Failure(type="WorkerHung", message=autopsy.hung(silence, log)))
    for_memory = autopsy.killed_for_memory() > killed_before
    message = autopsy.death(code, log, for_memory=for_memory)
    return messages.Failed(failure=Failure(type="WorkerDied", message=message))


class Watch(threading.Thread):
    """Kills a worker that has been silent for too long, once it has written the stacks of its threads into
    its log."""

    def __init__(self, process: subprocess.Popen[bytes], silence: float) -> None:
        super().__init__(daemon=True)
        self._process, self._silence = process, silence
        self._heard, self._stopped = time.monotonic(), threading.Event()
        self.fired = False
        self.start()

    def heard(self) -> None:
        """The worker lives."""
        self._heard = time.monotonic()

    def stop(self) -> None:
        """The worker has ended."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(max(0.0, self._heard + self._silence - time.monotonic())):
            if time.monotonic() - self._heard >= self._silence:
                self.fired = True
                if os.name == "posix":
                    self._process.send_signal(autopsy.STACKS_SIGNAL)
                    self._stopped.wait(autopsy.STACKS_SECONDS)
                _kill(self._process)
                return


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The worker and the input processes it started, which outlive it where it was killed."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left; macOS says the latter
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a worker behind."""
    _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # it died before it had read its job
                stream.close()
