"""The gate: a backend must compute what the reference computes, before anything is timed.

In float32 equality of training can't be told from a fault: ReLU and max-pool decisions flip, and a correct
backend's gradients differ from another's by more than a sabotaged one's. In float64 they agree to 1e-12. So
gradients and optimiser steps are compared in float64, inference and the first loss in float32, the precision
of the run. Hyper-parameters are dyadic, since MXNet's update and Keras' rate round them to float32.

Networks are compared under SGD with momentum, decay and a change of rate. Other optimisers and schedules act
on each tensor alone, whatever the network: one small network under each of them is compared beside.

The reference is a golden file per network (see `golden.py`), and one for the optimisers, which holds of each
tensor its norm, its maximum, some values at fixed places and some random-sign projections.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
from safetensors import safe_open

from backends import architectures
from backends.base import Backend, Head, ModelSpec, Output, Session, Trainable, UsageError
from backends.optimizers import (
    SGD,
    Adam,
    Constant,
    Exponential,
    InverseTime,
    OneCycle,
    Optimizer,
    RMSprop,
    Schedule,
    StepDecay,
    optimizer_name,
    schedule_name,
)
from benchmarks.harness.initial import Tensors, generator
from benchmarks.harness.recipe import Recipe
from benchmarks.harness.record import Gate

# --- What is compared -----------------------------------------------------------------------------

Mode = Literal["all", "frozen", "features"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""Everything trains; the head trains on a network that stays as it is; the head trains alone, on features."""
TRAINABLE: Mapping[Mode, Trainable] = {
    "all": Trainable(first="all", batch_norm="batch"),
    "frozen": Trainable(first="head", batch_norm="stored"),
    "features": Trainable(first="head", batch_norm="stored"),
}

IMAGES, IMAGE_SIZE, CLASSES, STEPS = 8, 64, 5, 5
DROPOUT = 0.5


class Network(msgspec.Struct, frozen=True):
    """What has a golden file: an architecture with one of its heads."""

    architecture: str
    head: Head = "linear"
    output: Output = "softmax"
    dropout: bool = False
    """Whether masks come with its batches."""

    @property
    def name(self) -> str:
        """Of its golden file."""
        special = (
            self.head * (self.head != "linear"),
            self.output * (self.output != "softmax"),
            "dropout" * self.dropout,
        )
        return "-".join(filter(None, (self.architecture, *special)))

    @property
    def classes(self) -> int:
        """As many as the output can tell apart."""
        return CLASSES if self.output == "softmax" else 2

    @property
    def spec(self) -> ModelSpec:
        """The network under test."""
        return ModelSpec(
            architecture=self.architecture,
            classes=self.classes,
            image_size=IMAGE_SIZE,
            head=self.head,
            output=self.output,
            dropout=DROPOUT if self.dropout else 0.0,
            initializer="he",
            normalization=architectures.architecture_of(self.architecture).normalization,
        )

    @property
    def has_batch_norm(self) -> bool:
        """Whether batch norm keeps activations in bounds."""
        return architectures.architecture_of(self.architecture).batch_norm_epsilon is not None

    @property
    def optimizer(self) -> Optimizer:
        """Of the training steps."""
        return SGD(
            learning_rate=2**-7 if self.has_batch_norm else 2**-12,  # more, and the loss leaves all bounds
            head_multiplier=8,
            momentum=0.875,
            weight_decay=2**-10,
            schedule=StepDecay(steps=3, factor=0.5),
        )


NETWORKS = (
    *map(Network, architectures.ARCHITECTURES),
    Network("vgg16", "fc6-fc7"),
    Network("vgg16", "mlp-256", "sigmoid", dropout=True),
    Network("vgg16", dropout=True),
)


def network_of(spec: ModelSpec) -> Network:
    """The network under test whose gate covers this one.

    Raises:
        UsageError: there is none.
    """
    network = Network(spec.architecture, spec.head, spec.output, spec.dropout > 0)
    if network not in NETWORKS:
        known = ", ".join(known.name for known in NETWORKS)
        raise UsageError(f"no golden file compares {network.name}; there are: {known}")
    return network


