"""Optimisers in MXNet: its own in the native track, and the contract's definitions in the matched one.

MXNet's kernels round their hyper-parameters to float32, whatever the arrays are in. The matched track has
from them what that leaves as it is defined: plain descent and momentum, at rates that stay for a while. The
rest is arithmetic on arrays, which takes Python's numbers whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from backends.architectures import is_head
from backends.base import Track
from backends.optimizers import (
    SGD,
    Adam,
    Constant,
    Optimizer,
    RMSprop,
    Schedule,
    StepDecay,
    schedule_factor,
)
from backends.resume import require_entries

STEPS, RATE = "steps", "learning rate of the last step"
"""Names in a state of what is no buffer."""


def make(optimizer: Optimizer, tensors: Mapping[str, gluon.Parameter], track: Track) -> gluon.Trainer:
    """The optimiser of these tensors, given by neutral name."""
    for name, tensor in tensors.items():
        tensor.lr_mult = optimizer.head_multiplier if is_head(name) else 1.0
    made = _matched(optimizer) if track == "matched" else _native(optimizer)
    return gluon.Trainer(list(tensors.values()), made)


def moments(
    trainer: gluon.Trainer, tensors: Mapping[str, gluon.Parameter]
) -> Iterable[tuple[str, mx.nd.NDArray]]:
    """The buffers there are, under the contract's names."""
    optimizer, states = trainer.optimizer, trainer._updaters[0].states
    for index, (name, tensor) in enumerate(tensors.items()):
        state = states.get(index)
        if state is None:
            continue
        if isinstance(optimizer, mx.optimizer.Adam):
            yield f"mean of {name}", state[0]
            yield f"square of {name}", state[1]
        elif isinstance(optimizer, mx.optimizer.RMSProp):
            yield f"square of {name}", state[0]
        elif isinstance(optimizer, MatchedSGD):
            yield f"velocity of {name}", state
        else:  # MXNet's buffer is `u = -lr * v`, with the rate of the last step
            yield f"velocity of {name}", state / -as_kernels_take_it(trainer.learning_rate * tensor.lr_mult)


def state(
    trainer: gluon.Trainer, scheduler: Scheduler, tensors: Mapping[str, gluon.Parameter]
) -> Iterable[tuple[str, np.ndarray]]:
    """What the coming steps depend on: MXNet's buffers as it keeps them, the steps taken, and the rate of the
    last one, from which buffers are brought to that of the next."""
    states = trainer._updaters[0].states
    for index, name in enumerate(tensors):
        for own, buffer in _buffers(states.get(index)).items():
            yield f"{own} of {name}", buffer.asnumpy()
    yield STEPS, np.array(scheduler.steps)
    yield RATE, np.array(trainer.learning_rate)


def load_state(
    trainer: gluon.Trainer,
    scheduler: Scheduler,
    tensors: Mapping[str, gluon.Parameter],
    state: Mapping[str, np.ndarray],
) -> None:
    """Put back what `state` gave.

    Raises:
        WeightsError: names the first entry that is missing or of another shape.
    """
    optimizer, updater = trainer.optimizer, trainer._updaters[0]
    made = [
        optimizer.create_state_multi_precision(index, tensor.data())
        for index, tensor in enumerate(tensors.values())
    ]
    buffers = {
        f"{own} of {name}": buffer
        for name, of_tensor in zip(tensors, made, strict=True)
        for own, buffer in _buffers(of_tensor).items()
    }
    require_entries(state, {name: buffer.shape for name, buffer in buffers.items()} | {STEPS: (), RATE: ()})
    for name, buffer in buffers.items():
        buffer[:] = state[name]
    scheduler.steps = optimizer.num_update = int(state[STEPS])
    optimizer._set_current_context(trainer._contexts[0].device_id)  # each device has counts of its own
    for index, of_tensor in enumerate(made):
        updater.states[index], updater.states_synced[index] = of_tensor, True
        optimizer._index_update_count[index] = scheduler.steps
    trainer.set_learning_rate(float(state[RATE]))


