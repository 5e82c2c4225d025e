"""Every image of a split, decoded once and kept as plain pixels: what the matched track cuts batches from.

`<cache>/decoded/<key>-v<VERSION>/` holds `pixels`, the RGB bytes of one image after the other, and
`index.json`, where each begins and how large it is. All backends read the same file, so that no two decoders
are compared.

A pixel is what Pillow decodes: converted to RGB and not turned by EXIF, as torchvision's loader has it. Only
images whose shorter side exceeds `LARGEST_SIDE` are made smaller.
"""

from __future__ import annotations

import mmap
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from PIL import Image

from backends.base import DataError, ImageList, one_line
from benchmarks.harness.cache import cache_folder, intact, seal, whole_folder
from benchmarks.harness.images.augment import resized
from benchmarks.harness.images.data import DataSet, Progress, no_progress, read_image

VERSION = 1
"""Of the pixels and of how they are kept; another one leaves what older code has decoded alone."""
LARGEST_SIDE = 512
"""Pixels of an image's shorter side; a longer one is reduced to it, antialiased bilinear. That is twice what
any profile looks at, and a thousand photographs of 12 megapixels need 1 GB instead of 36."""

PIXELS, INDEX = "pixels", "index.json"
CHUNK = 64  # images decoded before they are written: bounds the memory they take

Split = Literal["train", "test"]


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where each image lies in the pixels file."""

    offsets: tuple[int, ...]
    """First byte of each image, and behind them the file's size."""
    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, shapes: list[tuple[int, ...]]) -> Index:
        """The index of images (H, W, 3) that follow each other."""
        heights, widths = (tuple(shape[axis] for shape in shapes) for axis in (0, 1))
        return cls(offsets=_offsets(heights, widths), heights=heights, widths=widths)

    def fits(self, images: int, size: int) -> bool:
        """Whether it describes that many images in a file of that size without contradicting itself."""
        return (
            len(self.heights) == len(self.widths) == images
            and self.offsets == _offsets(self.heights, self.widths)
            and self.offsets[-1] == size
        )


def _offsets(heights: tuple[int, ...], widths: tuple[int, ...]) -> tuple[int, ...]:
    sizes = (3 * height * width for height, width in zip(heights, widths, strict=True))
    return tuple(accumulate(sizes, initial=0))


class Decoded:
    """A split's images, in file order: `decoded[i]` is (H, W, 3) uint8 RGB, a read-only view of the file."""

    def __init__(self, mapped: mmap.mmap, index: Index) -> None:
        self._mapped = mapped
        self._pixels = np.frombuffer(mapped, np.uint8)
        self._index = index

    def __len__(self) -> int:
        return len(self._index.heights)

    def __getitem__(self, image: int) -> np.ndarray:
        index = self._index
        pixels = self._pixels[index.offsets[image] : index.offsets[image + 1]]
        return pixels.reshape(index.heights[image], index.widths[image], 3)

    def release(self) -> None:
        """Give back the memory of the images looked at. They stay in the system's cache and in reach, but no
        longer count as this process's, whose peak memory is a published figure."""
        if hasattr(mmap, "MADV_DONTNEED"):  # Linux
            self._mapped.madvise(mmap.MADV_DONTNEED)


# --- Opening --------------------------------------------------------------------------------------


def prepare(data: DataSet, progress: Progress = no_progress) -> None:
    """Decode both splits, unless that has been done and every byte is as it was: for the process that starts
    the cells, so that none of them does it on the clock.

    Raises:
        DataError: as `open_decoded`.
    """
    for images, key in ((data.train, key_of(data, "train")), (data.test, key_of(data, "test"))):
        with _on_disk(_folder_of(key)) as folder:
            if folder.exists() and not intact(folder):
                shutil.rmtree(folder)
        open_decoded(images, key, progress)


def key_of(data: DataSet, split: Split) -> str:
    """What a split's pixels are kept under: the same for the same files, wherever they lie."""
    return f"{data.sha256}-{split}"


def open_decoded(images: ImageList, key: str, progress: Progress = no_progress) -> Decoded:
    """The pixels of a split, mapped into memory; decoded first where nobody has yet, or where what is kept is
    damaged (a file is missing, cut off or not as large as its index says).

    Args:
        key: names the images; see `key_of`.

    Raises:
        DataError: an image cannot be decoded, or the cache cannot be written; names the file.
    """
    with _on_disk(_folder_of(key)) as folder:
        found = _opened(folder, len(images.files))
        if found is None:
            with whole_folder(folder) as partial:
                _decode_into(partial, images, progress)
                if folder.exists() and _opened(folder, len(images.files)) is None:
                    # it is what was damaged, and no other process has mended it meanwhile
                    shutil.rmtree(folder)
            found = _opened(folder, len(images.files))
    if found is None:
        raise DataError(f"decoded images {folder}: damaged as soon as written; check the disk and remove it")
    return found


def _folder_of(key: str) -> Path:
    return cache_folder() / "decoded" / f"{key}-v{VERSION}"


@contextmanager
def _on_disk(folder: Path) -> Iterator[Path]:
    """What the disk refuses, in one line."""
    try:
        yield folder
    except OSError as error:
        raise DataError(
            f"decoded images {folder}: {error.strerror or one_line(error)};"
            " make room or remove it, or let BENCHMARKS_CACHE name another folder"
        ) from error


def _opened(folder: Path, images: int) -> Decoded | None:
    """The pixels of that many images; None where they are missing or damaged."""
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
        with (folder / PIXELS).open("rb") as stream:
            if not index.fits(images, os.fstat(stream.fileno()).st_size):
                return None
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Decoded(mapped, index)


# --- Decoding -------------------------------------------------------------------------------------


def _decode_into(folder: Path, images: ImageList, progress: Progress) -> None:
    what = f"decoding the {Path(images.root).name} images"
    paths = [Path(images.root, file) for file in images.files]
    shapes: list[tuple[int, ...]] = []
    with (folder / PIXELS).open("wb") as stream, warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's, of large images and odd metadata
        for start in range(0, len(paths), CHUNK):
            for pixels in pool.map(decode, paths[start : start + CHUNK]):
                stream.write(pixels.data)
                shapes.append(pixels.shape)
                progress(what, len(shapes), len(paths))
        stream.flush()
        os.fsync(stream.fileno())  # or a power cut might leave a file of the right size without its content
    (folder / INDEX).write_bytes(msgspec.json.encode(Index.of(shapes)))
    seal(folder)


def decode(path: Path) -> np.ndarray:
    """An image as it is kept: (H, W, 3) uint8, RGB, C-contiguous.

    Raises:
        DataError: it cannot be decoded, or is too large to be a photograph.
    """
    return np.asarray(_reduced(read_image(path)))


def _reduced(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    if shorter <= LARGEST_SIDE:
        return image
    width, height = (round(side * LARGEST_SIDE / shorter) for side in image.size)
    return resized(image, width, height)
