"""SGD: Keras' own, Keras' own with a rate for the head and coupled decay, and the contract's definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from backends.architectures import is_head
from backends.base import (
    Track,
)
from backends.optimizers import InverseTime, Optimizer, Schedule, StepDecay


def make(optimizer: Optimizer, track: Track, variables: Sequence[Any]) -> Any:
    """The optimiser of these variables, in their order, built."""
    arguments = {"momentum": float(optimizer.momentum), "nesterov": optimizer.nesterov}
    groups = {"head_multiplier": optimizer.head_multiplier, "coupled_decay": optimizer.weight_decay}
    made: Any
    if track == "matched":
        made = MatchedSGD(learning_rate=float(optimizer.learning_rate), **arguments, **groups)
    else:
        # Keras keeps the rate inside the velocity (v = m*v - lr*g, w = w + v). At a constant rate that is the
        # contract's step; under a schedule with momentum it is not, and that difference is Keras' own.
        rate = _native_rate(float(optimizer.learning_rate), optimizer.schedule)
        if optimizer.head_multiplier == 1 and optimizer.weight_decay == 0:
            made = keras.optimizers.SGD(learning_rate=rate, **arguments)
        else:
            made = GroupedSGD(learning_rate=rate, **arguments, **groups)
    made.build(variables)
    return made


def velocities(optimizer: Any) -> list[np.ndarray]:
    """The contract's velocity of every variable, in their order; none before a step, nor without momentum."""
    steps = int(optimizer.iterations)
    if not steps or not optimizer.momentums:
        return []
    buffers = [buffer.numpy() for buffer in optimizer.momentums]
    if isinstance(optimizer, MatchedSGD):
        return buffers
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):  # the rate that the last step put into them
        rate = float(keras.optimizers.schedules.deserialize(rate)(steps - 1))
    multipliers = getattr(optimizer, "multipliers", [1.0] * len(buffers))
    return [-buffer / (rate * own) for buffer, own in zip(buffers, multipliers, strict=True)]


def title(optimizer: Any) -> str:
    """Which of the three it is."""
    if isinstance(optimizer, MatchedSGD):
        return "keras.optimizers.SGD, by group, rate outside the velocity"
    return f"keras.optimizers.SGD{', by group' if isinstance(optimizer, GroupedSGD) else ''}"


def initial_rates(optimizer: Any) -> list[float]:
    """The different rates of a first step, ascending."""
    rate = optimizer.get_config()["learning_rate"]  # a number, or a schedule as a dictionary
    if isinstance(optimizer, MatchedSGD):
        rate = optimizer.initial_rate
    elif isinstance(rate, dict):
        rate = rate["config"]["initial_learning_rate"]
    else:
        rate = float(str(np.float32(rate)))  # held in float32: the shortest number that means the same
    return sorted({rate * multiplier for multiplier in getattr(optimizer, "multipliers", (1.0,))})


class GroupedSGD(keras.optimizers.SGD):
    """Keras' SGD with a rate of its own for the head, and with weight decay coupled to the gradient.

    Keras' own `weight_decay` is decoupled: it shrinks the weights beside the step, unseen by the momentum.
    """

    def __init__(self, *, head_multiplier: float, coupled_decay: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.head_multiplier = head_multiplier
        self.coupled_decay = coupled_decay

    def build(self, variables: Any) -> None:
        """Make the velocities, and note each variable's multiple of the learning rate."""
        super().build(variables)
        self.multipliers = tuple(
            self.head_multiplier if is_head(variable.path.replace("/", ".")) else 1.0
            for variable in variables
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step; it comes as a bare tf.Variable without a path: its index tells which it is."""
        if self.coupled_decay:
            gradient = gradient + self.coupled_decay * variable
        multiplier = self.multipliers[self._get_variable_index(variable)]
        self.step(gradient, variable, learning_rate * multiplier)

    def step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The step of a gradient that holds the decay, at the variable's own rate."""
        super().update_step(gradient, variable, learning_rate)


class MatchedSGD(GroupedSGD):
    """`base.Optimizer` to the letter: the rate stays outside the velocity, all of which follows a schedule.

    The schedule is the caller's, who sets its factor before each step.
    """

    def __init__(self, *, learning_rate: float, **arguments: Any) -> None:
        super().__init__(learning_rate=learning_rate, **arguments)
        self.initial_rate = learning_rate
        self._factor = 1.0

    def set_factor(self, factor: float) -> None:
        """Multiply the initial rate by this from now on. Costs nothing as long as it stays the same."""
        if factor != self._factor:
            self.learning_rate = self.initial_rate * factor
            self._factor = factor

    def step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """`v = m*v + g`, then `w = w - lr*v`, or `w = w - lr*(g + m*v)` with Nesterov's momentum."""
        if self.momentum:
            buffer = self.momentums[self._get_variable_index(variable)].value
            velocity = buffer.assign(self.momentum * buffer + gradient)
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        variable.assign_sub(learning_rate * gradient)


def _native_rate(rate: float, schedule: Schedule) -> Any:
    schedules = keras.optimizers.schedules
    if isinstance(schedule, InverseTime):
        return schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=schedule.decay)
    if isinstance(schedule, StepDecay):
        return schedules.ExponentialDecay(
            rate, decay_steps=schedule.steps, decay_rate=schedule.factor, staircase=True
        )
    return rate
