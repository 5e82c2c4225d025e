"""Zip archives of images, unpacked without trusting them."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from backends.base import DataError, one_line
from benchmarks.harness.cache import kept

MAX_FILES = 1_000_000
MAX_BYTES = 50 * 2**30  # unpacked; ImageNet's validation set is 6 GiB
MAX_RATIO = 200  # images do not compress: an archive that shrank more than this is a bomb


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip into the folder `target`, whole or not at all; does nothing where that has been done and
    nothing has changed since.

    Raises:
        DataError: not a zip, damaged, or a member that would land outside, is there twice, is a link, is
        encrypted or is a bomb.
    """

    def fill(folder: Path) -> None:
        with zipfile.ZipFile(archive) as source:
            members = [member for member in source.infolist() if not member.is_dir()]
            _check(archive, members)
            for member in members:
                path = folder / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as stream, path.open("xb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)

    try:
        kept(target, fill)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {target.parent} ({one_line(error)})") from error
    except Exception as error:  # what `zipfile` and its decompressors make of damage can be anything
        raise DataError(
            f"{archive}: not a whole zip file ({one_line(error)}); fetch it again, or unpack an archive of"
            " another kind yourself and give its folder"
        ) from error


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > min(MAX_BYTES, MAX_RATIO * archive.stat().st_size):
        raise DataError(
            f"{archive}: unpacks to {size} bytes in {len(members)} files, from {archive.stat().st_size};"
            " refused as a bomb"
        )
    seen: set[str] = set()
    for member in members:
        what = f"{archive}: member {member.filename!r}"
        path = PurePosixPath(member.filename)
        drive = ":" in member.filename.partition("/")[0]
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or drive:
            raise DataError(f"{what} would be written outside the folder; refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{what} is a link; refused")
        if member.flag_bits & 1:
            raise DataError(f"{what} is encrypted; unpack it yourself")
        if str(path).casefold() in seen:
            raise DataError(
                f"{what} is there twice, or its name differs from another's in case only; refused"
            )
        seen.add(str(path).casefold())
