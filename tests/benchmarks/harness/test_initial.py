from __future__ import annotations

import numpy as np
import pytest

from backends import architectures
from backends.base import ModelSpec, UsageError
from benchmarks.harness import initial

SPEC = ModelSpec(architecture="resnet18", classes=3, image_size=32, initializer="he")


def test_the_drawn_values_are_the_same_everywhere():
    """Under NumPy 1 and 2, and on every machine: a hash that was written down once."""
    tensors = initial.draw(SPEC, seed=0)
    assert list(tensors) == list(architectures.shapes(SPEC))
    assert initial.sha256_of(tensors) == "852fbac443cf19cc8dce4f8c8adb239dcfb8c65324b5df2176e2c12d725e0da7"


def test_seeds_differ_and_repeat():
    first, again, other = (initial.draw(SPEC, seed=seed) for seed in (1, 1, 2))
    assert initial.sha256_of(first) == initial.sha256_of(again) != initial.sha256_of(other)


@pytest.mark.parametrize(("initializer", "factor"), [("he", 2 / 576), ("xavier", 2 / (576 + 576))])
def test_kernels_have_their_variance_and_batch_norm_is_at_rest(initializer, factor):
    spec = ModelSpec(architecture="resnet18", classes=3, image_size=32, initializer=initializer)
    tensors = initial.draw(spec, seed=0)
    kernel = tensors["layer1.0.conv1.weight"]  # 64 x 64 x 3 x 3
    assert kernel.std() == pytest.approx(np.sqrt(factor), rel=0.02)
    assert (tensors["bn1.weight"] == 1).all() and (tensors["bn1.running_var"] == 1).all()
    assert not tensors["bn1.bias"].any() and not tensors["bn1.running_mean"].any()
    assert not tensors["head.bias"].any() and tensors["head.weight"].any()


def test_a_tensor_s_values_do_not_depend_on_the_others():
    three = initial.draw(SPEC, seed=0)
    five = initial.draw(
        ModelSpec(architecture="resnet18", classes=5, image_size=32, initializer="he"), seed=0
    )
    assert np.array_equal(three["conv1.weight"], five["conv1.weight"])
    assert three["head.weight"].shape != five["head.weight"].shape


def test_a_framework_s_own_initialiser_is_refused():
    with pytest.raises(UsageError, match="framework's own"):
        initial.draw(ModelSpec(architecture="resnet18", classes=3, image_size=32), seed=0)


def test_the_hash_sees_names_shapes_and_values():
    base = {"a": np.zeros((2, 3), np.float32)}
    others = (
        {"b": base["a"]},
        {"a": base["a"].reshape(3, 2)},
        {"a": base["a"] + np.float32(1e-30)},
    )
    hashes = {initial.sha256_of(tensors) for tensors in (base, *others)}
    assert len(hashes) == 4
