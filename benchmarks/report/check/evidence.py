"""What a run's folder holds, as far as it can be read, and which of its cells belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from backends.base import UsageError, one_line
from benchmarks.harness import manifest, record
from benchmarks.harness.manifest import Manifest, ManifestError
from benchmarks.harness.record import Record, RecordError
from benchmarks.harness.run import Plan

SEED = re.compile(r"(?P<group>.+)-s(?P<seed>\d+)")
"""How the id of a cell ends."""


class Unread(msgspec.Struct, frozen=True):
    """A file that is not what its place says, or has what its schema does not know."""

    file: str
    problem: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A run, to be judged."""

    folder: Path
    records: tuple[Record, ...]
    """Those that can be read, in order of file."""
    plan: Plan | None
    """None where there is none, or a damaged one, which is among `unread`."""
    manifest: Manifest | None
    """Likewise."""
    unread: tuple[Unread, ...] = ()

    @property
    def ok(self) -> list[Record]:
        """The cells that did not fail."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def failed(self) -> list[Record]:
        """The others."""
        return [record for record in self.records if record.status != "ok"]

    @property
    def matched(self) -> list[Record]:
        """Cells that did not fail, of the track in which backends are held to be equal."""
        return [record for record in self.ok if record.cell.track == "matched"]


def gather(folder: Path) -> Evidence:
    """Read a run's folder.

    Raises:
        UsageError: it holds no run at all.
    """
    plan_file, record_files = folder / "plan.json", sorted((folder / "records").glob("*.json"))
    if not record_files and not plan_file.exists():
        raise UsageError(
            f"{folder}: neither a plan nor records; give the name of a run, or the folder of one"
        )
    unread: list[Unread] = []
    records = []
    for path in record_files:
        try:
            found = record.read(path)
            unread += [Unread(path.name, problem) for problem in _oddities(path, found)]
            records.append(found)
        except RecordError as error:
            unread.append(Unread(path.name, _without_place(error, path)))
    plan = None
    try:
        plan = msgspec.json.decode(plan_file.read_bytes(), type=Plan)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        unread.append(Unread(plan_file.name, f"{one_line(error)}; take it from where the run was made"))
    images = None
    try:
        images = manifest.read(folder)
    except ManifestError as error:
        unread.append(Unread(manifest.FILE, _without_place(error, folder / manifest.FILE)))
    return Evidence(folder=folder, records=tuple(records), plan=plan, manifest=images, unread=tuple(unread))


# --- Which belong together --------------------------------------------------------------------------


def group_of(cell_id: str) -> str:
    """What all seeds of a cell have in common: its id without the seed."""
    found = SEED.fullmatch(cell_id)
    return found["group"] if found else cell_id


def comparison_of(record: Record) -> str:
    """What a cell has in common with those of other backends that it is compared with, seeds apart: its id
    without backend and seed. In the native track a protocol stands for each backend's own recipe."""
    cell = record.cell
    what = group_of(cell.id).removeprefix(f"{cell.backend}-")
    if cell.recipe == f"native-{cell.architecture}-{cell.protocol}":
        what = what.replace(cell.recipe, f"native-{cell.protocol}", 1)
    return what


Key = TypeVar("Key", bound=Hashable)


def grouped(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Records by what they have in common, in order."""
    groups: dict[Key, list[Record]] = defaultdict(list)
    for one in records:
        groups[key(one)].append(one)
    return groups


def parted(values: Mapping[str, object]) -> str | None:
    """Who has which of several values (`a and b have 1, c has 2`), the most frequent first; None where all
    have the same.

    Args:
        values: name to value.
    """
    holders: dict[bytes, list[str]] = defaultdict(list)
    for name, value in values.items():
        holders[msgspec.json.encode(value)].append(name)
    if len(holders) < 2:
        return None
    return ", ".join(
        f"{_listed(names)} {'has' if len(names) == 1 else 'have'} {_shown(values[names[0]])}"
        for names in sorted(holders.values(), key=len, reverse=True)
    )


# --- How ------------------------------------------------------------------------------------------

MOST_NAMED = 3
"""Cells that a line names before it counts the others."""


def _listed(names: list[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
    return " and ".join(names)


def _shown(value: object) -> str:
    """A value in full; of a hash what tells it from others."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:12]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _without_place(error: Exception, path: Path) -> str:
    """The text of an error that begins with its file, without that."""
    return str(error).removeprefix("record ").removeprefix(f"{path}: ")


def _oddities(path: Path, found: Record) -> Iterable[str]:
    """What reading a record alone does not complain of."""
    unknown = list(_unknown(msgspec.json.decode(path.read_bytes()), msgspec.to_builtins(found)))
    if unknown:
        yield f"no such field: {', '.join(unknown)}; another version wrote it, or a hand: run its cell again"
    if path.stem != found.cell.id:
        yield f"holds the record of {found.cell.id}; a record's file is named after its cell: run both again"


def _unknown(given: Any, known: Any, place: str = "$") -> Iterable[str]:
    """Fields of what was decoded that its structs do not have."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{place}.{key}"
            else:
                yield from _unknown(value, known[key], f"{place}.{key}")
    elif isinstance(given, list) and isinstance(known, list | tuple):
        for index, (value, its) in enumerate(zip(given, known, strict=False)):
            if isinstance(value, dict | list):
                yield from _unknown(value, its, f"{place}[{index}]")
