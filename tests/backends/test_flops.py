"""Counts of operations: by hand, as published, and as torch counts them while it computes."""

from __future__ import annotations

import numpy as np
import pytest

import backends
from backends.base import ModelSpec, Session, Trainable, UsageError
from backends.flops import inference_flops, training_flops
from backends.optimizers import SGD

CLASSES = 3
VGG16_AT_32 = {
    "block1_conv1": 2 * (64 * 3 * 9) * 32 * 32,
    "block1_conv2": 2 * (64 * 64 * 9) * 32 * 32,
    "block2_conv1": 2 * (128 * 64 * 9) * 16 * 16,
    "block2_conv2": 2 * (128 * 128 * 9) * 16 * 16,
    "block3_conv1": 2 * (256 * 128 * 9) * 8 * 8,
    "block3_conv2": 2 * (256 * 256 * 9) * 8 * 8,
    "block3_conv3": 2 * (256 * 256 * 9) * 8 * 8,
    "block4_conv1": 2 * (512 * 256 * 9) * 4 * 4,
    "block4_conv2": 2 * (512 * 512 * 9) * 4 * 4,
    "block4_conv3": 2 * (512 * 512 * 9) * 4 * 4,
    "block5_conv1": 2 * (512 * 512 * 9) * 2 * 2,
    "block5_conv2": 2 * (512 * 512 * 9) * 2 * 2,
    "block5_conv3": 2 * (512 * 512 * 9) * 2 * 2,
    "head": 2 * 512 * CLASSES,
}
"""A multiplication and an addition for each weight, at each pixel of the layer's output. The first is
3,538,944."""

once = pytest.mark.once
TORCH = backends.resolve("pytorch")
by_torch = pytest.mark.skipif(not backends.installed(TORCH), reason="torch is not installed here")


def spec_of(architecture: str, **fields) -> ModelSpec:
    return ModelSpec(architecture=architecture, **{"classes": CLASSES, "image_size": 32, **fields})


@once
class TestByHand:
    def test_a_convolution_and_all_of_a_network(self):
        assert VGG16_AT_32["block1_conv1"] == 3_538_944
        assert inference_flops(spec_of("vgg16")) == sum(VGG16_AT_32.values())

    def test_a_layer_that_trains_costs_its_gradients(self):
        forward, layers = sum(VGG16_AT_32.values()), VGG16_AT_32
        # Nothing below the first layer wants a gradient.
        assert training_flops(spec_of("vgg16"), "all") == 3 * forward - layers["block1_conv1"]
        of_block = (
            forward
            + layers["block5_conv1"]
            + 2 * (layers["block5_conv2"] + layers["block5_conv3"] + layers["head"])
        )
        assert training_flops(spec_of("vgg16"), "block5") == of_block
        assert training_flops(spec_of("vgg16"), "head") == forward + layers["head"]

    def test_a_downsampling_sees_what_its_unit_sees(self):
        """resnet18's last stage, which alone trains: its two lowest convolutions pass no gradient down."""
        spec = spec_of("resnet18", image_size=64)
        first, other = 2 * (512 * 256 * 9) * 2 * 2, 2 * (512 * 512 * 9) * 2 * 2
        downsample, head = 2 * (512 * 256) * 2 * 2, 2 * 512 * CLASSES
        expected = inference_flops(spec) + first + downsample + 2 * (3 * other + head)
        assert training_flops(spec, "layer4") == expected

    def test_efficientnet_lite0_trains_at_three_times_its_inference_without_the_stem_s_input(self):
        """torch counts the backward pass of grouped convolutions wrongly."""
        spec = spec_of("efficientnet_lite0", image_size=64)
        stem = 2 * (32 * 3 * 9) * 32 * 32
        assert training_flops(spec, "all") == 3 * inference_flops(spec) - stem
        assert training_flops(spec, "head") == inference_flops(spec) + 2 * 1280 * CLASSES
        # 192 channels are expanded to 1152, filtered by 3 x 3, and narrowed to 320.
        block = {"pw": 2 * 192 * 1152 * 2 * 2, "dw": 2 * 1152 * 9 * 2 * 2, "pwl": 2 * 1152 * 320 * 2 * 2}
        above = 2 * 320 * 1280 * 2 * 2 + 2 * 1280 * CLASSES
        expected = inference_flops(spec) + block["pw"] + 2 * (block["dw"] + block["pwl"] + above)
        assert training_flops(spec, "blocks.6") == expected

    def test_features_enter_at_the_head(self):
        spec = spec_of("resnet18", head="mlp-256", entry="features")
        hidden, last = 2 * 512 * 256, 2 * 256 * CLASSES
        assert inference_flops(spec) == hidden + last
        for first in ("head", "all"):
            assert training_flops(spec, first) == 2 * hidden + 3 * last

    @pytest.mark.parametrize(
        ("architecture", "head", "multiplications"),
        [
            ("resnet18", "linear", 1_814_073_344),
            ("vgg16", "fc6-fc7", 15_470_264_320),
        ],
    )
    def test_imagenet_networks_cost_what_their_users_know(self, architecture, head, multiplications):
        spec = spec_of(architecture, image_size=224, classes=1000, head=head)
        assert inference_flops(spec) == 2 * multiplications

    def test_what_does_not_exist_is_answered_with_what_does(self):
        with pytest.raises(UsageError, match=r"no block 'neck'; it has: all, .*head"):
            training_flops(spec_of("resnet18"), "neck")
        with pytest.raises(UsageError, match="no architecture 'alexnet'"):
            inference_flops(spec_of("alexnet"))


