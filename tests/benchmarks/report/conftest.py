"""Cells in several variants, and curves."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from benchmarks.harness.figures import Attempt
from benchmarks.harness.record import Curves, Record
from tests.benchmarks.report.samples import NOISY, point, variant_of


@pytest.fixture
def three_variants(measured_record) -> list[Record]:
    """The default; tuned in bfloat16, and disturbed; tuned, quicker, and longer in compiling."""
    attempt = Attempt(train_images_per_second=150.0, conditions=NOISY)
    return [
        measured_record,
        variant_of(
            measured_record, "tuned", "bfloat16", train_images_per_second=256.0, steady=False,
            end_to_end_images_per_second=80.0, conditions=NOISY, disturbed=(attempt, attempt),
        ),
        variant_of(
            measured_record, train_images_per_second=160.0, end_to_end_images_per_second=125.0,
            compile_seconds=2.65,
        ),
    ]  # fmt: skip


@pytest.fixture
def curves(ok_record) -> Callable[..., Curves]:
    """Makes curves of a backend: batches of 1, 16 and 64 at 48 px, 16 at 96 px, and 16 on one thread."""

    def make(backend: str = "pytorch", **fields: object) -> Curves:
        usual = {
            "backend": backend, "framework_version": "2.9.0", "track": "matched", "architecture": "resnet18",
            "variant": "default", "precision": "float32", "device": "cpu", "first_trained": "all",
            "points": (
                point(64, 48, 2, 320.0), point(1, 48, 2, 100.0), point(16, 48, 2, 300.0),
                point(16, 96, 2, 80.0), point(16, 48, 1, 160.0),
            ),
            "environment": ok_record.environment, "started": "2026-01-01T00:00:00+00:00", "seconds": 60.0,
        }  # fmt: skip
        return Curves(**{**usual, **fields})

    return make


@pytest.fixture
def a_run(ok_record, failed_record, three_variants, curves) -> tuple[list[Record], list[Curves]]:
    """Records and curves with some of everything."""
    first = three_variants[0]
    cell = msgspec.structs.replace(first.cell, id=f"keras-{first.cell.recipe}-s0", backend="keras")
    other = msgspec.structs.replace(first, cell=cell)
    again = variant_of(first, "default", seed=1, train_images_per_second=120.0)
    return [ok_record, failed_record, *three_variants, again, other], [
        curves(),
        curves("gluon", left_out=("batch 64, 96 px, 2 threads: a step takes 12 s",)),
    ]
