"""Optimisers in Keras: Keras' own, Keras' own with a rate for the head and coupled decay, and the contract's
definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import msgspec
import numpy as np

from backends.architectures import is_head
from backends.base import Track, UsageError
from backends.optimizers import SGD, Adam, Exponential, InverseTime, OneCycle, Optimizer, RMSprop, StepDecay
from backends.resume import require_entries

MOMENTS: Mapping[type, Mapping[str, str]] = {
    keras.optimizers.SGD: {"momentums": "velocity"},
    keras.optimizers.RMSprop: {"_velocities": "square"},
    keras.optimizers.Adam: {"_momentums": "mean", "_velocities": "square"},
}
"""Keras' names of its buffers, and the contract's."""


def make(optimizer: Optimizer, tensors: Mapping[str, Any], track: Track) -> Any:
    """The optimiser of these variables, given by neutral name; built.

    Raises:
        UsageError: the native track, and a schedule that Keras does not have.
    """
    classes, arguments = _CLASSES[type(optimizer)], _arguments(optimizer)
    groups = {"head_multiplier": optimizer.head_multiplier, "coupled_decay": optimizer.weight_decay}
    made: Any
    if track == "matched":
        made = classes.matched(learning_rate=float(optimizer.learning_rate), **arguments, **groups)
    elif optimizer.head_multiplier == 1 and optimizer.weight_decay == 0:
        made = classes.own(learning_rate=_native_rate(optimizer), **arguments)
    else:
        made = classes.grouped(learning_rate=_native_rate(optimizer), **arguments, **groups)
    # There is one device, and nothing to add up. Keras' way of adding leaves a gradient in TensorFlow's
    # global registry, which keeps the graph, and through it all weights and buffers, until the process ends.
    made._all_reduce_sum_gradients = list
    made.build(list(tensors.values()))
    return made


def moments(optimizer: Any, tensors: Mapping[str, Any]) -> Iterable[tuple[str, str, np.ndarray]]:
    """The buffers there are, in Keras' layouts: the contract's name, the variable's neutral name, values."""
    if not int(optimizer.iterations):
        return
    names = next(names for kind, names in MOMENTS.items() if isinstance(optimizer, kind))
    for own, moment in names.items():
        buffers = getattr(optimizer, own)
        for index, (name, buffer) in enumerate(zip(tensors, buffers, strict=bool(buffers))):
            yield moment, name, buffer.numpy() / _unit(optimizer, index)


def state(optimizer: Any) -> dict[str, np.ndarray]:
    """What the coming steps depend on: the steps taken, the rate where it is no schedule of Keras' own, and
    the buffers, by Keras' names."""
    return {variable.name: np.array(variable.numpy()) for variable in optimizer.variables}


def load_state(optimizer: Any, state: Mapping[str, np.ndarray]) -> None:
    """Put back what `state` gave.

    Raises:
        WeightsError: names the first entry that is missing or of another shape.
    """
    require_entries(state, {variable.name: tuple(variable.shape) for variable in optimizer.variables})
    for variable in optimizer.variables:
        variable.assign(state[variable.name])
    if isinstance(optimizer, Matched):
        optimizer.forget_factor()


def settings(optimizer: Any) -> dict[str, Any]:
    """Read off the live object."""
    sgd, adam = (isinstance(optimizer, kind) for kind in (keras.optimizers.SGD, keras.optimizers.Adam))
    return {
        "class": _title(optimizer),
        "learning_rates": _initial_rates(optimizer),
        "momentum": optimizer.momentum if sgd else None,
        "nesterov": optimizer.nesterov if sgd else None,
        "alpha": getattr(optimizer, "rho", None),
        "betas": [optimizer.beta_1, optimizer.beta_2] if adam else None,
        "epsilon": getattr(optimizer, "epsilon", None),
        "weight_decay": getattr(optimizer, "coupled_decay", 0.0),
        "decay_form": "coupled",
    }


