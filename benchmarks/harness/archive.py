"""Zip archives of images, unpacked without trusting them."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from backends.base import DataError, one_line
from benchmarks.harness.cache import whole_folder

MAX_FILES = 1_000_000
MAX_BYTES = 50 * 2**30  # unpacked; ImageNet's validation set is 6 GiB
MAX_RATIO = 200  # images do not compress: a member that shrank more than this is a bomb


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip into the folder `target`, whole or not at all; does nothing where it already is.

    Raises:
        DataError: not a zip, damaged, or a member that would land outside, is a link, is encrypted or is a
        bomb.
    """
    if target.is_dir():
        return
    try:
        with zipfile.ZipFile(archive) as source, whole_folder(target) as folder:
            members = [member for member in source.infolist() if not member.is_dir()]
            _check(archive, members)
            for member in members:
                path = folder / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as stream, path.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: not a whole zip file ({one_line(error)}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {target.parent} ({one_line(error)})") from error


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
        raise DataError(
            f"{archive}: unpacks to more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB; refused"
        )
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0]:
            raise DataError(
                f"{archive}: member '{member.filename}' would be written outside the folder; refused"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{archive}: member '{member.filename}' is a link; refused")
        if member.flag_bits & 1:
            raise DataError(f"{archive}: member '{member.filename}' is encrypted; unpack it yourself")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise DataError(
                f"{archive}: member '{member.filename}' unpacks to {member.file_size} bytes; refused"
            )
