"""Everything about a cell's speed, once it has been trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from statistics import median

import msgspec
import numpy as np

from backends import flops
from backends.architectures import is_parameter
from backends.base import Backend, Batch, BenchmarkError, NumericalError, Pipeline
from benchmarks.harness.figures import Attempt, BatchRate, Conditions, Latency, Parts, Throughput
from benchmarks.harness.images.pipelines import split_of
from benchmarks.harness.initial import Tensors
from benchmarks.harness.measurement import conditions, parts, peak, steady
from benchmarks.harness.measurement.steady import Blocks, until_steady
from benchmarks.harness.messages import Stage
from benchmarks.harness.record import Epoch
from benchmarks.harness.training.phases import Trained, Trainer

LEAST = 0.25
"""Of the time that a figure may take, what the blocks that count last at least."""
LATENCIES = 300
"""Single images at most: three are then beyond the 99th percentile."""
FEWEST_LATENCIES = 50
LEAST_WATCHED = 1.0
"""Seconds of an epoch of which it can be said whether it was disturbed: processor time is counted in
hundredths."""


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a trained network answers."""

    blocks: Blocks
    """Of the batches that it was trained with."""
    by_batch: tuple[BatchRate, ...]
    latency: Latency


class StepError(BenchmarkError):
    """A training step that does not train."""


def measure(
    trainer: Trainer, trained: Trained, meanwhile: Conditions, epochs: Mapping[int, Conditions]
) -> Throughput:
    """Time training and inference of a trained network, and take an epoch apart. Inference is always that of
    the whole network on images, with the weights that the training ended with.

    Args:
        meanwhile: what happened on the machine while the network was trained.
        epochs: the same of each epoch, by number.

    Raises:
        ClockError, ConditionsError, StepError: what would be measured is not what it is called.
        NumericalError: the loss became infinite.
    """
    backend, profile = trainer.backend, trainer.cell.profile
    limit, say = profile.timing_seconds, trainer.emit
    conditions.require_threads(backend)
    say(Stage(text="timing matrix products"))
    peak_flops = peak.measure(backend)
    weights = backend.export_weights()
    batch = next(iter(trained.train))
    say(Stage(text="timing training steps"))
    train, quiet, disturbed = conditions.undisturbed(
        partial(until_steady, partial(backend.train_step, batch), backend.stopwatch, limit=limit,
                least=LEAST * limit),
        profile.timing_attempts,
        steady=attrgetter("steady"),
    )  # fmt: skip
    _require_trained(backend, weights)
    say(Stage(text="timing the parts of an epoch"))
    shares = _parts(trainer, trained, batch, limit=profile.parts_seconds)
    backend.load_weights(weights, head=True)
    if trained.body is not None:
        trainer.rebuild(trained.body)
    say(Stage(text="timing inference"))
    part = trainer.parts.train
    images: Pipeline = trained.train if trained.body is None else trainer.images(part, training=False)
    seen = _images_of(next(iter(images)))
    inference, quiet_too, _ = conditions.undisturbed(
        partial(_inference, backend, seen, profile.inference_batches, limit=limit),
        profile.timing_attempts,
        steady=attrgetter("blocks.steady"),
    )
    conditions.require_threads(backend)

    size = len(batch[1])
    training_flops = _training_flops(trainer)
    achieved = training_flops * size / train.median
    rows = [row for row in trainer.story.curve if row.phase == len(trainer.settings.phases)]
    later = rows[1:] or rows  # the first epoch holds compilation
    counted = _quiet(later, epochs) if meanwhile.noisy else []
    if counted:
        later, meanwhile = counted, conditions.together([epochs[row.epoch] for row in counted])
    return Throughput(
        batch_size=size,
        image_size=trainer.settings.image_size,
        steady=train.steady,
        steady_by=steady.METHOD,
        steps=len(train.counted) * train.steps,
        steps_per_block=train.steps,
        train_images_per_second=size / train.median,
        inference_images_per_second=len(seen[1]) / inference.blocks.median,
        end_to_end_images_per_second=median(row.images / row.train_seconds for row in later),
        step_seconds=train.seconds,
        counted=len(train.counted),
        inference_seconds=inference.blocks.seconds,
        inference_counted=len(inference.blocks.counted),
        inference_steady=inference.blocks.steady,
        parts=shares,
        latency=inference.latency,
        inference_by_batch=inference.by_batch,
        first_step_seconds=trained.first_step_seconds,
        compile_seconds=max(0.0, trained.first_step_seconds - train.median),
        flops_per_image=training_flops,
        inference_flops_per_image=flops.inference_flops(trainer.spec),
        achieved_flops=achieved,
        gemm_peak_flops=peak_flops,
        utilization=achieved / peak_flops,
        conditions=quiet,
        inference_conditions=quiet_too,
        epoch_conditions=meanwhile,
        epochs_counted=tuple(row.epoch for row in counted) or None,
        disturbed=tuple(
            Attempt(train_images_per_second=size / blocks.median, conditions=found, steady=blocks.steady)
            for blocks, found in disturbed
        ),
    )