# --- Groups ---------------------------------------------------------------------------------------


class Groups(keras.optimizers.Optimizer):
    """Put before one of Keras' optimisers: a rate of its own for the head, and weight decay coupled to the
    gradient.

    Keras' own `weight_decay` is decoupled: it shrinks the weights beside the step, unseen by the moments.
    """

    def __init__(self, *, head_multiplier: float, coupled_decay: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.head_multiplier = head_multiplier
        self.coupled_decay = coupled_decay

    def build(self, variables: Any) -> None:
        """Make the buffers, and note each variable's multiple of the learning rate."""
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


class GroupedSGD(Groups, keras.optimizers.SGD):
    """Keras' step, by group."""


class GroupedRMSprop(Groups, keras.optimizers.RMSprop):
    """Keras' step, by group."""


class GroupedAdam(Groups, keras.optimizers.Adam):
    """Keras' step, by group."""


# --- The contract's definitions -------------------------------------------------------------------


class Matched(Groups):
    """Put before one of Keras' optimisers: follows a schedule of the caller's, who sets its factor before
    each step. The rate is held in the session's precision."""

    difference: str
    """From Keras' own step, in words."""

    def __init__(self, *, learning_rate: float, **arguments: Any) -> None:
        super().__init__(learning_rate=learning_rate, **arguments)
        self.initial_rate = learning_rate
        self._factor: float | None = 1.0

    def set_factor(self, factor: float) -> None:
        """Multiply the initial rate by this from now on. Costs nothing as long as it stays the same."""
        if factor != self._factor:
            self.learning_rate = self.initial_rate * factor
            self._factor = factor

    def forget_factor(self) -> None:
        """The rate was set from outside: the next factor counts, whatever it is."""
        self._factor = None

    def buffer_of(self, variable: Any, buffers: Any) -> Any:
        """That of a bare tf.Variable."""
        return buffers[self._get_variable_index(variable)].value


class MatchedSGD(Matched, keras.optimizers.SGD):
    """`optimizers.SGD` to the letter: the rate stays outside the velocity."""

    difference = "rate outside the velocity"

    def step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """`v = m*v + g`, then `w = w - lr*v`, or `w = w - lr*(g + m*v)` with Nesterov's momentum."""
        if self.momentum:
            buffer = self.buffer_of(variable, self.momentums)
            velocity = buffer.assign(self.momentum * buffer + gradient)
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        variable.assign_sub(learning_rate * gradient)


class MatchedRMSprop(Matched, keras.optimizers.RMSprop):
    """`optimizers.RMSprop` to the letter."""

    difference = "epsilon outside the root"

    def step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """`s = a*s + (1-a)*g**2`, then `w = w - lr*g / (sqrt(s) + epsilon)`."""
        square = self.buffer_of(variable, self._velocities)
        square = square.assign(self.rho * square + (1 - self.rho) * gradient**2)
        variable.assign_sub(learning_rate * gradient / (keras.ops.sqrt(square) + self.epsilon))


class MatchedAdam(Matched, keras.optimizers.Adam):
    """`optimizers.Adam` to the letter."""

    difference = "epsilon added to the corrected root"

    def step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """`m = b1*m + (1-b1)*g`, `s = b2*s + (1-b2)*g**2`, then
        `w = w - lr * (m/c1) / (sqrt(s/c2) + epsilon)`."""
        mean = self.buffer_of(variable, self._momentums)
        mean = mean.assign(self.beta_1 * mean + (1 - self.beta_1) * gradient)
        square = self.buffer_of(variable, self._velocities)
        square = square.assign(self.beta_2 * square + (1 - self.beta_2) * gradient**2)
        mean, square = (
            mean / self._correction(self.beta_1, mean),
            square / self._correction(self.beta_2, square),
        )
        variable.assign_sub(learning_rate * mean / (keras.ops.sqrt(square) + self.epsilon))

    def _correction(self, beta: float, buffer: Any) -> Any:
        """`c = 1 - beta**(t+1)`. In float64, since the difference of two numbers near 1 is all that is left:
        in float32 the first one of 0.999 would be off by 1e-5."""
        steps = keras.ops.cast(self.iterations, "float64") + 1
        return keras.ops.cast(1 - beta**steps, buffer.dtype)


# --- How ------------------------------------------------------------------------------------------


class _Classes(msgspec.Struct, frozen=True):
    own: Any
    grouped: Any
    matched: Any


_CLASSES: Mapping[type, _Classes] = {
    SGD: _Classes(keras.optimizers.SGD, GroupedSGD, MatchedSGD),
    RMSprop: _Classes(keras.optimizers.RMSprop, GroupedRMSprop, MatchedRMSprop),
    Adam: _Classes(keras.optimizers.Adam, GroupedAdam, MatchedAdam),
}


def _arguments(optimizer: Optimizer) -> dict[str, Any]:
    """What Keras' constructor takes beside the rate."""
    if isinstance(optimizer, SGD):
        nesterov = optimizer.nesterov and optimizer.momentum > 0  # without momentum both are plain descent
        return {"momentum": float(optimizer.momentum), "nesterov": nesterov}
    if isinstance(optimizer, RMSprop):
        return {"rho": optimizer.alpha, "epsilon": optimizer.epsilon}
    beta_1, beta_2 = optimizer.betas
    return {"beta_1": beta_1, "beta_2": beta_2, "epsilon": optimizer.epsilon}


def _native_rate(optimizer: Optimizer) -> Any:
    """A number, or a schedule of Keras' own."""
    schedules = keras.optimizers.schedules
    rate, schedule = float(optimizer.learning_rate), optimizer.schedule
    if isinstance(schedule, InverseTime):
        return schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=schedule.decay)
    if isinstance(schedule, StepDecay):
        return schedules.ExponentialDecay(
            rate, decay_steps=schedule.steps, decay_rate=schedule.factor, staircase=True
        )
    if isinstance(schedule, Exponential):
        return schedules.ExponentialDecay(rate, decay_steps=1, decay_rate=schedule.factor)
    if isinstance(schedule, OneCycle):
        raise UsageError("keras has no one-cycle schedule of its own; the matched track has")
    return rate


