"""Architectures and heads in MXNet Gluon, and their neutral names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx
from gluoncv import model_zoo
from mxnet.gluon import HybridBlock, Parameter, nn

from backends.architectures import architecture_of, flattens, head_widths, outputs, shapes
from backends.base import ModelSpec, require_architecture
from backends.gluon import INFO
from backends.gluon.efficientnet_lite0 import EfficientNetLite0

# --- What there is --------------------------------------------------------------------------------
# As in Gluon's model zoo all networks consist of `features`, a sequence that ends with the (N, F) values that
# enter the head, and `output`, the head.


def _resnet18(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("resnet18_v1", classes=outputs(spec))
    network.features.add(nn.Flatten())  # gluoncv leaves that to the affine layer
    return _with_head(network, spec)


def _resnet18_v2(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("resnet18_v2", classes=outputs(spec), norm_layer=_batch_norm)
    return _with_head(network, spec)


_VGG16_LAYERS = 31
"""Convolutions, activations and poolings of VGG16; fc6, fc7 and their dropouts follow."""


def _vgg16(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("vgg16", classes=outputs(spec))
    if spec.head != "fc6-fc7":
        network.features = network.features[:_VGG16_LAYERS]
        if not flattens(spec):
            network.features.add(nn.GlobalAvgPool2D())
        network.features.add(nn.Flatten())
    return _with_head(network, spec)


def _efficientnet_lite0(spec: ModelSpec) -> HybridBlock:
    return _with_head(EfficientNetLite0(classes=outputs(spec), image_size=spec.image_size), spec)


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], HybridBlock]] = {
    "resnet18_v2": _resnet18_v2,
    "resnet18": _resnet18,
    "vgg16": _vgg16,
    "efficientnet_lite0": _efficientnet_lite0,
}


def declare(spec: ModelSpec) -> HybridBlock:
    """The network with a new head, which knows its names but holds no values yet."""
    return HeadAlone(spec) if spec.entry == "features" else ARCHITECTURES[spec.architecture](spec)


def build(spec: ModelSpec, context: Any, *, dropout: bool) -> HybridBlock:
    """The network with a new head on an MXNet context, initialised from MXNet's current generator; float32.
    With `dropout` it has the head's, and keeps what gluoncv's own has (VGG16: after fc6 and fc7).

    Raises:
        UsageError: no such architecture here, or not with that head.
    """
    require_architecture(INFO, spec.architecture)
    flattens(spec)  # raises for a head that the architecture does not have
    network = declare(spec)
    if spec.initializer != "default":
        network.collect_params(".*weight").setattr("init", _INITIALIZERS[spec.initializer])
    if not dropout:
        network.apply(_without_dropout)
    network.initialize(_BARE, ctx=context)
    network.hybridize()
    network(mx.nd.zeros(_input_shape(spec), ctx=context))  # draws what waited for a shape
    return network


# --- Heads, layers, initialisers ------------------------------------------------------------------


class LastDense(nn.Dense):
    """The last affine layer, with dropout on the values that enter it. Not a layer of its own before it:
    names of tensors are the same with and without."""

    def __init__(self, units: int, rate: float, **keywords: Any) -> None:
        super().__init__(units, **keywords)
        self._rate = rate

    def hybrid_forward(self, F: Any, x: Any, *tensors: Any, **more: Any) -> Any:
        return super().hybrid_forward(F, F.Dropout(x, p=self._rate) if self._rate else x, *tensors, **more)

    def _alias(self) -> str:
        return "dense"  # a part of its parameters' names


class HeadAlone(HybridBlock):
    """What is above the features."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.output = _head(spec)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.output(x)


def _with_head(network: HybridBlock, spec: ModelSpec) -> HybridBlock:
    """The network with the head of the specification in the place of its own, an affine layer."""
    hidden = len(head_widths(spec)) > 1
    if hidden or spec.dropout:
        initializer = None if hidden else network.output.weight.init  # dropout is no reason to draw otherwise
        del network.output  # Gluon refuses to replace a block by one of another class
        with network.name_scope():
            network.output = _head(spec, weight_initializer=initializer)
    return network


