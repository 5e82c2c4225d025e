"""torchvision's own input pipeline: ImageFolder, transforms, DataLoader."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler
from torchvision import datasets, transforms

from backends.base import (
    NORMALIZATIONS,
    Batch,
    DataError,
    ImageList,
    Scaling,
    Session,
    Transform,
    one_line,
)


def pipeline(
    images: ImageList, transform: Transform, *, batch_size: int, training: bool, session: Session
) -> DataLoader[Any]:
    """Batches of images (N, 3, H, W) float32 and labels (N,) int64 in host memory; see
    `Backend.input_pipeline`.

    An iteration raises DataError at an image that cannot be read.
    """
    kind = _TrainingImages if training else datasets.ImageFolder
    folder = kind(images.root, _transform(transform, training=training), loader=decoded)
    folder.samples = [
        (f"{images.root}/{file}", label) for file, label in zip(images.files, images.labels, strict=True)
    ]
    return _Loader(
        folder,
        **({"batch_sampler": _Batches(len(folder), batch_size)} if training else {"batch_size": batch_size}),
        # Where its workers' own seeds come from, which nothing asks for: they are not to move torch's
        # generator, and less so in that epoch alone in which workers start.
        generator=torch.Generator(),
        num_workers=session.input_workers,
        persistent_workers=session.input_workers > 0,
        pin_memory=session.device != "cpu",
    )


def _transform(transform: Transform, *, training: bool) -> transforms.Compose:
    if training:
        geometry = [
            transforms.RandomResizedCrop(transform.size, scale=transform.scale, ratio=transform.ratio),
            transforms.RandomHorizontalFlip(),
        ]
    else:
        squash = transform.resize_mode == "squash"
        geometry = [
            transforms.Resize((transform.resize, transform.resize) if squash else transform.resize),
            transforms.CenterCrop(transform.size),
        ]
    return transforms.Compose([*geometry, transforms.ToTensor(), _normalize(transform)])


def _normalize(transform: Transform) -> Any:
    scaling = NORMALIZATIONS[transform.normalization]
    normalize = transforms.Normalize(scaling.mean, scaling.deviation)
    if scaling.channels == "RGB" and scaling.divisor == 255:  # where ToTensor leaves an image
        return normalize
    return transforms.Compose([functools.partial(_rescale, scaling=scaling), normalize])


def _rescale(image: torch.Tensor, *, scaling: Scaling) -> torch.Tensor:
    """From RGB in 0..1 to the channels and the range that `scaling` takes its mean off."""
    return (image.flip(0) if scaling.channels == "BGR" else image) * (255 / scaling.divisor)


def decoded(path: str) -> Image.Image:
    """An image as torchvision's own loader reads it."""
    try:
        return datasets.folder.default_loader(path)
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # Pillow has no one class
        raise DataError(f"image {path} cannot be read ({one_line(error)}); replace or remove it") from error


class _Batches(Sampler[list[int]]):
    """Of an epoch: a seed, and the places of the images.

    A batch is read by one process. With a seed of its own, what is drawn for it depends neither on which that
    is, nor on how many there are, nor on what they have read before.
    """

    def __init__(self, images: int, batch_size: int) -> None:
        self._images, self._batch_size = images, batch_size

    def __len__(self) -> int:
        return math.ceil(self._images / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self._images).split(self._batch_size)
        seeds = torch.randint(2**31, (len(self),))
        for seed, places in zip(seeds, order, strict=True):
            yield [int(seed), *places.tolist()]


class _TrainingImages(datasets.ImageFolder):
    """Images by the batches of `_Batches`."""

    def __getitems__(self, batch: list[int]) -> list[tuple[torch.Tensor, int]]:
        seed, *places = batch
        torch.manual_seed(seed)
        return [self[place] for place in places]


class _Loader(DataLoader[Any]):
    """A DataLoader whose errors are those of its images."""

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except DataError as error:  # a worker's arrives as the text of its traceback, which ends with ours
            raise DataError(str(error.args[0]).rpartition(f"{DataError.__name__}: ")[2].strip()) from error