HEADS = [
    ("resnet18", "linear"),
    ("resnet18", "mlp-1024-128"),
    ("resnet18_v2", "linear"),
    ("vgg16", "linear"),
    ("vgg16", "mlp-256"),
    ("vgg16", "mlp-1024-128"),
    ("vgg16", "fc6-fc7"),
    ("efficientnet_lite0", "linear"),
    ("efficientnet_lite0", "mlp-256"),
]


@by_torch
class TestAsTorchCounts:
    @pytest.mark.parametrize(("architecture", "head"), HEADS)
    def test_inference(self, architecture, head):
        # An odd size tells rounding up from rounding down; a flattened VGG16 takes multiples of 32.
        for size in (64, 96 if architecture == "vgg16" else 97):
            spec = spec_of(architecture, head=head, image_size=size)
            backend, batch = _trained(spec, images=1)
            assert _counted(lambda: backend.logits(batch)) == inference_flops(spec)  # noqa: B023

    @pytest.mark.parametrize("architecture", ["resnet18", "resnet18_v2", "vgg16"])
    def test_training(self, architecture):
        spec = spec_of(architecture, image_size=64)
        backend, batch = _trained(spec, images=2)
        found = []
        for first in ("all", "block5" if architecture == "vgg16" else "layer4", "head"):
            backend.set_trainable(Trainable(first=first))
            backend.configure_optimizer(SGD(learning_rate=0.01))
            found.append(_counted(lambda: backend.run_stages(batch, "backward")))
            assert found[-1] == 2 * training_flops(spec, first)
        assert found[0] > found[1] > found[2] > 2 * inference_flops(spec)

    def test_a_head_on_features(self):
        spec = spec_of("resnet18", head="mlp-256", entry="features")
        backend = backends.load(TORCH)(Session(track="matched", threads=2))
        backend.build(spec)
        backend.configure_optimizer(SGD(learning_rate=0.01))
        batch = backend.to_host_batch(np.ones((4, 512), np.float32), np.zeros(4, np.int64))
        assert _counted(lambda: backend.logits(batch)) == 4 * inference_flops(spec)
        assert _counted(lambda: backend.run_stages(batch, "backward")) == 4 * training_flops(spec, "head")


def _trained(spec: ModelSpec, *, images: int):
    backend = backends.load(TORCH)(Session(track="matched", threads=2))
    backend.build(spec)
    backend.configure_optimizer(SGD(learning_rate=0.01))
    pixels = np.zeros((images, spec.image_size, spec.image_size, 3), np.uint8)
    return backend, backend.to_host_batch(pixels, np.zeros(images, np.int64))


def _counted(work) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
