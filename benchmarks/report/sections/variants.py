"""Cells as rows of the tables of speed: a backend in one of its variants, all seeds together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.harness.figures import Throughput
from benchmarks.harness.record import CellDescription, Record
from benchmarks.report.document import Column
from benchmarks.report.labels import (
    USUAL,
    backend_title,
    data_key,
    data_title,
    in_words,
    is_default,
    place,
    protocol_or_recipe,
    run_of,
    several_data_sets,
    unusual,
    variant_place,
)


class Timed(msgspec.Struct, frozen=True):
    """A cell that was timed."""

    record: Record
    throughput: Throughput


class Variant(msgspec.Struct, frozen=True):
    """Cells that differ in nothing but their seed, and those they are compared with."""

    cells: tuple[Timed, ...]
    default: tuple[Timed, ...]
    """Of the same backend, the variant `default` in float32, by seed; the same cells where this is it."""

    @property
    def cell(self) -> CellDescription:
        """Of the first seed."""
        return self.cells[0].record.cell

    @property
    def image_size(self) -> int:
        """In pixels."""
        return self.cells[0].throughput.image_size

    @property
    def is_default(self) -> bool:
        """Whether this is what others are compared with."""
        return is_default(self.cell)

    @property
    def throughputs(self) -> tuple[Throughput, ...]:
        """One for each seed."""
        return tuple(timed.throughput for timed in self.cells)

    def median(self, figure: Callable[[Throughput], float | None]) -> float | None:
        """The median over seeds of a figure; None where no seed has it."""
        found = [value for value in map(figure, self.throughputs) if value is not None]
        return median(found) if found else None

    def pairs(self) -> list[tuple[Timed, Timed]]:
        """The cells beside the default's of the same seed."""
        defaults = {timed.record.cell.seed: timed for timed in self.default}
        return [
            (timed, defaults[timed.record.cell.seed])
            for timed in self.cells
            if timed.record.cell.seed in defaults
        ]

    def in_words(self) -> str:
        """Its backend and what is special about it."""
        cell = self.cell
        return f"{backend_title(cell.backend)}, {in_words(cell.variant, cell.precision, cell.device)}"


def variants(records: Iterable[Record]) -> list[Variant]:
    """The cells that were timed, a default and what is compared with it beneath each other."""
    groups: dict[tuple[object, ...], dict[tuple[str, str], list[Timed]]] = {}
    for record in records:
        if record.throughput is not None:
            cell = record.cell
            seeds = groups.setdefault(_what(record, record.throughput), {})
            seeds.setdefault((cell.variant, cell.precision), []).append(Timed(record, record.throughput))
    found = []
    for _, group in sorted(groups.items()):
        default = tuple(group.get((USUAL["variant"], USUAL["precision"]), ()))
        for _, cells in sorted(group.items(), key=lambda item: variant_place(*item[0])):
            found.append(Variant(tuple(cells), default))
    return found


def head(rows: Sequence[Variant]) -> list[Column[Variant]]:
    """The columns that tell the rows apart."""
    records = [row.cells[0].record for row in rows]
    several_seeds = any(len(row.cells) > 1 for row in rows)
    return [
        *([Column("run", _run)] if any(map(run_of, records)) else []),
        *([Column("data", _data)] if several_data_sets(records) else []),
        Column("track", lambda row: row.cell.track),
        Column("protocol", lambda row: protocol_or_recipe(row.cells[0].record)),
        Column("backend", lambda row: backend_title(row.cell.backend)),
        Column("architecture", lambda row: row.cell.architecture),
        Column("variant", lambda row: row.cell.variant),
        Column("precision", lambda row: row.cell.precision),
        *([Column("device", _device)] if "device" in unusual(records) else []),
        Column("image px", lambda row: str(row.image_size), number=True),
        *([Column("seeds", _seeds, number=True)] if several_seeds else []),
    ]


def _run(row: Variant) -> str:
    return run_of(row.cells[0].record)


def _data(row: Variant) -> str:
    return data_title(row.cells[0].record)


def _device(row: Variant) -> str:
    return row.cell.device


def _seeds(row: Variant) -> str:
    return str(len(row.cells))


def _what(record: Record, throughput: Throughput) -> tuple[object, ...]:
    """What cells share whose speeds are compared; in the order in which they stand."""
    cell = record.cell
    return (
        run_of(record),
        cell.track,
        cell.architecture if cell.track == "matched" else "",
        place(cell.protocol),
        cell.recipe,
        throughput.image_size,
        cell.device,
        (cell.data.name, *data_key(record)),
        cell.backend,
        cell.architecture,
        cell.weights.name,
    )
