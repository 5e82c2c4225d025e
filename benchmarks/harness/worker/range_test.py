"""The learning-rate range test: raise the rate at every step until the loss explodes, and see where it fell
fastest.

L. Smith, "Cyclical learning rates for training neural networks" (2015), section 3.3. The suggestion is the
rate at which the smoothed loss falls most steeply over the logarithm of the rate, as S. Gugger's finder in
fastai has it; but the mean that smooths looks both ways, so that it does not lag behind the loss.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import median

import msgspec
import numpy as np

import backends
from backends.base import Batch, NumericalError, Pipeline, UsageError
from backends.optimizers import Exponential
from benchmarks.harness.messages import Emit, RangeTestDone, RangeTestJob, Stage
from benchmarks.harness.record import RangeTest
from benchmarks.harness.training import starting
from benchmarks.harness.training.phases import Story, Trainer

WIDTH = 0.05
"""Standard deviation of the Gaussian that smooths, as a part of the steps asked for: a batch's own noise is
gone, and a fall over a tenfold rate is not."""
WINDOW = 5
DIVERGED = 4.0
"""Times the lowest median of `WINDOW` losses: when the last one is there, a rate teaches nothing more."""


def run(job: RangeTestJob, emit: Emit) -> RangeTestDone:
    """Test the rates for the last phase of a recipe.

    Raises:
        UsageError: the recipe trains on stored features, or in two phases.
        NumericalError: the very first loss is not finite.
    """
    cell = job.cell
    phase = cell.recipe.phases[-1]
    if phase.on == "features" or cell.recipe.classifier is not None:
        raise UsageError(f"recipe {cell.recipe.id}: a range test is for what trains on images, step by step")
    if cell.recipe.before is not None:
        raise UsageError(
            f"recipe {cell.recipe.id}: a range test is for a recipe of one phase; choose another"
        )
    card = backends.resolve(cell.backend)
    emit(Stage(text=f"importing {card.title}"))
    session = starting.session_of(cell, threads=job.threads, input_workers=job.input_workers)
    backend = backends.load(card)(session)
    spec, _ = starting.build(backend, cell, job.data, job.weights)
    trainer = Trainer(backend, spec, cell, job.data, Story(), emit)
    factor = (job.highest / job.lowest) ** (1 / (job.steps - 1))
    backend.set_trainable(phase.trainable)
    backend.configure_optimizer(
        msgspec.structs.replace(phase.optimizer, learning_rate=job.lowest, schedule=Exponential(factor))
    )
    rates: list[float] = []
    losses: list[float] = []
    batches = _endless(trainer.images(trainer.parts.train, training=True))
    for step, batch in enumerate(itertools.islice(batches, job.steps)):
        backend.train_step(batch)
        loss = backend.take_metrics().loss
        if not math.isfinite(loss):
            break
        rates.append(job.lowest * factor**step)
        losses.append(loss)
        emit(Stage(text=f"rate {rates[-1]:.1e}  loss {loss:.3f}"))
        if diverged(losses):
            break
    if not losses:
        raise NumericalError("the loss of the first step is not finite: other weights or another recipe")
    curve = smoothed(losses, job.steps)
    return RangeTestDone(
        result=RangeTest(
            cell=cell.id,
            architecture=cell.recipe.architecture,
            data=job.data.name,
            data_sha256=job.data.sha256,
            weights=job.weights.name,
            batch_size=trainer.settings.batch_size,
            image_size=trainer.settings.image_size,
            rates=tuple(rates),
            losses=tuple(losses),
            smoothed=tuple(curve),
            suggestion=suggestion(rates, curve),
        )
    )


def smoothed(losses: Sequence[float], steps: int) -> list[float]:
    """Mean of the losses around each one, weighted by a Gaussian; of a test that was to have so many
    steps."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / (WIDTH * steps)) ** 2)
    return [float(value) for value in weights @ np.array(losses) / weights.sum(axis=1)]


def diverged(losses: Sequence[float]) -> bool:
    """Whether the loss has left its lowest values far behind."""
    medians = [median(losses[end - WINDOW : end]) for end in range(WINDOW, len(losses) + 1)]
    return bool(medians) and medians[-1] > DIVERGED * min(medians)


def suggestion(rates: Sequence[float], values: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls most steeply, before its lowest point; None if it never
    falls."""
    until = int(np.argmin(values)) + 1
    if until < 3:
        return None
    slopes = np.gradient(np.array(values[:until]), np.log(np.array(rates[:until])))
    return float(rates[int(slopes.argmin())])


def _endless(pipeline: Pipeline) -> Iterator[Batch]:
    while True:
        yield from pipeline
