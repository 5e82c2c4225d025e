"""Cells in other variants, and points of curves."""

from __future__ import annotations

import msgspec

from benchmarks.harness.figures import Conditions, CurvePoint
from benchmarks.harness.record import Record

QUIET = Conditions(seconds=2.5, load_average=0.5, others=0.01, stolen=0.0, throttled=None, megahertz=None)
NOISY = msgspec.structs.replace(QUIET, others=0.9, noisy=("other processes kept 0.90 of 2 cores busy",))


def variant_of(
    record: Record, variant: str = "tuned", precision: str = "float32", *, seed: int = 0, **figures: object
) -> Record:
    """The same cell in another variant, with other figures of its throughput."""
    assert record.throughput is not None
    special = "" if variant == "default" else f"-{variant}"
    special += "" if precision == "float32" else f"-{precision}"
    cell = msgspec.structs.replace(
        record.cell,
        id=f"{record.cell.backend}-{record.cell.recipe}{special}-s{seed}",
        variant=variant,
        precision=precision,
        seed=seed,
    )
    throughput = msgspec.structs.replace(record.throughput, **figures)
    return msgspec.structs.replace(record, cell=cell, throughput=throughput)


def point(batch_size: int, image_size: int, threads: int, rate: float, **fields: object) -> CurvePoint:
    """A point whose inference is four times as quick as its training."""
    usual = {"steady": True, "train_flops": 1e9}
    return CurvePoint(
        batch_size=batch_size, image_size=image_size, threads=threads, train_images_per_second=rate,
        inference_images_per_second=4 * rate, **{**usual, **fields},
    )  # fmt: skip
