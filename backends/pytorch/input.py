"""torchvision's own input pipeline: ImageFolder, transforms, DataLoader."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
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

    An iteration raises DataError at an image that cannot be read. It takes its order, and its workers theirs,
    from a seed that it draws from torch's current generator: workers that lived on would keep their own.
    """
    folder = datasets.ImageFolder(images.root, _transform(transform, training=training), loader=_decoded)
    folder.samples = [
        (f"{images.root}/{file}", label) for file, label in zip(images.files, images.labels, strict=True)
    ]
    return _Loader(
        folder,
        batch_size=batch_size,
        shuffle=training,
        num_workers=session.input_workers,
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


def _decoded(path: str) -> Image.Image:
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


class _Loader(DataLoader[Any]):
    """A DataLoader whose errors are those of its images."""

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except DataError as error:  # a worker's arrives as the text of its traceback, which ends with ours
            raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2].strip()) from error
