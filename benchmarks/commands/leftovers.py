"""What killed processes left in the cache: files and folders that were to be renamed when they are whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from backends.base import one_line

PLACES = (
    "data",
    "decoded",
    "downloads",
    "duplicates",
    "features",
    "features/*",
    "gates",
    "verified",
    "weights",
)
"""Folders of the cache. No other is looked into: $BENCHMARKS_CACHE may be a folder that has more in it."""
PARTIAL = re.compile(
    r"\..+-[a-z0-9_]{8}"  # `whole_folder` and `write_whole` of harness/cache.py
    r"|.+\.\d+\.partial"  # backends/weights.py
    r"|tmp[a-z0-9_]{8}"  # pooch, while it downloads
)
SAFE_AGE = 3600.0
"""Seconds without a change after which nobody is still writing."""


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A partial file or folder."""

    path: str
    bytes: int
    age: float
    """Seconds since the last change within it."""
    removed: bool = False
    problem: str | None = None
    """Why it could not be removed."""


def find(cache: Path) -> tuple[Leftover, ...]:
    """Every partial file and folder, those of processes that still run included."""
    return tuple(sorted(_found(cache), key=lambda leftover: leftover.path))


def clean(leftover: Leftover) -> Leftover:
    """Remove one, unless it is younger than `SAFE_AGE`; says what came of it."""
    if leftover.age < SAFE_AGE:
        return leftover
    path = Path(leftover.path)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass  # somebody else was quicker
    except OSError as error:
        return msgspec.structs.replace(leftover, problem=one_line(error))
    return msgspec.structs.replace(leftover, removed=True)


def _found(cache: Path) -> Iterator[Leftover]:
    for path in (path for place in PLACES for path in cache.glob(f"{place}/*")):
        if PARTIAL.fullmatch(path.name) and not path.is_symlink():
            size, changed = 0, 0.0
            for part in (path, *_below(path)):
                with contextlib.suppress(OSError):  # its process has just finished
                    status = part.lstat()
                    size += 0 if part.is_dir() else status.st_size
                    changed = max(changed, status.st_mtime)
            if changed:
                yield Leftover(path=str(path), bytes=size, age=max(0.0, time.time() - changed))


def _below(folder: Path) -> Iterator[Path]:
    return (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
