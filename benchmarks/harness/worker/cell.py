"""One cell from start to record: build, load, train, evaluate, time. Runs in the backend's own process."""

from __future__ import annotations

import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

import msgspec

import backends
from backends.base import Backend, BenchmarkError, one_line
from benchmarks.harness import environment
from benchmarks.harness.figures import Conditions, Memory
from benchmarks.harness.initial import sha256_of
from benchmarks.harness.measurement import conditions, throughput
from benchmarks.harness.messages import CellJob, Emit, EpochEnd, Event, Notice, Stage
from benchmarks.harness.record import (
    Accuracy,
    Failure,
    Gate,
    Record,
)
from benchmarks.harness.training import classifier, starting
from benchmarks.harness.training.phases import Story, Trainer
from benchmarks.harness.training.snapshot import Keeper


class GateError(BenchmarkError):
    """A backend that does not compute what the reference computes: it is not timed."""


def keeper_of(job: CellJob) -> Keeper | None:
    """Where the cell's training is kept, and whose it has to be: no training begins by one version of the
    code and ends by another."""
    if not (job.snapshot and job.key):
        return None
    return Keeper(Path(job.snapshot), f"{job.key} {environment.code_sha256()}")


def run_cell(job: CellJob, emit: Emit) -> Record:
    """Train, evaluate and time a cell. What goes wrong ends up in the record, beside what had been
    measured."""
    cell = job.cell
    card = backends.resolve(cell.backend)
    started, begin = datetime.now(timezone.utc), time.perf_counter()
    description = job.description(backends.version(card))
    load = environment.load_average()  # before our own work raises it
    story = Story()
    measured: dict[str, object] = {}
    failure: Failure | None = None
    backend: Backend | None = None
    try:
        require_gate(job.gate)
        emit(Stage(text=f"importing {card.title}"))
        session = starting.session_of(cell, threads=job.threads, input_workers=job.input_workers)
        backend = backends.load(card)(session)
        spec, weights = starting.build(backend, cell, job.data, job.weights)
        description = msgspec.structs.replace(description, weights=weights)
        epochs = Epochs(emit)
        trainer = Trainer(
            backend, spec, cell, job.data, story, epochs.tell if cell.timed else emit, keeper_of(job)
        )
        measured["training"] = trainer.settings
        if cell.recipe.classifier is not None:
            fitted = classifier.fit(trainer, cell.recipe.classifier)
            measured["accuracy"] = _accuracy(fitted.correct, epoch=None)
            measured["fit_seconds"] = fitted.seconds
        else:
            trained, meanwhile = conditions.watched(trainer.train)
            measured["accuracy"] = _accuracy(trained.correct, epoch=trained.epoch)
            measured["trained_sha256"] = sha256_of(backend.export_weights())
            if cell.timed and not story.resumed:
                measured["throughput"] = throughput.measure(trainer, trained, meanwhile, epochs.found)
    except Exception as error:
        failure = failure_of(error)
    return Record(
        key=job.key,
        cell=description,
        status="failed" if failure else "ok",
        error=failure,
        gate=job.gate,
        batches_sha256=tuple(story.hashes),
        extractions=tuple(story.extractions),
        curve=tuple(story.curve),
        resumed=tuple(story.resumed),
        settings=story.settings,
        memory=Memory(
            peak_rss_bytes=peak_rss_bytes(),
            peak_device_bytes=backend.peak_device_bytes() if backend else None,
        ),
        environment=environment.describe(job.threads, load),
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begin,
        **measured,  # type: ignore[arg-type]
    )


def _accuracy(correct: tuple[int, ...], *, epoch: int | None) -> Accuracy:
    return Accuracy(test=sum(correct) / len(correct), correct=correct, images=len(correct), epoch=epoch)


class Epochs:
    """Passes on events, and looks at what else happens on the machine during each epoch."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._watch = conditions.Watch()
        self.found: dict[int, Conditions] = {}
        """By the epoch's number; evaluation included."""

    def tell(self, event: Event) -> None:
        """Pass an event on, and with the first epoch's end a word about a machine that is too busy for its
        speeds to stand: after the last it comes too late."""
        self._emit(event)
        if not isinstance(event, EpochEnd):
            return
        found = self.found[event.row.epoch] = self._watch.stop()
        if event.row.epoch == 1:
            for reason in found.noisy:
                self._emit(
                    Notice(text=f"~ {reason}; if that goes on, this cell's speed is compared with nothing")
                )
        self._watch = conditions.Watch()


def failure_of(error: Exception) -> Failure:
    """What a record says of an error; the whole story goes to stderr, which is the log."""
    traceback.print_exc(file=sys.stderr)
    message = str(error) if isinstance(error, BenchmarkError) else one_line(error)
    return Failure(type=type(error).__name__, message=message)


def peak_rss_bytes() -> int:
    """Largest resident set this process has had."""
    import resource  # not on Windows, where nothing of MXNet runs either

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def require_gate(gate: Gate | None) -> None:
    """Raise GateError if the gate has not been passed."""
    if gate is not None and not gate.passed:
        more = f" (and {len(gate.failures) - 1} more)" if len(gate.failures) > 1 else ""
        raise GateError(f"not equal to the reference, so not timed: {gate.failures[0]}{more}")
