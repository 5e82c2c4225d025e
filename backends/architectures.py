"""The architectures, declared once for all frameworks: their blocks, and every tensor's neutral name and
shape.

Convolutions are OIHW (a depthwise one is (C, 1, H, W)) and affine layers (out, in). Names follow torchvision
for ResNet-18, Keras for VGG16's convolutions and timm for EfficientNet-Lite0, with one difference:
everything that belongs to the new head begins with `head.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import msgspec

from backends.base import Head, ModelSpec, Normalization, Output, UsageError

HEAD = "head"
Tensors = Iterator[tuple[str, tuple[int, ...]]]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of an architecture in every framework."""

    name: str
    blocks: Mapping[str, tuple[str, ...]]
    """From the input up, and how the neutral names in each begin. A block's output is what the next one sees:
    after its activation and its pooling."""
    body: Callable[[], Tensors]
    """Names and shapes of all below the head, from the input up."""
    features: int
    """F of a globally pooled feature vector: channels of the last block's output."""
    batch_norm_epsilon: float | None
    """None: there is no batch norm."""
    normalization: Normalization
    """What the published ImageNet weights expect of an input."""
    stride: int = 32
    """Pixels of the input for one of the last block's output."""


# --- ResNet-18, v1 and v2 -------------------------------------------------------------------------

_STAGES = ((64, 64), (64, 128), (128, 256), (256, 512))
"""Channels in and out of each stage; every stage has two basic blocks."""


def _batch_norm(name: str, channels: int) -> Tensors:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{tensor}", (channels,)


def _resnet18() -> Tensors:
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _batch_norm("bn1", 64)
    for stage, (inside, outside) in enumerate(_STAGES, start=1):
        for unit in range(2):
            before = inside if unit == 0 else outside
            name = f"layer{stage}.{unit}"
            yield f"{name}.conv1.weight", (outside, before, 3, 3)
            yield from _batch_norm(f"{name}.bn1", outside)
            yield f"{name}.conv2.weight", (outside, outside, 3, 3)
            yield from _batch_norm(f"{name}.bn2", outside)
            if before != outside:
                yield f"{name}.downsample.0.weight", (outside, before, 1, 1)
                yield from _batch_norm(f"{name}.downsample.1", outside)


def _resnet18_v2() -> Tensors:
    yield from _batch_norm("bn0", 3)
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _batch_norm("bn1", 64)
    for stage, (inside, outside) in enumerate(_STAGES, start=1):
        for unit in range(2):
            before = inside if unit == 0 else outside
            name = f"layer{stage}.{unit}"
            yield from _batch_norm(f"{name}.bn1", before)
            yield f"{name}.conv1.weight", (outside, before, 3, 3)
            yield from _batch_norm(f"{name}.bn2", outside)
            yield f"{name}.conv2.weight", (outside, outside, 3, 3)
            if before != outside:
                yield f"{name}.downsample.weight", (outside, before, 1, 1)
    yield from _batch_norm("bn2", 512)


# --- VGG16 ----------------------------------------------------------------------------------------

_VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _vgg16() -> Tensors:
    before = 3
    for block, widths in enumerate(_VGG16_BLOCKS, start=1):
        for convolution, width in enumerate(widths, start=1):
            yield f"block{block}_conv{convolution}.weight", (width, before, 3, 3)
            yield f"block{block}_conv{convolution}.bias", (width,)
            before = width


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------


class Stage(msgspec.Struct, frozen=True):
    """Inverted residual blocks of one width; the first has the stride, the others keep size and add their
    input."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


EFFICIENTNET_LITE0_STEM, EFFICIENTNET_LITE0_FEATURES = 32, 1280
EFFICIENTNET_LITE0_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""As in Google's EfficientNet-Lite: no squeeze-and-excitation, relu6, TensorFlow's 'same' padding."""


