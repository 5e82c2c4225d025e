"""The matched track's transforms: from one decoded image to one input, uint8 to uint8, the same everywhere.

Chance comes from (seed, epoch, index) alone: BLAKE2b over these numbers and a counter gives the bits. Neither
threads, nor the order of calls, nor a version of NumPy or Python can change what an image becomes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import blake2b
from struct import unpack

import msgspec
import numpy as np
from PIL import Image

from backends.base import Transform

TRIES = 10
"""Random crops tried before the largest central one is taken; torchvision's number."""


class Crop(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an image that an epoch sees: a box in pixels, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


# --- Chance ---------------------------------------------------------------------------------------


def order(count: int, *, seed: int, epoch: int) -> list[int]:
    """An epoch's permutation of `range(count)`: each index sorted by a hash of its own."""
    return sorted(range(count), key=lambda index: _bits(b"order", seed, epoch, index))


def training_crop(
    width: int, height: int, transform: Transform, *, seed: int, epoch: int, index: int
) -> Crop:
    """The random crop as torchvision's `RandomResizedCrop` defines it, and a flip with probability 1/2.

    The area is uniform in `scale`, the aspect ratio log-uniform in `ratio`, the place uniform. If none of
    `TRIES` such boxes lies within the image, the largest central box whose aspect ratio is within `ratio`.

    Args:
        width, height: the image's, in pixels.
        index: the image's place in its split, not in the epoch.
    """
    draw = _uniform(b"crop", seed, epoch, index)
    flip = next(draw) < 0.5
    smallest, largest = transform.scale
    narrowest, widest = transform.ratio
    for _ in range(TRIES):
        area = width * height * (smallest + (largest - smallest) * next(draw))
        ratio = narrowest * math.exp(math.log(widest / narrowest) * next(draw))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(next(draw) * (width - crop_width + 1))
            top = int(next(draw) * (height - crop_height + 1))
            return Crop(left=left, top=top, width=crop_width, height=crop_height, flip=flip)
    crop_width = min(width, max(1, round(height * widest)))
    crop_height = min(height, max(1, round(width / narrowest)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return Crop(left=left, top=top, width=crop_width, height=crop_height, flip=flip)


def dropout_mask(width: int, rate: float, *, seed: int, epoch: int, index: int) -> np.ndarray:
    """What dropout keeps of one image's values: (width,) uint8, 0 with probability `rate`, a multiple of
    1/256."""
    blocks = (_bits(b"dropout", seed, epoch, index, block) for block in range(-(-width // 64)))
    return (np.frombuffer(b"".join(blocks), np.uint8)[:width] >= rate * 256).astype(np.uint8)


def _uniform(purpose: bytes, seed: int, epoch: int, index: int) -> Iterator[float]:
    """Multiples of 2^-53 in [0, 1), as many as are asked for."""
    block = 0
    while True:
        for word in unpack("<8Q", _bits(purpose, seed, epoch, index, block)):
            yield (word >> 11) * 2.0**-53
        block += 1


def _bits(purpose: bytes, *numbers: int) -> bytes:
    """64 bytes that belong to these numbers, which are hashed as decimal text: any size, no byte order."""
    return blake2b(" ".join(map(str, numbers)).encode(), person=purpose).digest()


# --- Pixels ---------------------------------------------------------------------------------------


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Pillow's antialiased bilinear, along rows first and then along columns, rounded in between.

    Asked for both at once, Pillow does the same up to version 12; from 13 on it begins with the columns of an
    image that loses more height than twice the width, which rounds some values otherwise.
    """
    for size in ((width, image.height), (width, height)):
        image = image.resize(size, Image.Resampling.BILINEAR)
    return image


def training_image(pixels: np.ndarray, transform: Transform, crop: Crop) -> np.ndarray:
    """Cut `crop` out of an image (H, W, 3) uint8, resize it to (size, size, 3) and mirror it if it says so.

    Only the cut-out is resized: no pixel beyond its edge has a part in it, as in torchvision's
    `resized_crop`. The result may be read-only.
    """
    image = resized(_cut(pixels, crop), transform.size, transform.size)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else image)


def testing_image(pixels: np.ndarray, transform: Transform) -> np.ndarray:
    """Resize an image (H, W, 3) uint8 as `transform` says and cut out the centre (size, size, 3).

    As torchvision's `Resize` and `CenterCrop` on Pillow's images: with `shorter-side` the longer side's
    fraction of a pixel is dropped; an image that is then smaller than the centre gets a black border. The
    result may be read-only.
    """
    height, width = pixels.shape[:2]
    size, resize = transform.size, transform.resize
    whole = _cut(pixels, Crop(left=0, top=0, width=width, height=height, flip=False))
    if transform.resize_mode == "none":
        image = whole
    elif transform.resize_mode == "squash":
        image = resized(whole, resize, resize)
    else:
        shorter = min(width, height)
        image = resized(whole, int(resize * width / shorter), int(resize * height / shorter))
    left, top = _centre(image.width, size), _centre(image.height, size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _centre(length: int, size: int) -> int:
    """Where torchvision's centre crop begins; negative where a border comes first."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _cut(pixels: np.ndarray, crop: Crop) -> Image.Image:
    """The box as Pillow's image. Pillow steps over the rest of each row itself: of a contiguous image nothing
    else is touched or copied."""
    row = 3 * pixels.shape[1]
    start = crop.top * row + 3 * crop.left
    stop = start + (crop.height - 1) * row + 3 * crop.width
    box = pixels.reshape(-1)[start:stop]
    return Image.frombytes("RGB", (crop.width, crop.height), box.data, "raw", "RGB", row, 1)
