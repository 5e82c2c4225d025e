"""Architectures and heads in Keras, and their neutral names."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import msgspec
import numpy as np
from keras import layers

from backends.architectures import HEAD, architecture_of, flattens, head_widths, outputs, shapes
from backends.base import ModelSpec, require_architecture
from backends.keras import INFO
from backends.keras.batch_norm import BatchNormalization
from backends.keras.efficientnet_lite0 import efficientnet_lite0
from backends.keras.resnet import resnet18, resnet18_v2

# --- What there is --------------------------------------------------------------------------------


def _vgg16(images: Any, _batch_norm: Any) -> dict[str, Any]:
    # `include_top=False` is the network below its last three layers, at any image size. Popping them off
    # `model.layers` is no cut: that list is a copy, and the 1000-way softmax would stay under the new head.
    base = keras.applications.VGG16(include_top=False, weights=None, input_tensor=images)
    return {f"block{block}": base.get_layer(f"block{block}_pool").output for block in range(1, 6)}


ARCHITECTURES: Mapping[str, Callable[[Any, Any], dict[str, Any]]] = {
    "vgg16": _vgg16,
    "resnet18": resnet18,
    "resnet18_v2": resnet18_v2,
    "efficientnet_lite0": efficientnet_lite0,
}
"""Symbolic outputs of all blocks but fc6 and fc7, from the images and what makes a batch norm."""


class Network(msgspec.Struct, frozen=True):
    """A Keras network and places in it. Each is a network of its own and shares the layers. They are entered
    with images (N, H, W, 3), or with features (N, F)."""

    trained: Any
    """All of it, as training sees it: to the probabilities; in the matched track to the last layer's outputs,
    and where there is dropout from a pair, the second of which is what to keep, (N, W) uint8."""
    probabilities: Any
    """All of it, as Keras' users end one: to (N, K), or to the second class's alone, (N, 1)."""
    logits: Any
    """To the values that enter the softmax, (N, K); before a sigmoid to (0, z)."""
    features: Any
    """To the values that enter the head, (N, F), flattened ones in the neutral order (C, H, W)."""
    blocks: Any
    """To a dictionary of every block's output; None where there is none."""


def build(spec: ModelSpec, *, matched: bool) -> Network:
    """The network with a new head, initialised from Python's generator (which seeds Keras'), in Keras'
    default precision. `matched` is whose batch norms, dropout and end of what is trained it has.

    Raises:
        UsageError: no such architecture here, or not with that head.
    """
    require_architecture(INFO, spec.architecture)
    body = _features(spec) if spec.entry == "features" else _body(spec, unbiased=matched)
    *hidden, last = _head(spec)
    values = functools.reduce(lambda values, layer: layer(values), hidden, body.entering)
    if spec.dropout and not matched:
        values = layers.Dropout(spec.dropout, name="dropout")(values)
    ended, sigmoid = last(values), spec.output == "sigmoid"
    whole = keras.config.floatx()  # probabilities in a low precision would all but be rounded to 0 and 1
    end = (
        layers.Activation("sigmoid", name="sigmoid", dtype=whole)
        if sigmoid
        else layers.Softmax(name="softmax", dtype=whole)
    )

    def network(output: Any, *further: Any) -> Any:
        inputs = (body.inputs, *further) if further else body.inputs
        return keras.Model(inputs, output, name=spec.architecture)

    probabilities = trained = network(end(ended))
    if matched and spec.dropout:
        kept = keras.Input((head_widths(spec)[-1],), dtype="uint8", name="kept")
        trained = network(last(_masked(values, kept, spec.dropout)), kept)
    elif matched:
        trained = network(ended)
    logits = network(keras.ops.pad(ended, ((0, 0), (1, 0))) if sigmoid else ended)
    if spec.initializer == "he":  # Keras' default is already `xavier`: Glorot uniform, zero biases
        _he(logits)
    blocks = network(body.blocks) if body.blocks else None
    return Network(trained, probabilities, logits, network(body.features), blocks)


def plain(network: Any) -> Any:
    """A copy made of Keras' own layers only, as its users would have written it: a file of it needs no code
    of this project."""
    copy = keras.models.clone_model(network, clone_function=_plain_layer)
    for layer in network.layers:
        values = [variable.numpy() for variable in layer.weights]  # `variables` has dropout's seed too
        if isinstance(layer, BatchNormalization) and not layer.learns:
            values = values[1:]
        copy.get_layer(layer.name).set_weights(values)
    return copy


# --- Layers, heads and initialisers ---------------------------------------------------------------


class _Body(msgspec.Struct, frozen=True):
    """Symbolic values below the head."""

    inputs: Any
    blocks: dict[str, Any]
    entering: Any
    """What the head sees."""
    features: Any
    """The same in the neutral order."""


def _body(spec: ModelSpec, *, unbiased: bool) -> _Body:
    images = keras.Input((spec.image_size, spec.image_size, 3), name="images")
    epsilon = architecture_of(spec.architecture).batch_norm_epsilon
    blocks = ARCHITECTURES[spec.architecture](images, functools.partial(_batch_norm, epsilon, unbiased))
    last = list(blocks.values())[-1]
    if not flattens(spec):
        features = layers.GlobalAveragePooling2D(name="average")(last)
        return _Body(images, blocks, features, features)
    entering = layers.Flatten(name="flatten")(last)  # in Keras' order: (H, W, C)
    if spec.head != "fc6-fc7":
        features = layers.Flatten(name="features")(layers.Permute((3, 1, 2), name="neutral")(last))
        return _Body(images, blocks, entering, features)
    for name in ("fc6", "fc7"):
        entering = blocks[name] = layers.Dense(4096, activation="relu", name=name)(entering)
    return _Body(images, blocks, entering, entering)