def _quiet(rows: Sequence[Epoch], epochs: Mapping[int, Conditions]) -> list[Epoch]:
    """The epochs of which it is known that nothing disturbed them."""
    return [
        row
        for row in rows
        if row.epoch in epochs and not epochs[row.epoch].noisy and epochs[row.epoch].seconds >= LEAST_WATCHED
    ]


def _training_flops(trainer: Trainer) -> int:
    phase, spec = trainer.recipe.phases[-1], trainer.spec
    if phase.on == "features":
        spec = msgspec.structs.replace(spec, entry="features")
    return flops.training_flops(spec, phase.trainable.first)


def _require_trained(backend: Backend, before: Tensors) -> None:
    """Raise unless the steps that were timed changed what they train, to finite values."""
    metrics, after = backend.take_metrics(), backend.export_weights()
    if not math.isfinite(metrics.loss) or not all(np.isfinite(tensor).all() for tensor in after.values()):
        raise NumericalError("the loss became infinite while steps were timed; lower the learning rate")
    nothing_left = metrics.images > 0 and metrics.loss == 0
    # Running statistics move in the forward or the backward pass, and say nothing of the update.
    moved = any(
        not np.array_equal(tensor, after[name]) for name, tensor in before.items() if is_parameter(name)
    )
    if not moved and not nothing_left:
        raise StepError(
            f"{backend.info.name}: no weight changed in the training steps that were timed: they skip the"
            " update"
        )


def _parts(trainer: Trainer, trained: Trained, batch: Batch, *, limit: float) -> Parts:
    on_features = trainer.recipe.phases[-1].on == "features"
    return parts.measure(
        trainer.backend,
        batch,
        trained.train,
        files=None if on_features else split_of(trainer.data, trainer.parts.train),
        own_decoder=trainer.recipe.track == "native" and not on_features,
        limit=limit,
    )


# --- Inference ------------------------------------------------------------------------------------


def _inference(backend: Backend, seen: Batch, sizes: Sequence[int], *, limit: float) -> Inference:
    return Inference(
        blocks=_blocks(backend, seen, limit=limit / 2),
        by_batch=tuple(
            _rate(backend, seen, size, limit=limit / 16) for size in sizes if size <= len(seen[1])
        ),
        latency=latency(backend, _first(seen, 1), limit=limit / 4),
    )


def _blocks(backend: Backend, batch: Batch, *, limit: float) -> Blocks:
    work = partial(backend.logits, batch)
    return until_steady(work, backend.stopwatch, limit=limit, least=LEAST * limit)


def _rate(backend: Backend, seen: Batch, size: int, *, limit: float) -> BatchRate:
    blocks = _blocks(backend, _first(seen, size), limit=limit)
    return BatchRate(batch_size=size, images_per_second=size / blocks.median, steady=blocks.steady)


def latency(backend: Backend, image: Batch, *, limit: float) -> Latency:
    """Of one image at a time, as somebody waits for it."""
    backend.to_numpy(backend.logits(image))  # the first of its size may compile
    seconds: list[float] = []
    while len(seconds) < LATENCIES and (len(seconds) < FEWEST_LATENCIES or sum(seconds) < limit):
        stop = backend.stopwatch()
        backend.to_numpy(backend.logits(image))
        seconds.append(stop())
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return Latency(p50=p50, p95=p95, p99=p99, seconds=tuple(round(value, 7) for value in seconds))


def _images_of(batch: Batch) -> Batch:
    """Without the masks that training has."""
    return batch[:2]


def _first(batch: Batch, size: int) -> Batch:
    """The first images of a batch."""
    return tuple(part[:size] for part in batch)
