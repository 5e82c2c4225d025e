"""The matched track's input pipeline alone: one epoch of the run's training images, and no framework."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Transform
from benchmarks.conftest import SESSION
from benchmarks.harness.images.batches import THREADS, Batches
from benchmarks.harness.images.decoded import key_of, open_decoded

BATCH_SIZE = 32
ROUNDS = 5


@pytest.mark.parametrize("image_size", [96, 224])
def test_input(image_size: int, request: pytest.FixtureRequest, benchmark: Any) -> None:
    session = request.config.stash[SESSION]
    data = session.supplies.data
    if session.options.profile == "smoke":
        pytest.skip("a few hundred images are too few to time an input pipeline; --profile cpu takes all")
    decoded = open_decoded(data.train, key_of(data, "train"))
    transform = Transform(size=image_size, resize=round(image_size * 256 / 224))
    hashes = set()

    def first_epoch() -> tuple[tuple[Batches], dict[str, Any]]:
        batches = Batches(
            decoded,
            data.train.labels,
            transform,
            batch_size=BATCH_SIZE,
            training=True,
            wrap=lambda images, labels: (images, labels),
        )
        return (batches,), {}

    def consume(batches: Batches) -> None:
        assert sum(len(labels) for _, labels in batches) == len(decoded)
        hashes.add(batches.sha256)

    benchmark.group = "input pipeline: one epoch"
    benchmark.pedantic(consume, setup=first_epoch, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    assert len(hashes) == 1  # the same epoch each time, to the last bit
    benchmark.extra_info.update(
        image_size=image_size,
        batch_size=BATCH_SIZE,
        threads=THREADS,
        data=data.name,
        data_sha256=data.sha256,
        batches_sha256=hashes.pop(),
    )
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["images_per_second"] = len(decoded) / benchmark.stats.stats.median
