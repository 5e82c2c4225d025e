"""An unfinished training on disk: written after each epoch on images, so that a cell whose process was killed
goes on where it was."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from backends.base import BenchmarkError, one_line
from benchmarks.harness.cache import read_checked, write_checked
from benchmarks.harness.initial import Tensors
from benchmarks.harness.record import Epoch, Extraction
from benchmarks.harness.training.loop import EpochResult

WEIGHTS, OPTIMIZER, CHOSEN = "weights/", "optimizer/", "chosen/"
"""What the names of tensors begin with in the file."""


class SnapshotError(BenchmarkError):
    """A snapshot that is damaged or cannot be written."""


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """All of a snapshot but its tensors."""

    key: str
    """Of the cell and of the code; see `Record.key` and `Record.code_sha256`."""
    phase: int
    """The one that was under way."""
    chosen: EpochResult
    """Of this phase so far: the last epoch, or the best by the validation set."""
    curve: tuple[Epoch, ...]
    hashes: tuple[str, ...]
    extractions: tuple[Extraction, ...]
    resumed: tuple[int, ...]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A training as it was after an epoch. Generators need no place in it: they are seeded anew for every
    epoch."""

    notes: Notes
    weights: Tensors
    optimizer: Tensors
    """`Backend.optimizer_state`."""
    chosen: Tensors | None
    """The weights of the epoch chosen, where they are others than the present ones."""


class Keeper:
    """Keeps the snapshot of one cell."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def write(self, snapshot: Snapshot) -> None:
        """Put it into the place of the one before.

        Raises:
            SnapshotError: the disk is full or may not be written to; the one before is still there.
        """
        tensors = _prefixed(WEIGHTS, snapshot.weights) | _prefixed(OPTIMIZER, snapshot.optimizer)
        if snapshot.chosen is not None:
            tensors |= _prefixed(CHOSEN, snapshot.chosen)
        notes = msgspec.json.encode(snapshot.notes).decode()
        try:
            write_checked(self.path, safetensors_save(tensors, metadata={"notes": notes}))
        except OSError as error:
            raise SnapshotError(
                f"checkpoint {self.path}: cannot be written ({one_line(error)}); make room and --resume"
            ) from error

    def read(self) -> Snapshot | None:
        """The cell's snapshot; None where there is none, or that of a cell made from something else.

        Raises:
            SnapshotError: it is damaged, or cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            data = read_checked(self.path)
        except OSError as error:
            raise SnapshotError(f"checkpoint {self.path}: cannot be read ({one_line(error)})") from error
        if data is None:
            raise SnapshotError(f"checkpoint {self.path}: damaged, it is no longer what was written")
        try:
            tensors = safetensors_load(data)
            header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
            notes = msgspec.json.decode(header["__metadata__"]["notes"], type=Notes)
        except (SafetensorError, ValueError, KeyError, struct.error) as error:
            raise SnapshotError(
                f"checkpoint {self.path}: of another version of this program ({one_line(error)})"
            ) from error
        if notes.key != self.key:
            return None
        return Snapshot(
            notes=notes,
            weights=_taken(WEIGHTS, tensors),
            optimizer=_taken(OPTIMIZER, tensors),
            chosen=_taken(CHOSEN, tensors) or None,
        )

    def remove(self) -> None:
        """Forget the training: it is finished, or starts anew."""
        self.path.unlink(missing_ok=True)


def _prefixed(prefix: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    return {f"{prefix}{name}": np.asarray(tensor, order="C") for name, tensor in tensors.items()}


def _taken(prefix: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
