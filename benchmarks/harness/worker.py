"""The process that runs one job: a job on stdin, events on stdout, everything a framework prints on stderr.

`python -m benchmarks.harness.worker` in a backend's own interpreter. It stops when stdin closes, so that no
worker outlives the process that asked for it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import IO

import msgspec

import backends
from backends import weights
from backends.base import Backend, BenchmarkError, NumericalError, Session, WeightsError, one_line
from benchmarks.harness import environment, timing, training
from benchmarks.harness.data import DataSet
from benchmarks.harness.messages import (
    CellDone,
    CellJob,
    EpochEnd,
    Event,
    Failed,
    Job,
    PretrainDone,
    PretrainJob,
    ProbeDone,
    Stage,
    StartingWeights,
    Step,
)
from benchmarks.harness.recipe import Recipe
from benchmarks.harness.record import (
    Accuracy,
    Epoch,
    Failure,
    Memory,
    Parts,
    Record,
    Throughput,
    Training,
    Weights,
)

Emit = Callable[[Event], None]

STEP_EVENTS_PER_SECOND = 5  # enough for a smooth bar, and nothing against a step

# --- Running --------------------------------------------------------------------------------------


def main() -> None:
    """Read one job from stdin, do it, and send its events."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a framework prints must not mix with events
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, args=(sys.stdin.buffer,), daemon=True).start()

    def emit(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    try:
        emit(_do(job, emit))
    except Exception as error:
        emit(Failed(failure=_failure(error)))


def _end_with_parent(stdin: IO[bytes]) -> None:
    while stdin.read(1):
        pass
    os._exit(1)


def _do(job: Job, emit: Emit) -> Event:
    if isinstance(job, CellJob):
        return CellDone(record=run_cell(job, emit))
    if isinstance(job, PretrainJob):
        return pretrain(job, emit)
    card = backends.resolve(job.backend)
    return ProbeDone(version=backends.version(card), devices=backends.load(card).devices())


def run_cell(job: CellJob, emit: Emit) -> Record:
    """Train, evaluate and time a cell. What goes wrong ends up in the record, beside what had been
    measured."""
    cell = job.cell
    card = backends.resolve(cell.backend)
    started, begin = datetime.now(timezone.utc), time.perf_counter()
    description = job.description(backends.version(card))
    load = environment.load_average()  # before our own work raises it
    training_settings = Training(
        epochs=cell.recipe.epochs,
        batch_size=cell.profile.batch_size or cell.recipe.batch_size,
        image_size=cell.profile.image_size,
        optimizer=cell.recipe.optimizer,
    )
    curve: list[Epoch] = []
    measured: dict[str, object] = {}
    failure: Failure | None = None
    backend: Backend | None = None
    try:
        emit(Stage(text=f"importing {card.title}"))
        backend = backends.load(card)(_session(job))
        backend.build(
            cell.recipe.model(classes=len(job.data.classes), image_size=training_settings.image_size)
        )
        description = msgspec.structs.replace(description, weights=_load_weights(backend, job.weights))
        backend.set_trainable(cell.recipe.trainable)
        backend.configure_optimizer(cell.recipe.optimizer)
        measured["settings"] = backend.settings()
        result = None
        for result in _epochs(backend, cell.recipe, job.data, training_settings, emit):
            curve.append(result.row)
        assert result is not None
        measured["accuracy"] = Accuracy(
            test=result.row.test_accuracy, correct=result.correct, images=len(result.correct)
        )
        emit(Stage(text="timing"))
        measured["throughput"] = _throughput(
            backend, job, training_settings, curve, result.first_step_seconds, cell.profile.timing_seconds
        )
    except Exception as error:
        failure = _failure(error)
    return Record(
        cell=description,
        status="failed" if failure else "ok",
        error=failure,
        training=training_settings,
        curve=tuple(curve),
        memory=Memory(
            peak_rss_bytes=peak_rss_bytes(),
            peak_device_bytes=backend.peak_device_bytes() if backend else None,
        ),
        environment=environment.describe(job.threads, load),
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begin,
        **measured,  # type: ignore[arg-type]
    )


def pretrain(job: PretrainJob, emit: Emit) -> PretrainDone:
    """Train network A on the source set and keep all of it, its own head included, as neutral weights."""
    begin = time.perf_counter()
    card = backends.resolve(job.recipe.backend)
    emit(Stage(text=f"importing {card.title}"))
    backend = backends.load(card)(
        Session(device=job.device, threads=job.threads, input_workers=job.input_workers)
    )
    image_size = job.recipe.image_size
    if image_size is None:
        raise BenchmarkError(f"recipe {job.recipe.id}: pretraining needs its image_size written down")
    backend.build(job.recipe.model(classes=len(job.data.classes), image_size=image_size))
    backend.set_trainable(job.recipe.trainable)
    backend.configure_optimizer(job.recipe.optimizer)
    settings = Training(
        epochs=job.recipe.epochs,
        batch_size=job.recipe.batch_size,
        image_size=image_size,
        optimizer=job.recipe.optimizer,
    )
    accuracy = 0.0
    for result in _epochs(backend, job.recipe, job.data, settings, emit):
        accuracy = result.row.test_accuracy
    sha256 = weights.write(
        Path(job.target),
        backend.export_weights(),
        weights.Origin(
            architecture=job.recipe.architecture,
            origin=f"{card.title} {backends.version(card)}, {job.recipe.id}, {job.data.name}"
            f" {job.data.sha256[:12]}",
            preprocess=job.recipe.input.normalization,
            key=job.key,
        ),
    )
    return PretrainDone(sha256=sha256, accuracy=accuracy, seconds=time.perf_counter() - begin)


def peak_rss_bytes() -> int:
    """Largest resident set this process has had."""
    import resource  # not on Windows, where nothing of MXNet runs either

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


# --- How ------------------------------------------------------------------------------------------


def _session(job: CellJob) -> Session:
    return Session(
        device=job.cell.device,
        precision=job.cell.precision,  # type: ignore[arg-type]
        variant=job.cell.variant,  # type: ignore[arg-type]
        seed=job.cell.seed,
        threads=job.threads,
        input_workers=job.input_workers,
    )


def _load_weights(backend: Backend, start: StartingWeights) -> Weights:
    if start.name == "none":
        return Weights(name="none", sha256=None)
    if start.name == "imagenet":
        return Weights(name=backend.load_official(), sha256=None)
    if start.path is None:
        raise WeightsError(f"weights {start.name}: no file was given")
    checkpoint = weights.read(Path(start.path))
    if start.sha256 is not None and checkpoint.sha256 != start.sha256:
        raise WeightsError(
            f"weights {start.path}: the file has changed since this run was planned; start it again"
        )
    backend.load_weights(checkpoint.tensors, head=False)
    return Weights(name=start.name, sha256=checkpoint.sha256)


def _epochs(
    backend: Backend, recipe: Recipe, data: DataSet, settings: Training, emit: Emit
) -> Iterator[training.EpochResult]:
    transform = recipe.transform(settings.image_size)
    last = 0.0

    def on_step(epoch: int, images: int, done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 / STEP_EVENTS_PER_SECOND:
            last = now
            emit(Step(epoch=epoch, epochs=settings.epochs, done=done, images=images))

    results = training.epochs(
        backend,
        backend.input_pipeline(data.train, transform, batch_size=settings.batch_size, training=True),
        backend.input_pipeline(data.test, transform, batch_size=settings.batch_size, training=False),
        train_images=len(data.train.files),
        test_labels=data.test.labels,
        count=settings.epochs,
        on_step=on_step,
    )
    for result in results:
        emit(EpochEnd(row=result.row, epochs=settings.epochs))
        yield result


def _throughput(
    backend: Backend,
    job: CellJob,
    settings: Training,
    curve: list[Epoch],
    first_step_seconds: float,
    limit: float,
) -> Throughput:
    """Time steps on a batch that is already in host memory, and read the epochs' own clocks."""
    pipeline = backend.input_pipeline(
        job.data.train,
        job.cell.recipe.transform(settings.image_size),
        batch_size=settings.batch_size,
        training=True,
    )
    batch = next(iter(pipeline))
    size = len(batch[1])
    train = timing.until_steady(lambda: backend.train_step(batch), backend.synchronize, limit=limit)
    inference = timing.until_steady(lambda: backend.logits(batch), backend.synchronize, limit=limit / 2)
    if not math.isfinite(backend.take_metrics().loss):
        raise NumericalError("the loss became infinite while steps were timed; lower the learning rate")
    later = curve[1:] or curve  # the first epoch holds compilation
    return Throughput(
        batch_size=size,
        image_size=settings.image_size,
        steady=train.steady,
        steps=len(train.counted),
        train_images_per_second=size / train.median,
        inference_images_per_second=size / inference.median,
        end_to_end_images_per_second=median(row.images / row.train_seconds for row in later),
        step_seconds=train.seconds,
        inference_seconds=inference.seconds,
        parts=Parts(
            wait=sum(row.input_wait_seconds for row in later) / sum(row.train_seconds for row in later)
        ),
        first_step_seconds=first_step_seconds,
    )


def _failure(error: Exception) -> Failure:
    traceback.print_exc(file=sys.stderr)  # the whole story is in the log
    message = str(error) if isinstance(error, BenchmarkError) else one_line(error)
    return Failure(type=type(error).__name__, message=message)


if __name__ == "__main__":
    main()
