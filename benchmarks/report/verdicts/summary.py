"""Accuracies of many runs in one table: a row for each network and protocol, a column for each backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Column, Table, table_of
from benchmarks.report.groups import Group, by, groups
from benchmarks.report.labels import is_default, place
from benchmarks.report.verdicts import accuracy
from benchmarks.report.verdicts.comparisons import divisions, network_of
from benchmarks.report.verdicts.headlines import between_backends
from benchmarks.report.verdicts.words import Choices


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the backends of a run reached with one protocol, each as it comes."""

    run: str
    groups: tuple[Group, ...]
    compared: tuple[accuracy.Compared, ...]


def table(runs: Iterable[tuple[str, Sequence[Record]]], choices: Choices) -> Table:
    """Of runs, by name; a name is linked as the id of a record is. The tests of a run are corrected for one
    another, those of different runs are not."""
    rows = sorted((row for name, records in runs for row in _rows(name, records, choices)), key=_place)
    backends = sorted({group.backend for row in rows for group in row.groups})
    columns: list[Column[Row]] = [
        Column("track", lambda row: row.groups[0].cell.track),
        Column("network", _networks),
        Column("protocol", lambda row: row.groups[0].protocol),
        Column("seeds", _seeds, number=True),
        *(Column(name, partial(_accuracy, name)) for name in backends),
        Column("the frameworks against each other", _verdict),
        Column("run", lambda row: row.run, record=lambda row: row.run),
    ]
    return table_of("Test accuracy [95 % over seeds] of all runs", rows, columns)


# --- How ------------------------------------------------------------------------------------------


def _rows(run: str, records: Sequence[Record], choices: Choices) -> list[Row]:
    usual = [group for group in groups(records) if is_default(group.cell)]
    compared = [
        row
        for division in divisions("backends", usual)
        for row in accuracy.compare("backends", division.groups, choices.margin)
    ]
    return [
        Row(
            run=run,
            groups=tuple(members),
            compared=tuple(row for row in compared if row.pair.first in members),
        )
        for _, members in by(usual, _scene)
    ]


def _scene(group: Group) -> tuple[object, ...]:
    """Native networks are each backend's own: there the protocol is what they share."""
    cell = group.cell
    matched = cell.track == "matched"
    return cell.track, cell.data.sha256, group.image_size, cell.recipe if matched else cell.protocol


def _place(row: Row) -> tuple[object, ...]:
    cell = row.groups[0].cell
    return cell.track, _networks(row), place(cell.protocol), row.run


def _networks(row: Row) -> str:
    return ", ".join(dict.fromkeys(map(network_of, row.groups)))


def _seeds(row: Row) -> str:
    found = sorted({len(group.seeds) for group in row.groups})
    return " to ".join(dict.fromkeys((str(found[0]), str(found[-1]))))


def _accuracy(backend: str, row: Row) -> str:
    return "; ".join(accuracy.accuracy_text(group) for group in row.groups if group.backend == backend)


def _verdict(row: Row) -> str:
    return between_backends(row.compared) if row.compared else ""
