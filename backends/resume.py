"""What it takes in every framework to continue a training as if it had never stopped: seeds that depend on
nothing but the epoch, and an optimiser's state that is whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.base import WeightsError


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch in a session of this seed, in 31 bits: MXNet takes no more. Unlike a sum of the
    two it does not come back in a session of another seed."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]) >> 1


def require_entries(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError, naming the first entry at fault, unless all are there and of these shapes."""
    for name, shape in shapes.items():
        if name not in state:
            raise WeightsError(
                f"this optimiser state has no '{name}': it is of another optimiser or another network"
            )
        if state[name].shape != shape:
            raise WeightsError(
                f"'{name}' in this optimiser state has shape {state[name].shape} where the optimiser has"
                f" {shape}: it is of another network"
            )
