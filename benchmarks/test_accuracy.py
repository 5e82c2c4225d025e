"""Every cell is run, and its epochs stand in the table beside the accuracy they led to."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.conftest import REPLAY, Replayed
from benchmarks.harness.plan import Cell
from benchmarks.harness.record import Record


@pytest.mark.benchmark(timer=REPLAY)
def test_accuracy(cell: Cell, record: Record, replay: Replayed, benchmark: Any) -> None:
    if record.error is not None:
        pytest.fail(f"{record.error.type}: {record.error.message}", pytrace=False)
    assert record.accuracy is not None
    benchmark.group = f"seconds per epoch: {cell.recipe.protocol}"
    benchmark.extra_info.update(
        cell=record.cell.id,
        test_accuracy=record.accuracy.test,
        images=record.accuracy.images,
        epochs=len(record.curve),
    )
    assert record.accuracy.images == record.cell.data.test
    if cell.recipe.classifier is not None:
        assert record.fit_seconds is not None
        replay([record.fit_seconds])
        return
    assert record.training is not None
    replay(row.train_seconds for row in record.curve)
    epochs = sum(phase.epochs for phase in record.training.phases)
    stops_early = cell.recipe.validation is not None and cell.recipe.validation.patience is not None
    assert len(record.curve) == epochs or (stops_early and len(record.curve) < epochs)
