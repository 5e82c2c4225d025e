"""Every architecture of every backend installed here, against what `architectures.py` declares."""

from __future__ import annotations

import numpy as np
import pytest

import backends
from backends.architectures import blocks_of, is_parameter, shapes
from backends.base import (
    Backend,
    BackendInfo,
    Head,
    ModelSpec,
    Session,
)
from backends.optimizers import SGD

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
NETWORKS = [(card, architecture) for card in INSTALLED for architecture in card.architectures]
HEADS = [
    (card, architecture, head, size)
    for card, architecture in NETWORKS
    for head in ("linear", "mlp-1024-128", *(["fc6-fc7"] if architecture == "vgg16" else []))
    for size in (64, *([224] if architecture == "vgg16" else []))
]
"""A head of VGG16 may flatten its features, whose number is the image size's; the others average them."""

PUBLISHED: dict[str, tuple[Head, int]] = {
    "resnet18": ("linear", 11_689_512),
    "resnet18_v2": ("linear", 11_687_848),
    "vgg16": ("fc6-fc7", 138_357_544),
    "efficientnet_lite0": ("linear", 4_652_008),
}
"""Head and parameters of each ImageNet network, of 1000 classes at 224 pixels, as its authors count them."""

BLOCKS_AT_64 = {
    "resnet18": {
        "stem": (64, 16),
        "layer1": (64, 16),
        "layer2": (128, 8),
        "layer3": (256, 4),
        "layer4": (512, 2),
    },
    "resnet18_v2": {
        "stem": (64, 16),
        "layer1": (64, 16),
        "layer2": (128, 8),
        "layer3": (256, 4),
        "layer4": (512, 2),
        "final": (512, 2),
    },
    "vgg16": {
        "block1": (64, 32),
        "block2": (128, 16),
        "block3": (256, 8),
        "block4": (512, 4),
        "block5": (512, 2),
    },
    "efficientnet_lite0": {
        "stem": (32, 32),
        "blocks.0": (16, 32),
        "blocks.1": (24, 16),
        "blocks.2": (40, 8),
        "blocks.3": (80, 4),
        "blocks.4": (112, 4),
        "blocks.5": (192, 2),
        "blocks.6": (320, 2),
        "final": (1280, 2),
    },
}
"""Channels, and height and width, of each block's output on images of 64 pixels."""

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


def name_of(value) -> str:
    return getattr(value, "name", value)


every_network = pytest.mark.parametrize(("card", "architecture"), NETWORKS, ids=name_of)
every_backend = pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)


def make(card: BackendInfo, architecture: str, *, classes: int = 5, size: int = 64, head: Head = "linear"):
    """A backend with the network in the matched track, and the network's specification."""
    spec = ModelSpec(architecture=architecture, classes=classes, image_size=size, head=head)
    backend = backends.load(card)(Session(track="matched", threads=2))
    backend.build(spec)
    return backend, spec


def images_of(size: int, *, count: int = 2) -> np.ndarray:
    return np.random.RandomState(0).standard_normal((count, size, size, 3)).astype(np.float32)


def batch_of(backend: Backend, images: np.ndarray):
    return backend.to_host_batch(images, np.arange(len(images), dtype=np.int64))


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@every_network
def test_the_published_network_has_its_parameters(card, architecture):
    head, parameters = PUBLISHED[architecture]
    backend, spec = make(card, architecture, classes=1000, size=224, head=head)
    tensors = backend.export_weights()
    assert [(name, tensor.shape) for name, tensor in tensors.items()] == list(shapes(spec).items())
    assert sum(tensor.size for name, tensor in tensors.items() if is_parameter(name)) == parameters
    backend.configure_optimizer(SGD(learning_rate=0.5))
    settings = backend.settings()
    assert (settings["parameters"], settings["trained_parameters"]) == (parameters, parameters)


@pytest.mark.parametrize(("card", "architecture", "head", "size"), HEADS, ids=name_of)
def test_every_head_fits_every_size(card, architecture, head, size):
    backend, spec = make(card, architecture, size=size, head=head)
    tensors = backend.export_weights()
    assert [(name, tensor.shape) for name, tensor in tensors.items()] == list(shapes(spec).items())
    batch = batch_of(backend, images_of(size))
    assert backend.to_numpy(backend.logits(batch)).shape == (2, 5)
    entering = next(s for name, s in shapes(spec).items() if name.startswith("head"))[1]
    assert backend.to_numpy(backend.features(batch)).shape == (2, entering)


@every_network
def test_blocks_give_what_the_next_one_sees(card, architecture):
    backend, spec = make(card, architecture)
    batch = batch_of(backend, images_of(64))
    outputs = backend.block_outputs(batch)
    assert tuple(outputs) == blocks_of(spec)
    found = {block: output.shape for block, output in outputs.items()}
    assert found == {b: (2, width, side, side) for b, (width, side) in BLOCKS_AT_64[architecture].items()}
    averaged = outputs[blocks_of(spec)[-1]].mean(axis=(2, 3))
    assert_close(backend.to_numpy(backend.features(batch)), averaged)


@every_backend
def test_vgg16_s_own_layers_are_blocks_of_features(card):
    backend, spec = make(card, "vgg16", head="fc6-fc7")
    batch = batch_of(backend, images_of(64))
    outputs, tensors = backend.block_outputs(batch), backend.export_weights()
    assert tuple(outputs) == blocks_of(spec)
    entering = outputs["block5"].reshape(2, -1)  # (C, H, W), the order of the neutral columns
    for name in ("fc6", "fc7"):
        entering = np.maximum(entering @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"], 0)
        assert_close(outputs[name], entering)
    assert_close(backend.to_numpy(backend.features(batch)), entering)


@every_backend
@pytest.mark.parametrize("size", [64, 75])
def test_efficientnet_lite0_pads_as_tensorflow(card, size):
    """At stride 2 an even image gets one row below and none above, an odd one a row on either side."""
    backend, _ = make(card, "efficientnet_lite0", size=size)
    random = np.random.RandomState(1)
    tensors = {
        name: random.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
        for name, tensor in backend.export_weights().items()
    }
    backend.load_weights(tensors, head=True)
    images = images_of(size)
    padded = np.pad(images.transpose(0, 3, 1, 2), [(0, 0), (0, 0), *[(size % 2, 1)] * 2])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    values = np.einsum("ncxyij,ocij->noxy", windows, tensors["conv_stem.weight"])
    gamma, beta, mean, variance = (
        tensors[f"bn1.{name}"][:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
    )
    expected = np.clip((values - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)
    output = backend.block_outputs(batch_of(backend, images))["stem"]
    assert_close(output, expected)


@every_backend
def test_resnet18_v2_begins_with_a_shift_and_no_scale(card):
    backend, _ = make(card, "resnet18_v2")
    tensors, batch = backend.export_weights(), batch_of(backend, images_of(64))
    plain = backend.to_numpy(backend.logits(batch))
    for name, matters in (("bn0.weight", False), ("bn0.bias", True)):
        changed = np.array([0.25, -2.0, 3.0], np.float32)
        backend.load_weights({**tensors, name: changed}, head=True)
        for _ in range(2):  # MXNet overwrites the scale at the first forward
            other = backend.to_numpy(backend.logits(batch))
        assert (np.abs(other - plain).max() > 1e-3 * np.abs(plain).max()) is np.bool_(matters)
        assert np.array_equal(backend.export_weights()[name], changed)
