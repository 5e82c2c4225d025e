"""The timed figures of every cell that ran: training steps, inference, latency, the parts of an epoch; and,
with `--curves`, images/s against batch size, image size and threads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backends.base import STAGES
from benchmarks.conftest import REPLAY, Replayed
from benchmarks.harness.figures import Throughput
from benchmarks.harness.plan import Cell
from benchmarks.harness.record import Curves, Record

PARTS = ("decode", "augment", *STAGES, "beside")


@pytest.fixture
def throughput(cell: Cell, record: Record, benchmark: Any) -> Throughput:
    """The cell's figures, and in the table what they were taken under."""
    if record.throughput is None:
        pytest.skip("the cell failed, or is not timed; test_accuracy says why")
    found = record.throughput
    benchmark.extra_info.update(
        cell=record.cell.id,
        variant=cell.variant,
        precision=cell.precision,
        batch_size=found.batch_size,
        image_size=found.image_size,
        noisy=list(found.conditions.noisy) if found.conditions else [],
    )
    return found


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("work", ["train", "inference"])
def test_throughput(work: str, cell: Cell, throughput: Throughput, replay: Replayed, benchmark: Any) -> None:
    seconds, counted = (
        (throughput.step_seconds, throughput.counted)
        if work == "train"
        else (throughput.inference_seconds, throughput.inference_counted)
    )
    benchmark.group = f"{work}, one batch: {cell.recipe.protocol}"
    benchmark.extra_info.update(
        images_per_second=getattr(throughput, f"{work}_images_per_second"),
        steady=throughput.steady,
        steady_by=throughput.steady_by,
        steps_per_block=throughput.steps_per_block,
        blocks=list(seconds),
        peak_flops=throughput.gemm_peak_flops,
        utilization=throughput.utilization if work == "train" else None,
        compile_seconds=throughput.compile_seconds,
    )
    assert counted is not None and 0 < counted < len(seconds)
    replay(seconds[-counted:])
    assert min(seconds) > 0


@pytest.mark.benchmark(timer=REPLAY)
def test_latency(cell: Cell, throughput: Throughput, replay: Replayed, benchmark: Any) -> None:
    latency = throughput.latency
    assert latency is not None
    benchmark.group = f"latency, one image: {cell.recipe.architecture}"
    benchmark.extra_info.update(
        p50=latency.p50,
        p95=latency.p95,
        p99=latency.p99,
        by_batch={rate.batch_size: rate.images_per_second for rate in throughput.inference_by_batch},
    )
    replay(latency.seconds)
    assert 0 < latency.p50 <= latency.p95 <= latency.p99


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("part", PARTS)
def test_parts(part: str, cell: Cell, throughput: Throughput, replay: Replayed, benchmark: Any) -> None:
    seconds = getattr(throughput.parts, part)
    if seconds is None:
        pytest.skip("stored features are neither decoded nor augmented")
    benchmark.group = f"parts of an epoch, one image: {cell.id}"
    benchmark.extra_info.update(
        wait=throughput.parts.wait, epoch=throughput.parts.epoch, explained=throughput.parts.explained
    )
    replay([seconds])
    assert seconds >= 0


@pytest.mark.benchmark(timer=REPLAY)
def test_curves(curve: Curves, replay: Replayed, benchmark: Any) -> None:
    benchmark.group = f"curves: {curve.architecture}"
    benchmark.extra_info.update(msgspec.to_builtins(curve))
    replay(1 / point.train_images_per_second for point in curve.points)
    assert curve.points
