"""`images.json`: the images of a run by name, where a record has 0s and 1s, and which of them are in both
splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from backends.base import BenchmarkError, ImageList, one_line
from benchmarks.harness import record
from benchmarks.harness.cache import write_whole
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.images.duplicates import Audit

FILE = "images.json"


class ManifestError(BenchmarkError):
    """A file that is no manifest of this version, or cannot be written."""


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """One split, in file order."""

    files: tuple[str, ...]
    """`<class>/<file>`."""
    labels: tuple[int, ...]
    """Places in the manifest's classes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The data set of a run."""

    schema_version: Literal[1] = 1
    name: str
    sha256: str
    """Over the names and bytes of the files used, in order."""
    classes: tuple[str, ...]
    train: Images
    test: Images
    """In the order of a record's `accuracy.correct`."""
    audit: Audit


def of(data: DataSet, audit: Audit) -> Manifest:
    """The manifest of a data set."""
    return Manifest(
        name=data.name,
        sha256=data.sha256,
        classes=data.classes,
        train=_images(data.train),
        test=_images(data.test),
        audit=audit,
    )


def write(folder: Path, manifest: Manifest) -> None:
    """Write a run's `images.json`, whole or not at all; one that says the same already is left alone.

    Raises:
        ManifestError: the disk is full or may not be written to.
    """
    path, content = folder / FILE, record.to_json(manifest)
    try:
        if not path.exists() or path.read_bytes() != content:
            write_whole(path, content)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be written ({one_line(error)}); make room") from error


def read(folder: Path) -> Manifest | None:
    """A run's manifest; None where it has none.

    Raises:
        ManifestError: unreadable, not JSON, or not this schema; names the field.
    """
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise ManifestError(
            f"{path}: {one_line(error)}; delete it: the run's next `--resume` writes it again"
        ) from error


def _images(split: ImageList) -> Images:
    return Images(files=split.files, labels=split.labels)
