"""Architectures and heads in MXNet Gluon, and their neutral names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx
from gluoncv import model_zoo
from mxnet.gluon import HybridBlock, Parameter, nn

from backends.architectures import architecture_of, flattens, shapes
from backends.base import ModelSpec, require_architecture
from backends.gluon import INFO
from backends.gluon.efficientnet_lite0 import EfficientNetLite0

# --- What there is --------------------------------------------------------------------------------
# As in Gluon's model zoo all networks consist of `features`, a sequence that ends with the (N, F) values that
# enter the head, and `output`, the head.


def _resnet18(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("resnet18_v1", classes=spec.classes)
    network.features.add(nn.Flatten())  # gluoncv leaves that to the affine layer
    return _with_head(network, spec)


def _resnet18_v2(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("resnet18_v2", classes=spec.classes, norm_layer=_batch_norm)
    return _with_head(network, spec)


_VGG16_LAYERS = 31
"""Convolutions, activations and poolings of VGG16; fc6, fc7 and their dropouts follow."""


def _vgg16(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("vgg16", classes=spec.classes)
    if spec.head != "fc6-fc7":
        network.features = network.features[:_VGG16_LAYERS]
        if not flattens(spec):
            network.features.add(nn.GlobalAvgPool2D())
        network.features.add(nn.Flatten())
    return _with_head(network, spec)


def _efficientnet_lite0(spec: ModelSpec) -> HybridBlock:
    return _with_head(EfficientNetLite0(classes=spec.classes, image_size=spec.image_size), spec)


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], HybridBlock]] = {
    "resnet18_v2": _resnet18_v2,
    "resnet18": _resnet18,
    "vgg16": _vgg16,
    "efficientnet_lite0": _efficientnet_lite0,
}
"""Their networks know their names but hold no values yet."""


def build(spec: ModelSpec, context: Any, *, dropout: bool) -> HybridBlock:
    """The network with a new head on an MXNet context, initialised from MXNet's current generator; float32.
    With `dropout` it keeps what gluoncv's own has (VGG16: after fc6 and fc7).

    Raises:
        UsageError: no such architecture here, or not with that head.
    """
    require_architecture(INFO, spec.architecture)
    flattens(spec)  # raises for a head that the architecture does not have
    network = ARCHITECTURES[spec.architecture](spec)
    if spec.initializer != "default":
        network.collect_params(".*weight").setattr("init", _INITIALIZERS[spec.initializer])
    if not dropout:
        network.apply(_without_dropout)
    network.initialize(_BARE, ctx=context)
    network.hybridize()
    network(
        mx.nd.zeros((1, 3, spec.image_size, spec.image_size), ctx=context)
    )  # draws what waited for a shape
    return network


# --- Heads, layers, initialisers ------------------------------------------------------------------


def _with_head(network: HybridBlock, spec: ModelSpec) -> HybridBlock:
    if spec.head == "mlp-1024-128":
        del network.output  # Gluon refuses to replace a block by one of another class
        with network.name_scope():
            network.output = nn.HybridSequential(prefix="")
            network.output.add(nn.Dense(1024, activation="relu"), nn.Dense(128, activation="relu"))
            network.output.add(nn.Dense(spec.classes))
    return network


def _batch_norm(*, scale: bool = True, **keywords: Any) -> nn.BatchNorm:
    return nn.BatchNorm(**keywords) if scale else _UnscaledBatchNorm(scale=False, **keywords)


class _UnscaledBatchNorm(nn.BatchNorm):
    """A batch norm without a scale, which leaves the stored one as it was loaded: MXNet's own writes ones
    over it in its first forward."""

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, *others: Any, **more: Any) -> Any:
        return super().hybrid_forward(F, x, F.ones_like(gamma), *others, **more)

    def _alias(self) -> str:
        return "batchnorm"  # a part of its parameters' names


def _without_dropout(block: HybridBlock) -> None:
    if isinstance(block, nn.Dropout):
        block._rate = 0  # the layer stays, and with it the numbers in the names of those above


_BARE = mx.init.Uniform()
"""What a bare `initialize()` means; gluoncv's VGG16 states initialisers of its own."""

