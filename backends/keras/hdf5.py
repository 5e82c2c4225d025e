"""HDF5 files, without trusting them. Their library follows a damaged one for ever, and reads whatever a file
points at."""

from __future__ import annotations

import io
import math
import re
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_COLLECTION = re.compile(b"GCOL\1")
"""What a collection of the global heap begins with, where attributes' texts lie; see the HDF5 File Format
Specification, section III.E."""
_HEADER = 16  # bytes, of a collection and of each object in it
_EIGHT_BYTES = (
    8,
    8,
)  # of an address and of a length, as the library has written them since its first version


def opened(source: Path | bytes) -> Any:
    """An HDF5 file, open for reading.

    Raises:
        ValueError, OSError: it is damaged, or none.
    """
    _require_sound_heap(source if isinstance(source, bytes) else np.memmap(source, mode="r"))
    file = h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r")
    if file.id.get_create_plist().get_sizes() != _EIGHT_BYTES:
        file.close()
        raise ValueError("its addresses are not eight bytes wide")
    return file


def require_own(dataset: Any, file: Any) -> None:
    """Raise ValueError unless a dataset's values lie in this very file, which need not hold what it names nor
    what a shape promises."""
    if dataset.external or dataset.is_virtual or dataset.file != file:
        raise ValueError(f"{dataset.name} lies in another file")
    if dataset.nbytes > file.id.get_filesize():
        raise ValueError(f"{dataset.name} would take {dataset.nbytes} bytes, more than the file has")


def texts(group: Any, name: str) -> list[str]:
    """A group's attribute of one text or several.

    Raises:
        KeyError: it has none of that name.
        ValueError: it is of another type, some of which the library cannot read without falling, or larger
            than the file that it comes from.
    """
    attribute = group.attrs.get_id(name)
    count = math.prod(attribute.shape)
    if count == 0:
        return []  # whatever the type: Keras writes no numbers where there are no names
    size = count * attribute.dtype.itemsize
    if not isinstance(attribute.get_type(), h5py.h5t.TypeStringID) or size > group.file.id.get_filesize():
        raise ValueError(
            f"attribute '{name}' is no text of this file: {size} bytes of type {attribute.dtype}"
        )
    values = np.atleast_1d(group.attrs[name])
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _require_sound_heap(content: Any) -> None:
    """Raise ValueError where the library, as of 1.14, would go from object to object without an end: it takes
    each one's size at its word."""
    for found in _COLLECTION.finditer(content):
        at = found.start()
        (size,) = struct.unpack_from("<8xQ", content, at)
        end, at = at + size, at + _HEADER
        while at + _HEADER <= end <= len(content):
            index, size = struct.unpack_from("<H6xQ", content, at)
            step = _HEADER + -(-size // 8) * 8 if index else size  # free space counts its own header
            if not _HEADER <= step <= end - at:
                raise ValueError(f"its texts are damaged at byte {at}")
            at += step
