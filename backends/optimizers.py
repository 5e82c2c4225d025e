"""Optimisers and schedules of the learning rate as plain values, each with one definition for all
frameworks.

All act on the gradient of the mean loss. Weight decay is coupled, `g = gradient + weight_decay * w`, and
applies to every trained parameter. The rate `lr` is `learning_rate`, times `head_multiplier` for the head,
times the schedule; it stays outside every buffer. Steps `t` are counted from 0.
"""

from __future__ import annotations

import math

import msgspec

# --- Schedules ------------------------------------------------------------------------------------


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="constant", tag_field="type"):
    """The learning rate stays."""


class InverseTime(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="inverse-time", tag_field="type"
):
    """`lr_t = lr / (1 + decay * t)`: what Keras' `SGD(decay=...)` meant until Keras 3."""

    decay: float


class StepDecay(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="step", tag_field="type", kw_only=True
):
    """`lr_t = lr * factor ** (t // steps)`. A recipe may count in `epochs` instead; `in_steps` translates."""

    factor: float
    steps: int | None = None
    epochs: int | None = None


class Exponential(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="exponential", tag_field="type"
):
    """`lr_t = lr * factor ** t`: that of a learning-rate range test."""

    factor: float


class OneCycle(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="one-cycle", tag_field="type", kw_only=True
):
    """From `start * lr` up to `lr` in the first `warmup` of all steps, then down to `end * lr`, both along
    half a cosine; `end * lr` from there on. It is torch's `OneCycleLR` with the momentum left alone."""

    warmup: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000
    steps: int | None = None
    """None: all of the training's; `in_steps` fills it in."""


Schedule = Constant | InverseTime | StepDecay | Exponential | OneCycle


def schedule_factor(schedule: Schedule, step: int) -> float:
    """What the learning rate is multiplied by at a step, counted from 0."""
    if isinstance(schedule, InverseTime):
        return 1 / (1 + schedule.decay * step)
    if isinstance(schedule, StepDecay):
        assert schedule.steps is not None, "in_steps was not called"
        return float(schedule.factor ** (step // schedule.steps))
    if isinstance(schedule, Exponential):
        return float(schedule.factor**step)
    if isinstance(schedule, OneCycle):
        return _one_cycle_factor(schedule, step)
    return 1.0


def schedule_name(schedule: Schedule) -> str:
    """Its name in recipes and settings: `constant`, `inverse-time`, `step`, `exponential`, `one-cycle`."""
    return str(schedule.__struct_config__.tag)


def in_steps(schedule: Schedule, *, steps_per_epoch: int, epochs: int) -> Schedule:
    """The same schedule with everything counted in steps, for a training of this length."""
    if isinstance(schedule, StepDecay) and schedule.epochs is not None:
        return StepDecay(factor=schedule.factor, steps=schedule.epochs * steps_per_epoch)
    if isinstance(schedule, OneCycle) and schedule.steps is None:
        return msgspec.structs.replace(schedule, steps=epochs * steps_per_epoch)
    return schedule


def _one_cycle_factor(schedule: OneCycle, step: int) -> float:
    assert schedule.steps is not None, "in_steps was not called"
    peak, last = schedule.warmup * schedule.steps - 1, schedule.steps - 1  # torch counts them like this
    if step <= peak:
        return _along_cosine(schedule.start, 1.0, step / peak if peak else 1.0)
    return _along_cosine(1.0, schedule.end, min(1.0, (step - peak) / max(last - peak, 1e-9)))


def _along_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


# --- Optimisers -----------------------------------------------------------------------------------


class SGD(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="sgd", tag_field="name"):
    """`v = momentum * v + g`, `w = w - lr * v`; with `nesterov`, `w = w - lr * (g + momentum * v)`, as torch
    defines it. Its moment is the `velocity` v, where there is momentum."""

    learning_rate: float
    head_multiplier: float = 1.0
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    momentum: float = 0.0
    nesterov: bool = False


class RMSprop(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="rmsprop", tag_field="name"
):
    """`s = alpha * s + (1 - alpha) * g**2`, `w = w - lr * g / (sqrt(s) + epsilon)`: not centred, epsilon
    outside the root, as torch has it. Its moment is the `square` s."""

    learning_rate: float
    head_multiplier: float = 1.0
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    alpha: float = 0.99
    epsilon: float = 1e-8


class Adam(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="adam", tag_field="name"
):
    """`m = b1 * m + (1 - b1) * g`, `s = b2 * s + (1 - b2) * g**2`, then with `c1 = 1 - b1**(t + 1)` and
    `c2 = 1 - b2**(t + 1)`: `w = w - lr * (m / c1) / (sqrt(s / c2) + epsilon)`. Epsilon is added to the
    corrected root, as D. Kingma and J. Ba 2015 (algorithm 1) and torch have it; Keras and MXNet add it to the
    uncorrected one. Its moments are the `mean` m and the `square` s, uncorrected."""

    learning_rate: float
    head_multiplier: float = 1.0
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


Optimizer = SGD | RMSprop | Adam


def optimizer_name(optimizer: Optimizer) -> str:
    """Its name in recipes and settings: `sgd`, `rmsprop`, `adam`."""
    return str(optimizer.__struct_config__.tag)
