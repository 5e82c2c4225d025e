"""Architectures and heads in PyTorch, and their neutral names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torchvision
from torch import nn

from backends.base import ModelSpec, require_architecture
from backends.pytorch import INFO

# --- What there is --------------------------------------------------------------------------------


def _resnet18(spec: ModelSpec) -> nn.Module:
    network = torchvision.models.resnet18(weights=None)
    network.fc = _head(spec, network.fc.in_features)
    return network


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], nn.Module]] = {"resnet18": _resnet18}
HEAD_MODULES: Mapping[str, str] = {"resnet18": "fc"}
"""For each architecture the attribute that holds the head."""


def build(spec: ModelSpec) -> nn.Module:
    """The network with a new head, initialised from torch's current generator.

    Raises:
        UsageError: no such architecture here.
    """
    require_architecture(INFO, spec.architecture, ARCHITECTURES)
    network = ARCHITECTURES[spec.architecture](spec)
    if spec.initializer != "default":
        network.apply(_xavier if spec.initializer == "xavier" else _he)
    return network


def head_of(network: nn.Module, architecture: str) -> nn.Module:
    """The module whose input are the features."""
    return network.get_submodule(HEAD_MODULES[architecture])


# --- Heads and initialisers -----------------------------------------------------------------------


def _head(spec: ModelSpec, features: int) -> nn.Module:
    if spec.head == "linear":
        return nn.Linear(features, spec.classes)
    return nn.Sequential(
        nn.Linear(features, 1024),
        nn.ReLU(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Linear(128, spec.classes),
    )


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        _zero_bias(module)


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        _zero_bias(module)


def _zero_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


# --- Neutral names --------------------------------------------------------------------------------


def neutral_tensors(network: nn.Module, architecture: str) -> dict[str, torch.Tensor]:
    """Live parameters and running statistics by neutral name; torch's layouts are the neutral ones."""
    prefix = HEAD_MODULES[architecture] + "."
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        _neutral_name(name, prefix): tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def _neutral_name(name: str, head_prefix: str) -> str:
    if not name.startswith(head_prefix):
        return name
    parts = name[len(head_prefix) :].split(".")
    if len(parts) == 2:  # a layer of an nn.Sequential, where relus take the odd places
        parts[0] = f"fc{int(parts[0]) // 2 + 1}"
    return ".".join(["head", *parts])
