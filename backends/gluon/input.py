"""Gluon's own input pipeline: ImageFolderDataset, transforms, DataLoader."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock
from mxnet.gluon.data import DataLoader, Sampler
from mxnet.gluon.data.vision import ImageFolderDataset, transforms

from backends.base import NORMALIZATIONS, DataError, ImageList, Scaling, Session, Transform


def pipeline(
    images: ImageList, transform: Transform, *, batch_size: int, training: bool, session: Session
) -> DataLoader:
    """Batches of images (N, 3, H, W) float32 and labels (N,) int64 in host memory; see
    `Backend.input_pipeline`.

    An iteration raises DataError at an image that cannot be read.
    """
    folder = _Images(images.root)
    folder.items = [
        (f"{images.root}/{file}", label) for file, label in zip(images.files, images.labels, strict=True)
    ]
    return DataLoader(
        folder.transform_first(_transform(transform, training=training)),
        batch_size=batch_size,
        sampler=_Order(len(folder), batch_size=batch_size, training=training),
        last_batch="keep",
        # Processes: threads would queue their transforms behind the training step in the engine's worker.
        num_workers=session.input_workers,
        pin_memory=session.device != "cpu",
    )


def _transform(transform: Transform, *, training: bool) -> transforms.Compose:
    if training:
        geometry = [
            transforms.RandomResizedCrop(transform.size, scale=transform.scale, ratio=transform.ratio),
            transforms.RandomFlipLeftRight(),
        ]
    else:
        geometry = [
            transforms.Resize(transform.resize, keep_ratio=transform.resize_mode == "shorter-side"),
            transforms.CenterCrop(transform.size),
        ]
    return transforms.Compose([*geometry, transforms.ToTensor(), *_normalize(transform)])


def _normalize(transform: Transform) -> list[HybridBlock]:
    scaling = NORMALIZATIONS[transform.normalization]
    normalize = transforms.Normalize(scaling.mean, scaling.deviation)
    if scaling.channels == "RGB" and scaling.divisor == 255:  # where ToTensor leaves an image
        return [normalize]
    return [_Rescale(scaling), normalize]


class _Rescale(HybridBlock):
    """From RGB in 0..1 to the channels and the range that a scaling takes its mean off."""

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self._scaling = scaling

    def hybrid_forward(self, F: Any, image: Any) -> Any:
        image = F.reverse(image, axis=0) if self._scaling.channels == "BGR" else image
        return image * (255 / self._scaling.divisor)


class _Order(Sampler):
    """Pairs of an image's index and, at the head of a training batch, a seed.

    A batch is read by one process. With a seed of its own, what is drawn for it depends neither on which that
    is, nor on how many there are; forked workers would otherwise all draw the same.
    """

    def __init__(self, length: int, *, batch_size: int, training: bool) -> None:
        self._length, self._batch_size, self._training = length, batch_size, training

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        if not self._training:
            return ((index, None) for index in range(self._length))
        order = np.random.permutation(self._length)
        seeds = np.random.randint(2**31, size=self._length)
        return (
            (int(index), int(seeds[place]) if place % self._batch_size == 0 else None)
            for place, index in enumerate(order)
        )


class _Images(ImageFolderDataset):
    """Decoded images (H, W, 3) uint8 RGB, whatever the file holds, by the keys of `_Order`."""

    def __getitem__(self, key: tuple[int, int | None]) -> tuple[Any, int]:
        index, seed = key
        if seed is not None:
            random.seed(seed)  # crops
            mx.random.seed(seed)  # flips
        with _readable(self.items[index][0]):
            return super().__getitem__(index)


def decoded(path: Path) -> Any:
    """An image as ImageFolderDataset reads it: (H, W, 3) uint8 RGB.

    Raises:
        DataError: it cannot be read.
    """
    with _readable(path):
        image = mx.image.imread(str(path))
        image.wait_to_read()
        return image


@contextlib.contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    try:
        yield
    except mx.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines above are a traceback through C++
        raise DataError(f"image {path} cannot be read ({reason}); replace or remove it") from error
