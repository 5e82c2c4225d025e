"""What is timed against each other: a way of doing some work, ready to do it."""

from __future__ import annotations

import abc
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import msgspec
import numpy as np

import backends
from backends.base import Backend, BenchmarkError, ImageList, Precision, Session, Transform, Variant
from benchmarks import handwritten
from benchmarks.handwritten import Task
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.decoded import Decoded, open_decoded

STEPS = 3
"""Taken to compare two sides: the second has a velocity to start from."""
SAME_CHANGE = 0.1
"""By how much two sides may differ in what these steps change in a tensor, relative to the change. 2e-7 was
seen in Keras; in torch and MXNet the last bit of a normalised input lets activations near zero fall to either
side, which made 0.02 in the worst tensor. A step without decay, the least of the faults, makes 0.34."""
SAME_LOSS = 2e-3
"""Relative; 2e-4 was seen, for the same reason."""

Pixels = tuple[np.ndarray, np.ndarray]
"""uint8 images (N, S, S, 3) and labels (N,)."""


class WorkError(BenchmarkError):
    """Two sides that were to do the same work do not."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One way of doing the work."""

    written: Literal["harness", "leanest", "textbook"]
    work: Literal["step", "epoch"]
    """`step`: a training step on one batch in host memory. `epoch`: from files, through an input pipeline,
    over all images."""
    variant: Variant = "default"
    precision: Precision = "float32"
    tuning: tuple[str, ...] | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Sides that live in one process, and what they work on."""

    backend: str
    sides: tuple[Side, ...]
    task: Task
    transform: Transform
    images: ImageList
    """All that an epoch has; steps take their batch from them."""


class Ready(abc.ABC):
    """A side that has been made."""

    @abc.abstractmethod
    def run(self, times: int) -> float:
        """Do the work so many times; returns seconds, the device waited for at both ends."""


class HarnessStep(Ready):
    """`Backend.train_step`, in the matched track, again and again on one batch."""

    def __init__(self, job: Job, side: Side, batch: Pixels) -> None:
        self.backend = _built(job, side)
        self._batch = self.backend.to_host_batch(*batch)

    def run(self, times: int) -> float:
        stop = self.backend.stopwatch()
        for _ in range(times):
            self.backend.train_step(self._batch)
        return stop()

    def logits(self) -> np.ndarray:
        """Of the batch, (N, K)."""
        return self.backend.to_numpy(self.backend.logits(self._batch))


class LeanestStep(Ready):
    """The hand-written one. Where a device may still be computing, its metrics wait for it."""

    def __init__(self, job: Job, side: Side, batch: Pixels) -> None:
        task = msgspec.structs.replace(job.task, tuned=side.variant == "tuned")
        self.loop = handwritten.leanest(job.backend)(task)
        self._batch = self.loop.host_batch(*batch)

    def run(self, times: int) -> float:
        self.loop.metrics()
        start = perf_counter()
        for _ in range(times):
            self.loop.step(self._batch)
        self.loop.metrics()
        return perf_counter() - start


class HarnessEpoch(Ready):
    """The matched track's pipeline and the training step, over pixels decoded once."""

    def __init__(self, job: Job, side: Side, decoded: Decoded) -> None:
        self._backend = _built(job, side)
        self._batches = _batches(job, decoded, self._backend.to_host_batch)

    def run(self, times: int) -> float:
        stop = self._backend.stopwatch()
        for _ in range(times):
            for batch in self._batches:
                self._backend.train_step(batch)
            self._backend.take_metrics()
        return stop()


class TextbookEpoch(Ready):
    """The hand-written one, over the images' folder."""

    def __init__(self, job: Job) -> None:
        self._expected = len(job.images.files)
        self._loop = handwritten.textbook(job.backend)(job.task, Path(job.images.root))

    def run(self, times: int) -> float:
        start = perf_counter()
        for _ in range(times):
            count = self._loop.epoch()
            if count != self._expected:
                raise WorkError(f"the textbook's epoch saw {count} of {self._expected} images")
        return perf_counter() - start


def make(job: Job) -> tuple[list[Ready], float | None]:
    """The job's sides, in order; and the seconds in which the harness decoded the images, if a side needs
    them decoded."""
    decoded, seconds = None, None
    if any(side.written != "textbook" for side in job.sides):
        start = perf_counter()
        decoded = open_decoded(job.images, "comparison")
        seconds = perf_counter() - start
    return [_make(job, side, decoded) for side in job.sides], seconds


def require_same_work(harness: HarnessStep, leanest: LeanestStep) -> float:
    """Take both through the same few steps from the same weights, and compare what these changed.

    Returns:
        The difference in what the steps change in the worst trained tensor, relative to the change; by norms.

    Raises:
        WorkError: it is more than `SAME_CHANGE`, or their losses or hits differ.
    """
    before = harness.backend.export_weights()
    leanest.loop.load(before)
    loss_before, hits_before = leanest.loop.metrics()
    for side in (harness, leanest):
        side.run(STEPS)
    found, (loss, hits) = harness.backend.take_metrics(), leanest.loop.metrics()
    loss, hits = (loss - loss_before) / found.images, hits - hits_before
    if not (abs(loss - found.loss) <= SAME_LOSS * abs(loss) and hits == found.correct):
        raise WorkError(
            f"loss {loss:.6g} and {hits} hits by hand,"
            f" {found.loss:.6g} and {found.correct} through the harness"
        )
    after, by_hand = harness.backend.export_weights(), leanest.loop.weights()
    differences = {name: _difference(before[name], after[name], by_hand[name]) for name in by_hand}
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= SAME_CHANGE:
        raise WorkError(
            f"{worst} changes differently by hand and through the harness, by {differences[worst]:.2g} of its"
            " change"
        )
    return differences[worst]


def _difference(before: np.ndarray, after: np.ndarray, by_hand: np.ndarray) -> float:
    changed = float(np.linalg.norm(after - before))
    return float(np.linalg.norm(after - by_hand)) / changed if changed else np.inf


def _make(job: Job, side: Side, decoded: Decoded | None) -> Ready:
    if side.written == "textbook":
        return TextbookEpoch(job)
    assert decoded is not None
    if side.work == "epoch":
        return HarnessEpoch(job, side, decoded)
    batch = first_batch(job, decoded)
    return HarnessStep(job, side, batch) if side.written == "harness" else LeanestStep(job, side, batch)


def _built(job: Job, side: Side) -> Backend:
    """The backend as a cell has it when its training begins."""
    task = job.task
    session = Session(
        track="matched", variant=side.variant, precision=side.precision, tuning=side.tuning,
        threads=task.threads, seed=task.seed,
    )  # fmt: skip
    backend = backends.load(backends.resolve(job.backend))(session)
    backend.build(task.spec)
    backend.configure_optimizer(task.optimizer)
    return backend


def first_batch(job: Job, decoded: Decoded) -> Pixels:
    """Of the harness's own pipeline."""
    batch: Pixels = next(iter(_batches(job, decoded, lambda images, labels: (images, labels))))
    return batch


def _batches(job: Job, decoded: Decoded, wrap: Any) -> Batches:
    return Batches(
        decoded, job.images.labels, job.transform, batch_size=job.task.batch_size, training=True, wrap=wrap
    )
