"""The process that runs one job: a job on stdin, events on stdout, everything a framework prints on stderr.

`python -m benchmarks.harness.worker` in a backend's own interpreter. It stops when stdin closes, so that no
worker outlives the process that asked for it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import signal
import sys
import threading

import msgspec

import backends
from backends.base import Session
from benchmarks.harness import autopsy, environment
from benchmarks.harness.cache import cache_folder, read_checked, write_checked
from benchmarks.harness.gate import parity, reference, scenarios
from benchmarks.harness.measurement import curves
from benchmarks.harness.messages import (
    AdviseJob,
    CellDone,
    CellJob,
    CurveJob,
    Emit,
    Event,
    Failed,
    GateDone,
    GateJob,
    Job,
    PretrainJob,
    ProbeDone,
    PublishedJob,
    RangeTestJob,
    ReadCheckpointJob,
    Stage,
    WriteCheckpointJob,
)
from benchmarks.harness.record import Gate
from benchmarks.harness.worker import checkpoints, probes, range_test
from benchmarks.harness.worker.cell import failure_of, run_cell

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Read one job from stdin, do it, and send its events."""
    autopsy.prepare()
    _let_the_system_end_us()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a framework prints must not mix with events
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), daemon=True).start()

    def emit(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    try:
        emit(_do(job, emit))
    except Exception as error:
        emit(Failed(failure=failure_of(error)))


def _let_the_system_end_us() -> None:
    """When the parent dies; where it can, the system needs no thread of ours for that, which a library that
    holds Python's lock would not let run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent(stdin: int) -> None:
    # Not by Python's own object: its lock, held for as long as this waits, would be held for ever in the
    # processes that input pipelines fork, and each closes its stdin first.
    while os.read(stdin, 1):
        pass
    os._exit(1)


def _do(job: Job, emit: Emit) -> Event:
    if isinstance(job, CellJob | CurveJob) and job.cell.device == "cpu":
        environment.pin(job.threads)
    if isinstance(job, CellJob | CurveJob):
        environment.version(), environment.code_sha256()  # what runs is what is on disk now
    if isinstance(job, CellJob):
        return CellDone(record=run_cell(job, emit))
    if isinstance(job, GateJob):
        return GateDone(gate=pass_gate(job, emit))
    if isinstance(job, RangeTestJob):
        return range_test.run(job, emit)
    if isinstance(job, CurveJob):
        return curves.run(job, emit)
    if isinstance(job, AdviseJob):
        return probes.measure(job, emit)
    if isinstance(job, PretrainJob):
        return checkpoints.pretrain(job, emit)
    if isinstance(job, PublishedJob):
        return checkpoints.fetch_published(job)
    if isinstance(job, ReadCheckpointJob):
        return checkpoints.read_checkpoint(job)
    if isinstance(job, WriteCheckpointJob):
        return checkpoints.write_checkpoint(job)
    card = backends.resolve(job.backend)
    return ProbeDone(version=backends.version(card), devices=backends.load(card).devices())


def pass_gate(job: GateJob, emit: Emit) -> Gate:
    """The comparison's result, from the cache if this very environment and code passed before; the framework
    is then not imported."""
    path = cache_folder() / "gates" / _gate_key(job)
    kept = read_checked(path)
    if kept is not None:
        return msgspec.json.decode(kept, type=Gate)
    emit(Stage(text="comparing with the reference"))
    session = Session(
        device=job.device,
        track="matched",
        precision=job.precision,  # type: ignore[arg-type]
        variant=job.variant,  # type: ignore[arg-type]
        threads=job.threads,
    )
    framework = backends.load(backends.resolve(job.backend))
    gate = parity.gate(framework, job.network, job.modes, session, job.rules)
    if gate.passed:
        write_checked(path, msgspec.json.encode(gate))
    return gate


def _gate_key(job: GateJob) -> str:
    files = (job.network.name, scenarios.UPDATES) if job.rules else (job.network.name,)
    golden = b"".join(reference.golden_path(name).read_bytes() for name in files)
    parts = (
        msgspec.json.encode(job),
        environment.code_sha256().encode(),
        hashlib.sha256(golden).digest(),
        msgspec.json.encode(environment.packages()),
        f"{platform.python_version()} {platform.machine()} {environment.cpu_name()}".encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


if __name__ == "__main__":
    main()
