"""Records to Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks.harness.measurement.figures import Throughput
from benchmarks.harness.record import Environment, Gate, Record
from benchmarks.report.labels import (
    backend_title,
    conditions_columns,
    place,
    protocol_or_recipe,
    side_by_side,
    unusual,
    variant_place,
)
from benchmarks.report.markdown_table import Column, escape, filled, table, table_of
from benchmarks.report.statistics import wilson


def conditions(records: Sequence[Record]) -> str:
    """What all records of a run share, in two lines."""
    cell = records[0].cell
    data = cell.data
    ok = sum(record.status == "ok" for record in records)
    lines = [
        f"{ok} of {len(records)} cells ok. Data: {escape(data.name)} ({data.train} training and {data.test}"
        f" test images, classes {escape(', '.join(data.classes))}; sha256 `{data.sha256[:12]}`). Profile:"
        f" {cell.profile}."
    ]
    environment = next((record.environment for record in records if record.environment), None)
    if environment:
        lines.append(
            f"Machine: {escape(environment.cpu)}, {environment.cores} cores,"
            f" {environment.ram_bytes / 2**30:.0f} GiB, {escape(environment.os)};"
            f" {escape(environment.gpu or 'no GPU')}."
        )
    return "\n".join(lines)


def results_table(records: Sequence[Record]) -> str:
    """One row per cell, the variants of a cell beneath each other."""
    columns = (
        BACKEND,
        ARCHITECTURE,
        *conditions_columns(records),
        WEIGHTS,
        Column("seed", lambda record: str(record.cell.seed)),
        ACCURACY,
        *RATES,
        Column("peak memory", _peak_memory, number=True),
        Column("version", lambda record: record.cell.framework_version),
    )
    return table_of(side_by_side(records), columns)


def overview(records: Sequence[Record]) -> str:
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
    return conditions(records) + "\n\n" + table_of(ordered, columns)


def marked(rate: float, timings: Iterable[Throughput]) -> str:
    """A rate in images/s, with what is to be held against the timings it comes from: `~` where steps had not
    become steady, `noisy` where the machine had other work."""
    timings = list(timings)
    unsteady = not all(timing.steady for timing in timings)
    noisy = any(timing.conditions and timing.conditions.noisy for timing in timings)
    return f"{'~' if unsteady else ''}{rate:.1f}{' noisy' if noisy else ''}"


def comparisons(records: Iterable[Record]) -> list[list[Record]]:
    """Matched cells that differ in nothing but their backend, two or more at a time."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        cell = record.cell
        if cell.track == "matched" and record.curve:
            size = record.training.image_size if record.training else None
            key = (cell.recipe, cell.seed, cell.variant, cell.device, cell.precision, size or 0)
            groups.setdefault(key, []).append(record)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def equality(records: Sequence[Record]) -> str:
    """In words: whether the backends started from the same weights and saw the same batches."""
    lines = []
    shared = comparisons(records)
    for group in shared:
        for what, values in (
            ("initial weights", {record.cell.weights.initial_sha256 for record in group}),
            ("batches", {record.batches_sha256 for record in group}),
        ):
            if len(values) > 1:
                names = ", ".join(record.cell.id for record in group)
                lines.append(f"- **not the same {what}**: {names}")
    backends_seen = len({record.cell.backend for group in shared for record in group})
    if shared and not lines:
        return (
            f"Initial weights, and the bytes of every training batch, were the same in all"
            f" {backends_seen} backends (SHA-256; recipes and seeds compared: {len(shared)})."
        )
    return "\n".join(lines) or "One backend only: nothing to compare its weights and batches with."


def first_epochs_table(records: Iterable[Record]) -> str:
    """Mean training loss of the first epoch in each backend, and how far they are apart."""
    shared = comparisons(records)
    names = sorted({record.cell.backend for group in shared for record in group})
    told = unusual(record for group in shared for record in group)
    rows = []
    for group in shared:
        losses = {record.cell.backend: record.curve[0].train_loss for record in group}
        spread = (max(losses.values()) - min(losses.values())) / min(losses.values())
        shown = (f"{losses[name]:.6f}" if name in losses else "" for name in names)
        cell = group[0].cell
        conditions = (getattr(cell, field) for field in told)
        what = protocol_or_recipe(group[0])
        rows.append((cell.architecture, what, *conditions, str(cell.seed), *shown, f"{spread:.0e}"))
    headings = ("architecture", "protocol", *told, "seed", *map(backend_title, names), "relative spread")
    return table(headings, rows, right=range(3 + len(told), len(headings)))


