"""Runs of one cell in three seeds, and what may be done to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks.harness.recipe import recipe_of
from benchmarks.harness.record import Accuracy, Failure, Record, Training
from tests.benchmarks.report.samples import variant_of

JITTER = (1.0, 1.01, 0.99)
"""By which seeds of one cell differ in speed."""
RIGHT = (1, 1, 1, 0) * 50
"""150 of 200 test images."""


def without(count: int) -> tuple[int, ...]:
    """As `RIGHT`, but for the first so many images that were right."""
    lost = [place for place, one in enumerate(RIGHT) if one][:count]
    return tuple(0 if place in lost else one for place, one in enumerate(RIGHT))


def right(record: Record, correct: tuple[int, ...]) -> Record:
    accuracy = Accuracy(test=sum(correct) / len(correct), correct=correct, images=len(correct))
    return msgspec.structs.replace(record, accuracy=accuracy)


def environment(record: Record, **fields: Any) -> Record:
    assert record.environment is not None
    return msgspec.structs.replace(record, environment=msgspec.structs.replace(record.environment, **fields))


def cell(record: Record, **fields: Any) -> Record:
    return msgspec.structs.replace(record, cell=msgspec.structs.replace(record.cell, **fields))


def failed(record: Record) -> Record:
    return Record(
        cell=record.cell, status="failed", error=Failure(type="NumericalError", message="the loss is nan"),
        environment=record.environment, started=record.started, seconds=1.0,
    )  # fmt: skip


def sized(records: list[Record], size: int) -> list[Record]:
    """The same, trained on images of this size."""
    recipe = recipe_of("matched-resnet18-finetune")
    training = Training(epochs=1, batch_size=4, image_size=size, optimizer=recipe.optimizer)
    return [msgspec.structs.replace(record, training=training) for record in records]


def run_of(
    record: Record, seeds: Sequence[int] = (0, 1, 2), *, slower: float = 1.0, memory: float = 1.0
) -> list[Record]:
    """The cell in several seeds, which differ a little in speed and memory.

    Args:
        slower: by this factor in training.
        memory: times 1 GiB.
    """
    made = []
    for seed in seeds:
        jitter = JITTER[seed % 3]
        timed = variant_of(
            record, "default", seed=seed, train_images_per_second=128.0 * jitter / slower,
            inference_images_per_second=512.0 * jitter, end_to_end_images_per_second=100.0 * jitter,
        )  # fmt: skip
        assert timed.memory is not None
        peak = msgspec.structs.replace(timed.memory, peak_rss_bytes=int(2**30 * memory * jitter))
        made.append(right(msgspec.structs.replace(timed, memory=peak), RIGHT))
    return made
