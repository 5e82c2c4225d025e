"""Faults that a port between frameworks really has, put into a working backend: each must fail the gate.

Most are put in through the contract and so hold for every backend; those that only the framework itself can
have are in `OWN`, by backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from backends.architectures import is_head, is_parameter
from backends.base import (
    Backend,
    Batch,
    ModelSpec,
)
from backends.optimizers import Constant, Optimizer, schedule_factor
from benchmarks.harness.gate import scenarios

NETWORK = scenarios.Network("resnet18")
"""What is sabotaged: it has everything that the faults need."""
Sabotage = Callable[[type[Backend]], type[Backend]]


# --- Through the contract -------------------------------------------------------------------------


def loading(change: Callable[[dict[str, np.ndarray]], None]) -> Sabotage:
    """Weights that are changed while they are loaded."""

    def sabotage(framework: type[Backend]) -> type[Backend]:
        class Sabotaged(framework):  # type: ignore[misc, valid-type]
            def load_weights(self, tensors: Mapping[str, np.ndarray], *, head: bool) -> None:
                changed = dict(tensors)
                change(changed)
                super().load_weights(changed, head=head)

        return Sabotaged

    return sabotage


def optimizing(change: Callable[[Optimizer], Optimizer]) -> Sabotage:
    """An optimiser that silently is another one."""

    def sabotage(framework: type[Backend]) -> type[Backend]:
        class Sabotaged(framework):  # type: ignore[misc, valid-type]
            def configure_optimizer(self, optimizer: Optimizer) -> None:
                super().configure_optimizer(change(optimizer))

        return Sabotaged

    return sabotage


def stepping(
    change: Callable[[Backend, dict[str, np.ndarray], dict[str, np.ndarray], int], None],
) -> Sabotage:
    """Weights that are changed after each step: given the backend, those before, those after, and the
    step."""

    def sabotage(framework: type[Backend]) -> type[Backend]:
        class Sabotaged(framework):  # type: ignore[misc, valid-type]
            steps = 0

            def train_step(self, batch: Batch) -> None:
                before = self.export_weights()
                super().train_step(batch)
                after = self.export_weights()
                change(self, before, after, self.steps)
                self.load_weights(after, head=True)
                self.steps += 1

        return Sabotaged

    return sabotage


def transposed(tensors: dict[str, np.ndarray]) -> None:
    name = "layer1.0.conv1.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].transpose(1, 0, 2, 3))


def biased_head(tensors: dict[str, np.ndarray]) -> None:
    tensors["head.bias"] = tensors["head.bias"] + np.float32(2**-6)


def channels_reversed(framework: type[Backend]) -> type[Backend]:
    class Sabotaged(framework):  # type: ignore[misc, valid-type]
        def to_host_batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
            return super().to_host_batch(np.ascontiguousarray(images[..., ::-1]), labels)

    return Sabotaged


def biased_variance(
    _backend: Backend, before: dict[str, np.ndarray], after: dict[str, np.ndarray], _step: int
) -> None:
    area = {"bn1": 32**2, "layer1": 16**2, "layer2": 8**2, "layer3": 4**2, "layer4": 2**2}
    for name in after:
        if name.endswith(".running_var"):
            n = scenarios.IMAGES * area[name.split(".")[0]]
            after[name] = 0.9 * before[name] + (after[name] - 0.9 * before[name]) * (n - 1) / n


def decayed_beside(
    _backend: Backend, before: dict[str, np.ndarray], after: dict[str, np.ndarray], step: int
) -> None:
    optimizer = NETWORK.optimizer("all")
    rate = optimizer.learning_rate * schedule_factor(optimizer.schedule, step)
    for name in after:
        if is_parameter(name):
            own = rate * (optimizer.head_multiplier if is_head(name) else 1)
            after[name] = after[name] - own * optimizer.weight_decay * before[name]


def decoupled_decay(framework: type[Backend]) -> type[Backend]:
    without = optimizing(lambda optimizer: msgspec.structs.replace(optimizer, weight_decay=0.0))
    return stepping(decayed_beside)(without(framework))


SABOTAGES: Mapping[str, Sabotage] = {
    "transposed layer": loading(transposed),
    "biased head": loading(biased_head),
    "shuffled channel order": channels_reversed,
    "biased running variance": stepping(biased_variance),
    "decoupled decay": decoupled_decay,
    "rate of the head ignored": optimizing(lambda o: msgspec.structs.replace(o, head_multiplier=1.0)),
    "schedule ignored": optimizing(lambda o: msgspec.structs.replace(o, schedule=Constant())),
}
"""For every backend."""


# --- In the framework itself ----------------------------------------------------------------------


def building(change: Callable[[Any], None]) -> Sabotage:
    """A network that is changed after it was built."""

    def sabotage(framework: type[Backend]) -> type[Backend]:
        class Sabotaged(framework):  # type: ignore[misc, valid-type]
            def build(self, spec: ModelSpec) -> None:
                super().build(spec)
                change(self)

        return Sabotaged

    return sabotage


OTHER_EPSILON = 1e-3  # Keras' default


def pytorch_epsilon(backend: Any) -> None:
    import torch

    for module in backend._network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = OTHER_EPSILON


def pytorch_padding(backend: Any) -> None:
    import torch

    convolution = backend._network.conv1
    convolution.padding = (0, 0)
    convolution.register_forward_pre_hook(lambda _, inputs: torch.nn.functional.pad(inputs[0], (2, 3, 2, 3)))


def gluon_epsilon(backend: Any) -> None:
    from backends.gluon import models

    for norm in models.batch_norms(backend._network):
        norm._kwargs["eps"] = OTHER_EPSILON
    backend._network.hybridize()


def gluon_padding(backend: Any) -> None:
    convolution = backend._network.features[0]
    convolution._kwargs["pad"] = (0, 0)

    def forward(F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        padded = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 2, 3, 2, 3))
        return F.Convolution(padded, weight, **convolution._kwargs)

    convolution.hybrid_forward = forward
    backend._network.hybridize()


def gluon_nesterov(framework: type[Backend]) -> type[Backend]:
    class Sabotaged(framework):  # type: ignore[misc, valid-type]
        def configure_optimizer(self, optimizer: Optimizer) -> None:
            from mxnet import gluon

            super().configure_optimizer(optimizer)
            arguments = {
                "learning_rate": optimizer.learning_rate,
                "momentum": optimizer.momentum,
                "wd": optimizer.weight_decay,
            }
            self._trainer = gluon.Trainer(list(self._learning.values()), "nag", arguments)

    return Sabotaged


def keras_epsilon(backend: Any) -> None:
    for layer in backend._layers():
        if hasattr(layer, "epsilon"):
            layer.epsilon = OTHER_EPSILON


def keras_padding(backend: Any) -> None:
    import keras

    layers = backend._network.logits.layers
    padding = next(layer for layer in layers if isinstance(layer, keras.layers.ZeroPadding2D))
    padding.padding = ((2, 3), (2, 3))


with_nesterov = optimizing(lambda o: msgspec.structs.replace(o, nesterov=True))

OWN: Mapping[str, Mapping[str, Sabotage]] = {
    "pytorch": {
        "another batch-norm epsilon": building(pytorch_epsilon),
        "asymmetric padding": building(pytorch_padding),
        "Nesterov": with_nesterov,
    },
    "gluon": {
        "another batch-norm epsilon": building(gluon_epsilon),
        "asymmetric padding": building(gluon_padding),
        "Nesterov, MXNet's": gluon_nesterov,
    },
    "keras": {
        "another batch-norm epsilon": building(keras_epsilon),
        "asymmetric padding": building(keras_padding),
        "Nesterov": with_nesterov,
    },
}
"""Of one backend; another brings its own."""


def sabotages_of(backend: str) -> Mapping[str, Sabotage]:
    """Every fault that this backend can be given."""
    return {**SABOTAGES, **OWN.get(backend, {})}
