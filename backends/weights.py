"""Neutral weights: one naming and one layout for every framework, in safetensors files.

Convolutions are OIHW and affine layers (out, in), float32, as NumPy arrays. Names follow torchvision where
it has the architecture and Keras for VGG16, with one difference: everything that belongs to the new head
begins with `head.`.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from backends.base import UsageError, WeightsError, one_line

HEAD = "head"

BLOCKS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "resnet18": {
        "stem": ("conv1.", "bn1."),
        **{f"layer{i}": (f"layer{i}.",) for i in range(1, 5)},
        HEAD: ("head.",),
    },
    # bn0 normalises the input image; bn1 follows the first convolution; bn2 the last block.
    "resnet18_v2": {
        "stem": ("bn0.", "conv1.", "bn1."),
        **{f"layer{i}": (f"layer{i}.",) for i in range(1, 5)},
        "final": ("bn2.",),
        HEAD: ("head.",),
    },
    "vgg16": {**{f"block{i}": (f"block{i}_",) for i in range(1, 6)}, HEAD: ("head.",)},
}
"""For each architecture its blocks from the input up, and how the neutral names in each begin."""


def trained_from(architecture: str, first: str) -> tuple[str, ...]:
    """Prefixes of the neutral names that train when `first` (`all`, `head` or a block) is the lowest that
    does.

    Raises:
        UsageError: the architecture has no such block.
    """
    blocks = BLOCKS[architecture]
    names = list(blocks)
    if first == "all":
        first = names[0]
    if first not in blocks:
        raise UsageError(f"{architecture} has no block '{first}'; it has: all, {', '.join(names)}")
    return tuple(prefix for name in names[names.index(first) :] for prefix in blocks[name])


def is_head(name: str) -> bool:
    """Whether a neutral name belongs to the head."""
    return name.startswith(HEAD + ".")


def select(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], *, head: bool
) -> dict[str, np.ndarray]:
    """The tensors a network of these shapes takes from a checkpoint, checked: all, or all but the head's.

    Raises:
        WeightsError: names the first tensor that is missing or of another shape.
    """
    wanted = [name for name in shapes if head or not is_head(name)]
    for name in wanted:
        if name not in tensors:
            found = ", ".join(list(tensors)[:3]) or "nothing"
            raise WeightsError(
                f"these weights have no tensor '{name}' (they begin with {found}): they are of another"
                f" architecture"
            )
        if tuple(tensors[name].shape) != tuple(shapes[name]):
            raise WeightsError(
                f"tensor '{name}' has shape {tuple(tensors[name].shape)} where the network has"
                f" {tuple(shapes[name])}:"
                " the weights are of another architecture, head or image size"
            )
    return {name: np.asarray(tensors[name], dtype=np.float32) for name in wanted}


# --- Files ----------------------------------------------------------------------------------------


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where weights come from; kept in the file's metadata."""

    architecture: str = ""
    origin: str = ""
    preprocess: str = ""
    key: str = ""
    """What made them, as a hash: see the pretraining cache."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A neutral checkpoint in memory."""

    name: str
    sha256: str
    """Of the file's bytes."""
    origin: Origin
    tensors: dict[str, np.ndarray]


def sha256_of(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Checkpoint:
    """Read a neutral checkpoint.

    Raises:
        WeightsError: no such file, truncated, not safetensors, or not finite.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights {path}: {error.strerror}; give a neutral .safetensors file") from error
    try:
        tensors = safetensors_load(data)
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        origin = msgspec.convert(header.get("__metadata__", {}), Origin)
    except (SafetensorError, ValueError, KeyError, struct.error) as error:
        raise WeightsError(
            f"weights {path}: not a whole safetensors file ({one_line(error)}); fetch or convert it again"
        ) from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(
                f"weights {path}: tensor '{name}' holds NaN or infinity; the file cannot be used"
            )
    return Checkpoint(name=path.name, sha256=sha256_of(data), origin=origin, tensors=tensors)


def write(path: Path, tensors: Mapping[str, np.ndarray], origin: Origin) -> str:
    """Write a neutral checkpoint whole or not at all; returns the SHA-256 of its bytes."""
    contiguous = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    data = safetensors_save(contiguous, metadata=msgspec.to_builtins(origin))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return sha256_of(data)
