"""One cell from start to record: build, load, train, evaluate, time. Runs in the backend's own process."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import msgspec

import backends
from backends import weights
from backends.base import (
    NORMALIZATIONS,
    Backend,
    BenchmarkError,
    ImageList,
    NumericalError,
    Pipeline,
    Session,
    WeightsError,
    one_line,
)
from benchmarks.harness import environment, initial, timing, training
from benchmarks.harness.batches import Batches
from benchmarks.harness.data import DataSet
from benchmarks.harness.decoded import Split, key_of, open_decoded
from benchmarks.harness.messages import CellJob, EpochEnd, Event, Stage, StartingWeights, Step
from benchmarks.harness.recipe import Recipe
from benchmarks.harness.record import (
    Accuracy,
    Epoch,
    Failure,
    Gate,
    Memory,
    Parts,
    Record,
    Throughput,
    Training,
    Weights,
)

Emit = Callable[[Event], None]

STEP_EVENTS_PER_SECOND = 5  # enough for a smooth bar, and nothing against a step


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
    settings = Training(
        epochs=cell.recipe.epochs,
        batch_size=cell.profile.batch_size or cell.recipe.batch_size,
        image_size=cell.profile.image_size,
        optimizer=cell.recipe.optimizer,
    )
    curve: list[Epoch] = []
    hashes: list[str] = []
    measured: dict[str, object] = {}
    failure: Failure | None = None
    backend: Backend | None = None
    try:
        require_gate(job.gate)
        emit(Stage(text=f"importing {card.title}"))
        backend = backends.load(card)(session_of(job))
        description = msgspec.structs.replace(description, weights=_build(backend, job, settings))
        backend.set_trainable(cell.recipe.trainable)
        backend.configure_optimizer(cell.recipe.optimizer)
        measured["settings"] = backend.settings()
        pipelines = _pipelines(backend, job, settings)
        result = None
        for result in epochs(backend, pipelines, job.data, settings, emit):
            curve.append(result.row)
            if isinstance(pipelines[0], Batches) and pipelines[0].sha256:
                hashes.append(pipelines[0].sha256)
        assert result is not None
        measured["accuracy"] = Accuracy(
            test=result.row.test_accuracy, correct=result.correct, images=len(result.correct)
        )
        emit(Stage(text="timing"))
        measured["throughput"] = _throughput(
            backend, pipelines[0], settings, curve, result.first_step_seconds, cell.profile.timing_seconds
        )
    except Exception as error:
        failure = failure_of(error)
    return Record(
        cell=description,
        status="failed" if failure else "ok",
        error=failure,
        gate=job.gate,
        training=settings,
        batches_sha256=tuple(hashes),
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


# --- Starting -------------------------------------------------------------------------------------


def session_of(job: CellJob) -> Session:
    """The conditions of a cell."""
    return Session(
        device=job.cell.device,
        track=job.cell.recipe.track,
        precision=job.cell.precision,  # type: ignore[arg-type]
        variant=job.cell.variant,  # type: ignore[arg-type]
        seed=job.cell.seed,
        threads=job.threads,
        input_workers=job.input_workers,
    )


def _build(backend: Backend, job: CellJob, settings: Training) -> Weights:
    """Build the network with its initial weights. In the matched track all of them come from the harness: the
    body from the checkpoint or drawn, the new head drawn."""
    recipe = job.cell.recipe
    spec = recipe.model(classes=len(job.data.classes), image_size=settings.image_size)
    backend.build(spec)
    if recipe.track == "native":
        if job.weights.name == "imagenet" and job.weights.path is None:
            return Weights(name=backend.load_official(), sha256=None)
        checkpoint = _checkpoint(job.weights, recipe)
        if checkpoint is not None:
            backend.load_weights(checkpoint.tensors, head=False)
        return Weights(name=job.weights.name, sha256=checkpoint.sha256 if checkpoint else None)
    tensors = initial.draw(spec, seed=job.cell.seed)
    checkpoint = _checkpoint(job.weights, recipe)
    if checkpoint is not None:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        tensors |= weights.select(checkpoint.tensors, shapes, head=False)
    backend.load_weights(tensors, head=True)
    return Weights(
        name=job.weights.name,
        sha256=checkpoint.sha256 if checkpoint else None,
        initial_sha256=initial.sha256_of(tensors),
    )


def _checkpoint(start: StartingWeights, recipe: Recipe) -> weights.Checkpoint | None:
    if start.name == "none":
        return None
    if start.path is None:
        raise WeightsError(f"weights {start.name}: no file was given")
    checkpoint = weights.read(Path(start.path))
    if start.sha256 is not None and checkpoint.sha256 != start.sha256:
        raise WeightsError(
            f"weights {start.path}: the file has changed since this run was planned; start it again"
        )
    expected, found = recipe.input.normalization, checkpoint.origin.preprocess
    if found in NORMALIZATIONS and found != expected:
        raise WeightsError(
            f"weights {start.path}: made for inputs normalised as '{found}', and recipe {recipe.id} gives"
            f" '{expected}'; choose other weights or another recipe"
        )
    return checkpoint


def _pipelines(backend: Backend, job: CellJob, settings: Training) -> tuple[Pipeline, Pipeline]:
    """Training and test batches: the framework's own or, in the matched track, the same bytes for all."""
    recipe, data = job.cell.recipe, job.data
    if recipe.track == "native":
        return native_pipelines(backend, recipe, data, settings)
    transform = recipe.transform(settings.image_size)

    def batches(images: ImageList, split: Split) -> Batches:
        return Batches(
            open_decoded(images, key_of(data, split)),
            images.labels,
            transform,
            batch_size=settings.batch_size,
            training=split == "train",
            seed=job.cell.seed,
            wrap=backend.to_host_batch,
        )

    return batches(data.train, "train"), batches(data.test, "test")


def native_pipelines(
    backend: Backend, recipe: Recipe, data: DataSet, settings: Training
) -> tuple[Pipeline, Pipeline]:
    """The framework's own training and test pipelines."""
    transform = recipe.transform(settings.image_size)
    train, test = (
        backend.input_pipeline(images, transform, batch_size=settings.batch_size, training=training)
        for images, training in ((data.train, True), (data.test, False))
    )
    return train, test


# --- Running --------------------------------------------------------------------------------------


def epochs(
    backend: Backend, pipelines: tuple[Pipeline, Pipeline], data: DataSet, settings: Training, emit: Emit
) -> Iterator[training.EpochResult]:
    """Train for the epochs set, with an event for every step worth showing and every epoch."""
    last = 0.0

    def on_step(epoch: int, images: int, done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 / STEP_EVENTS_PER_SECOND:
            last = now
            emit(Step(epoch=epoch, epochs=settings.epochs, done=done, images=images))

    results = training.epochs(
        backend,
        *pipelines,
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
    pipeline: Pipeline,
    settings: Training,
    curve: list[Epoch],
    first_step_seconds: float,
    limit: float,
) -> Throughput:
    """Time steps on a batch that is already in host memory, and read the epochs' own clocks."""
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
