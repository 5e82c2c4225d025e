"""What came of each cell, and what all cells of a run share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median

from benchmarks.harness.figures import Throughput
from benchmarks.harness.record import Record
from benchmarks.report.document import Column, Section, Table, table_of
from benchmarks.report.labels import (
    backend_title,
    canonical,
    conditions_columns,
    place,
    protocol_or_recipe,
    side_by_side,
    summary,
    variant_place,
)
from benchmarks.report.markdown_table import escape
from benchmarks.report.statistics import wilson
from benchmarks.report.verdicts import speed
from benchmarks.report.verdicts.words import count_of


def conditions(records: Sequence[Record]) -> str:
    """What all records share, in two lines; where they do not, a line for each data set and machine."""
    ok = sum(record.status == "ok" for record in records)
    told = f"{ok} of {len(records)} cells ok."
    lines = []
    for cell in _distinct(records, lambda record: (record.cell.data.sha256, record.cell.profile)):
        data = cell.cell.data
        lines.append(
            f"Data: {escape(data.name)} ({data.train} training and {data.test}"
            f" test images, classes {escape(', '.join(data.classes))}; sha256 `{escape(data.sha256[:12])}`)."
            f" Profile: {escape(cell.cell.profile)}."
        )
    for machine in _distinct(records, _machine):
        if machine.environment is not None:
            lines.append(_machine(machine))
    return "\n".join((f"{told} {lines[0]}", *lines[1:])) if len(lines) <= 2 else _list(told, lines)


def results_table(records: Sequence[Record]) -> Table:
    """One row per cell, the variants of a cell beneath each other."""
    columns = (
        BACKEND,
        ARCHITECTURE,
        *conditions_columns(records),
        WEIGHTS,
        Column("seed", lambda record: str(record.cell.seed), order=lambda record: record.cell.seed),
        ACCURACY,
        *RATES,
        Column("peak memory", _peak_memory, number=True),
        Column("version", lambda record: record.cell.framework_version),
    )
    names = ", ".join(dict.fromkeys(protocol_or_recipe(record) for record in records))
    return table_of(f"Accuracy, speed and memory of each cell: {names}", side_by_side(records), columns)


def overview(records: Sequence[Record]) -> tuple[str, Table]:
    """All cells in one table, by protocol, under a line that says on what they ran."""
    ordered = sorted(
        records,
        key=lambda record: (
            record.cell.track,
            record.cell.architecture if record.cell.track == "matched" else "",
            place(record.cell.protocol),
            record.cell.backend,
            variant_place(record.cell.variant, record.cell.precision),
            record.cell.seed,
        ),
    )
    columns = (
        Column("track", lambda record: record.cell.track),
        Column("protocol", protocol_or_recipe),
        BACKEND,
        ARCHITECTURE,
        *conditions_columns(records),
        WEIGHTS,
        ACCURACY,
        *RATES,
    )
    return conditions(records), table_of("Accuracy and speed of each cell", ordered, columns)


def by_protocol(records: Sequence[Record]) -> list[Section]:
    """A table for each protocol, and for each recipe that is a special one."""
    sections = []
    for protocol in sorted({record.cell.protocol for record in records}, key=place):
        chosen = [record for record in records if record.cell.protocol == protocol]
        usual = [record for record in chosen if canonical(record)]
        special = [record for record in chosen if not canonical(record)]
        if usual:
            sections.append(Section(protocol, (summary(usual), results_table(usual))))
        for recipe in sorted({record.cell.recipe for record in special}):
            of_recipe = [record for record in special if record.cell.recipe == recipe]
            sections.append(Section(f"{recipe} ({protocol})", (summary(of_recipe), results_table(of_recipe))))
    return sections


def failures_table(records: Iterable[Record]) -> Table:
    """Why cells failed."""
    columns = (
        Column[Record]("cell", lambda record: record.cell.id, record=lambda record: record.cell.id),
        Column[Record]("reason", reason),
    )
    return table_of("Why cells failed", [record for record in records if record.error], columns)


def reason(record: Record) -> str:
    """Of a cell that failed."""
    return f"{record.error.type}: {record.error.message}" if record.error else ""


def accuracy_text(record: Record) -> str:
    """Test accuracy with Wilson's interval."""
    if record.accuracy is None:
        return "failed"
    interval = wilson(sum(record.accuracy.correct), record.accuracy.images)
    return f"{record.accuracy.test:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def accuracy_order(record: Record) -> float:
    """By which accuracies are sorted: a cell that failed stands below all others."""
    return record.accuracy.test if record.accuracy else -1.0


# --- How ------------------------------------------------------------------------------------------


def _distinct(records: Iterable[Record], key: Callable[[Record], object]) -> list[Record]:
    """One of each kind, in order."""
    found: dict[object, Record] = {}
    for record in records:
        found.setdefault(key(record), record)
    return list(found.values())


def _machine(record: Record) -> str:
    environment = record.environment
    if environment is None:
        return ""
    return (
        f"Machine: {escape(environment.cpu)}, {count_of(environment.cores, 'core')},"
        f" {environment.ram_bytes / 2**30:.0f} GiB, {escape(environment.os)};"
        f" {escape(environment.gpu or 'no GPU')}."
    )


def _list(first: str, lines: Sequence[str]) -> str:
    return "\n".join((first, "", *(f"- {line}" for line in lines)))


def _accuracy(record: Record) -> str:
    return "failed" if record.status != "ok" else accuracy_text(record)


def _rate(metric: speed.Metric, record: Record) -> str:
    throughput = _throughput(record)
    return speed.rate_text([throughput], metric) if throughput else ""


def _epoch_seconds(record: Record) -> str:
    if _throughput(record) is None:
        return ""
    last = [row for row in record.curve if row.phase == record.curve[-1].phase]
    return f"{median(row.train_seconds for row in last[1:] or last):.1f}"


def _peak_memory(record: Record) -> str:
    if record.status != "ok" or record.memory is None:
        return ""
    return f"{record.memory.peak_rss_bytes / 2**30:.2f} GiB"


def _throughput(record: Record) -> Throughput | None:
    """A cell's speed; None where nothing was trained by steps, or the cell failed."""
    return record.throughput if record.status == "ok" else None


BACKEND: Column[Record] = Column("backend", lambda record: backend_title(record.cell.backend))
ARCHITECTURE: Column[Record] = Column("architecture", lambda record: record.cell.architecture)
WEIGHTS: Column[Record] = Column("weights", lambda record: record.cell.weights.name)
ACCURACY: Column[Record] = Column(
    "test accuracy [95 %]", _accuracy, order=accuracy_order, record=lambda record: record.cell.id
)
RATES: tuple[Column[Record], ...] = (
    Column("train images/s", partial(_rate, speed.TRAINING), number=True),
    Column("inference images/s", partial(_rate, speed.INFERENCE), number=True),
    Column("epoch s", _epoch_seconds, number=True),
)
