"""Loops written by hand, one file per framework: the leanest that an engineer of that framework would write,
and the one that a textbook teaches. The harness is measured against them.

They train the framework's own first architecture, on the CPU, and use nothing of the backends but what is no
framework's: the constants of a normalisation, names of tensors, the allocator's switch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec
import numpy as np

import backends
from backends.base import ModelSpec
from backends.optimizers import SGD


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, and how: a matched recipe's."""

    spec: ModelSpec
    optimizer: SGD
    """At a constant rate, without Nesterov's momentum."""
    batch_size: int
    threads: int
    tuned: bool
    """With what the framework's `tuned` variant has on a CPU in float32, but for what the harness decides."""
    seed: int = 0


class Leanest(Protocol):
    """A training step on a batch in host memory: uint8 images (N, H, W, 3) and labels (N,)."""

    def __init__(self, task: Task) -> None: ...

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Start from these, by neutral name, the head's too."""

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of what trains, by neutral name."""

    def host_batch(self, images: np.ndarray, labels: np.ndarray) -> Any:
        """The batch as the framework holds it in host memory."""

    def step(self, batch: Any) -> None:
        """Normalise, forward, backward, update; loss and hits are summed up on the device."""

    def metrics(self) -> tuple[float, int]:
        """Sum of the images' losses, and hits, of all steps; waits for them."""


class Textbook(Protocol):
    """Epochs over a folder of one folder of images per class."""

    def __init__(self, task: Task, folder: Path) -> None: ...

    def epoch(self) -> int:
        """Train on every image once; returns how many there were."""


def leanest(backend: str) -> type[Leanest]:
    """That of a framework, which is imported."""
    loop: type[Leanest] = _loops(backend).Leanest
    return loop


def textbook(backend: str) -> type[Textbook]:
    """That of a framework, which is imported."""
    loop: type[Textbook] = _loops(backend).Textbook
    return loop


def _loops(backend: str) -> ModuleType:
    card = backends.resolve(backend)  # with the cards comes what the frameworks need to be imported at all
    return importlib.import_module(f"{__name__}.{card.name}")
