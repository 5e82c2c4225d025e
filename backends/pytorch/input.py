"""torchvision's own input pipeline: ImageFolder, transforms, DataLoader."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from backends.base import NORMALIZATIONS, ImageList, Scaling, Session, Transform


def pipeline(
    images: ImageList, transform: Transform, *, batch_size: int, training: bool, session: Session
) -> DataLoader[Any]:
    """Batches of images (N, 3, H, W) float32 and labels (N,) int64 in host memory; see
    `Backend.input_pipeline`."""
    folder = datasets.ImageFolder(images.root, transform=_transform(transform, training=training))
    folder.samples = [
        (f"{images.root}/{file}", label) for file, label in zip(images.files, images.labels, strict=True)
    ]
    generator = torch.Generator().manual_seed(session.seed)
    return DataLoader(
        folder,
        batch_size=batch_size,
        shuffle=training,
        generator=generator,
        num_workers=session.input_workers,
        worker_init_fn=_seed_worker,
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


def _seed_worker(_: int) -> None:
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