def _efficientnet_lite0() -> Tensors:
    before = EFFICIENTNET_LITE0_STEM
    yield "conv_stem.weight", (before, 3, 3, 3)
    yield from _batch_norm("bn1", before)
    for index, stage in enumerate(EFFICIENTNET_LITE0_STAGES):
        for unit in range(stage.repeats):
            name, wide, kernel = f"blocks.{index}.{unit}", before * stage.expansion, (stage.kernel,) * 2
            if stage.expansion == 1:
                yield f"{name}.conv_dw.weight", (wide, 1, *kernel)
                yield from _batch_norm(f"{name}.bn1", wide)
                yield f"{name}.conv_pw.weight", (stage.channels, wide, 1, 1)
                yield from _batch_norm(f"{name}.bn2", stage.channels)
            else:
                yield f"{name}.conv_pw.weight", (wide, before, 1, 1)
                yield from _batch_norm(f"{name}.bn1", wide)
                yield f"{name}.conv_dw.weight", (wide, 1, *kernel)
                yield from _batch_norm(f"{name}.bn2", wide)
                yield f"{name}.conv_pwl.weight", (stage.channels, wide, 1, 1)
                yield from _batch_norm(f"{name}.bn3", stage.channels)
            before = stage.channels
    yield "conv_head.weight", (EFFICIENTNET_LITE0_FEATURES, before, 1, 1)
    yield from _batch_norm("bn2", EFFICIENTNET_LITE0_FEATURES)


# --- All of them ----------------------------------------------------------------------------------

_RESNET_LAYERS = {f"layer{stage}": (f"layer{stage}.",) for stage in range(1, 5)}

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="resnet18",
            blocks={"stem": ("conv1.", "bn1."), **_RESNET_LAYERS, HEAD: ("head.",)},
            body=_resnet18,
            features=512,
            batch_norm_epsilon=1e-5,
            normalization="imagenet",
        ),
        # bn0 normalises the input image, without learning; bn1 follows the first convolution, bn2 the last
        # stage.
        Architecture(
            name="resnet18_v2",
            blocks={
                "stem": ("bn0.", "conv1.", "bn1."),
                **_RESNET_LAYERS,
                "final": ("bn2.",),
                HEAD: ("head.",),
            },
            body=_resnet18_v2,
            features=512,
            batch_norm_epsilon=1e-5,
            normalization="imagenet",
        ),
        Architecture(
            name="vgg16",
            blocks={
                **{f"block{block}": (f"block{block}_",) for block in range(1, 6)},
                "fc6": ("fc6.",),  # these two only with the head `fc6-fc7`
                "fc7": ("fc7.",),
                HEAD: ("head.",),
            },
            body=_vgg16,
            features=512,
            batch_norm_epsilon=None,
            normalization="caffe",
        ),
        Architecture(
            name="efficientnet_lite0",
            blocks={
                "stem": ("conv_stem.", "bn1."),
                **{f"blocks.{index}": (f"blocks.{index}.",) for index in range(7)},
                "final": ("conv_head.", "bn2."),
                HEAD: ("head.",),
            },
            body=_efficientnet_lite0,
            features=EFFICIENTNET_LITE0_FEATURES,
            batch_norm_epsilon=1e-3,
            normalization="inception",
        ),
    )
}


