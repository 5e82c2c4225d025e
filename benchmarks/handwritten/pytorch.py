"""ResNet-18 in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms

from backends import allocator
from backends.base import NORMALIZATIONS
from benchmarks.handwritten import Task


class Leanest:
    """Eager, and in place where that can be."""

    def __init__(self, task: Task) -> None:
        torch.manual_seed(task.seed)
        torch.set_num_threads(task.threads)
        allocator.keep_freed(task.tuned)
        self._layout = torch.channels_last if task.tuned else torch.contiguous_format
        self._network = _network(task).to(memory_format=self._layout).train()
        self._optimizer = _optimizer(task, self._network)
        scaling = NORMALIZATIONS[task.spec.normalization]
        self._mean = torch.tensor(scaling.mean).mul_(scaling.divisor).view(1, 3, 1, 1)
        self._deviation = torch.tensor(scaling.deviation).mul_(scaling.divisor).view(1, 3, 1, 1)
        self._loss = torch.zeros(())
        self._hits = torch.zeros((), dtype=torch.int64)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        named = {_own_name(name): torch.from_numpy(value) for name, value in weights.items()}
        self._network.load_state_dict(named, strict=False)  # but for counts of batches

    def weights(self) -> dict[str, np.ndarray]:
        return {_neutral_name(n): p.detach().numpy().copy() for n, p in self._network.named_parameters()}

    def host_batch(self, images: np.ndarray, labels: np.ndarray) -> Any:
        return torch.from_numpy(images), torch.from_numpy(labels)

    def step(self, batch: Any) -> None:
        images, labels = batch
        inputs = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._layout)
        logits = self._network(inputs.sub_(self._mean).div_(self._deviation))
        loss = functional.cross_entropy(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            self._loss += loss * len(labels)
            self._hits += (logits.argmax(1) == labels).sum()

    def metrics(self) -> tuple[float, int]:
        return float(self._loss), int(self._hits)


class Textbook:
    """As in Dive into Deep Learning, 14.2: folder, transforms, loader, loop."""

    def __init__(self, task: Task, folder: Path) -> None:
        torch.manual_seed(task.seed)
        torch.set_num_threads(task.threads)
        scaling = NORMALIZATIONS[task.spec.normalization]
        augmentation = transforms.Compose(
            [
                transforms.RandomResizedCrop(task.spec.image_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(scaling.mean, scaling.deviation),
            ]
        )
        images = torchvision.datasets.ImageFolder(str(folder), transform=augmentation)
        self._batches = DataLoader(images, batch_size=task.batch_size, shuffle=True)
        self._network = _network(task)
        self._optimizer = _optimizer(task, self._network)
        self._loss = nn.CrossEntropyLoss()

    def epoch(self) -> int:
        total_loss, hits, count = 0.0, 0, 0
        self._network.train()
        for images, labels in self._batches:
            self._optimizer.zero_grad()
            logits = self._network(images)
            loss = self._loss(logits, labels)
            loss.backward()
            self._optimizer.step()
            total_loss += loss.item() * len(labels)
            hits += int((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
        return count


def _network(task: Task) -> nn.Module:
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Linear(network.fc.in_features, task.spec.classes)
    return network


def _optimizer(task: Task, network: nn.Module) -> torch.optim.Optimizer:
    asked = task.optimizer
    head = list(network.fc.parameters())
    body = [tensor for name, tensor in network.named_parameters() if not name.startswith("fc.")]
    return torch.optim.SGD(
        [{"params": body}, {"params": head, "lr": asked.learning_rate * asked.head_multiplier}],
        lr=asked.learning_rate,
        momentum=asked.momentum,
        weight_decay=asked.weight_decay,
    )


def _own_name(neutral: str) -> str:
    return neutral.replace("head.", "fc.")


def _neutral_name(own: str) -> str:
    return own.replace("fc.", "head.")
