"""Rules of what was measured: figures that hang together, and that a machine can have reached."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks.harness.record import Epoch, Record, Training
from benchmarks.report.check.evidence import Evidence, comparison_of, grouped
from benchmarks.report.check.files import RUN_AGAIN
from benchmarks.report.check.findings import Finding, Note, Violation

EXACTNESS = 1e-12
"""Of an accuracy that is the mean of 0s and 1s: what float64 may lose in a division, ten thousand times."""
MOST_UTILIZATION = 1.1
"""Of the measured peak: a convolution may be a little quicker than the matrix products that the peak is of
(0.998 is the most that a record shows), and who counts too many images or operations is off by factors."""
MOST_SAVED = 4.0
"""On a GPU, in multiplications: Winograd's F(4x4, 3x3), with which cuDNN may convolve, needs 36 where 144 are
counted (A. Lavin and S. Gray, CVPR 2016)."""
SHARES = ("train_accuracy", "validation_accuracy", "test_accuracy", "test", "wait")
"""Fields from 0 to 1."""
ANY_SIGN = ("train_loss",)
"""Fields that may be below nothing: a cross-entropy of nothing rounds to either side of it."""
MORE_THAN_NOTHING = ("train_seconds",)
"""Fields that cannot be 0, beside rates."""
CLOCK_ROUNDING = 1e-6
"""Share of an epoch's seconds that a sum of as many waits as it has steps may be off in float64."""


def accuracy(run: Evidence) -> Iterator[Finding]:
    """All test images were scored, each right or wrong, and the accuracy is their mean: the one that the
    learning curve has for the epoch chosen."""
    for record in run.ok:
        for what in _accuracy(record):
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)


def numbers(run: Evidence) -> Iterator[Finding]:
    """Every figure is a number, and one that can be. (JSON has no NaN: written, it is null, which the schema
    refuses where a figure has to be.)"""
    for record in run.ok:
        parts = {"curve": record.curve, "throughput": record.throughput, "memory": record.memory}
        for name, part in parts.items():
            for place, value in _floats(msgspec.to_builtins(part), name):
                if not _possible(place.rpartition(".")[2], value):
                    yield Violation(where=record.cell.id, what=f"{place} is {value}", remedy=RUN_AGAIN)
        for row in record.curve:
            if row.input_wait_seconds > (1 + CLOCK_ROUNDING) * row.train_seconds:
                what = (
                    f"epoch {row.epoch} waited {row.input_wait_seconds:g} s for its input, and took"
                    f" {row.train_seconds:g} s in all"
                )
                yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)
        held_out = record.training.validation_images if record.training else 0
        if held_out and any(row.validation_accuracy is None for row in record.curve):
            what = f"an epoch without validation accuracy, though {held_out} images were held out for it"
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)


def curve(run: Evidence) -> Iterator[Finding]:
    """The learning curve has every epoch that was asked for, each on all training images. Fewer epochs are
    allowed where validation images were held out to end the training by. Where some were, they choose the
    epoch that is scored, the first of the best; otherwise it is the last."""
    for record in run.ok:
        for what in _curve(record):
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)


def steady(run: Evidence) -> Iterator[Finding]:
    """Throughput was taken in a steady state, on a machine that did nothing else; and where one cell of a
    comparison was timed, all of them were."""
    for record in run.ok:
        for what in _unsteady(record):
            yield Violation(
                where=record.cell.id,
                what=what,
                remedy=f"see that nothing else runs, then {RUN_AGAIN}; or --no-timing, and no claim of speed",
            )
    trained = [record for record in run.ok if record.fit_seconds is None]
    for records in grouped(trained, comparison_of).values():
        untimed = [record for record in records if record.throughput is None]
        if len(untimed) == len(records):
            continue
        for record in untimed:
            if record.resumed:
                epochs = ", ".join(map(str, record.resumed))
                yield Note(where=record.cell.id, what=f"not timed: broken off after epoch {epochs}")
            else:
                what = "not timed, and others that it is compared with are"
                yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)


def peak(run: Evidence) -> Iterator[Finding]:
    """No cell computed more operations a second than matrix products reached in the same process. On a GPU,
    whose convolutions may need fewer than are counted, that is a note up to four times as many."""
    for record in run.ok:
        speed = record.throughput
        if speed is None:
            continue
        if speed.gemm_peak_flops is None or speed.achieved_flops is None:
            what = "timed, and its operations or their peak were not measured"
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)
            continue
        reached = {"training": speed.achieved_flops}
        if speed.inference_flops_per_image is not None:
            reached["inference"] = speed.inference_flops_per_image * speed.inference_images_per_second
        for name, flops in reached.items():
            highest = MOST_UTILIZATION * speed.gemm_peak_flops
            what = (
                f"{name} at {flops / 1e9:.0f} GFLOP/s, and matrix products reach"
                f" {speed.gemm_peak_flops / 1e9:.0f}"
            )
            if flops > highest * (1 if record.cell.device == "cpu" else MOST_SAVED):
                remedy = "see whether the clock waits for the device, and what is counted"
                yield Violation(where=record.cell.id, what=what, remedy=remedy)
            elif flops > highest:
                yield Note(where=record.cell.id, what=f"{what}: its convolutions may need fewer than counted")


