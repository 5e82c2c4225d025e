"""One cell from start to record: build, load, train, evaluate, time. Runs in the backend's own process."""

from __future__ import annotations

import math
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import msgspec

import backends
from backends.base import Backend, BenchmarkError, NumericalError, Pipeline, one_line
from benchmarks.harness import classifier, environment, starting, timing
from benchmarks.harness.initial import sha256_of
from benchmarks.harness.messages import CellJob, Emit, Stage
from benchmarks.harness.phases import Story, Trained, Trainer
from benchmarks.harness.record import (
    Accuracy,
    Failure,
    Gate,
    Memory,
    Parts,
    Record,
    Throughput,
)
from benchmarks.harness.snapshot import Keeper


class GateError(BenchmarkError):
    """A backend that does not compute what the reference computes: it is not timed."""


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
        keeper = Keeper(Path(job.snapshot), job.key) if job.snapshot and job.key else None
        trainer = Trainer(backend, spec, cell, job.data, story, emit, keeper)
        measured["training"] = trainer.settings
        if cell.recipe.classifier is not None:
            fitted = classifier.fit(trainer, cell.recipe.classifier)
            measured["accuracy"] = _accuracy(fitted.correct, epoch=None)
            measured["fit_seconds"] = fitted.seconds
        else:
            trained = trainer.train()
            measured["accuracy"] = _accuracy(trained.correct, epoch=trained.epoch)
            measured["trained_sha256"] = sha256_of(backend.export_weights())
            if cell.timed and not story.resumed:
                emit(Stage(text="timing"))
                measured["throughput"] = _throughput(trainer, trained, limit=cell.profile.timing_seconds)
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


# --- Timing ---------------------------------------------------------------------------------------


def _throughput(trainer: Trainer, trained: Trained, *, limit: float) -> Throughput:
    """Time steps on a batch that is already in host memory, and read the epochs' own clocks. Inference is
    always that of the whole network on images."""
    backend, story = trainer.backend, trainer.story
    batch = next(iter(trained.train))
    size = len(batch[1])
    train = timing.until_steady(lambda: backend.train_step(batch), backend.synchronize, limit=limit)
    if not math.isfinite(backend.take_metrics().loss):
        raise NumericalError("the loss became infinite while steps were timed; lower the learning rate")
    images: Pipeline = trained.train
    if trained.body is not None:
        trainer.rebuild(trained.body)
        images = trainer.images(trainer.parts.train, training=False)
    batch = next(iter(images))
    inference = timing.until_steady(lambda: backend.logits(batch), backend.synchronize, limit=limit / 2)
    rows = [row for row in story.curve if row.phase == len(trainer.settings.phases)]
    later = rows[1:] or rows  # the first epoch holds compilation
    return Throughput(
        batch_size=size,
        image_size=trainer.settings.image_size,
        steady=train.steady,
        steps=len(train.counted),
        train_images_per_second=size / train.median,
        inference_images_per_second=len(batch[1]) / inference.median,
        end_to_end_images_per_second=median(row.images / row.train_seconds for row in later),
        step_seconds=train.seconds,
        inference_seconds=inference.seconds,
        parts=Parts(
            wait=sum(row.input_wait_seconds for row in later) / sum(row.train_seconds for row in later)
        ),
        first_step_seconds=trained.first_step_seconds,
    )