def architecture_of(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        UsageError: names those there are.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"no architecture '{name}'; there are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of a network, parameters and running statistics, from its entry up: neutral name to shape.

    Raises:
        UsageError: no such architecture, or not with that head.
    """
    architecture = architecture_of(spec.architecture)
    tensors = dict(architecture.body())
    entering = architecture.features
    if flattens(spec):
        entering *= (spec.image_size // architecture.stride) ** 2
    units = outputs(spec)
    layers = {
        "linear": {HEAD: units},
        "mlp-256": {f"{HEAD}.fc1": 256, f"{HEAD}.fc2": units},
        "mlp-1024-128": {f"{HEAD}.fc1": 1024, f"{HEAD}.fc2": 128, f"{HEAD}.fc3": units},
        "fc6-fc7": {"fc6": 4096, "fc7": 4096, HEAD: units},
    }[spec.head]
    for name, width in layers.items():
        tensors |= {f"{name}.weight": (width, entering), f"{name}.bias": (width,)}
        entering = width
    if spec.entry == "features":
        return {name: shape for name, shape in tensors.items() if is_head(name)}
    return tensors


def outputs(spec: ModelSpec) -> int:
    """Units of the last affine layer.

    Raises:
        UsageError: one unit cannot tell more than two classes apart.
    """
    if spec.output == "softmax":
        return spec.classes
    if spec.classes != 2:
        raise UsageError(
            f"a sigmoid unit tells two classes apart, not {spec.classes}; give the head a softmax"
        )
    return 1


LOSSES: Mapping[Output, str] = {
    "softmax": "mean cross-entropy on logits",
    "sigmoid": "mean binary cross-entropy on the logit",
}
"""What `settings()` calls the loss of each kind of output."""


def head_widths(spec: ModelSpec) -> list[int]:
    """How many values enter each affine layer of the head, from below: the features F first, and last what
    dropout is applied to."""
    return [shape[1] for name, shape in shapes(spec).items() if is_head(name) and len(shape) == 2]


def flattens(spec: ModelSpec) -> bool:
    """Whether the last block's output is flattened, in the order (C, H, W), before its first affine layer;
    all others are averaged over H and W.

    Raises:
        UsageError: the architecture does not have that head.
    """
    if spec.head == "fc6-fc7" and spec.architecture != "vgg16":
        raise UsageError(f"{spec.architecture} has no head 'fc6-fc7': that is VGG16's")
    return spec.architecture == "vgg16" and spec.head != "linear"


PUBLISHED_IMAGE_SIZE = 224
"""Of a network whose tensors do not tell."""


def spec_of(architecture: str, shape_of: Callable[[ModelSpec, str], tuple[int, ...] | None]) -> ModelSpec:
    """The network whose affine layers some weights have: head, classes and, where a flattened layer tells
    it, the image size are read off their shapes. A linear head for one class where none fits.

    Args:
        shape_of: the shape of a tensor with this neutral name in this network, or None; an affine layer's is
            (out, in).
    """
    linear = ModelSpec(architecture=architecture, classes=1, image_size=PUBLISHED_IMAGE_SIZE)
    heads: tuple[Head, ...] = ("fc6-fc7", "mlp-1024-128", "mlp-256", "linear")
    for head in heads if architecture == "vgg16" else heads[1:]:
        spec = msgspec.structs.replace(linear, head=head)
        kernels = [name for name, shape in shapes(spec).items() if len(shape) == 2]
        first, last = shape_of(spec, kernels[0]), shape_of(spec, kernels[-1])
        if first is not None and last is not None and len(first) == len(last) == 2 and 0 not in last:
            spec = msgspec.structs.replace(spec, classes=last[0])
            if last[0] == 1:
                spec = msgspec.structs.replace(spec, classes=2, output="sigmoid")
            return msgspec.structs.replace(spec, image_size=_size_of(first, spec)) if flattens(spec) else spec
    return linear


def _size_of(kernel: tuple[int, ...], spec: ModelSpec) -> int:
    """The image size that fills the columns of the layer after a flatten, (out, C * H * W)."""
    architecture = architecture_of(spec.architecture)
    side = math.isqrt(kernel[1] // architecture.features)
    return side * architecture.stride or spec.image_size


def blocks_of(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the blocks that this network has below its head, from the input up."""
    names = shapes(spec)
    return tuple(
        block
        for block, prefixes in architecture_of(spec.architecture).blocks.items()
        if block != HEAD and any(name.startswith(prefixes) for name in names)
    )


def trained_from(architecture: str, first: str) -> tuple[str, ...]:
    """Prefixes of the neutral names that train when `first` (`all`, `head` or a block) is the lowest that
    does.

    Raises:
        UsageError: the architecture has no such block.
    """
    blocks = architecture_of(architecture).blocks
    names = list(blocks)
    if first == "all":
        first = names[0]
    if first not in blocks:
        raise UsageError(f"{architecture} has no block '{first}'; it has: all, {', '.join(names)}")
    return tuple(prefix for name in names[names.index(first) :] for prefix in blocks[name])


def is_head(name: str) -> bool:
    """Whether a neutral name belongs to the head."""
    return name.startswith(HEAD + ".")


LEARNT_NOTHING = ("bn0.weight", "bn0.bias")
"""Stored but never trained: resnet18_v2's leading batch norm has neither scale nor shift to learn. Its
stored scale is not used either (the forward takes 1); its stored shift is."""


def is_statistic(name: str) -> bool:
    """Whether a neutral name is a batch norm's running mean or variance."""
    return name.endswith((".running_mean", ".running_var"))


def is_parameter(name: str) -> bool:
    """Whether training may change what bears this name by its gradient."""
    return not is_statistic(name) and name not in LEARNT_NOTHING
