"""Optimisers in PyTorch: torch's own are the contract's definitions, rates by group and coupled decay
included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from backends.architectures import is_head
from backends.optimizers import SGD, Adam, Optimizer, RMSprop

MOMENTS: Mapping[str, str] = {
    "momentum_buffer": "velocity",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
    "square_avg": "square",
}
"""torch's names of its buffers, and the contract's."""


def make(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> torch.optim.Optimizer:
    """The optimiser of these tensors, given by neutral name."""
    body = [tensor for name, tensor in tensors.items() if not is_head(name)]
    head = [tensor for name, tensor in tensors.items() if is_head(name)]
    groups = [
        {"params": body, "lr": optimizer.learning_rate},
        {"params": head, "lr": optimizer.learning_rate * optimizer.head_multiplier},
    ]
    groups = [group for group in groups if group["params"]]
    common = {"lr": optimizer.learning_rate, "weight_decay": optimizer.weight_decay}
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(
            groups,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov and optimizer.momentum > 0,  # without momentum both are plain descent
            **common,
        )
    if isinstance(optimizer, RMSprop):
        return torch.optim.RMSprop(groups, alpha=optimizer.alpha, eps=optimizer.epsilon, **common)
    assert isinstance(optimizer, Adam)
    return torch.optim.Adam(groups, betas=optimizer.betas, eps=optimizer.epsilon, **common)


def moments(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> Iterable[tuple[str, torch.Tensor]]:
    """The buffers there are, under the contract's names."""
    for name, tensor in tensors.items():
        for own, buffer in optimizer.state.get(tensor, {}).items():
            if own in MOMENTS and buffer is not None:
                yield f"{MOMENTS[own]} of {name}", buffer


def settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Read off the live object."""
    groups = optimizer.param_groups
    first = groups[0]
    return {
        "class": f"torch.optim.{type(optimizer).__name__}",
        "learning_rates": sorted({group.get("initial_lr", group["lr"]) for group in groups}),
        "momentum": None if isinstance(optimizer, torch.optim.RMSprop) else first.get("momentum"),
        "nesterov": first.get("nesterov"),
        "alpha": first.get("alpha"),
        "betas": list(first["betas"]) if "betas" in first else None,
        "epsilon": first.get("eps"),
        "weight_decay": first["weight_decay"],
        "decay_form": "coupled",
    }
