"""The matched track's initial weights: drawn once, under neutral names, for every backend alike.

Each tensor has a generator of its own, seeded by its name: adding or leaving out a tensor changes no other.
`numpy.random.RandomState` gives the same stream in NumPy 1 and 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from backends import architectures
from backends.base import Initializer, ModelSpec, UsageError

Tensors = dict[str, np.ndarray]


def draw(spec: ModelSpec, *, seed: int) -> Tensors:
    """Every tensor of a network as float32: kernels by the spec's initialiser, zero biases, batch norm at
    rest (scale 1, shift 0, mean 0, variance 1).

    Raises:
        UsageError: the initialiser is the framework's own, which another framework does not have.
    """
    return {
        name: _draw(name, shape, spec.initializer, seed) for name, shape in architectures.shapes(spec).items()
    }


def sha256_of(tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of names, shapes and values, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
    return digest.hexdigest()


def generator(*words: object) -> np.random.RandomState:
    """A generator that is determined by these words alone."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def _draw(name: str, shape: tuple[int, ...], initializer: Initializer, seed: int) -> np.ndarray:
    if len(shape) == 1:
        ones = name.endswith((".weight", ".running_var"))
        return np.ones(shape, np.float32) if ones else np.zeros(shape, np.float32)
    field = int(np.prod(shape[2:], initial=1))
    fan_out, fan_in = shape[0] * field, shape[1] * field
    random = generator("initial", seed, name)
    if initializer == "he":  # K. He et al. 2015: normal, variance 2 / fan in
        values = random.standard_normal(shape) * np.sqrt(2 / fan_in)
    elif initializer == "xavier":  # X. Glorot and Y. Bengio 2010: uniform, variance 2 / (fan in + fan out)
        values = random.uniform(-1, 1, shape) * np.sqrt(6 / (fan_in + fan_out))
    else:
        raise UsageError(
            f"initializer '{initializer}' is the framework's own: the matched track takes he or xavier"
        )
    drawn: np.ndarray = values.astype(np.float32)
    return drawn