def settings(trainer: gluon.Trainer, scheduler: Scheduler) -> dict[str, Any]:
    """Read off the live objects."""
    optimizer = trainer.optimizer
    nesterov = isinstance(optimizer, mx.optimizer.NAG) or getattr(optimizer, "nesterov", False)
    module = type(optimizer).__module__.replace("mxnet.optimizer.optimizer", "mxnet.optimizer")
    return {
        "class": f"{module}.{type(optimizer).__name__}",
        "learning_rates": sorted({scheduler.initial_rate * tensor.lr_mult for tensor in trainer._params}),
        "momentum": scheduler.momentum,
        "nesterov": None if scheduler.momentum is None else nesterov,
        "alpha": getattr(optimizer, "gamma1", None),
        "betas": [optimizer.beta1, optimizer.beta2] if isinstance(optimizer, mx.optimizer.Adam) else None,
        "epsilon": getattr(optimizer, "epsilon", None),
        "weight_decay": optimizer.wd,
        "decay_form": "coupled",
    }


class Scheduler:
    """Sets the learning rate of each step before it is taken.

    MXNet's kernels keep the rate inside the velocity, `u = m * u - lr * g`. What makes that equal a rate
    outside of it is done here as well: with `m * new / old` in the place of `m`; or, where the kernel looks
    ahead with the same `m`, with `u * new / old` in the place of `u`.
    """

    def __init__(self, trainer: gluon.Trainer, schedule: Schedule) -> None:
        self.initial_rate: float = trainer.learning_rate
        self.momentum: float | None = getattr(trainer.optimizer, "momentum", None)
        self.steps = 0
        """Taken so far."""
        self._trainer, self._schedule = trainer, schedule

    def step(self) -> None:
        """Set the rate of the coming step."""
        optimizer = self._trainer.optimizer
        rate = self.initial_rate * schedule_factor(self._schedule, self.steps)
        change = rate / optimizer.learning_rate
        if self.momentum and isinstance(optimizer, mx.optimizer.SGD):
            optimizer.momentum = self.momentum * change
        elif isinstance(optimizer, mx.optimizer.NAG) and change != 1:
            for velocity in self._trainer._updaters[0].states.values():
                velocity *= change
        self._trainer.set_learning_rate(rate)
        self.steps += 1


def as_kernels_take_it(number: float) -> float:
    """Rounded to float32, in which MXNet's kernels have their hyper-parameters whatever the arrays are in."""
    return float(np.float32(number))


def _buffers(of_tensor: Any) -> dict[str, mx.nd.NDArray]:
    """What an optimiser keeps for one tensor, numbered: MXNet has none, one, or a tuple."""
    if of_tensor is None:
        return {}
    several = of_tensor if isinstance(of_tensor, tuple) else (of_tensor,)
    return {f"buffer {number}": buffer for number, buffer in enumerate(several)}


# --- MXNet's own ----------------------------------------------------------------------------------


def _native(optimizer: Optimizer) -> mx.optimizer.Optimizer:
    common = {"learning_rate": optimizer.learning_rate, "wd": optimizer.weight_decay}
    if isinstance(optimizer, SGD):
        own = mx.optimizer.NAG if _looks_ahead(optimizer) else mx.optimizer.SGD
        return own(momentum=optimizer.momentum, **common)
    if isinstance(optimizer, RMSprop):
        return mx.optimizer.RMSProp(gamma1=optimizer.alpha, epsilon=optimizer.epsilon, **common)
    assert isinstance(optimizer, Adam)
    first, second = optimizer.betas
    return mx.optimizer.Adam(beta1=first, beta2=second, epsilon=optimizer.epsilon, **common)


def _looks_ahead(optimizer: SGD) -> bool:
    return optimizer.nesterov and optimizer.momentum > 0  # without momentum both are plain descent


# --- The contract's definitions -------------------------------------------------------------------


