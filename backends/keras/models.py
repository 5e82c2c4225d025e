"""Architectures and heads in Keras, and their neutral names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import msgspec
import numpy as np
from keras import layers

from backends.base import ModelSpec, require_architecture
from backends.keras import INFO

# --- What there is --------------------------------------------------------------------------------


def _vgg16(spec: ModelSpec) -> Any:
    # `include_top=False` is the network below its last three layers, at any image size. Popping them off
    # `model.layers` is no cut: that list is a copy, and the 1000-way softmax would stay under the new head.
    shape = (spec.image_size, spec.image_size, 3)
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=shape)
    features = layers.Flatten(name=FEATURE_LAYERS["vgg16"])(base.output)
    logits = _head(spec, features)
    return keras.Model(base.input, layers.Softmax(name="softmax")(logits), name=spec.architecture)


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], Any]] = {"vgg16": _vgg16}
FEATURE_LAYERS: Mapping[str, str] = {"vgg16": "flatten"}
"""For each architecture the layer whose output enters the head; Keras flattens VGG16's in (H, W, C) order."""


class Published(msgspec.Struct, frozen=True):
    """A checkpoint that keras.applications publishes: ImageNet weights without the top."""

    application: Callable[..., Any]
    url: str
    md5: str


OFFICIAL: Mapping[str, Published] = {
    "vgg16": Published(
        keras.applications.VGG16,
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
    )
}


def build(spec: ModelSpec) -> Any:
    """The network with a new head and a softmax, initialised from Python's generator (which seeds Keras').

    It maps images (N, H, W, 3) float32 to probabilities (N, K).

    Raises:
        UsageError: no such architecture here.
    """
    require_architecture(INFO, spec.architecture, ARCHITECTURES)
    network = ARCHITECTURES[spec.architecture](spec)
    if spec.initializer == "he":  # Keras' default is already `xavier`: Glorot uniform, zero biases
        _he(network)
    return network


def features_of(network: Any, architecture: str) -> Any:
    """The same network up to the values that enter the head: images to features (N, F)."""
    return keras.Model(network.input, network.get_layer(FEATURE_LAYERS[architecture]).output)


def logits_of(network: Any) -> Any:
    """The same network up to the values that enter the softmax: images to logits (N, K)."""
    return keras.Model(network.input, network.get_layer("softmax").input)


# --- Heads and initialisers -----------------------------------------------------------------------


def _head(spec: ModelSpec, features: Any) -> Any:
    if spec.head == "linear":
        return layers.Dense(spec.classes, name="head")(features)
    hidden = layers.Dense(1024, activation="relu", name="head.fc1")(features)
    hidden = layers.Dense(128, activation="relu", name="head.fc2")(hidden)
    return layers.Dense(spec.classes, name="head.fc3")(hidden)


def _he(network: Any) -> None:
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense):
            draw = keras.initializers.HeNormal()  # one for each: an initialiser repeats its values
            layer.kernel.assign(draw(layer.kernel.shape))


# --- Neutral names --------------------------------------------------------------------------------

_VARIABLES: Mapping[str, str] = {"kernel": "weight", "bias": "bias"}
_AXES: Mapping[int, tuple[int, ...]] = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
"""By rank, where each neutral axis lies in Keras: OIHW in HWIO, (out, in) in (in, out)."""


def neutral_tensors(network: Any) -> dict[str, Any]:
    """Live variables by neutral name, in Keras' layouts; layers carry their neutral names."""
    return {
        f"{layer.name}.{_VARIABLES[variable.name]}": variable
        for layer in network.layers
        for variable in layer.variables
    }


def neutral_shape(variable: Any) -> tuple[int, ...]:
    """A variable's shape in the neutral layout."""
    return tuple(variable.shape[axis] for axis in _AXES[len(variable.shape)])


def to_neutral(array: np.ndarray) -> np.ndarray:
    """From Keras' layout to the neutral one; a copy."""
    return np.ascontiguousarray(array.transpose(_AXES[array.ndim]), dtype=np.float32)


def from_neutral(array: np.ndarray) -> np.ndarray:
    """From the neutral layout to Keras'; a view."""
    return array.transpose(np.argsort(_AXES[array.ndim]))
