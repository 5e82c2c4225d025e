"""Every cell is run, and its epochs stand in the table beside the accuracy they led to."""

from __future__ import annotations

import pytest

from benchmarks.conftest import REPLAY


@pytest.mark.benchmark(timer=REPLAY)
def test_accuracy(cell, record, replay, benchmark):
    if record.error is not None:
        pytest.fail(f"{record.error.type}: {record.error.message}", pytrace=False)
    benchmark.group = f"seconds per epoch: {cell.recipe.protocol}"
    benchmark.extra_info.update(
        cell=record.cell.id,
        test_accuracy=record.accuracy.test,
        images=record.accuracy.images,
        epochs=len(record.curve),
    )
    replay(row.train_seconds for row in record.curve)
    assert record.accuracy.images == record.cell.data.test
    assert len(record.curve) == cell.recipe.epochs
