"""The timed blocks of every cell that ran: training steps and inference, batch in host memory."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.conftest import REPLAY, Replayed
from benchmarks.harness.plan import Cell
from benchmarks.harness.record import Record


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("work", ["train", "inference"])
def test_throughput(work: str, cell: Cell, record: Record, replay: Replayed, benchmark: Any) -> None:
    if record.throughput is None:
        pytest.skip("the cell failed; test_accuracy says why")
    throughput = record.throughput
    blocks = throughput.step_seconds if work == "train" else throughput.inference_seconds
    benchmark.group = f"{work}, one batch: {cell.recipe.protocol}"
    benchmark.extra_info.update(
        cell=record.cell.id,
        batch_size=throughput.batch_size,
        image_size=throughput.image_size,
        images_per_second=getattr(throughput, f"{work}_images_per_second"),
        steady=throughput.steady,
    )
    replay(blocks)
    assert min(blocks) > 0
