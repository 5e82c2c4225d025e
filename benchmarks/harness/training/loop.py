"""The training loop that every framework is driven by: epochs of steps, and a full test set after each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

import msgspec
import numpy as np

from backends.base import Backend, NumericalError, Pipeline
from benchmarks.harness.images.pipelines import Scored
from benchmarks.harness.record import Epoch

OnStep = Callable[[int, int, int], None]
"""Called after each step with the epoch (from 1), the images there are in it, and those done."""


class EpochResult(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the curve, and which test images were right after it."""

    row: Epoch
    correct: tuple[int, ...]
    first_step_seconds: float
    """Of this training's first step."""


def epochs(
    backend: Backend,
    train: Pipeline,
    test: Scored,
    *,
    validation: Scored | None = None,
    train_images: int,
    first: int = 1,
    last: int,
    phase: int = 1,
    on_step: OnStep,
) -> Iterator[EpochResult]:
    """Train and yield each epoch as it ends.

    Args:
        first, last: numbers of the epochs, earlier phases counted; none where the first comes after the last.

    Raises:
        NumericalError: the loss or a logit is not finite.
    """
    first_step = math.nan
    for epoch in range(first, last + 1):
        backend.reseed(epoch)
        backend.synchronize()
        start = perf_counter()
        wait, first_in_epoch = _train_epoch(backend, train, partial(on_step, epoch, train_images))
        metrics = backend.take_metrics()
        backend.synchronize()
        train_seconds = perf_counter() - start
        first_step = first_in_epoch if epoch == first else first_step
        if not math.isfinite(metrics.loss):
            raise NumericalError(
                f"the training loss became {metrics.loss} in epoch {epoch}; lower the learning rate"
            )
        if metrics.images != train_images:
            raise NumericalError(
                f"epoch {epoch} saw {metrics.images} of {train_images} images: the pipeline drops some"
            )
        chosen_by = evaluate(backend, *validation) if validation else ()
        start = perf_counter()
        correct = evaluate(backend, *test)
        row = Epoch(
            epoch=epoch,
            phase=phase,
            train_loss=metrics.loss,
            train_accuracy=metrics.correct / metrics.images,
            validation_accuracy=sum(chosen_by) / len(chosen_by) if chosen_by else None,
            test_accuracy=sum(correct) / len(correct),
            train_seconds=train_seconds,
            input_wait_seconds=wait,
            eval_seconds=perf_counter() - start,
            images=metrics.images,
        )
        yield EpochResult(row=row, correct=correct, first_step_seconds=first_step)


def _train_epoch(backend: Backend, train: Pipeline, on_done: Callable[[int], None]) -> tuple[float, float]:
    """One epoch of steps; returns the seconds spent waiting for input, and those of the first step."""
    wait, first, done = 0.0, math.nan, 0
    batches = iter(train)
    while True:
        before = perf_counter()
        batch = next(batches, None)
        ready = perf_counter()
        wait += ready - before
        if batch is None:
            return wait, first
        backend.train_step(batch)
        if done == 0:
            backend.synchronize()
            first = perf_counter() - ready
        done += len(batch[1])
        on_done(done)


def evaluate(backend: Backend, images: Pipeline, labels: tuple[int, ...]) -> tuple[int, ...]:
    """For each image, in order, whether its highest logit is its label's: 1 or 0.

    Raises:
        NumericalError: a logit is not finite, or images are missing.
    """
    logits = np.concatenate([backend.to_numpy(backend.logits(batch)) for batch in images])
    if len(logits) != len(labels):
        raise NumericalError(f"{len(logits)} of {len(labels)} images were scored: the pipeline drops some")
    if not np.isfinite(logits).all():
        raise NumericalError("a logit of a scored image is not finite; lower the learning rate")
    return tuple((logits.argmax(axis=1) == np.asarray(labels)).astype(int).tolist())
