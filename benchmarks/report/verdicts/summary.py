"""Accuracies of many runs in one table: a row for each network and protocol, a column for each backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, table_of
from benchmarks.report.groups import Group, groups
from benchmarks.report.labels import is_default, place, scored
from benchmarks.report.verdicts import accuracy
from benchmarks.report.verdicts.comparisons import Scene, divisions, gathered, network_of
from benchmarks.report.verdicts.headlines import between_backends
from benchmarks.report.verdicts.words import Choices


class Row(msgspec.Struct, frozen=True):
    """What the backends of a run reached with one protocol, each as it comes."""

    run: str
    scene: Scene
    compared: tuple[accuracy.Compared, ...]

    @property
    def first(self) -> Group:
        """Whose track and protocol are those of all."""
        return self.scene.groups[0]


def blocks(runs: Iterable[tuple[str, Sequence[Record]]], choices: Choices) -> tuple[Block, ...]:
    """Of runs, by name; a name is linked as the id of a record is. The tests of a run are corrected for one
    another, those of different runs are not."""
    rows = sorted((row for name, records in runs for row in _rows(name, records, choices)), key=_place)
    if not rows:
        return ()
    members = [group for row in rows for group in row.scene.groups]
    columns: list[Column[Row]] = [
        Column("track", lambda row: row.first.cell.track),
        Column("network", _networks),
        Column("protocol", lambda row: row.first.protocol),
        Column("seeds", _seeds, number=True),
        *(Column(name, partial(_accuracy, name)) for name in sorted({group.backend for group in members})),
        Column("the frameworks against each other", lambda row: between_backends(row.compared)),
        Column("run", lambda row: row.run, record=lambda row: row.run),
    ]
    name = f"{accuracy.accuracy_heading(members).capitalize()} of each framework as it comes"
    return f"{name}. Speeds stand with the runs that were timed.", table_of(name, rows, columns)


# --- How ------------------------------------------------------------------------------------------


def _rows(run: str, records: Sequence[Record], choices: Choices) -> Iterator[Row]:
    usual = [group for group in groups(scored(records)) if is_default(group.cell)]
    for division in divisions("backends", usual):
        found = gathered("backends", division.groups)
        compared = accuracy.tested((pair for scene in found for pair in scene.pairs), choices.margin)
        for scene in found:
            yield Row(run, scene, tuple(row for row in compared if row.pair.scene is scene))


def _place(row: Row) -> tuple[object, ...]:
    return row.first.cell.track, _networks(row), place(row.first.cell.protocol), row.run


def _networks(row: Row) -> str:
    return ", ".join(dict.fromkeys(map(network_of, row.scene.groups)))


def _seeds(row: Row) -> str:
    found = sorted({len(group.seeds) for group in row.scene.groups})
    return " to ".join(dict.fromkeys((str(found[0]), str(found[-1]))))


def _accuracy(backend: str, row: Row) -> str:
    return "".join(accuracy.accuracy_text(group) for group in row.scene.groups if group.backend == backend)
