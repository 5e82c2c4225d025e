"""Which images of a data set's test split its training split has too, in whatever file.

What is looked for is the same picture: the same pixels, or the same picture saved at another quality or size,
made lighter or darker, mirrored, or trimmed by a few per cent of a side. Two pictures of the same thing are
not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from backends.base import DataError, ImageList, one_line
from benchmarks.harness.cache import cache_folder, read_checked, write_checked
from benchmarks.harness.images.data import DataSet, Progress, no_progress, read_image

HASH_SIDE = 16
"""Of the difference hash: a bit for each of 16 x 16 pairs of neighbours in grey, whether the right one is
lighter."""
CANDIDATE_BITS = 64
"""Of the 256 bits that may differ in a candidate: a quarter. Between different photographs (the 2,000 and 800
of hot dogs, plain and mirrored) one pair in a million differs in fewer than 60 to 67; what a JPEG of quality
10, or 3 % trimmed from every side, does to an image moves 62 at most."""
SIMILAR = 0.95
"""Least correlation of two thumbnails of the same picture, best over slightly trimmed ones. The same picture
altered as above: .967 and more (light that is a third stronger: .949, as it saturates). Different photographs
among the candidates: .61 at most; drawn ones, which differ in less, .93."""
WORTH_ALIGNING = 0.6
"""Correlation of whole thumbnails below which no trimming makes them the same: what 3 % off every side leave
is .72 at least."""
MOST_ALIGNED = 20
"""Training images that are looked at closely for one test image, the most similar first: one is enough for a
verdict, and a folder of like images has thousands of candidates."""
THUMBNAIL_SIDE, COMPARED_SIDE, COARSE_SIDE = 64, 32, 16
"""Pixels: what is kept of an image, what is compared of it, and what is compared first."""
TRIMMINGS = (0.95, 0.9)
"""What is left of a side. Of each there are nine: at the edges, in the corners and in the middle."""
LEAST_CONTRAST = 2.0
"""Standard deviation of an image's grey levels below which it shows nothing to compare: 1 % of the range."""
VERSION = 1
"""Raise when the verdict changes: audits in the cache are kept by it."""
METHOD = (
    f"difference hash of {HASH_SIDE} x {HASH_SIDE} bits, of the image and its mirror image, at most"
    f" {CANDIDATE_BITS} bits apart; then correlation of {COMPARED_SIDE} x {COMPARED_SIDE} RGB thumbnails,"
    f" slightly trimmed where that is better, at least {SIMILAR}"
)


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """A test image, and the training image that is most like it."""

    test: str
    train: str
    exact: bool
    """Whether their pixels are the same."""
    mirrored: bool = False
    bits: int = 0
    """In which the difference hashes differ."""
    correlation: float = 1.0


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked for, and found."""

    method: str
    duplicates: tuple[Duplicate, ...]
    """At most one for each test image, in file order."""


def audit(data: DataSet, progress: Progress = no_progress) -> Audit:
    """Compare every test image with every training image; what is known of the same data is not looked for
    again.

    Raises:
        DataError: an image cannot be read any more, or the cache cannot be written.
    """
    remembered = cache_folder() / "duplicates" / f"{data.sha256}-v{VERSION}.json"
    try:
        known = read_checked(remembered)
        if known is not None:
            return msgspec.json.decode(known, type=Audit)
        found = Audit(method=METHOD, duplicates=tuple(find(data, progress)))
        write_checked(remembered, msgspec.json.encode(found))
    except OSError as error:
        raise DataError(
            f"data {data.name}: {one_line(error)}; see to room in the cache {cache_folder()}"
            f" (BENCHMARKS_CACHE names another)"
        ) from error
    return found


def find(data: DataSet, progress: Progress = no_progress) -> Iterator[Duplicate]:
    """The test images that the training split has too, in file order."""
    images = len(data.train.files) + len(data.test.files)
    seen = partial(progress, f"looking at the {data.name} images")
    train = _Looks(data.train, lambda done: seen(done, images))
    test = _Looks(data.test, lambda done: seen(len(data.train.files) + done, images))
    same_pixels = {digest: place for place, digest in reversed(list(enumerate(train.digests)))}
    hashes = {False: _bits(train.grey), True: _bits(train.grey[:, :, ::-1])}
    coarse = {False: train.coarse, True: _mirrored(train.coarse, COARSE_SIDE)}
    for place, digest in enumerate(test.digests):
        progress(f"comparing the {data.name} images", place + 1, len(test.digests))
        if digest in same_pixels:
            twin = same_pixels[digest]
            yield Duplicate(test=data.test.files[place], train=data.train.files[twin], exact=True)
            continue
        candidates = []
        for mirrored in (False, True):
            distances = (HASH_SIDE**2 - hashes[mirrored] @ _bits(test.grey[place][None])[0]) / 2
            near = np.flatnonzero(distances <= CANDIDATE_BITS)
            likeness = coarse[mirrored][near] @ test.coarse[place]
            candidates += [
                (float(like), int(twin), int(distances[twin]), mirrored)
                for like, twin in zip(likeness, near, strict=True)
                if like >= WORTH_ALIGNING
            ]
        candidates = sorted(candidates, reverse=True)[:MOST_ALIGNED]
        aligned = [
            (_correlation(train, twin, test, place, mirrored=mirrored), twin, bits, mirrored)
            for _, twin, bits, mirrored in candidates
        ]
        correlation, twin, bits, mirrored = max(aligned, default=(0.0, 0, 0, False))
        if correlation >= SIMILAR:
            yield Duplicate(
                test=data.test.files[place],
                train=data.train.files[twin],
                exact=False,
                mirrored=mirrored,
                bits=bits,
                correlation=round(correlation, 4),
            )


# --- How ------------------------------------------------------------------------------------------


class _Look(msgspec.Struct, frozen=True):
    """What is kept of one image."""

    digest: bytes
    grey: np.ndarray
    """(16, 17) uint8."""
    thumbnail: np.ndarray
    """(64, 64, 3) uint8."""


class _Looks:
    """What is kept of a split's images, decoded by several threads."""

    def __init__(self, split: ImageList, progress: Callable[[int], None]) -> None:
        """Args:
        progress: called with the number of images seen.
        """
        paths = [Path(split.root, file) for file in split.files]
        looks = []
        with ThreadPoolExecutor() as pool:
            for done, look in enumerate(pool.map(_look, paths), start=1):
                looks.append(look)
                progress(done)
        self.digests = [look.digest for look in looks]
        self.grey = np.array([look.grey for look in looks])
        self.thumbnails = [look.thumbnail for look in looks]
        self.coarse = _normalised(
            np.array([_resized(thumbnail, COARSE_SIDE) for thumbnail in self.thumbnails])
        )
        """(N, 16 * 16 * 3) float32."""
        self.trimmed = lru_cache(maxsize=4 * MOST_ALIGNED)(self._trimmed)

    def _trimmed(self, place: int, *, mirrored: bool) -> np.ndarray:
        """An image whole and slightly trimmed: (19, 32 * 32 * 3) float32, the whole one first."""
        thumbnail = self.thumbnails[place]
        if mirrored:
            thumbnail = np.ascontiguousarray(thumbnail[:, ::-1])
        boxes = [(0.0, 0.0, 1.0)]
        boxes += [
            ((1 - left) * across, (1 - left) * down, left)
            for left in TRIMMINGS
            for across in (0, 0.5, 1)
            for down in (0, 0.5, 1)
        ]
        return _normalised(np.array([_resized(thumbnail, COMPARED_SIDE, x, y, side) for x, y, side in boxes]))