OptimizerName = Literal["sgd", "nesterov", "rmsprop", "adam"]
ScheduleName = Literal["constant", "step", "inverse-time", "exponential", "one-cycle"]


class Rule(msgspec.Struct, frozen=True):
    """How gradients become a step: an optimiser under a schedule."""

    optimizer: OptimizerName
    schedule: ScheduleName

    @property
    def name(self) -> str:
        """In the golden file."""
        return f"{self.optimizer}+{self.schedule}"

    @property
    def update(self) -> Optimizer:
        """The optimiser under test. Epsilon is large enough to be seen wherever it is added."""
        common: dict[str, Any] = {
            "head_multiplier": 8,
            "weight_decay": 2**-10,
            "schedule": _SCHEDULES[self.schedule],
        }
        if self.optimizer == "rmsprop":
            return RMSprop(learning_rate=2**-10, alpha=0.875, epsilon=2**-7, **common)
        if self.optimizer == "adam":
            return Adam(learning_rate=2**-10, betas=(0.875, 1 - 2**-6), epsilon=2**-7, **common)
        return SGD(learning_rate=2**-7, momentum=0.875, nesterov=self.optimizer == "nesterov", **common)


_SCHEDULES: Mapping[ScheduleName, Schedule] = {
    "constant": Constant(),
    "step": StepDecay(steps=3, factor=0.5),
    "inverse-time": InverseTime(decay=0.25),
    "exponential": Exponential(factor=1.5),
    "one-cycle": OneCycle(steps=STEPS),
}
RULES = tuple(Rule(optimizer, schedule) for optimizer in get_args(OptimizerName) for schedule in _SCHEDULES)
RULES_NETWORK, RULES_IMAGE_SIZE = Network("resnet18"), 32
"""Which network the rules act on, on images of this size."""
RULES_TENSORS = ("conv1.", "bn1.", "layer4.1.", "head.")
"""Which of its tensors are compared: a rule treats all of the body alike, and all of the head."""
UPDATES = "updates"
"""Name of the rules' golden file."""


def rule_of(optimizer: Optimizer) -> Rule | None:
    """The rule that covers an optimiser; None where every network's own comparison does."""
    kind = "nesterov" if isinstance(optimizer, SGD) and optimizer.nesterov else optimizer_name(optimizer)
    rule = Rule(kind, schedule_name(optimizer.schedule))  # type: ignore[arg-type]
    covered = kind == "sgd" and rule.schedule in ("constant", "step")
    return None if covered else rule


class Tolerance(msgspec.Struct, frozen=True):
    """Of one kind of comparison: the largest error that passes, relative to the tensor's largest value."""

    error: float
    precision: Literal["float32", "float64"]
    what: str


TOLERANCES: Mapping[str, Tolerance] = {
    "logit": Tolerance(5e-5, "float32", "logits in inference mode"),
    "block": Tolerance(5e-5, "float32", "output of a block in inference mode"),
    "features": Tolerance(5e-5, "float32", "features in inference mode"),
    "first_loss": Tolerance(5e-5, "float32", "loss of the first training step"),
    "gradient": Tolerance(1e-9, "float64", "gradient of the first training step"),
    "loss": Tolerance(1e-8, "float64", f"loss of each of {STEPS} steps"),
    "step": Tolerance(1e-7, "float64", f"weight, moment or running statistic after {STEPS} steps"),
}
"""Ten times or more what was seen in the worst pair (README has the table): 3e-6, 2e-6, 1e-6, 6e-12, 3e-11
and 1e-9, the last three in EfficientNet-Lite0, whose 49 batch norms pass every rounding on. The mildest
sabotage is off by 1e-2 of a tensor."""

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

MakeBackend = Callable[[Session], Backend]


# --- The gate -------------------------------------------------------------------------------------