def _features(spec: ModelSpec) -> _Body:
    """Nothing: the head alone."""
    features = keras.Input((head_widths(spec)[0],), name="features")
    return _Body(features, {}, features, features)


def _batch_norm(epsilon: float | None, unbiased: bool, name: str, *, learns: bool = True) -> Any:
    return BatchNormalization(name=name, epsilon=epsilon, unbiased=unbiased, learns=learns)


def _plain_layer(layer: Any) -> Any:
    if not isinstance(layer, BatchNormalization):
        return type(layer).from_config(layer.get_config())
    config = layer.get_config()
    if not layer.learns:
        # Keras' own layer would use a scale that it holds. The configuration keeps the one stored, as the
        # initial value of a variable that is never made.
        config |= {
            "scale": False,
            "gamma_initializer": keras.initializers.Constant(layer.gamma.numpy().tolist()),
        }
    return keras.layers.BatchNormalization.from_config(config)


def _head(spec: ModelSpec) -> list[Any]:
    """Its affine layers, from below."""
    widths = head_widths(spec)[1:]
    names = [f"{HEAD}.fc{number}" for number in range(1, len(widths) + 2)] if widths else [HEAD]
    hidden = [
        layers.Dense(width, activation="relu", name=name)
        for width, name in zip(widths, names[:-1], strict=True)
    ]
    return [*hidden, layers.Dense(outputs(spec), name=names[-1])]


def _masked(values: Any, kept: Any, rate: float) -> Any:
    return values * keras.ops.cast(kept, values.dtype) / (1 - rate)


def _he(network: Any) -> None:
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            draw = keras.initializers.HeNormal()  # one for each: an initialiser repeats its values
            *field, inputs, outputs = layer.kernel.shape
            if isinstance(layer, layers.DepthwiseConv2D):  # each channel sees itself, not all of them
                inputs, outputs = outputs, inputs
            layer.kernel.assign(keras.ops.reshape(draw((*field, inputs, outputs)), layer.kernel.shape))


# --- Neutral names and layouts --------------------------------------------------------------------

VARIABLES: Mapping[str, str] = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras' names of a layer's variables, and the neutral ones."""


class Layout(msgspec.Struct, frozen=True):
    """How one tensor lies in Keras."""

    neutral: tuple[int, ...]
    """Its neutral shape."""
    unfolded: tuple[int, ...]
    """The same, with flattened features (C * H * W) as three axes."""
    axes: tuple[int, ...]
    """Which of the unfolded axes Keras has at each place."""
    shape: tuple[int, ...]
    """Its shape in Keras."""

    def to_neutral(self, array: np.ndarray) -> np.ndarray:
        """From Keras' layout; a contiguous copy."""
        unfolded = array.reshape([self.unfolded[axis] for axis in self.axes])
        return np.array(unfolded.transpose(np.argsort(self.axes)), order="C").reshape(self.neutral)

    def from_neutral(self, array: np.ndarray) -> np.ndarray:
        """To Keras' layout; a view where that can be."""
        return array.reshape(self.unfolded).transpose(self.axes).reshape(self.shape)


def layouts(spec: ModelSpec) -> dict[str, Layout]:
    """Of every tensor of a network, by neutral name.

    Raises:
        UsageError: no such architecture, or not with that head.
    """
    found: dict[str, Layout] = {}
    flattened = flattens(spec) and spec.entry == "images"  # features come in the neutral order
    axes: tuple[int, ...]
    for name, neutral in shapes(spec).items():
        unfolded, axes = neutral, (0,)
        if len(neutral) == 4:  # OIHW to HWIO; a depthwise (C, 1, H, W) to (H, W, C, 1)
            axes = (2, 3, 0, 1) if neutral[1] == 1 else (2, 3, 1, 0)
        elif len(neutral) == 2 and flattened:  # only the first affine layer sees the flattened features
            channels, flattened = architecture_of(spec.architecture).features, False
            edge = math.isqrt(neutral[1] // channels)
            unfolded, axes = (neutral[0], channels, edge, edge), (2, 3, 1, 0)
        elif len(neutral) == 2:
            axes = (1, 0)
        shape = tuple(unfolded[axis] for axis in axes)
        if len(unfolded) > len(neutral):
            shape = (math.prod(shape[:-1]), shape[-1])
        found[name] = Layout(neutral, unfolded, axes, shape)
    return found


def neutral_tensors(network: Network, spec: ModelSpec) -> dict[str, Any]:
    """Live variables by neutral name, in the order of `architectures.shapes` and in Keras' layouts; layers
    bear their neutral names."""
    found = {
        f"{layer.name}.{VARIABLES[variable.name]}": variable
        for layer in network.logits.layers
        for variable in layer.weights
    }
    return {name: found[name] for name in shapes(spec)}
