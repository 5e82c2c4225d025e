"""Inference with the fine-tuned model: how long one image takes, and how many there are in a second by batch
size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from benchmarks.harness.figures import Throughput
from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, Table, table_of
from benchmarks.report.sections.variants import Variant, head, variants

READING = """\
- **Latency** is the time from one image in host memory to its logits there, each image waited for before the
  next: of half of the images it was at most **p50**, of 95 and 99 in a hundred at most **p95** and **p99**.
- **Inference by batch size** is the images/s of steady repetitions at that size; "~" as above."""


def blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """Both tables; none where neither was measured."""
    rows = variants(records)
    single = [row for row in rows if _latency("p50")(row)]
    batched = [row for row in rows if any(throughput.inference_by_batch for throughput in row.throughputs)]
    parts: list[Block] = []
    if single:
        parts += ["Batch of one image, in milliseconds:", latency_table(single)]
    if batched:
        parts += ["Inference images/s by batch size:", by_batch_table(batched)]
    return tuple(parts)


def latency_table(rows: Sequence[Variant]) -> Table:
    """Percentiles of one image's way through the network, in milliseconds."""
    columns: list[Column[Variant]] = [
        Column(name, _latency(name), number=True) for name in ("p50", "p95", "p99")
    ]
    return table_of("Latency of one image, in milliseconds", rows, [*head(rows), *columns])


def by_batch_table(rows: Sequence[Variant]) -> Table:
    """Images/s, a column for each batch size."""
    sizes = sorted(
        {
            rate.batch_size
            for row in rows
            for throughput in row.throughputs
            for rate in throughput.inference_by_batch
        }
    )
    columns: list[Column[Variant]] = [
        Column(f"batch {size}" if size == sizes[0] else str(size), partial(_rate, size), number=True)
        for size in sizes
    ]
    return table_of("Inference images/s by batch size", rows, [*head(rows), *columns])


def _latency(name: str) -> Callable[[Variant], str]:
    def percentile(throughput: Throughput) -> float | None:
        return getattr(throughput.latency, name) if throughput.latency else None

    def text(row: Variant) -> str:
        seconds = row.median(percentile)
        return "" if seconds is None else f"{1000 * seconds:.2f}"

    return text


def _rate(batch_size: int, row: Variant) -> str:
    found = [
        rate
        for throughput in row.throughputs
        for rate in throughput.inference_by_batch
        if rate.batch_size == batch_size
    ]
    if not found:
        return ""
    unsteady = not all(rate.steady for rate in found)
    return f"{'~' if unsteady else ''}{median(rate.images_per_second for rate in found):.1f}"
