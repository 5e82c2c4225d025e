"""One or several runs, read as one: their records, their curves, and the names of their images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from benchmarks.harness import record
from benchmarks.harness.images import manifest
from benchmarks.harness.record import Curves, Record
from benchmarks.report.sections import curves


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of."""

    records: tuple[Record, ...]
    """In order of run and name, each with an id of its own: where two runs have the same one, all are told
    apart by their run, as `<run>/<id>`."""
    files: Mapping[str, Path]
    """Where each record lies, by its id."""
    curves: tuple[Curves, ...]
    images: Mapping[str, tuple[str, ...]]
    """Names of the test images in file order, by the SHA-256 of the data set; of runs that know them."""

    def link(self, identity: str, folder: Path) -> str:
        """The address of a record's file as seen from a folder."""
        path = Path(os.path.relpath(self.files[identity].resolve(), folder.resolve()))
        return quote(path.as_posix())


def gather(folders: Sequence[Path]) -> Sources:
    """Read the runs.

    Raises:
        RecordError: a record or a curve cannot be read.
        ManifestError: a run's list of images cannot be read.
    """
    found = [
        (folder, path, record.read(path))
        for folder in dict.fromkeys(folders)
        for path in sorted((folder / "records").glob("*.json"))
    ]
    names = _names(folders)
    ambiguous = len({one.cell.id for _, _, one in found}) < len(found)
    records, files = [], {}
    for folder, path, one in found:
        if ambiguous:
            one = _renamed(one, f"{names[folder]}/{one.cell.id}")
        records.append(one)
        files[one.cell.id] = path
    return Sources(
        records=tuple(records),
        files=files,
        curves=tuple(one for folder in dict.fromkeys(folders) for one in curves.read_all(folder)),
        images=_images(folders),
    )


def title(folders: Sequence[Path]) -> str:
    """Of a report on these runs."""
    names = list(_names(folders).values())
    return f"Run {names[0]}" if len(names) == 1 else f"{len(names)} runs: {', '.join(names)}"


# --- How ------------------------------------------------------------------------------------------


def _names(folders: Iterable[Path]) -> dict[Path, str]:
    """Of each run that of its folder; with its parents' before it, as far as it takes to tell them apart."""
    unique = list(dict.fromkeys(folders))
    depth = 1
    while True:
        names = ["/".join(folder.parts[-depth:]) for folder in unique]
        if len(set(names)) == len(names):
            return dict(zip(unique, names, strict=True))
        depth += 1


def _renamed(one: Record, identity: str) -> Record:
    return msgspec.structs.replace(one, cell=msgspec.structs.replace(one.cell, id=identity))


def _images(folders: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    lists = (manifest.read(folder) for folder in folders)
    return {one.sha256: one.test.files for one in lists if one is not None}
