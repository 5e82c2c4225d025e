"""At a glance: what each backend reached with each protocol, its seeds and its variants in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Column, Table, filled, table_of
from benchmarks.report.groups import Group, groups
from benchmarks.report.labels import USUAL, is_scored, run_of
from benchmarks.report.training_time import training_seconds
from benchmarks.report.verdicts import speed
from benchmarks.report.verdicts.accuracy import accuracy_heading, accuracy_text
from benchmarks.report.verdicts.comparisons import in_full, network_of


class Row(msgspec.Struct, frozen=True):
    """The groups that differ in nothing but the variant."""

    variants: Mapping[str, Group]
    """By name, the usual one first where there is one."""

    @property
    def first(self) -> Group:
        """Whose accuracy is told: verdicts on the others' stand elsewhere."""
        return next(iter(self.variants.values()))


def blocks(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table with a row for each protocol and backend, or none. Seconds are the median seed's, evaluation
    left out; rates those of whole epochs, as `speed.rate_text` has them."""
    rows = _rows(groups(records))
    if not rows:
        return ()
    variants = list(dict.fromkeys(name for row in rows for name in row.variants))
    told = ["" if variants == [USUAL["variant"]] else f", {name}" for name in variants]
    figures: list[Column[Row]] = [
        *(
            Column(f"s of training{title}", partial(_seconds, name), number=True)
            for name, title in zip(variants, told, strict=True)
        ),
        *(
            Column(f"images/s in whole epochs{title}", partial(_rate, name), number=True)
            for name, title in zip(variants, told, strict=True)
        ),
    ]
    columns: list[Column[Row]] = [
        *_telling(
            rows,
            [
                Column("run", lambda row: run_of(row.first.records[0])),
                Column("track", lambda row: row.first.cell.track),
                Column("data", lambda row: row.first.cell.data.name),
                Column("sample", lambda row: "resampled" if row.first.cell.resampled else ""),
                Column("device", lambda row: row.first.cell.device),
                Column("network", lambda row: network_of(row.first)),
            ],
        ),
        Column("protocol", lambda row: row.first.protocol),
        Column("backend", lambda row: row.first.backend),
        Column("seeds", lambda row: str(len(row.first.seeds)), number=True),
        *filled(rows, [Column(accuracy_heading(row.first for row in rows), _accuracy), *figures]),
    ]
    return (table_of("At a glance", rows, columns),)


# --- How ------------------------------------------------------------------------------------------


def _rows(members: Sequence[Group]) -> list[Row]:
    found: dict[tuple[object, ...], dict[str, Group]] = {}
    for group in members:
        cell = group.cell
        key = (
            cell.track, cell.recipe, cell.architecture, group.image_size, cell.backend, cell.data.sha256,
            cell.profile, cell.weights.name, cell.resampled, cell.device, run_of(group.records[0]),
        )  # fmt: skip
        found.setdefault(key, {})[in_full(group)] = group
    return [Row(variants) for variants in found.values()]


def _telling(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> list[Column[Row]]:
    """The columns that tell rows apart."""
    return [column for column in columns if len({column.text(row) for row in rows}) > 1]


def _accuracy(row: Row) -> str:
    return accuracy_text(row.first) if is_scored(row.first.cell) else ""


def _seconds(variant: str, row: Row) -> str:
    """Blank for trainings that are cut short on purpose."""
    group = row.variants.get(variant)
    if group is None or not group.timed or not is_scored(group.cell):
        return ""
    return f"{median(map(training_seconds, group.records)):.0f}"


def _rate(variant: str, row: Row) -> str:
    group = row.variants.get(variant)
    return speed.rate_text(
        [one.throughput for one in group.records if one.throughput is not None] if group else [], speed.EPOCHS
    )
