"""EfficientNet-Lite0: keras.applications has no Lite variant.

Layers bear their neutral names. Keras' `same` padding is TensorFlow's, which this network was trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers

from backends.architectures import (
    EFFICIENTNET_LITE0_FEATURES,
    EFFICIENTNET_LITE0_STAGES,
    EFFICIENTNET_LITE0_STEM,
    Stage,
)

MakeBatchNorm = Callable[..., Any]
"""From a layer's name."""


def efficientnet_lite0(images: Any, batch_norm: MakeBatchNorm) -> dict[str, Any]:
    """Symbolic outputs of the blocks, from the input up."""
    values = _convolution("conv_stem", EFFICIENTNET_LITE0_STEM, kernel=3, stride=2)(images)
    values = _relu6("relu1")(batch_norm("bn1")(values))
    blocks = {"stem": values}
    for index, stage in enumerate(EFFICIENTNET_LITE0_STAGES):
        for unit in range(stage.repeats):
            name, stride = f"blocks.{index}.{unit}", stage.stride if unit == 0 else 1
            branch = _separable if stage.expansion == 1 else _inverted_residual
            output = branch(name, values, stage, stride, batch_norm)
            if stride == 1 and values.shape[-1] == stage.channels:
                output = layers.Add(name=f"{name}.add")([output, values])
            values = output
        blocks[f"blocks.{index}"] = values
    values = _convolution("conv_head", EFFICIENTNET_LITE0_FEATURES)(values)
    return {**blocks, "final": _relu6("relu2")(batch_norm("bn2")(values))}


def _separable(name: str, values: Any, stage: Stage, stride: int, batch_norm: MakeBatchNorm) -> Any:
    """The first stage's, which expands nothing."""
    values = _depthwise(f"{name}.conv_dw", stage.kernel, stride)(values)
    values = _relu6(f"{name}.relu1")(batch_norm(f"{name}.bn1")(values))
    return batch_norm(f"{name}.bn2")(_convolution(f"{name}.conv_pw", stage.channels)(values))


def _inverted_residual(name: str, values: Any, stage: Stage, stride: int, batch_norm: MakeBatchNorm) -> Any:
    """M. Sandler et al. 2018, MobileNetV2."""
    values = _convolution(f"{name}.conv_pw", stage.expansion * values.shape[-1])(values)
    values = _relu6(f"{name}.relu1")(batch_norm(f"{name}.bn1")(values))
    values = _depthwise(f"{name}.conv_dw", stage.kernel, stride)(values)
    values = _relu6(f"{name}.relu2")(batch_norm(f"{name}.bn2")(values))
    return batch_norm(f"{name}.bn3")(_convolution(f"{name}.conv_pwl", stage.channels)(values))


# --- Layers ---------------------------------------------------------------------------------------


def _convolution(name: str, channels: int, *, kernel: int = 1, stride: int = 1) -> Any:
    return layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)


def _depthwise(name: str, kernel: int, stride: int) -> Any:
    return layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=name)


def _relu6(name: str) -> Any:
    return layers.ReLU(max_value=6, name=name)
