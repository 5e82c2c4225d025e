"""Optimisers in PyTorch: torch's own are the contract's definitions, rates by group and coupled decay
included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from backends.architectures import is_head
from backends.optimizers import SGD, Adam, Constant, Optimizer, RMSprop, schedule_factor
from backends.resume import require_entries

MOMENTS: Mapping[str, str] = {
    "momentum_buffer": "velocity",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
    "square_avg": "square",
}
"""torch's names of its buffers, and the contract's."""

SCHEDULED = "scheduler steps"
"""What the scheduler counts them under in a state."""


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


def schedule(optimizer: Optimizer, made: torch.optim.Optimizer) -> LambdaLR | None:
    """What sets the rates after each step; None where they stay."""
    if isinstance(optimizer.schedule, Constant):
        return None
    return LambdaLR(made, lambda step: schedule_factor(optimizer.schedule, step))


def moments(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> Iterable[tuple[str, torch.Tensor]]:
    """The buffers there are, under the contract's names."""
    for name, tensor in tensors.items():
        for own, buffer in optimizer.state.get(tensor, {}).items():
            if own in MOMENTS and buffer is not None:
                yield f"{MOMENTS[own]} of {name}", buffer


def state(
    optimizer: torch.optim.Optimizer, scheduler: LambdaLR | None, tensors: Mapping[str, torch.Tensor]
) -> Iterable[tuple[str, torch.Tensor]]:
    """What the coming steps depend on: torch's buffers, step counts among them, and where the scheduler
    is."""
    for name, tensor in tensors.items():
        for own, buffer in optimizer.state.get(tensor, {}).items():
            yield f"{own} of {name}", buffer
    if scheduler is not None:
        yield SCHEDULED, torch.tensor(scheduler.last_epoch)


def load_state(
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR | None,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, np.ndarray],
) -> None:
    """Put back what `state` gave.

    Raises:
        WeightsError: names the first entry that is missing or of another shape.
    """
    shapes = {
        f"{own} of {name}": () if own == "step" else tuple(tensor.shape)
        for name, tensor in tensors.items()
        for own in _buffers(optimizer)
    }
    require_entries(state, shapes | ({} if scheduler is None else {SCHEDULED: ()}))
    for name, tensor in tensors.items():
        for own in _buffers(optimizer):
            buffer = torch.tensor(state[f"{own} of {name}"])
            # torch counts steps on the CPU
            optimizer.state[tensor][own] = buffer if own == "step" else buffer.to(tensor.device)
    if scheduler is not None:
        scheduler.last_epoch = int(state[SCHEDULED])
        for group, initial, factor in zip(
            optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = initial * factor(scheduler.last_epoch)


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


def _buffers(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """torch's names of what it makes for each tensor at the first step."""
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum_buffer",) if optimizer.param_groups[0]["momentum"] else ()
    return (
        ("step", "square_avg")
        if isinstance(optimizer, torch.optim.RMSprop)
        else ("step", "exp_avg", "exp_avg_sq")
    )