def parity_table(records: Iterable[Record]) -> str:
    """How closely each backend computed what the reference computed, by architecture."""
    gates: dict[tuple[Any, ...], tuple[Record, Gate]] = {}
    for record in records:
        gate, cell = record.gate, record.cell
        if gate is not None:
            network = gate.network or cell.architecture
            variant = variant_place(cell.variant, cell.precision)
            gates[network, cell.backend, variant, cell.device, gate.mode] = (record, gate)
    rows = [gates[key] for key in sorted(gates)]
    told = unusual(record for record, _ in rows)
    precision = "the row's precision" if "precision" in told else "float32"
    columns: list[Column[tuple[Record, Gate]]] = [
        Column("network", lambda row: row[1].network or row[0].cell.architecture),
        Column("backend", lambda row: backend_title(row[0].cell.backend)),
        *(Column(field, partial(_field_of_first, field)) for field in told),
        Column("trained", lambda row: row[1].mode),
        Column(f"logits ({precision})", lambda row: _error(row[1].logit_error), number=True),
        Column(f"first loss ({precision})", lambda row: _error(row[1].first_loss_error), number=True),
        Column("gradients (float64)", lambda row: _error(row[1].gradient_error), number=True),
        Column("after 5 steps (float64)", lambda row: _error(row[1].step_error), number=True),
        Column("gate", lambda row: "passed" if row[1].passed else "failed"),
    ]
    return table_of(rows, columns)


def failures_table(records: Iterable[Record]) -> str:
    """Why cells failed."""
    rows = [
        (record.cell.id, f"{record.error.type}: {record.error.message}")
        for record in records
        if record.error is not None
    ]
    return table(("cell", "reason"), rows)


def environment_table(records: Sequence[Record]) -> str:
    """The packages and effective settings of each backend in each of its variants."""
    found: dict[tuple[str, ...], Record] = {}
    for record in records:
        cell = record.cell
        if record.environment is not None:
            found.setdefault((cell.backend, cell.variant, cell.precision, cell.device), record)
    rows = side_by_side(found.values())
    columns: list[Column[Record]] = [
        BACKEND,
        *conditions_columns(rows),
        Column("Python", lambda record: f"Python {_environment(record).python}"),
        Column("packages", _packages),
        Column("threads", lambda record: str(record.settings.get("threads", ""))),
        Column("compiled", lambda record: str(record.settings.get("compiled", ""))),
        *filled(
            rows,
            [
                Column("tuning", _tuning),
                Column("allocator", lambda record: _environment(record).allocator or ""),
                Column("processors", lambda record: ", ".join(map(str, _environment(record).affinity))),
            ],
        ),
        Column("commit", _commit),
    ]
    return table_of(rows, columns)


# --- How ------------------------------------------------------------------------------------------


def _accuracy(record: Record) -> str:
    if record.accuracy is None or record.memory is None:
        return "failed"
    interval = wilson(sum(record.accuracy.correct), record.accuracy.images)
    return f"{record.accuracy.test:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _train_rate(record: Record) -> str:
    throughput = _throughput(record)
    return marked(throughput.train_images_per_second, [throughput]) if throughput else ""


def _inference_rate(record: Record) -> str:
    throughput = _throughput(record)
    return f"{throughput.inference_images_per_second:.1f}" if throughput else ""


def _epoch_seconds(record: Record) -> str:
    if _throughput(record) is None:
        return ""
    last = [row for row in record.curve if row.phase == record.curve[-1].phase]
    return f"{median(row.train_seconds for row in last[1:] or last):.1f}"


def _peak_memory(record: Record) -> str:
    if record.accuracy is None or record.memory is None:
        return ""
    return f"{record.memory.peak_rss_bytes / 2**30:.2f} GiB"


def _throughput(record: Record) -> Throughput | None:
    """A cell's speed; None where nothing was trained by steps, or the cell failed."""
    return record.throughput if record.accuracy is not None and record.memory is not None else None


def _field_of_first(field: str, row: tuple[Record, Gate]) -> str:
    return str(getattr(row[0].cell, field))


def _environment(record: Record) -> Environment:
    assert record.environment is not None
    return record.environment


def _packages(record: Record) -> str:
    packages = _environment(record).packages
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _tuning(record: Record) -> str:
    """What an expert may switch on, and is on; blank where it is not recorded, or nothing is."""
    return ", ".join(map(str, record.settings.get("tuning") or ()))


def _error(error: float | None) -> str:
    if error is None:
        return "not finite"
    return f"{error:.0e}" if error else "0"


def _commit(record: Record) -> str:
    environment = _environment(record)
    if environment.git_commit is None:
        return "unknown"
    return environment.git_commit[:10] + (" (with changes)" if environment.git_dirty else "")


BACKEND: Column[Record] = Column("backend", lambda record: backend_title(record.cell.backend))
ARCHITECTURE: Column[Record] = Column("architecture", lambda record: record.cell.architecture)
WEIGHTS: Column[Record] = Column("weights", lambda record: record.cell.weights.name)
ACCURACY: Column[Record] = Column("test accuracy [95 %]", _accuracy)
RATES: tuple[Column[Record], ...] = (
    Column("train images/s", _train_rate, number=True),
    Column("inference images/s", _inference_rate, number=True),
    Column("epoch s", _epoch_seconds, number=True),
)