def gate(
    make: MakeBackend,
    network: Network,
    modes: Sequence[Mode],
    session: Session,
    rules: Sequence[Rule] = (),
) -> Gate:
    """Compare a backend with the reference. `session` is the one of the run to be let through; the
    comparison in float64 takes place on the CPU."""
    begin = time.perf_counter()
    reference = read_golden(network.name)
    errors: dict[str, float] = dict.fromkeys(TOLERANCES, 0.0)
    worst: dict[str, str] = dict.fromkeys(TOLERANCES, "")
    differences: list[str] = []

    def compare(golden: Golden, name: str, observed: Observation, precision: str) -> None:
        for kind, tolerance in TOLERANCES.items():
            if tolerance.precision == precision and kind in observed.tensors:
                error, tensor = golden.worst(observed, name, kind)
                if not error <= errors[kind] or not worst[kind]:
                    errors[kind], worst[kind] = error, tensor if name in MODES else f"{name}: {tensor}"

    for mode in modes:
        inference = observe(make(session), network, mode, steps=1)
        compare(reference, mode, inference, "float32")
        differences += reference.differences(inference.settings, mode)
        compare(reference, mode, observe(make(double(session)), network, mode, steps=STEPS), "float64")
    for rule in rules:
        updates = read_golden(UPDATES)
        observed = observe_update(make(double(session)), rule)
        compare(updates, rule.name, observed, "float64")
        differences += updates.differences(observed.settings, rule.name)
    failures = [
        f"{worst[kind]}: {tolerance.what} ({tolerance.precision}) is off by {errors[kind]:.1e},"
        f" where {tolerance.error:.0e} is allowed"
        for kind, tolerance in TOLERANCES.items()
        if not errors[kind] <= tolerance.error
    ]
    failures += [f"setting {difference}" for difference in differences]
    return Gate(
        passed=not failures,
        mode="+".join((*modes, *(rule.name for rule in rules))),
        failures=tuple(failures),
        tolerances={kind: tolerance.error for kind, tolerance in TOLERANCES.items()},
        worst=worst,
        reference_sha256=reference.sha256,
        seconds=time.perf_counter() - begin,
        **{f"{kind}_error": error if math.isfinite(error) else None for kind, error in errors.items()},
    )


def double(session: Session) -> Session:
    """The same conditions for the comparison in float64."""
    return msgspec.structs.replace(session, precision="float64", device="cpu", variant="default")


def mode_of(trainable: Trainable) -> Mode:
    """The comparison that covers what a recipe trains: what is frozen, or trains from a block up, is made of
    both."""
    return "frozen" if trainable == TRAINABLE["frozen"] else "all"


def coverage_of(recipe: Recipe) -> tuple[tuple[Mode, ...], tuple[Rule, ...]]:
    """The comparisons that cover all a recipe does. A head that is trained on stored features takes two: that
    the network's features are right, and that the head learns from them."""
    modes: list[Mode] = []
    for phase in recipe.phases:
        if recipe.classifier is not None:
            modes.append("frozen")
        elif phase.on == "features":
            modes += ["frozen", "features"]
        else:
            modes.append(mode_of(phase.trainable))
    found = (rule_of(phase.optimizer) for phase in recipe.phases if recipe.classifier is None)
    rules = {rule for rule in found if rule is not None}
    return tuple(mode for mode in MODES if mode in modes), tuple(rule for rule in RULES if rule in rules)


