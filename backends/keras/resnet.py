"""ResNet-18, v1 as torchvision's and v2 as Gluon's: keras.applications begins at ResNet-50.

Layers bear their neutral names. Padding is written out: at stride 2 Keras' `same` pads right and below only,
these networks on all sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers

MakeBatchNorm = Callable[..., Any]
"""From a layer's name, and `learns` where that is not so."""

STAGES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
"""Channels; every stage has two basic blocks, and the first of a wider stage halves height and width."""


def resnet18(images: Any, batch_norm: MakeBatchNorm) -> dict[str, Any]:
    """Symbolic outputs of the blocks, from the input up."""
    values = _convolution("conv1", 64, kernel=7, stride=2)(images)
    values = _max_pool(_relu("relu")(batch_norm("bn1")(values)))
    blocks = {"stem": values}
    for stage, channels in STAGES.items():
        for unit in range(2):
            values = _basic_block(f"{stage}.{unit}", values, channels, batch_norm)
        blocks[stage] = values
    return blocks


def resnet18_v2(images: Any, batch_norm: MakeBatchNorm) -> dict[str, Any]:
    """Symbolic outputs of the blocks, from the input up."""
    values = batch_norm("bn0", learns=False)(images)
    values = _convolution("conv1", 64, kernel=7, stride=2)(values)
    values = _max_pool(_relu("relu")(batch_norm("bn1")(values)))
    blocks = {"stem": values}
    for stage, channels in STAGES.items():
        for unit in range(2):
            values = _preactivated_block(f"{stage}.{unit}", values, channels, batch_norm)
        blocks[stage] = values
    return {**blocks, "final": _relu("relu2")(batch_norm("bn2")(values))}


def _basic_block(name: str, values: Any, channels: int, batch_norm: MakeBatchNorm) -> Any:
    """K. He et al. 2015, Deep Residual Learning for Image Recognition."""
    shortcut, stride = values, 1
    if values.shape[-1] != channels:
        stride = 2
        shortcut = _convolution(f"{name}.downsample.0", channels, kernel=1, stride=stride)(values)
        shortcut = batch_norm(f"{name}.downsample.1")(shortcut)
    values = _convolution(f"{name}.conv1", channels, kernel=3, stride=stride)(values)
    values = _relu(f"{name}.relu1")(batch_norm(f"{name}.bn1")(values))
    values = _convolution(f"{name}.conv2", channels, kernel=3)(values)
    values = batch_norm(f"{name}.bn2")(values)
    return _relu(f"{name}.relu2")(layers.Add(name=f"{name}.add")([values, shortcut]))


def _preactivated_block(name: str, values: Any, channels: int, batch_norm: MakeBatchNorm) -> Any:
    """K. He et al. 2016, Identity Mappings in Deep Residual Networks; a convolved shortcut begins behind the
    activation."""
    shortcut, stride = values, 1
    activated = _relu(f"{name}.relu1")(batch_norm(f"{name}.bn1")(values))
    if values.shape[-1] != channels:
        stride = 2
        shortcut = _convolution(f"{name}.downsample", channels, kernel=1, stride=stride)(activated)
    values = _convolution(f"{name}.conv1", channels, kernel=3, stride=stride)(activated)
    values = _relu(f"{name}.relu2")(batch_norm(f"{name}.bn2")(values))
    values = _convolution(f"{name}.conv2", channels, kernel=3)(values)
    return layers.Add(name=f"{name}.add")([values, shortcut])


# --- Layers ---------------------------------------------------------------------------------------


def _convolution(name: str, channels: int, *, kernel: int, stride: int = 1) -> Callable[[Any], Any]:
    convolution = layers.Conv2D(
        channels,
        kernel,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        name=name,
    )
    if stride == 1 or kernel == 1:
        return convolution
    padding = layers.ZeroPadding2D(kernel // 2, name=f"{name}.padding")
    return lambda values: convolution(padding(values))


def _relu(name: str) -> Any:
    return layers.ReLU(name=name)


def _max_pool(values: Any) -> Any:
    # torch and Gluon pad with minus infinity: behind a relu zeros are as good
    padded = layers.ZeroPadding2D(1, name="pool.padding")(values)
    return layers.MaxPooling2D(3, 2, name="pool")(padded)
