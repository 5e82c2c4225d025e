"""EfficientNet-Lite0 in Gluon, which no model zoo of MXNet's has.

As Google's and timm's `tf_efficientnet_lite0`: no squeeze-and-excitation, relu6, TensorFlow's 'same' padding,
batch-norm epsilon 1e-3. Layers bear their neutral names (see `architectures.py`).
"""

from __future__ import annotations

from typing import Any

from mxnet.gluon import HybridBlock, nn

from backends.architectures import (
    ARCHITECTURES,
    EFFICIENTNET_LITE0_FEATURES,
    EFFICIENTNET_LITE0_STAGES,
    EFFICIENTNET_LITE0_STEM,
    Stage,
)

_EPSILON = ARCHITECTURES["efficientnet_lite0"].batch_norm_epsilon


class EfficientNetLite0(HybridBlock):
    """The network for square images (N, 3, S, S) of one size S, on which TensorFlow's padding depends.

    `features`, as in Gluon's own networks, ends with the averaged and flattened features (N, 1280); `output`
    is the affine layer on them.
    """

    def __init__(self, *, classes: int, image_size: int) -> None:
        super().__init__()
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            stem = SameConv2D(3, EFFICIENTNET_LITE0_STEM, kernel=3, stride=2, before=image_size)
            self.features.add(stem, _batch_norm(EFFICIENTNET_LITE0_STEM), ReLU6())
            channels, size = EFFICIENTNET_LITE0_STEM, stem.size
            for stage in EFFICIENTNET_LITE0_STAGES:
                blocks = nn.HybridSequential(prefix="")
                for unit in range(stage.repeats):
                    stride = stage.stride if unit == 0 else 1
                    block = InvertedResidual(channels, stage, stride=stride, before=size)
                    blocks.add(block)
                    channels, size = stage.channels, block.size
                self.features.add(blocks)
            self.features.add(_pointwise(channels, EFFICIENTNET_LITE0_FEATURES))
            self.features.add(_batch_norm(EFFICIENTNET_LITE0_FEATURES), ReLU6())
            self.features.add(nn.GlobalAvgPool2D(), nn.Flatten())
            self.output = nn.Dense(classes, in_units=EFFICIENTNET_LITE0_FEATURES)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.output(self.features(x))


class InvertedResidual(HybridBlock):
    """Widen, filter each channel by itself, narrow; the input is added where the output has its shape.

    Inputs have `channels` channels and `before` x `before` pixels, outputs `size` x `size`.
    """

    def __init__(self, channels: int, stage: Stage, *, stride: int, before: int) -> None:
        super().__init__()
        wide = channels * stage.expansion
        self._adds_input = stride == 1 and channels == stage.channels
        self._expands = stage.expansion != 1
        with self.name_scope():
            if self._expands:
                self.conv_pw, self.bn1 = _pointwise(channels, wide), _batch_norm(wide)
            self.conv_dw = SameConv2D(
                wide, wide, kernel=stage.kernel, stride=stride, before=before, groups=wide
            )
            if self._expands:
                self.bn2 = _batch_norm(wide)
                self.conv_pwl, self.bn3 = _pointwise(wide, stage.channels), _batch_norm(stage.channels)
            else:
                self.bn1 = _batch_norm(wide)
                self.conv_pw, self.bn2 = _pointwise(wide, stage.channels), _batch_norm(stage.channels)
        self.size = self.conv_dw.size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        if self._expands:
            y = _relu6(F, self.bn1(self.conv_pw(x)))
            y = _relu6(F, self.bn2(self.conv_dw(y)))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = _relu6(F, self.bn1(self.conv_dw(x)))
            y = self.bn2(self.conv_pw(y))
        return x + y if self._adds_input else y


class SameConv2D(nn.Conv2D):
    """A convolution without bias under TensorFlow's 'same' padding, for inputs of `before` x `before` pixels;
    `size` is the height and width of its output, ceil(before / stride).

    Of the rows of zeros which that takes, the smaller half goes above.
    """

    def __init__(
        self, inside: int, outside: int, *, kernel: int, stride: int, before: int, groups: int = 1
    ) -> None:
        size = -(-before // stride)
        padding = max((size - 1) * stride + kernel - before, 0)
        above, below = padding // 2, padding - padding // 2
        super().__init__(outside, kernel, stride, below, groups=groups, use_bias=False, in_channels=inside)
        self.size, self._shift = size, below - above

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        if not self._shift:
            return super().hybrid_forward(F, x, weight)
        # Rather than one side of the image, which `pad` would copy on one thread, both sides get the larger
        # half, and the kernel zeros above and on its left: the sums are the same.
        sides = (0, 0, 0, 0, self._shift, 0, self._shift, 0)
        kernel = tuple(extent + self._shift for extent in self._kwargs["kernel"])
        weight = F.pad(weight, mode="constant", constant_value=0, pad_width=sides)
        return F.Convolution(x, weight, name="fwd", **{**self._kwargs, "kernel": kernel})


class ReLU6(HybridBlock):
    """`min(max(x, 0), 6)`, whatever the shape."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return _relu6(F, x)


def _relu6(F: Any, x: Any) -> Any:
    # `minimum(relu(x), 6)` is faster by itself, but its gradient is made in place, which leaves the batch
    # norm below with a layout for which oneDNN has only reference code: twice the time of a training step.
    return F.clip(x, 0, 6)


def _pointwise(inside: int, outside: int) -> nn.Conv2D:
    return nn.Conv2D(outside, 1, use_bias=False, in_channels=inside)


def _batch_norm(channels: int) -> nn.BatchNorm:
    return nn.BatchNorm(epsilon=_EPSILON, in_channels=channels)