_INITIALIZERS: Mapping[str, Any] = {
    "xavier": mx.init.Xavier(),
    "he": mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2),
}
"""Of weights; Gluon's own layers say that their biases begin at zero."""


# --- Parts of a network ---------------------------------------------------------------------------


def split(
    network: HybridBlock, spec: ModelSpec, trained: tuple[str, ...]
) -> tuple[HybridBlock | None, HybridBlock]:
    """The layers below the first with a neutral name that begins with one of `trained` (None if there are
    none), and those from there to the logits. Both share the network's own blocks and are hybridised anew."""
    layers = list(network.features)
    named = enumerate(_layer_names(network, spec))
    first = next((i for i, names in named if any(name.startswith(trained) for name in names)), len(layers))
    network.hybridize()
    if first == 0:
        return None, network
    lower, upper = nn.HybridSequential(prefix=""), nn.HybridSequential(prefix="")
    lower.add(*layers[:first])
    upper.add(*layers[first:], network.output)
    lower.hybridize()
    upper.hybridize()
    return lower, upper


def block_layers(network: HybridBlock, spec: ModelSpec) -> dict[str, list[HybridBlock]]:
    """For every block below the head its layers, from the input up, activation and pooling included."""
    prefixes, block = architecture_of(spec.architecture).blocks, ""
    found: dict[str, list[HybridBlock]] = {}
    for layer, names in zip(network.features, _layer_names(network, spec), strict=True):
        if isinstance(layer, nn.GlobalAvgPool2D | nn.Flatten):  # from here on it is the way into the head
            break
        if names:
            block = next(name for name, begins in prefixes.items() if names[0].startswith(begins))
        found.setdefault(block, []).append(layer)
    return found


def batch_norms(block: HybridBlock) -> list[nn.BatchNorm]:
    """Every batch norm in a block, from the input up."""
    found: list[nn.BatchNorm] = []
    block.apply(lambda child: found.append(child) if isinstance(child, nn.BatchNorm) else None)
    return found


def batch_norm_areas(network: HybridBlock, spec: ModelSpec) -> dict[nn.BatchNorm, int]:
    """For every batch norm in the network the pixels (H * W) of its input."""
    outputs = network(mx.sym.var("images")).get_internals()
    _, found, _ = outputs.infer_shape(images=(1, 3, spec.image_size, spec.image_size))
    shape_of = dict(zip(outputs.list_outputs(), found, strict=True))
    return {norm: math.prod(shape_of[f"{norm.name}_fwd_output"][2:]) for norm in batch_norms(network)}


def leading_batch_norm(network: HybridBlock) -> nn.BatchNorm | None:
    """The batch norm on the image itself, which learns neither scale nor shift."""
    return network.features[0] if isinstance(network.features[0], nn.BatchNorm) else None


# --- Neutral names --------------------------------------------------------------------------------
# Gluon's layouts are the neutral ones. Its networks register their layers in the order in which an image
# passes them, and so does `architectures.shapes`: the n-th tensor of the one is the n-th of the other.


def own_names(network: HybridBlock, spec: ModelSpec) -> dict[str, str]:
    """What `save_parameters` calls each tensor, by neutral name: `features.1.gamma`, `output.weight`."""
    return dict(zip(shapes(spec), network._collect_params_with_prefix(), strict=True))


def assign(parameter: Parameter, value: Any) -> None:
    """Give a parameter the values of a NumPy array, in the parameter's precision."""
    # As an NDArray: a NumPy array cannot be written over what oneDNN keeps in a layout of its own.
    parameter.set_data(mx.nd.array(value, dtype=parameter.dtype))


def neutral_tensors(network: HybridBlock, spec: ModelSpec) -> dict[str, Parameter]:
    """Live parameters and running statistics by neutral name, in the order of `architectures.shapes`."""
    return dict(zip(shapes(spec), network._collect_params_with_prefix().values(), strict=True))


def _layer_names(network: HybridBlock, spec: ModelSpec) -> list[list[str]]:
    """For every layer of `features` the neutral names of its tensors."""
    names = iter(shapes(spec))
    return [
        list(itertools.islice(names, len(layer._collect_params_with_prefix()))) for layer in network.features
    ]
