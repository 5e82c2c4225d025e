"""What the gate compares: networks, what trains in them, optimisers and schedules; on which weights and
batches.

Everything is drawn from generators that are the same under NumPy 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from backends import architectures
from backends.base import Head, ModelSpec, Output, Trainable, UsageError
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

Mode = Literal["all", "stored", "last-block", "frozen", "features"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""Everything trains; the same on batch norm's stored statistics; the last block and the head train; the head
trains on a network that stays as it is; the head trains alone, on features."""
LAST_BLOCK: Mapping[str, str] = {
    "resnet18": "layer4",
    "resnet18_v2": "layer4",
    "vgg16": "block5",
    "efficientnet_lite0": "blocks.6",
}
"""From which block on the `last-block` protocol trains."""

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
        """Whether batch norm on a batch's statistics keeps activations in bounds."""
        return architectures.architecture_of(self.architecture).batch_norm_epsilon is not None

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Those that are not the same as another."""
        return tuple(mode for mode in MODES if mode != "stored" or self.has_batch_norm)

    def trainable(self, mode: Mode) -> Trainable:
        """What trains."""
        if mode == "last-block":
            return Trainable(first=LAST_BLOCK[self.architecture], batch_norm="batch")
        return Trainable(
            first="all" if mode in ("all", "stored") else "head",
            batch_norm="batch" if mode == "all" else "stored",
        )

    def optimizer(self, mode: Mode) -> Optimizer:
        """Of the training steps."""
        bounded = self.has_batch_norm and mode != "stored"
        return SGD(
            learning_rate=2**-7 if bounded else 2**-12,  # more, and the loss leaves all bounds
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


OptimizerName = Literal["plain", "sgd", "nesterov", "rmsprop", "adam"]
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
        momentum = 0.0 if self.optimizer == "plain" else 0.875
        return SGD(learning_rate=2**-7, momentum=momentum, nesterov=self.optimizer == "nesterov", **common)


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
    kind = optimizer_name(optimizer)
    if isinstance(optimizer, SGD) and not optimizer.momentum:
        kind = "plain"
    elif isinstance(optimizer, SGD) and optimizer.nesterov:
        kind = "nesterov"
    rule = Rule(kind, schedule_name(optimizer.schedule))  # type: ignore[arg-type]
    covered = kind == "sgd" and rule.schedule in ("constant", "step")
    return None if covered else rule


def mode_of(trainable: Trainable, network: Network) -> Mode:
    """The comparison that covers what a recipe trains; which block it trains from makes no difference."""
    if trainable == network.trainable("frozen"):
        return "frozen"
    if trainable.first != "all":
        return "last-block"
    return "stored" if trainable.batch_norm == "stored" and network.has_batch_norm else "all"


def coverage_of(recipe: Recipe) -> tuple[tuple[Mode, ...], tuple[Rule, ...]]:
    """The comparisons that cover all a recipe does. A head that is trained on stored features takes two: that
    the network's features are right, and that the head learns from them."""
    modes: list[Mode] = []
    network = Network(recipe.architecture)
    for phase in recipe.phases:
        if recipe.classifier is not None:
            modes.append("frozen")
        elif phase.on == "features":
            modes += ["frozen", "features"]
        else:
            modes.append(mode_of(phase.trainable, network))
    found = (rule_of(phase.optimizer) for phase in recipe.phases if recipe.classifier is None)
    rules = {rule for rule in found if rule is not None}
    return tuple(mode for mode in MODES if mode in modes), tuple(rule for rule in RULES if rule in rules)


def coverage_name(modes: Sequence[Mode], rules: Sequence[Rule]) -> str:
    """A coverage in a few words: `all`, `frozen+features+adam+constant`."""
    return "+".join((*modes, *(rule.name for rule in rules)))


# --- Weights and batches ---------------------------------------------------------------------------


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
    return images_of(network.spec)


def test_features(spec: ModelSpec) -> Inputs:
    """Features (N, F) float32, as a relu leaves them, labels, and masks where there is dropout."""
    random = generator("gate", "features")
    width = architectures.head_widths(spec)[0]
    features = np.maximum(random.standard_normal((STEPS, IMAGES, width)), 0).astype(np.float32)
    return _with_labels(features, spec, random)


def images_of(spec: ModelSpec) -> Inputs:
    """The same for any network."""
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
