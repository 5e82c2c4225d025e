"""Where an epoch's time goes.

A step's stages are timed as what each adds to those before it, in rounds, so that what drifts meets all of
them alike. Between the rounds runs a stretch of real training. Its time has to be what the parts add up to.

Work on coming batches that goes on beside a step takes cores from it. With that work at `input` seconds of
one thread for each image, of which the training waits for `wait`, a machine that is busy on all its cores is
slower by `(input - wait) / cores`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import msgspec

from backends.base import STAGES, Backend, Batch, ImageList, Pipeline
from benchmarks.harness.environment import available_cores
from benchmarks.harness.figures import Parts
from benchmarks.harness.images.decoded import decode
from benchmarks.harness.measurement.conditions import own_seconds
from benchmarks.harness.measurement.steady import timed

ROUNDS = 6
DECODED_IMAGES = 32
SHARE_OF_STRETCH = 0.5
"""How long the input pipeline alone is looked at, against the stretch of training."""


class Stretch(msgspec.Struct, frozen=True):
    """Some of an epoch. Seconds per image."""

    seconds: float
    waited: float


def measure(
    backend: Backend,
    batch: Batch,
    train: Pipeline,
    *,
    files: ImageList | None,
    own_decoder: bool,
    limit: float,
) -> Parts:
    """The parts of a training epoch.

    Args:
        batch: whose step is taken apart.
        train: the pipeline of the training.
        files: the training images; None where the training sees stored features.
        own_decoder: whether the framework decodes within each epoch, and not the harness beforehand.
        limit: seconds that each of stages, stretch and pipeline may take.
    """
    images = len(batch[1])
    first = _stages(backend, batch, rounds=ROUNDS // 2, limit=limit / 2)
    stretch = _stretch(backend, train, limit=limit)
    second = _stages(backend, batch, rounds=ROUNDS - ROUNDS // 2, limit=limit / 2)
    work = _input_work(train, limit=SHARE_OF_STRETCH * limit)
    decoding = _decoding(backend, files, own_decoder=own_decoder) if files is not None else None
    # What a stage adds; noise may show it as less than nothing.
    totals = [median((*a, *b)) / images for a, b in zip(first, second, strict=True)]
    totals = list(itertools.accumulate(totals, max))
    stages = [after - before for before, after in itertools.pairwise((0.0, *totals))]
    beside = max(0.0, work - stretch.waited) / available_cores()
    return Parts(
        wait=stretch.waited / stretch.seconds,
        decode=decoding,
        augment=max(0.0, work - (decoding or 0.0)) if own_decoder else work,
        **dict(zip(STAGES, stages, strict=True)),
        beside=beside,
        epoch=stretch.seconds,
        explained=(stretch.waited + totals[-1] + beside) / stretch.seconds,
    )


def _stages(backend: Backend, batch: Batch, *, rounds: int, limit: float) -> Sequence[list[float]]:
    """Seconds of the batch's step up to the end of each stage, one for each round."""
    found: tuple[list[float], ...] = tuple([] for _ in STAGES)
    for stage in STAGES:
        backend.run_stages(batch, stage)  # what is less than a step may be a graph of its own
    backend.synchronize()
    start = perf_counter()
    for done in range(rounds):
        if done and perf_counter() - start > limit:
            break
        for stage, seconds in zip(STAGES, found, strict=True):
            work = partial(backend.run_stages, batch, stage)
            once = timed(work, backend.stopwatch, 1)
            more = min(50, int(limit / 8 / rounds / max(once, 1e-9)))
            seconds.append(timed(work, backend.stopwatch, more) if more > 1 else once)
    return found


def _stretch(backend: Backend, train: Pipeline, *, limit: float) -> Stretch:
    """An epoch of training, or as much of it as the time allows, and what of it was spent waiting."""
    backend.synchronize()
    start = perf_counter()
    waited, images = 0.0, 0
    batches = iter(train)
    while True:
        # A loop that runs ahead of the device waits for batches that the device does not wait for yet.
        backend.synchronize()
        before = perf_counter()
        batch = next(batches, None)
        waited += perf_counter() - before
        if batch is None:
            break
        backend.train_step(batch)
        images += len(batch[1])
        if perf_counter() - start > limit:
            break
    backend.synchronize()
    seconds = perf_counter() - start
    _close(batches)
    return Stretch(seconds / images, waited / images)


def _input_work(train: Pipeline, *, limit: float) -> float:
    """Processor seconds that an image's way into a batch takes, with nothing beside it."""
    batches = iter(train)
    start, before, images = perf_counter(), own_seconds(), 0
    for batch in batches:
        images += len(batch[1])
        if perf_counter() - start > limit:
            break
    _close(batches)  # what is under way is finished, and counted
    return (own_seconds() - before) / images


def _decoding(backend: Backend, files: ImageList, *, own_decoder: bool) -> float:
    """Seconds that an image takes to be decoded, on one thread."""
    chosen = files.files[:: max(1, len(files.files) // DECODED_IMAGES)][:DECODED_IMAGES]
    decoder = backend.decode if own_decoder else decode
    seconds = []
    for path in (Path(files.root, file) for file in chosen):
        start = perf_counter()
        decoder(path)
        seconds.append(perf_counter() - start)
    return mean(seconds)


def _close(batches: Iterator[Batch]) -> None:
    close = getattr(batches, "close", None)
    if close is not None:
        close()
