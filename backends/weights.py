"""Neutral weights: one naming and one layout for every framework (see `architectures.py`), in safetensors
files."""

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

from backends import architectures
from backends.architectures import ARCHITECTURES, architecture_of, is_head, shapes
from backends.base import NORMALIZATIONS, ModelSpec, Normalization, WeightsError, one_line


def select(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], *, head: bool
) -> dict[str, np.ndarray]:
    """The tensors a network of these shapes takes from a checkpoint, checked: all, or all but the head's.
    Their precision is as it was.

    Raises:
        WeightsError: names the first tensor that is missing, of another shape or of no floating-point type.
    """
    wanted = [name for name in expected if head or not is_head(name)]
    for name in wanted:
        if name not in tensors:
            found = ", ".join(map(repr, list(tensors)[:3])) or "nothing"
            raise WeightsError(
                f"these weights have no tensor '{name}' (they begin with {found}): they are of another"
                f" architecture"
            )
        if tuple(tensors[name].shape) != tuple(expected[name]):
            raise WeightsError(
                f"tensor '{name}' has shape {tuple(tensors[name].shape)} where the network has"
                f" {tuple(expected[name])}:"
                " the weights are of another architecture, head or image size"
            )
        if tensors[name].dtype.kind != "f":
            raise WeightsError(
                f"tensor '{name}' holds values of type {tensors[name].dtype}; save it as float32"
            )
    return {name: tensors[name] for name in wanted}


# --- Files ----------------------------------------------------------------------------------------


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where weights come from; kept in the file's metadata."""

    architecture: str = ""
    origin: str = ""
    preprocess: str = ""
    key: str = ""
    """What made them, as a hash: see the pretraining cache."""
    content_sha256: str = ""
    """Of all that the file holds but this; `write` sets it, and `read` verifies it where it is there."""


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
        WeightsError: no such file, not safetensors, damaged, or not finite.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights {path}: {error.strerror}; give a neutral .safetensors file") from error
    try:
        tensors = safetensors_load(data)
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        origin = msgspec.convert(header.get("__metadata__", {}), Origin)
    except (SafetensorError, ValueError, struct.error) as error:
        raise WeightsError(
            f"weights {path}: not a whole safetensors file ({one_line(error)}); {_AGAIN}"
        ) from error
    except KeyError as error:
        raise WeightsError(
            f"weights {path}: holds values of type {error}, which NumPy lacks; save them as float32"
        ) from error
    if origin.content_sha256 not in ("", _content_sha256(tensors, origin)):
        raise WeightsError(f"weights {path}: damaged, it is no longer what was written; {_AGAIN}")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(
                f"weights {path}: tensor {name!r} holds NaN or infinity; the file cannot be used"
            )
    return Checkpoint(name=path.name, sha256=sha256_of(data), origin=origin, tensors=tensors)


_AGAIN = "fetch or convert it again, or remove it where it is the cache's own, which is made anew"


def _content_sha256(tensors: Mapping[str, np.ndarray], origin: Origin) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(origin, content_sha256="")))
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def write(path: Path, tensors: Mapping[str, np.ndarray], origin: Origin) -> str:
    """Write a neutral checkpoint whole or not at all; returns the SHA-256 of its bytes."""
    contiguous = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    origin = msgspec.structs.replace(origin, content_sha256=_content_sha256(contiguous, origin))
    data = safetensors_save(contiguous, metadata=msgspec.to_builtins(origin))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return sha256_of(data)


# --- What a file holds -----------------------------------------------------------------------------


def spec_of(checkpoint: Checkpoint, architecture: str | None = None) -> ModelSpec:
    """What network a neutral checkpoint holds, every tensor's name and shape checked.

    Args:
        architecture: if None, the one its metadata name or else the first whose body it holds.

    Raises:
        WeightsError: of no known architecture or of another one, or without a head; names the first wrong
        tensor.
    """
    tensors = checkpoint.tensors
    name = architecture or checkpoint.origin.architecture or _recognised(tensors)
    spec = architectures.spec_of(name, lambda _, tensor: _shape(tensors, tensor))
    spec = msgspec.structs.replace(spec, normalization=_normalization(checkpoint.origin, name))
    select(tensors, shapes(spec), head=True)
    return spec


def _shape(tensors: Mapping[str, np.ndarray], name: str) -> tuple[int, ...] | None:
    return tensors[name].shape if name in tensors else None


def _recognised(tensors: Mapping[str, np.ndarray]) -> str:
    for architecture in ARCHITECTURES.values():
        if all(name in tensors and tensors[name].shape == shape for name, shape in architecture.body()):
            return architecture.name
    raise WeightsError(
        f"weights of no architecture known here: {', '.join(ARCHITECTURES)}; name one with --arch"
    )


def _normalization(origin: Origin, architecture: str) -> Normalization:
    for name in NORMALIZATIONS:
        if origin.preprocess == name:
            return name
    return architecture_of(architecture).normalization
