"""Cells that differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import msgspec
import numpy as np

from benchmarks.harness.record import CellDescription, Record
from benchmarks.report.labels import (
    backend_title,
    in_words,
    place,
    protocol_or_recipe,
    unusual,
    variant_place,
)
from benchmarks.report.training_time import is_told

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class Group(msgspec.Struct, frozen=True):
    """The cells of one backend, recipe and set of conditions, by seed."""

    records: tuple[Record, ...]
    """Those that ended well and have every test image scored, by rising seed; never empty."""
    failed: tuple[Record, ...] = ()
    """The others."""

    @property
    def cell(self) -> CellDescription:
        """Of the first seed."""
        return self.records[0].cell

    @property
    def seeds(self) -> tuple[int, ...]:
        """By rising seed."""
        return tuple(record.cell.seed for record in self.records)

    @property
    def image_size(self) -> int | None:
        """In pixels."""
        return _image_size(self.records[0])

    @property
    def protocol(self) -> str:
        """What was trained: the protocol, or the recipe where it is a special one."""
        return protocol_or_recipe(self.records[0])

    @property
    def backend(self) -> str:
        """The framework, as tables call it."""
        return backend_title(self.cell.backend)

    @property
    def variant(self) -> str:
        """In a few words; empty for the usual one."""
        cell = self.cell
        return in_words(cell.variant, cell.precision, cell.device) if unusual(self.records) else ""

    @property
    def timed(self) -> bool:
        """Whether seconds of training are told of it."""
        return any(map(is_told, self.records))

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 on the test images, of each seed."""
        return tuple(record.accuracy.test for record in self.records if record.accuracy)

    def correct(self, seeds: Iterable[int]) -> np.ndarray:
        """(S, N) of 0 and 1: each seed's predictions on the test images, in file order."""
        by_seed = {record.cell.seed: record.accuracy for record in self.records}
        rows = [by_seed[seed] for seed in seeds]
        return np.array([row.correct for row in rows if row is not None], np.int8)


def groups(records: Iterable[Record]) -> list[Group]:
    """Records by group, in the order in which tables show them. Cells of which no seed ended well have no
    group."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(_key(record), []).append(record)
    made = []
    for _, members in sorted(found.items(), key=lambda item: _place(item[1][0])):
        ordered = sorted(members, key=lambda record: record.cell.seed)
        ended = tuple(record for record in ordered if _ended_well(record))
        if ended:
            made.append(Group(ended, tuple(record for record in ordered if not _ended_well(record))))
    return made


def without_seed(cell: CellDescription) -> str:
    """What all seeds of a cell have in common: its id without the seed. A failed cell may have no more."""
    return cell.id.removesuffix(f"-s{cell.seed}")


def by(items: Iterable[Item], key: Callable[[Item], Key]) -> list[tuple[Key, list[Item]]]:
    """Items by key, in the order in which keys first come."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())


# --- How ------------------------------------------------------------------------------------------


def _ended_well(record: Record) -> bool:
    accuracy = record.accuracy
    return record.status == "ok" and accuracy is not None and len(accuracy.correct) == record.cell.data.test


def _image_size(record: Record) -> int | None:
    return record.training.image_size if record.training else None


def _key(record: Record) -> tuple[object, ...]:
    cell = record.cell
    return without_seed(cell), cell.profile, cell.data.sha256, cell.weights.name


def _place(record: Record) -> tuple[object, ...]:
    cell = record.cell
    return (
        cell.track,
        cell.architecture if cell.track == "matched" else "",
        place(cell.protocol),
        cell.recipe,
        _image_size(record) or 0,
        variant_place(cell.variant, cell.precision),
        cell.device,
        cell.backend,
    )
