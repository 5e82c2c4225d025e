"""torchvision's own input pipeline: ImageFolder, transforms, DataLoader."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from backends.base import CAFFE_MEAN_BGR, IMAGENET_MEAN, IMAGENET_STD, ImageList, Session, Transform


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
    if transform.normalization == "imagenet":
        return transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return transforms.Compose([_rgb_to_bgr_255, transforms.Normalize(CAFFE_MEAN_BGR, (1.0, 1.0, 1.0))])


def _rgb_to_bgr_255(image: torch.Tensor) -> torch.Tensor:
    return image.flip(0) * 255


def _seed_worker(_: int) -> None:
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
