"""Whether matched cells began from the same place, and compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.harness.record import Gate, Record
from benchmarks.report.check.fairness import other_batches
from benchmarks.report.document import Block, Column, Section, Table, filled, table_of
from benchmarks.report.labels import (
    backend_title,
    data_key,
    protocol_or_recipe,
    run_of,
    unusual,
    variant_place,
)
from benchmarks.report.markdown_table import escape


def section(records: Sequence[Record]) -> Section:
    """Of one track's cells; empty where nothing was compared."""
    blocks: list[Block] = []
    if any(record.gate for record in records):
        blocks += [equality(records), parity_table(records)]
    if comparisons(records):
        blocks += ["Mean training loss of the first epoch:", first_epochs_table(records)]
    return Section("Equality", tuple(blocks))


def comparisons(records: Iterable[Record]) -> list[list[Record]]:
    """Matched cells that differ in nothing but their backend, two or more at a time."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        cell = record.cell
        if cell.track == "matched" and record.curve:
            size = record.training.image_size if record.training else None
            conditions = (cell.variant, cell.device, cell.precision, size or 0)
            data = (*data_key(record), cell.weights.name)
            groups.setdefault((run_of(record), cell.recipe, cell.seed, *conditions, *data), []).append(record)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def equality(records: Sequence[Record]) -> str:
    """In words: whether the backends started from the same weights and saw the same batches."""
    lines = []
    shared = comparisons(records)
    for group in shared:
        for what, differ in (
            ("initial weights", len({record.cell.weights.initial_sha256 for record in group}) > 1),
            ("batches", other_batches(group) is not None),
        ):
            if differ:
                names = ", ".join(record.cell.id for record in group)
                lines.append(f"- **not the same {what}**: {escape(names)}")
    backends_seen = len({record.cell.backend for group in shared for record in group})
    if shared and not lines:
        return (
            f"Initial weights, and the bytes of every training batch, were the same in all"
            f" {backends_seen} backends (SHA-256; recipes and seeds compared: {len(shared)})."
        )
    return "\n".join(lines) or "One backend only: nothing to compare its weights and batches with."


def first_epochs_table(records: Iterable[Record]) -> Table:
    """Mean training loss of the first epoch in each backend, and how far they are apart."""
    shared = comparisons(records)
    names = sorted({record.cell.backend for group in shared for record in group})
    told = unusual(record for group in shared for record in group)
    columns: list[Column[list[Record]]] = [
        *filled(shared, [Column("run", lambda group: run_of(group[0]))]),
        Column("architecture", lambda group: group[0].cell.architecture),
        Column("protocol", lambda group: protocol_or_recipe(group[0])),
        *(Column(field, partial(_field, field)) for field in told),
        Column("seed", lambda group: str(group[0].cell.seed), order=lambda group: group[0].cell.seed),
        *(
            Column(backend_title(name), partial(_loss, name), number=True, record=partial(_record_of, name))
            for name in names
        ),
        Column("relative spread", _spread, number=True),
    ]
    return table_of("Mean training loss of the first epoch", shared, columns)


def parity_table(records: Iterable[Record]) -> Table:
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
        Column(
            "gate", lambda row: "passed" if row[1].passed else "failed", record=lambda row: row[0].cell.id
        ),
    ]
    return table_of("How closely each backend computed what the reference computed", rows, columns)


# --- How ------------------------------------------------------------------------------------------


def _losses(group: Sequence[Record]) -> dict[str, float]:
    return {record.cell.backend: record.curve[0].train_loss for record in group}


def _loss(backend: str, group: Sequence[Record]) -> str:
    losses = _losses(group)
    return f"{losses[backend]:.6f}" if backend in losses else ""


def _spread(group: Sequence[Record]) -> str:
    losses = _losses(group).values()
    return f"{(max(losses) - min(losses)) / min(losses):.0e}"


def _record_of(backend: str, group: Sequence[Record]) -> str | None:
    return next((record.cell.id for record in group if record.cell.backend == backend), None)


def _field(field: str, group: Sequence[Record]) -> str:
    return str(getattr(group[0].cell, field))


def _field_of_first(field: str, row: tuple[Record, Gate]) -> str:
    return str(getattr(row[0].cell, field))


def _error(error: float | None) -> str:
    if error is None:
        return "not finite"
    return f"{error:.0e}" if error else "0"
