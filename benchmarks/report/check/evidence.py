"""What a run's folder holds, as far as it can be read, and which of its cells belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from backends.base import UsageError, one_line
from benchmarks.harness.images import manifest
from benchmarks.harness.images.manifest import Manifest
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import Recipe, all_recipes, recipes_by_id
from benchmarks.harness.record import Record
from benchmarks.harness.running.run import Plan
from benchmarks.report.verdicts.words import first_few

SEED = re.compile(r"(?P<group>.+)-s(?P<seed>\d+)")
"""How the id of a cell ends."""
SIZE = re.compile(r"-(?P<size>\d+)px(?=-)")
"""Where the id of a cell says how many pixels its images have."""


class Unread(msgspec.Struct, frozen=True):
    """A file that is not what its place says, or has what its schema does not know."""

    file: str
    problem: str
    remedy: str
    """What to do."""


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
    plan_file, images_file = folder / "plan.json", folder / manifest.FILE
    record_files = sorted((folder / "records").glob("*.json"))
    if not record_files and not plan_file.exists():
        raise UsageError(
            f"{folder}: neither a plan nor records; give the name of a run, or the folder of one"
        )
    unread: list[Unread] = []
    records = []
    for path in record_files:
        found, problems = _read(path, Record, "delete it and run its cell again")
        unread += problems
        if found is None:
            continue
        records.append(found)
        if path.stem != found.cell.id:
            what = f"holds the record of {found.cell.id}, and a record's file is named after its cell"
            unread.append(Unread(path.name, what, "run both again"))
    plan = images = None
    if plan_file.exists():
        plan, problems = _read(plan_file, Plan, "take it from where the run was made")
        unread += problems
    if images_file.exists():
        images, problems = _read(
            images_file, Manifest, "delete it: the run's next `--resume` writes it again"
        )
        unread += problems
    return Evidence(folder=folder, records=tuple(records), plan=plan, manifest=images, unread=tuple(unread))


# --- Which belong together --------------------------------------------------------------------------


def group_of(cell_id: str) -> str:
    """What all seeds of a cell have in common: its id without the seed."""
    found = SEED.fullmatch(cell_id)
    return found["group"] if found else cell_id


def described(record: Record) -> str:
    """The id that a record's fields make.

    Raises:
        UsageError: there is no profile of the name that it has.
    """
    cell = record.cell
    # A cell that failed before it had its hyper-parameters says its size in its id alone.
    said = SIZE.search(cell.id)
    size = record.training.image_size if record.training else int(said["size"]) if said else None
    profile = profile_of(cell.profile)
    if size is not None:
        profile = msgspec.structs.replace(profile, image_size=size)
    # Of a recipe its id alone is in a cell's: any will do for one that there is no more.
    recipe = recipe_of(record) or msgspec.structs.replace(all_recipes()[0], id=cell.recipe)
    return Cell(
        backend=cell.backend,
        recipe=recipe,
        variant=cell.variant,
        seed=cell.seed,
        profile=profile,
        device=cell.device,
        precision=cell.precision,
        resampled=cell.resampled,
    ).id


def recipe_of(record: Record) -> Recipe | None:
    """Its recipe; None where there is none of that id, here and now."""
    return recipes_by_id().get(record.cell.recipe)


def comparison_of(record: Record) -> str:
    """What a cell has in common with those of other backends that it is compared with, seeds apart: its id
    without backend and seed. In the native track a protocol stands for each backend's own recipe."""
    cell = record.cell
    what = group_of(cell.id).removeprefix(f"{cell.backend}-")
    if cell.recipe == f"native-{cell.architecture}-{cell.protocol}":
        what = what.replace(cell.recipe, f"native-{cell.protocol}", 1)
    return what


Key = TypeVar("Key", bound=Hashable)
Kind = TypeVar("Kind")


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
        f"{first_few(names)} {'has' if len(names) == 1 else 'have'} {_shown(values[names[0]])}"
        for names in sorted(holders.values(), key=len, reverse=True)
    )


# --- How ------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """A value in full; of a hash what tells it from others."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:12]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _read(path: Path, kind: type[Kind], remedy: str) -> tuple[Kind | None, list[Unread]]:
    """What a file holds, read once, and what is wrong with it; None where it is not of that kind at all."""
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=kind)
        unknown = list(_unknown(msgspec.json.decode(content), msgspec.to_builtins(found)))
    except (OSError, ValueError, RecursionError) as error:
        return None, [Unread(path.name, one_line(error), remedy)]
    if unknown:
        what = f"no such field: {', '.join(unknown)}: another version wrote it, or a hand"
        return found, [Unread(path.name, what, remedy)]
    return found, []


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