def _matched(optimizer: Optimizer) -> mx.optimizer.Optimizer:
    common = {"learning_rate": optimizer.learning_rate, "wd": optimizer.weight_decay}
    if isinstance(optimizer, SGD):
        ahead = _looks_ahead(optimizer)
        if ahead or not isinstance(optimizer.schedule, Constant | StepDecay):
            return MatchedSGD(momentum=optimizer.momentum, nesterov=ahead, **common)
        return _native(optimizer)
    if isinstance(optimizer, RMSprop):
        return MatchedRMSProp(gamma1=optimizer.alpha, epsilon=optimizer.epsilon, **common)
    assert isinstance(optimizer, Adam)
    first, second = optimizer.betas
    return MatchedAdam(beta1=first, beta2=second, epsilon=optimizer.epsilon, **common)


class MatchedSGD(mx.optimizer.Optimizer):
    """`optimizers.SGD`. Of MXNet's own kernels the plain one rounds each new rate, and Nesterov's takes the
    velocity's share of the decay from the weight that it has just written."""

    def __init__(self, *, momentum: float, nesterov: bool, **common: Any) -> None:
        super().__init__(**common)
        self.momentum, self.nesterov = momentum, nesterov

    def create_state(self, index: int, weight: mx.nd.NDArray) -> mx.nd.NDArray | None:
        return mx.nd.zeros_like(weight) if self.momentum else None

    def update(
        self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: mx.nd.NDArray | None
    ) -> None:
        step = _decayed(self, index, weight, grad)
        if state is not None:
            state *= self.momentum
            state += step
            step = step + self.momentum * state if self.nesterov else state
        weight -= self._get_lr(index) * step


class MatchedRMSProp(mx.optimizer.RMSProp):
    """`optimizers.RMSprop`. MXNet's own has epsilon inside the root."""

    def create_state(self, index: int, weight: mx.nd.NDArray) -> tuple[mx.nd.NDArray]:
        return (mx.nd.zeros_like(weight),)

    def update(
        self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: tuple[mx.nd.NDArray]
    ) -> None:
        gradient = _decayed(self, index, weight, grad)
        _gather(state[0], gradient.square(), keeps=self.gamma1)
        _descend(weight, gradient, state[0], rate=self._get_lr(index), epsilon=self.epsilon)


class MatchedAdam(mx.optimizer.Adam):
    """`optimizers.Adam`. MXNet's own adds epsilon to the uncorrected root."""

    def update(
        self,
        index: int,
        weight: mx.nd.NDArray,
        grad: mx.nd.NDArray,
        state: tuple[mx.nd.NDArray, mx.nd.NDArray],
    ) -> None:
        self._update_count(index)
        steps, (mean, square) = self._index_update_count[index], state
        gradient = _decayed(self, index, weight, grad)
        _gather(mean, gradient, keeps=self.beta1)
        _gather(square, gradient.square(), keeps=self.beta2)
        # With the corrections taken out of the arrays, which saves two passes over them
        root = math.sqrt(1 - self.beta2**steps)
        rate = self._get_lr(index) * root / (1 - self.beta1**steps)
        _descend(weight, mean, square, rate=rate, epsilon=self.epsilon * root)


def _decayed(
    optimizer: mx.optimizer.Optimizer, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray
) -> mx.nd.NDArray:
    """The gradient with the weight's decay; not to be written to."""
    decay = optimizer._get_wd(index)
    return grad + decay * weight if decay else grad


def _gather(buffer: mx.nd.NDArray, value: mx.nd.NDArray, *, keeps: float) -> None:
    buffer *= keeps
    buffer += (1 - keeps) * value


def _descend(
    weight: mx.nd.NDArray, step: mx.nd.NDArray, square: mx.nd.NDArray, *, rate: float, epsilon: float
) -> None:
    scale = square.sqrt()
    scale += epsilon
    step = step / scale
    step *= rate
    weight -= step