# --- Observing ------------------------------------------------------------------------------------


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend computed: by kind of comparison, tensors by name."""

    tensors: Mapping[str, Tensors]
    settings: dict[str, Any]


def observe(backend: Backend, network: Network, mode: Mode, *, steps: int) -> Observation:
    """Have a backend infer, take gradients and train for some steps, always from the same weights."""
    spec, weights = network.spec, test_weights(network)
    inputs = test_batches(network)
    if mode == "features":
        spec = msgspec.structs.replace(spec, entry="features")
        weights = {name: weights[name] for name in architectures.shapes(spec)}
        inputs = test_features(spec)
    return _observed(backend, spec, weights, inputs, TRAINABLE[mode], network.optimizer, steps)


def observe_update(backend: Backend, rule: Rule) -> Observation:
    """Have a backend train under a rule."""
    spec = msgspec.structs.replace(RULES_NETWORK.spec, image_size=RULES_IMAGE_SIZE)
    inputs = _batches(spec)
    found = _observed(
        backend, spec, test_weights(RULES_NETWORK), inputs, TRAINABLE["all"], rule.update, STEPS
    )
    steps = {
        name: tensor
        for name, tensor in found.tensors["step"].items()
        if name.split(" of ")[-1].startswith(RULES_TENSORS)
    }
    return Observation(tensors={"loss": found.tensors["loss"], "step": steps}, settings=found.settings)


def _observed(
    backend: Backend,
    spec: ModelSpec,
    weights: Tensors,
    inputs: Inputs,
    trainable: Trainable,
    optimizer: Optimizer,
    steps: int,
) -> Observation:
    batches = [backend.to_host_batch(*inputs[step]) for step in range(steps)]
    tensors: dict[str, Tensors] = {}
    backend.build(spec)
    backend.load_weights(weights, head=True)
    backend.set_trainable(trainable)
    backend.configure_optimizer(optimizer)
    tensors["logit"] = {"logits": backend.to_numpy(backend.logits(batches[0]))}
    if spec.entry == "images":
        tensors["block"] = backend.block_outputs(batches[0])
        features = {"features": backend.to_numpy(backend.features(batches[0]))}
        first = architectures.blocks_of(spec)[0]
        features[f"features of {first}"] = backend.to_numpy(backend.features(batches[0], first))
        tensors["features"] = features
    if steps == STEPS:
        tensors["gradient"] = backend.gradients(batches[0])
        backend.load_weights(weights, head=True)  # taking gradients may have moved the running statistics
    losses = []
    for batch in batches:
        backend.train_step(batch)
        losses.append(backend.take_metrics().loss)
    tensors["first_loss"] = {"loss of step 1": np.array(losses[:1])}
    tensors["loss"] = {"losses": np.array(losses)}
    tensors["step"] = {**backend.export_weights(), **backend.moments()}
    return Observation(tensors=tensors, settings=backend.settings())


def test_weights(network: Network) -> Tensors:
    """Random weights and statistics, none of them at rest, as float32 values."""
    weights = {}
    for name, shape in architectures.shapes(network.spec).items():
        random = generator("gate", network.architecture, name)
        if len(shape) > 1:
            gain = (
                1 if network.has_batch_norm else 2
            )  # stored statistics do not normalise what 2 would let grow
            values = random.standard_normal(shape) * math.sqrt(gain / np.prod(shape[1:]))
            if name == "block1_conv1.weight":
                values /= 64  # its inputs are +-128: later layers would see no others
        elif name.endswith((".running_var", ".weight")):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * random.standard_normal(shape)
        weights[name] = values.astype(np.float32)
    return weights


Inputs = list[tuple[np.ndarray, ...]]
"""Of each step what `to_host_batch` takes."""


def test_batches(network: Network) -> Inputs:
    """Images (N, H, W, 3) uint8 and labels (N,) int64 for each step, and masks where there is dropout."""
    return _batches(network.spec)


def test_features(spec: ModelSpec) -> Inputs:
    """Features (N, F) float32, as a relu leaves them, labels, and masks where there is dropout."""
    random = generator("gate", "features")
    width = architectures.head_widths(spec)[0]
    features = np.maximum(random.standard_normal((STEPS, IMAGES, width)), 0).astype(np.float32)
    return _with_labels(features, spec, random)


def _batches(spec: ModelSpec) -> Inputs:
    random = generator("gate", "batches")
    size = spec.image_size
    images = random.randint(0, 256, (STEPS, IMAGES, size, size, 3)).astype(np.uint8)
    return _with_labels(images, spec, random)


def _with_labels(inputs: np.ndarray, spec: ModelSpec, random: np.random.RandomState) -> Inputs:
    parts = [inputs, random.randint(0, spec.classes, (STEPS, IMAGES)).astype(np.int64)]
    if spec.dropout:
        width = architectures.head_widths(spec)[-1]
        parts.append((random.uniform(size=(STEPS, IMAGES, width)) >= spec.dropout).astype(np.uint8))
    return list(zip(*parts, strict=True))


# --- The golden file ------------------------------------------------------------------------------

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
