"""Architectures and heads in PyTorch, and their neutral names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
import torchvision
from torch import nn
from torch.nn import functional

from backends.architectures import HEAD, blocks_of, flattens, head_widths, outputs, shapes
from backends.base import ModelSpec, require_architecture
from backends.pytorch import INFO
from backends.pytorch.resnet_v2 import ResNet18V2

# --- What there is --------------------------------------------------------------------------------


def _resnet18(spec: ModelSpec) -> nn.Module:
    network = torchvision.models.resnet18(weights=None)
    network.fc = _head(spec)
    return network


def _resnet18_v2(spec: ModelSpec) -> nn.Module:
    network = ResNet18V2(spec.classes)
    network.fc = _head(spec)
    return network


def _vgg16(spec: ModelSpec) -> nn.Module:
    with torch.device("meta"):  # to draw 120 million values of fc6 and fc7 that are thrown away takes seconds
        network = torchvision.models.vgg16(weights=None)
    network.features.to_empty(device="cpu")
    network.avgpool = nn.Identity() if flattens(spec) else nn.AdaptiveAvgPool2d(1)
    entering = next(shape[1] for shape in shapes(spec).values() if len(shape) == 2)
    if spec.head == "fc6-fc7":
        network.classifier[0] = nn.Linear(entering, 4096)
        network.classifier[3] = nn.Linear(4096, 4096)
        network.apply(_as_torchvision_draws_vgg)
        network.classifier[6] = _head(spec)
    else:
        network.features.apply(_as_torchvision_draws_vgg)
        network.classifier = _head(spec)
    return network


def _efficientnet_lite0(spec: ModelSpec) -> nn.Module:
    import timm  # takes most of a second, which the other architectures need not wait for

    network = timm.create_model("tf_efficientnet_lite0", num_classes=spec.classes)
    if (spec.head, spec.output, spec.dropout) != ("linear", "softmax", 0):
        network.classifier = _head(spec)
    return network


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], nn.Module]] = {
    "resnet18": _resnet18,
    "resnet18_v2": _resnet18_v2,
    "vgg16": _vgg16,
    "efficientnet_lite0": _efficientnet_lite0,
}


def build(spec: ModelSpec, *, dropout: bool) -> nn.Module:
    """The network with a new head, initialised from torch's current generator; float32, on the CPU. With
    `dropout` it keeps what torchvision's own has (VGG16: after fc6 and fc7).

    Raises:
        UsageError: no such architecture here, or not with that head.
    """
    require_architecture(INFO, spec.architecture)
    flattens(spec)  # raises for a head that the architecture does not have
    network = HeadAlone(spec) if spec.entry == "features" else ARCHITECTURES[spec.architecture](spec)
    if spec.initializer != "default":
        network.apply(_xavier if spec.initializer == "xavier" else _he)
    if not dropout:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return network


def head_of(network: nn.Module, spec: ModelSpec) -> nn.Module:
    """The module whose input are the features."""
    return network.get_submodule(_head_module(spec))


def last_of(network: nn.Module, spec: ModelSpec) -> LastLinear | None:
    """The last affine layer, where dropout is applied to what enters it."""
    head = head_of(network, spec)
    last = head[-1] if isinstance(head, nn.Sequential) else head
    return last if isinstance(last, LastLinear) else None


def block_modules(network: nn.Module, spec: ModelSpec) -> dict[str, nn.Module]:
    """For every block below the head the module whose output is the block's."""
    outputs = _OUTPUTS[spec.architecture]
    return {block: network.get_submodule(outputs.get(block, block)) for block in blocks_of(spec)}


# --- Heads and initialisers -----------------------------------------------------------------------


class LastLinear(nn.Linear):
    """The last affine layer, with dropout on the values that enter it. Not a layer of its own before it:
    names of tensors are the same with and without."""

    def __init__(self, features: int, units: int, rate: float) -> None:
        super().__init__(features, units)
        self.rate = rate
        self.kept: torch.Tensor | None = None
        """1 for each value (N, F) to keep; None: torch draws."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training and self.kept is not None:
            values = values * self.kept / (1 - self.rate)
        elif self.training:
            values = functional.dropout(values, self.rate)
        return super().forward(values)


class HeadAlone(nn.Module):
    """What is above the features."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.head = _head(spec)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)


def _head(spec: ModelSpec) -> nn.Module:
    *hidden, entering = head_widths(spec)
    units = outputs(spec)
    layers: list[nn.Module] = []
    for inputs, width in itertools.pairwise([*hidden, entering]):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    last = LastLinear(entering, units, spec.dropout) if spec.dropout else nn.Linear(entering, units)
    return nn.Sequential(*layers, last) if layers else last


def _as_torchvision_draws_vgg(module: nn.Module) -> None:
    """The rule in the constructor of `torchvision.models.VGG`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        _zero_bias(module)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        _zero_bias(module)


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
# torch's layouts are the neutral ones; so are torchvision's and timm's names, but for VGG16's and the heads'.

_VGG16_BLOCKS = ((1, 0, 2), (2, 5, 2), (3, 10, 3), (4, 17, 3), (5, 24, 3))
"""Of each block its number, where in torchvision's `features` it begins, and its convolutions. A relu follows
each of them, and a pooling ends the block."""

_MODULES: Mapping[str, Mapping[str, str]] = {
    "resnet18": {HEAD: "fc"},
    "resnet18_v2": {HEAD: "fc"},
    "vgg16": {
        **{
            f"block{block}_conv{convolution}": f"features.{first + 2 * (convolution - 1)}"
            for block, first, count in _VGG16_BLOCKS
            for convolution in range(1, count + 1)
        },
        "fc6": "classifier.0",
        "fc7": "classifier.3",
        HEAD: "classifier",
    },
    "efficientnet_lite0": {HEAD: "classifier"},
}
"""For each architecture the modules whose neutral name is another, by that name."""

_OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "resnet18": {"stem": "maxpool"},
    "resnet18_v2": {"stem": "maxpool", "final": "final_relu"},
    "vgg16": {
        **{f"block{block}": f"features.{first + 2 * count}" for block, first, count in _VGG16_BLOCKS},
        "fc6": "classifier.1",
        "fc7": "classifier.4",
    },
    "efficientnet_lite0": {"stem": "bn1", "final": "bn2"},  # timm's batch norms hold the activation
}
"""For each architecture the modules that give a block's output, where none of the block's name does."""


def own_name(spec: ModelSpec, name: str) -> str:
    """What torchvision or timm call the tensor of this neutral name."""
    module, _, tensor = name.rpartition(".")
    if module == HEAD:
        own = _head_module(spec)
    elif module.startswith(f"{HEAD}.fc"):  # of the layers in the nn.Sequential every second is a relu
        own = f"{_head_module(spec)}.{2 * int(module.removeprefix(f'{HEAD}.fc')) - 2}"
    else:
        own = _MODULES[spec.architecture].get(module, module)
    return f"{own}.{tensor}"


def neutral_tensors(network: nn.Module, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Live parameters and running statistics by neutral name, in the order of `architectures.shapes`."""
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: own[own_name(spec, name)] for name in shapes(spec)}


def _head_module(spec: ModelSpec) -> str:
    if spec.entry == "features":
        return HEAD
    return "classifier.6" if spec.head == "fc6-fc7" else _MODULES[spec.architecture][HEAD]