# --- How ------------------------------------------------------------------------------------------


def _accuracy(record: Record) -> Iterator[str]:
    found, images = record.accuracy, record.cell.data.test
    if found is None:
        yield "no accuracy"
        return
    if not len(found.correct) == found.images == images:
        yield f"{len(found.correct)} scores and {found.images} images, of {images} test images"
    if set(found.correct) - {0, 1}:
        yield "scores other than 0 and 1"
    if not found.correct or not abs(found.test - sum(found.correct) / len(found.correct)) <= EXACTNESS:
        yield f"accuracy {found.test} is not the mean of its scores"
    chosen = [row for row in record.curve if row.epoch == found.epoch]
    if record.fit_seconds is None and len(chosen) != 1:
        yield f"the learning curve has no epoch {found.epoch}, whose accuracy this is said to be"
    if chosen and not abs(chosen[0].test_accuracy - found.test) <= EXACTNESS:
        yield f"accuracy {found.test}, and {chosen[0].test_accuracy} in epoch {found.epoch}, which it is of"


def _floats(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Every number within plain values, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _floats(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _floats(inner, place)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield place, value


def _possible(name: str, value: float) -> bool:
    """Whether a field can have that value: rates and the time of training are positive, and shares 1 at
    most."""
    if not math.isfinite(value):
        return False
    if name in ANY_SIGN:
        return True
    if name in SHARES:
        return 0 <= value <= 1
    return value > 0 if name.endswith("per_second") or name in MORE_THAN_NOTHING else value >= 0


def _curve(record: Record) -> Iterator[str]:
    training, rows = record.training, record.curve
    if training is None:
        yield "no hyper-parameters in its record"
        return
    if record.fit_seconds is not None:  # a classifier is fitted, not trained by epochs
        return
    if not training.phases:
        yield "its record does not say how many epochs were asked for"
        return
    if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        yield "epochs of its learning curve are missing, double or out of order"
    if [row.phase for row in rows] != sorted(row.phase for row in rows):
        yield "phases of its learning curve are out of order"
    for number, phase in enumerate(training.phases, start=1):
        count = sum(row.phase == number for row in rows)
        if count != phase.epochs and not (training.validation_images and 0 < count < phase.epochs):
            yield f"{count} of {phase.epochs} epochs in phase {number}"
    if any(not 1 <= row.phase <= len(training.phases) for row in rows):
        yield "epochs of a phase that the recipe does not have"
    if training.train_images is not None:
        yield from _images(record, rows, training.train_images)
    yield from _choice(record, training)


def _choice(record: Record, training: Training) -> Iterator[str]:
    """Whether the epoch scored is the one that `phases.Trainer` chooses, of the last phase."""
    scored, rows = record.accuracy.epoch if record.accuracy else None, record.curve
    if not rows or scored is None:
        return
    if not training.validation_images:
        if scored != rows[-1].epoch:
            yield f"scored after epoch {scored} of {len(rows)}, and nothing was held out to choose it by"
        return
    last = [row for row in rows if row.phase == len(training.phases)]
    if not last or any(
        row.validation_accuracy is None for row in last
    ):  # reported above; the numbers' rule's
        return
    best = max(last, key=lambda row: row.validation_accuracy or 0.0)  # of equals, max takes the first
    if scored != best.epoch:
        yield f"scored after epoch {scored}, and the validation images choose epoch {best.epoch}"


def _images(record: Record, rows: tuple[Epoch, ...], expected: int) -> Iterator[str]:
    assert record.training is not None
    held_out, images = record.training.validation_images, record.cell.data.train
    if expected + held_out != images:
        yield f"{expected} images to train on and {held_out} to choose by, of {images} training images"
    for row in rows:
        if row.images != expected:
            yield f"epoch {row.epoch} saw {row.images} of {expected} training images"


def _unsteady(record: Record) -> Iterator[str]:
    speed = record.throughput
    if speed is None:
        return
    if not speed.steady:
        yield "training steps did not become steady before the time was up"
    if speed.inference_steady is False:
        yield "inference did not become steady before the time was up"
    watched = {"training": speed.conditions, "inference": speed.inference_conditions}
    unwatched = [what for what, conditions in watched.items() if conditions is None]
    if unwatched:
        yield f"nobody watched the machine while it was timed ({', '.join(unwatched)})"
    if speed.noisy:
        yield f"disturbed while it was timed ({'; '.join(speed.noisy)})"
