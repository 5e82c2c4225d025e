"""Floating-point operations of a network, counted from its tensors' shapes: one multiplication and one
addition for each weight at each place where it is applied.

Counted are convolutions and affine layers, as `torch.utils.flop_counter` counts them (the tests hold the two
equal). Batch norm, activations, pooling and updates are left out: hundredths of it, bound by memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from backends.architectures import EFFICIENTNET_LITE0_STAGES, is_parameter, shapes, trained_from
from backends.base import ModelSpec


def inference_flops(spec: ModelSpec) -> int:
    """Of one image (or one row of features) from the network's entry to its logits.

    Raises:
        UsageError: no such architecture, or not with that head.
    """
    return sum(_layers(spec).values())


def training_flops(spec: ModelSpec, first_trained: str) -> int:
    """Of one image's forward and backward pass.

    A layer that trains costs its forward pass again for the gradient of its weights, and one that has
    anything trained below it for the gradient of its input.

    Args:
        first_trained: `all`, `head`, or the lowest block that trains.

    Raises:
        UsageError: no such architecture or block.
    """
    trained = trained_from(spec.architecture, first_trained)
    layers, total, below = _layers(spec), 0, False
    sees_trained: dict[str, bool] = {}
    for name in filter(is_parameter, shapes(spec)):
        if name in layers:
            unit, _, layer = name.partition(".downsample")
            # A residual unit's downsampling has the input of the unit's first convolution.
            sees_trained[name] = sees_trained[f"{unit}.conv1.weight"] if layer else below
            total += layers[name] * (1 + name.startswith(trained) + sees_trained[name])
        below = below or name.startswith(trained)
    return total


def _layers(spec: ModelSpec) -> dict[str, int]:
    """FLOPs of each convolution and affine layer, from the entry up, by the name of its weight."""
    found = {}
    for name, shape in shapes(spec).items():
        if is_parameter(name) and len(shape) in (2, 4):
            places = _edge(spec, name) ** 2 if len(shape) == 4 else 1
            found[name] = 2 * math.prod(shape) * places
    return found


def _edge(spec: ModelSpec, name: str) -> int:
    """Height and width of a convolution's output."""
    stride = _STRIDES[spec.architecture](name)
    # VGG16's poolings drop what does not fill them, the others' strides round up.
    return spec.image_size // stride if spec.architecture == "vgg16" else -(-spec.image_size // stride)


def _resnet_stride(name: str) -> int:
    stage = re.match(r"layer(\d)", name)
    return 2 << int(stage[1]) if stage else 2


def _vgg16_stride(name: str) -> int:
    return 1 << int(name.removeprefix("block")[0]) - 1


def _efficientnet_lite0_stride(name: str) -> int:
    """An expansion is computed before its block's stride, all else after it."""
    if not name.startswith("blocks."):
        return 2 if name.startswith("conv_stem") else 32
    _, index, unit, layer, *_ = name.split(".")
    before = 2 * math.prod(stage.stride for stage in EFFICIENTNET_LITE0_STAGES[: int(index)])
    stage = EFFICIENTNET_LITE0_STAGES[int(index)]
    expands = layer == "conv_pw" and stage.expansion > 1 and unit == "0"
    return before if expands else before * stage.stride


_STRIDES: Mapping[str, Callable[[str], int]] = {
    "resnet18": _resnet_stride,
    "resnet18_v2": _resnet_stride,
    "vgg16": _vgg16_stride,
    "efficientnet_lite0": _efficientnet_lite0_stride,
}
"""Pixels of the image for one of a convolution's output, by the name of its weight."""
