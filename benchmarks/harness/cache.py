"""Where things are kept between runs, and how they get there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

SEAL = ".sha256"
"""Holds, in a folder that is kept, the hash of what was put there. The folder's hidden files do not count."""


def cache_folder() -> Path:
    """Data sets and source weights: `$BENCHMARKS_CACHE`, or the user's cache folder."""
    given = os.environ.get("BENCHMARKS_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("transfer-learning-benchmarks"))


def kept(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target` as `fill` fills it: now, unless it was filled before and is still the same to the
    last byte."""
    if not intact(target):
        with whole_folder(target) as folder:
            fill(folder)
            seal(folder)
            if target.exists() and not intact(target):  # and no other process has mended it meanwhile
                shutil.rmtree(target)
    return target


def seal(folder: Path) -> None:
    """Note what is in a folder, as the last thing that is done to it."""
    (folder / SEAL).write_text(_content_sha256(folder))


def intact(folder: Path) -> bool:
    """Whether a folder holds what it held when it was sealed. Every byte is read."""
    try:
        return (folder / SEAL).read_bytes() == _content_sha256(folder).encode()
    except FileNotFoundError:
        return False


def _content_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes when it does not.

    Where another process was quicker, its folder stays and ours goes: both hold the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from others
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(target: Path, data: bytes) -> None:
    """Write a file such that no reader ever sees a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_checked(target: Path, data: bytes) -> None:
    """Write a file whole, its hash first, for `read_checked`."""
    write_whole(target, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_checked(path: Path) -> bytes | None:
    """What `write_checked` wrote; None where there is nothing, or no longer that."""
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return data if hashlib.sha256(data).hexdigest().encode() == digest else None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One process at a time within the block; others wait. The system frees it when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        with contextlib.suppress(ImportError):  # there is no such lock on Windows
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
