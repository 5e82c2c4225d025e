"""The gate's reference: a golden file per network and one for the optimisers, which holds of each tensor its
norm, its maximum, some values at fixed places and some random-sign projections.

`golden.py` makes the files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import safe_open

from benchmarks.harness.initial import Tensors


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend computed: by kind of comparison, tensors by name."""

    tensors: Mapping[str, Tensors]
    settings: dict[str, Any]


COMPARED_SETTINGS = (
    "batch_norm.layers",
    "batch_norm.on_stored_statistics",
    "batch_norm.epsilon",
    "batch_norm.running_keeps",
    "batch_norm.running_variance",
    "optimizer.learning_rates",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.alpha",
    "optimizer.betas",
    "optimizer.epsilon",
    "optimizer.weight_decay",
    "optimizer.decay_form",
    "optimizer.schedule",
    "loss",
    "dropout",
    "trained_parameters",
    "parameters",
)
"""Effective settings that must be equal in all backends; the others may differ, and are recorded."""


GOLDEN = Path(__file__).with_name("golden")
SAMPLES, PROJECTIONS = 64, 4
"""Of each tensor. A projection sums all values with random signs: no value can change unseen."""
TINY = 1e-4
"""A tensor whose values are below this part of the largest of its kind is compared on that scale: what
should be nothing has no relative error."""


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference computed, in short."""

    summaries: Mapping[str, np.ndarray]
    """`<mode or rule>/<kind>/<tensor>` to `summary`."""
    settings: Mapping[str, Mapping[str, Any]]
    """Mode or rule to effective settings."""
    sha256: str

    def of_kind(self, mode: str, kind: str) -> dict[str, np.ndarray]:
        """Tensor to summary."""
        prefix = f"{mode}/{kind}/"
        return {
            name.removeprefix(prefix): summary
            for name, summary in self.summaries.items()
            if name.startswith(prefix)
        }

    def worst(self, observed: Observation, mode: str, kind: str) -> tuple[float, str]:
        """Largest error among the tensors of a kind, and whose it is; infinite if one is missing, or not
        expected."""
        expected, found = self.of_kind(mode, kind), observed.tensors[kind]
        largest = max(summary[1] for summary in expected.values())
        for name in [*expected, *found]:
            if name not in found or name not in expected:
                return math.inf, f"{name} ({'missing' if name not in found else 'not expected'})"
        errors = {
            name: error_of(found[name], summary, least=TINY * largest) for name, summary in expected.items()
        }
        name = max(errors, key=lambda name: errors[name])
        return errors[name], name

    def differences(self, settings: dict[str, Any], mode: str) -> list[str]:
        """Effective settings that are not the reference's, in words."""
        return [
            f"{key} is {found} instead of {expected}"
            for key in COMPARED_SETTINGS
            if (found := _setting(settings, key)) != (expected := self.settings[mode][key])
        ]


def summary(tensor: np.ndarray) -> np.ndarray:
    """Norm, largest absolute value, projections, samples: float64."""
    values = np.asarray(tensor, dtype=np.float64).ravel()
    return np.concatenate(
        (
            [np.linalg.norm(values), np.abs(values).max()],
            [values @ signs for signs in _signs(values.size)],
            values[_places(values.size)],
        )
    )


def error_of(tensor: np.ndarray, expected: np.ndarray, *, least: float) -> float:
    """Largest difference from a summary: values relative to the largest one, norm and projections relative
    to the norm. Infinite for a tensor of another size or one that is not finite."""
    if not np.isfinite(tensor).all():
        return math.inf
    found = summary(tensor)
    if found.shape != expected.shape:
        return math.inf
    difference = np.abs(found - expected)
    sums = [0, *range(2, 2 + PROJECTIONS)]
    values = [1, *range(2 + PROJECTIONS, len(found))]
    # The values' own scale spread over them all, where the tensor is (nearly) nothing
    norm = max(expected[0], least * math.sqrt(tensor.size))
    return float(max(difference[sums].max() / norm, difference[values].max() / max(expected[1], least)))


def summarize(observed: Mapping[str, Observation]) -> tuple[Tensors, dict[str, str]]:
    """The golden file's tensors and metadata."""
    tensors = {
        f"{mode}/{kind}/{name}": summary(tensor)
        for mode, observation in observed.items()
        for kind, named in observation.tensors.items()
        for name, tensor in named.items()
    }
    settings = {
        mode: {key: _setting(observation.settings, key) for key in COMPARED_SETTINGS}
        for mode, observation in observed.items()
    }
    return tensors, {"settings": json.dumps(settings)}


def golden_path(name: str) -> Path:
    """Where the golden file of this name lies."""
    return GOLDEN / f"{name}.safetensors"


@cache
def read_golden(name: str) -> Golden:
    """The golden file of a network, or of the rules."""
    path = golden_path(name)
    with safe_open(str(path), framework="numpy") as file:
        summaries = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dictionary
        settings = json.loads(file.metadata()["settings"])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Golden(summaries=summaries, settings=settings, sha256=sha256)


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def _signs(size: int) -> Iterator[np.ndarray]:
    random = np.random.RandomState(size % 2**32)
    for _ in range(PROJECTIONS):
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-size // 8)), dtype=np.uint8), count=size)
        yield 1.0 - 2.0 * bits


def _places(size: int) -> np.ndarray:
    if size <= SAMPLES:
        return np.arange(size)
    return np.sort(np.random.RandomState(size % 2**32).randint(0, size, SAMPLES))
