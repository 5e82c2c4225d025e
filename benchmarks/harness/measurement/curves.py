"""Images/s against batch size, image size and threads: steps of a network on one batch of noise, without a
training."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import partial

import msgspec
import numpy as np

import backends
from backends import flops
from backends.base import Backend
from benchmarks.harness import environment
from benchmarks.harness.figures import CurvePoint
from benchmarks.harness.images.pipelines import masks_of
from benchmarks.harness.measurement import conditions
from benchmarks.harness.measurement.steady import timed, until_steady
from benchmarks.harness.messages import CurveDone, CurveJob, Emit, Stage
from benchmarks.harness.plan import Cell, Combination
from benchmarks.harness.record import Curves
from benchmarks.harness.training import starting

CLASSES = 2
LEAST_SHARE = 0.25
"""Of the time that a point may take to become steady, what it is then looked at, at least."""
STILL = 1e-9
"""Learning rate: weights stay what they are, at any number of steps."""
LONGEST_STEP = 10.0
"""Seconds: a combination whose step takes longer is left out; a steady figure would take minutes."""


def run(job: CurveJob, emit: Emit) -> CurveDone:
    """Measure one backend's combinations on so many threads; one network for each image size.

    Raises:
        ConditionsError: it computes with another number of threads.
    """
    started, begin = datetime.now(timezone.utc), time.perf_counter()
    cell, load = job.cell, environment.load_average()
    card = backends.resolve(cell.backend)
    emit(Stage(text=f"importing {card.title}"))
    backend = backends.load(card)(starting.session_of(cell, threads=job.threads, input_workers=0))
    points: list[CurvePoint] = []
    left_out: list[str] = []
    built = None
    for number, wanted in enumerate(job.combinations, start=1):
        emit(Stage(text=f"{wanted}, {number} of {len(job.combinations)}"))
        if wanted.image_size != built:
            _build(backend, cell, wanted.image_size)
            built = wanted.image_size
        batch = _noise(backend, cell, wanted)
        backend.train_step(batch)  # it may compile
        step = timed(partial(backend.train_step, batch), backend.stopwatch, 1)
        if step > LONGEST_STEP:
            left_out.append(f"{wanted}, {job.threads} threads: a step takes {step:.0f} s")
            continue
        points.append(_point(backend, cell, wanted, batch))
    return CurveDone(
        result=Curves(
            backend=card.name,
            framework_version=backends.version(card),
            track=cell.recipe.track,
            architecture=cell.recipe.architecture,
            variant=cell.variant,
            precision=cell.precision,
            device=cell.device,
            first_trained=cell.recipe.phases[-1].trainable.first,
            points=tuple(points),
            left_out=tuple(left_out),
            environment=environment.describe(job.threads, load),
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - begin,
        )
    )


def _build(backend: Backend, cell: Cell, image_size: int) -> None:
    phase = cell.recipe.phases[-1]
    backend.build(cell.recipe.model(classes=CLASSES, image_size=image_size))
    backend.set_trainable(phase.trainable)
    backend.configure_optimizer(msgspec.structs.replace(phase.optimizer, learning_rate=STILL))
    conditions.require_threads(backend)


def _noise(backend: Backend, cell: Cell, wanted: Combination) -> tuple[object, ...]:
    """Images, labels and what else training takes: the matched track's masks, here of what drops nothing."""
    random = np.random.RandomState(0)
    size = wanted.image_size
    images = random.randint(0, 256, (wanted.batch_size, size, size, 3)).astype(np.uint8)
    labels = random.randint(0, CLASSES, wanted.batch_size).astype(np.int64)
    masks = masks_of(cell.recipe.model(classes=CLASSES, image_size=size))
    if masks is None or cell.recipe.track != "matched":
        return backend.to_host_batch(images, labels)
    _, width = masks
    return backend.to_host_batch(images, labels, np.ones((wanted.batch_size, width), np.uint8))


def _point(backend: Backend, cell: Cell, wanted: Combination, batch: tuple[object, ...]) -> CurvePoint:
    limit = cell.profile.timing_seconds / 4
    timing = partial(until_steady, stopwatch=backend.stopwatch, limit=limit, least=LEAST_SHARE * limit)
    (train, inference), quiet, _ = conditions.undisturbed(
        lambda: (timing(partial(backend.train_step, batch)), timing(partial(backend.logits, batch))),
        cell.profile.timing_attempts,
        steady=lambda both: all(blocks.steady for blocks in both),
    )
    spec = cell.recipe.model(classes=CLASSES, image_size=wanted.image_size)
    per_image = flops.training_flops(spec, cell.recipe.phases[-1].trainable.first)
    return CurvePoint(
        batch_size=wanted.batch_size,
        image_size=wanted.image_size,
        threads=backend.session.threads,
        train_images_per_second=wanted.batch_size / train.median,
        inference_images_per_second=wanted.batch_size / inference.median,
        steady=train.steady and inference.steady,
        noisy=quiet.noisy,
        train_flops=per_image * wanted.batch_size / train.median,
    )