def _look(path: Path) -> _Look:
    image = read_image(path)
    pixels = f"{image.size}".encode() + image.tobytes()
    grey = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS)
    small = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return _Look(hashlib.sha256(pixels).digest(), np.asarray(grey), np.asarray(small))


def _bits(grey: np.ndarray) -> np.ndarray:
    """Difference hashes of (N, 16, 17) images as (N, 256) of 1 and -1: the product of two of them is the
    number of equal bits less that of others."""
    lighter = grey[:, :, 1:] > grey[:, :, :-1]
    return np.where(lighter, 1, -1).reshape(len(grey), -1).astype(np.float32)


def _resized(thumbnail: np.ndarray, side: int, x: float = 0, y: float = 0, part: float = 1) -> np.ndarray:
    """The square of a thumbnail that begins at (x, y) and has this part of its side, all of them shares."""
    whole = THUMBNAIL_SIDE
    box = (x * whole, y * whole, (x + part) * whole, (y + part) * whole)
    return np.asarray(Image.fromarray(thumbnail).resize((side, side), Image.Resampling.BILINEAR, box=box))


def _normalised(images: np.ndarray) -> np.ndarray:
    """Images as rows whose products are correlations; nothing but zeros where an image shows nothing."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows[rows.std(axis=1) < LEAST_CONTRAST] = 0
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _mirrored(rows: np.ndarray, side: int) -> np.ndarray:
    """Rows of square RGB images, each image mirrored."""
    return rows.reshape(len(rows), side, side, 3)[:, :, ::-1].reshape(len(rows), -1)


def _correlation(train: _Looks, twin: int, test: _Looks, place: int, *, mirrored: bool) -> float:
    """Of a training and a test image: the best where either is whole and the other trimmed."""
    ours, theirs = test.trimmed(place, mirrored=False), train.trimmed(twin, mirrored=mirrored)
    return float(max((ours[0] @ theirs.T).max(), (theirs[0] @ ours.T).max()))