def _head(spec: ModelSpec, **of_last: Any) -> HybridBlock:
    _, *hidden = head_widths(spec)
    layers = [nn.Dense(width, activation="relu") for width in hidden]
    units = outputs(spec)
    last = LastDense(units, spec.dropout, **of_last) if spec.dropout else nn.Dense(units, **of_last)
    return _sequence(*layers, last) if layers else last


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
    if isinstance(block, nn.Dropout | LastDense):
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
    network: HybridBlock,
    spec: ModelSpec,
    trained: tuple[str, ...],
    *,
    masked: bool,
    static_memory: bool,
) -> tuple[HybridBlock | None, HybridBlock]:
    """The layers below the first with a neutral name that begins with one of `trained` (None if there are
    none), and those from there to the last layer's outputs; `masked` ones are `Masked`. Both share the
    network's own blocks and are hybridised anew; with `static_memory` their values lie in the same places
    from step to step."""
    flags = {"static_alloc": True} if static_memory else {}
    layers = list(network.features)
    named = enumerate(_layer_names(network, spec))
    first = next((i for i, names in named if any(name.startswith(trained) for name in names)), len(layers))
    network.hybridize(**flags)
    lower = _sequence(*layers[:first]) if first else None
    upper = network if lower is None else _sequence(*layers[first:], network.output)
    if masked:
        *hidden, last = _affine_layers(network.output)
        upper = Masked(_sequence(*layers[first:], *hidden), last)
    if lower is not None:
        lower.hybridize(**flags)
    upper.hybridize(**flags)
    return lower, upper


class Masked(HybridBlock):
    """Layers, and the last affine one above them. Its second input, (N, W), multiplies the values that enter
    the latter."""

    def __init__(self, layers: HybridBlock, last: nn.Dense) -> None:
        super().__init__()
        self.layers, self.last = layers, last

    def hybrid_forward(self, F: Any, x: Any, mask: Any) -> Any:
        return self.last(self.layers(x) * mask)


def up_to(network: HybridBlock, spec: ModelSpec, block: str) -> HybridBlock:
    """The layers up to a block's output, which is averaged over H and W; hybridised, of the network's own
    blocks."""
    found = block_layers(network, spec)
    blocks = list(found)[: list(found).index(block) + 1]
    layers = [layer for name in blocks for layer in found[name]]
    if not any(isinstance(layer, nn.Dense) for layer in layers):
        layers += [nn.GlobalAvgPool2D(), nn.Flatten()]
    part = _sequence(*layers)
    part.hybridize()
    return part


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
    inside = network(mx.sym.var("images")).get_internals()
    _, found, _ = inside.infer_shape(images=_input_shape(spec))
    shape_of = dict(zip(inside.list_outputs(), found, strict=True))
    return {norm: math.prod(shape_of[f"{norm.name}_fwd_output"][2:]) for norm in batch_norms(network)}


def leading_batch_norm(network: HybridBlock) -> nn.BatchNorm | None:
    """The batch norm on the image itself, which learns neither scale nor shift."""
    lowest = next(iter(network.features), None)  # a head alone has none
    return lowest if isinstance(lowest, nn.BatchNorm) else None


def _affine_layers(head: HybridBlock) -> list[nn.Dense]:
    return list(head) if isinstance(head, nn.HybridSequential) else [head]


def _sequence(*layers: HybridBlock) -> nn.HybridSequential:
    sequence = nn.HybridSequential(prefix="")
    sequence.add(*layers)
    return sequence


def _input_shape(spec: ModelSpec) -> tuple[int, ...]:
    if spec.entry == "features":
        return 1, head_widths(spec)[0]
    return 1, 3, spec.image_size, spec.image_size


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