def _unit(optimizer: Any, index: int) -> float:
    """What a buffer holds for 1 in the contract's. Keras' SGD keeps the rate inside the velocity
    (`v = m*v - lr*g`, `w = w + v`): at a constant rate that is the contract's step; under a schedule with
    momentum it is not, and that difference is Keras' own."""
    if isinstance(optimizer, Matched) or not isinstance(optimizer, keras.optimizers.SGD):
        return 1.0
    rate = optimizer.get_config()["learning_rate"]  # a number, or a schedule as a dictionary
    if isinstance(rate, dict):  # the rate that the last step put into them
        rate = float(keras.optimizers.schedules.deserialize(rate)(int(optimizer.iterations) - 1))
    return -rate * getattr(optimizer, "multipliers", (1.0,) * (index + 1))[index]


def _title(optimizer: Any) -> str:
    own = next(kind.__name__ for kind in MOMENTS if isinstance(optimizer, kind))
    if isinstance(optimizer, Matched):
        return f"keras.optimizers.{own}, by group, {optimizer.difference}"
    return f"keras.optimizers.{own}{', by group' if isinstance(optimizer, Groups) else ''}"


def _initial_rates(optimizer: Any) -> list[float]:
    """The different rates of a first step, ascending."""
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(optimizer, Matched):
        rate = optimizer.initial_rate
    elif isinstance(rate, dict):
        rate = rate["config"]["initial_learning_rate"]
    else:
        rate = float(str(np.float32(rate)))  # held in float32: the shortest number that means the same
    return sorted({rate * multiplier for multiplier in getattr(optimizer, "multipliers", (1.0,))})
