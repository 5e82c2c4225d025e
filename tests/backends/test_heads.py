"""Heads, outputs, dropout and the way in at the features, in every backend, with its real architectures."""

from __future__ import annotations

import numpy as np
import pytest

import backends
from backends.architectures import LOSSES, blocks_of, head_widths, is_head, shapes
from backends.base import Backend, ModelSpec, Session, Trainable, UsageError
from backends.optimizers import SGD

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE, IMAGES = 64, 6
"""At this size VGG16 flattens 2 x 2 positions: their order can be seen."""

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


def make(framework: type[Backend], *, track: str = "matched", precision: str = "float64", **spec) -> Backend:
    spec = {"architecture": "vgg16", "classes": 2, "image_size": SIZE, "initializer": "xavier", **spec}
    backend = framework(Session(threads=2, track=track, precision=precision))
    backend.build(ModelSpec(**spec))
    backend.set_trainable(Trainable(first="head", batch_norm="stored"))
    backend.configure_optimizer(SGD(learning_rate=2**-4))
    return backend


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    return (
        random.randint(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8),
        np.arange(IMAGES, dtype=np.int64) % 2,
    )


def numpy_logits(backend: Backend, batch) -> np.ndarray:
    return backend.to_numpy(backend.logits(batch))


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < tolerance * max(np.abs(expected).max(), 1e-12)


def head_by_hand(tensors: dict, features: np.ndarray, kept: np.ndarray | None, rate: float) -> np.ndarray:
    """The last layer's outputs from the head's tensors: affine, relu, ..., dropout, affine."""
    kernels = [name for name, tensor in tensors.items() if is_head(name) and tensor.ndim == 2]
    values = features
    for kernel in kernels:
        if kernel == kernels[-1] and kept is not None:
            values = values * kept / (1 - rate)
        values = values @ tensors[kernel].T + tensors[kernel.replace("weight", "bias")]
        if kernel != kernels[-1]:
            values = np.maximum(values, 0)
    return values


class TestSigmoid:
    def test_one_unit_gives_two_logits_whose_softmax_is_the_sigmoid(self, framework):
        backend = make(framework, head="mlp-256", output="sigmoid")
        batch = backend.to_host_batch(*images_and_labels())
        tensors = backend.export_weights()
        assert tensors["head.fc2.weight"].shape == (1, 256)
        logits = numpy_logits(backend, batch)
        assert logits.shape == (IMAGES, 2) and not logits[:, 0].any()
        expected = head_by_hand(tensors, backend.to_numpy(backend.features(batch)), None, 0)
        assert_close(logits[:, 1:], expected)
        assert backend.settings()["loss"] == LOSSES["sigmoid"]

    def test_its_loss_is_the_cross_entropy_of_those_two(self, framework):
        backend = make(framework, output="sigmoid")
        images, labels = images_and_labels()
        batch = backend.to_host_batch(images, labels)
        z = numpy_logits(backend, batch)[:, 1]
        backend.train_step(batch)
        metrics = backend.take_metrics()
        expected = np.mean(np.logaddexp(0, z) - labels * z)
        assert metrics.loss == pytest.approx(expected, rel=1e-9)
        assert metrics.correct == int(((z > 0) == labels).sum())
        assert metrics.images == IMAGES

    def test_its_gradient_is_known(self, framework):
        backend = make(framework, output="sigmoid")
        images, labels = images_and_labels()
        batch = backend.to_host_batch(images, labels)
        z, features = numpy_logits(backend, batch)[:, 1], backend.to_numpy(backend.features(batch))
        error = 1 / (1 + np.exp(-z)) - labels
        gradients = backend.gradients(batch)
        assert_close(gradients["head.weight"], (error @ features)[None] / IMAGES)
        assert_close(gradients["head.bias"], np.array([error.mean()]))

    @pytest.mark.parametrize("head", ["linear", "mlp-256"])
    def test_the_native_track_s_loss_is_the_same(self, framework, head):
        backend = make(framework, track="native", precision="float32", head=head, output="sigmoid")
        images, labels = images_and_labels()
        batch = backend.to_host_batch((images / 128 - 1).astype(np.float32), labels)
        z = numpy_logits(backend, batch)[:, 1]
        before = backend.export_weights()["head.bias" if head == "linear" else "head.fc2.bias"]
        backend.train_step(batch)
        metrics = backend.take_metrics()
        assert metrics.loss == pytest.approx(float(np.mean(np.logaddexp(0, z) - labels * z)), rel=1e-4)
        assert metrics.correct == int(((z > 0) == labels).sum())
        after = backend.export_weights()["head.bias" if head == "linear" else "head.fc2.bias"]
        step = -(2**-4) * np.mean(1 / (1 + np.exp(-z)) - labels)
        assert after - before == pytest.approx(step, rel=1e-3)

    def test_it_cannot_tell_three_classes_apart(self, framework):
        with pytest.raises(UsageError, match="two classes apart, not 3"):
            make(framework, output="sigmoid", classes=3)


class TestDropout:
    @pytest.mark.parametrize(("head", "output"), [("linear", "softmax"), ("mlp-256", "sigmoid")])
    def test_masks_come_with_the_batch(self, framework, head, output):
        """And reach the loss: known from the head's tensors and the features."""
        backend = make(framework, head=head, output=output, dropout=0.25)
        images, labels = images_and_labels()
        width = head_widths(ModelSpec(architecture="vgg16", classes=2, image_size=SIZE, head=head))[-1]
        kept = (np.random.RandomState(1).uniform(size=(IMAGES, width)) >= 0.25).astype(np.uint8)
        batch = backend.to_host_batch(images, labels, kept)
        tensors, features = backend.export_weights(), backend.to_numpy(backend.features(batch))
        outputs = head_by_hand(tensors, features, kept, 0.25)
        if output == "sigmoid":
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        log_sum = np.log(np.exp(outputs).sum(axis=1))
        backend.train_step(batch)
        loss = backend.take_metrics().loss
        assert loss == pytest.approx(np.mean(log_sum - outputs[np.arange(IMAGES), labels]), rel=1e-9)
        assert backend.settings()["dropout"] == 0.25

    def test_a_smaller_last_batch_brings_a_smaller_mask(self, framework):
        backend = make(framework, dropout=0.5)
        images, labels = images_and_labels()
        kept = np.ones((IMAGES, 512), np.uint8)
        for count in (IMAGES, 2):
            backend.train_step(backend.to_host_batch(images[:count], labels[:count], kept[:count]))
        assert backend.take_metrics().images == IMAGES + 2

    def test_gradients_see_the_mask_and_inference_does_not(self, framework):
        backend = make(framework, dropout=0.5)
        images, labels = images_and_labels()
        kept = np.ones((IMAGES, 512), np.uint8)
        kept[:, :100] = 0
        batch = backend.to_host_batch(images, labels, kept)
        without = make(framework)
        without.load_weights(backend.export_weights(), head=True)
        assert_close(
            numpy_logits(backend, batch), numpy_logits(without, without.to_host_batch(images, labels))
        )
        gradient = backend.gradients(batch)["head.weight"]
        assert not gradient[:, :100].any() and np.abs(gradient[:, 100:]).max() > 0

    @pytest.mark.parametrize("head", ["linear", "mlp-256"])
    def test_names_of_tensors_do_not_know_of_it(self, framework, head, tmp_path):
        """A file written with dropout is read without."""
        dropping = make(framework, precision="float32", head=head, dropout=0.5)
        path = tmp_path / f"net{framework.info.checkpoint_suffixes[0]}"
        dropping.save_checkpoint(path)
        plain = make(framework, precision="float32", head=head)
        plain.load_checkpoint(path)
        expected, found = dropping.export_weights(), plain.export_weights()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)

    def test_the_native_track_draws_its_own(self, framework):
        backend = make(framework, track="native", precision="float32", dropout=0.5)
        images, labels = images_and_labels()
        batch = backend.to_host_batch((images / 128 - 1).astype(np.float32), labels)
        first, second = (backend.gradients(batch)["head.weight"] for _ in range(2))
        assert not np.array_equal(first, second)
        assert np.array_equal(numpy_logits(backend, batch), numpy_logits(backend, batch))


class TestFeatures:
    @pytest.mark.parametrize("head", ["mlp-256", "mlp-1024-128"])
    def test_flattened_ones_are_in_neutral_order(self, framework, head):
        backend = make(framework, head=head)
        batch = backend.to_host_batch(*images_and_labels())
        last = backend.block_outputs(batch)["block5"]
        assert last.shape == (IMAGES, 512, 2, 2)
        features = backend.to_numpy(backend.features(batch))
        assert_close(features, last.reshape(IMAGES, -1))
        tensors = backend.export_weights()
        assert_close(numpy_logits(backend, batch), head_by_hand(tensors, features, None, 0))

    @pytest.mark.parametrize("architecture", ["vgg16", "resnet18", "resnet18_v2", "efficientnet_lite0"])
    def test_any_block_s_output_averaged(self, framework, architecture):
        backend = make(framework, architecture=architecture)
        batch = backend.to_host_batch(*images_and_labels())
        outputs = backend.block_outputs(batch)
        blocks = blocks_of(ModelSpec(architecture=architecture, classes=2, image_size=SIZE))
        for block in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
            found = backend.to_numpy(backend.features(batch, block))
            assert_close(found, outputs[block].mean(axis=(2, 3)))


class TestHeadAlone:
    @pytest.mark.parametrize(
        ("architecture", "head", "output"),
        [("vgg16", "mlp-256", "sigmoid"), ("vgg16", "linear", "softmax"), ("resnet18", "linear", "softmax"),
         ("vgg16", "fc6-fc7", "softmax")],
    )  # fmt: skip
    def test_on_features_it_learns_what_it_learns_on_its_network(self, framework, architecture, head, output):
        """The same steps, to rounding: training from a store of features is training the head."""
        spec = {"architecture": architecture, "head": head, "output": output}
        whole = make(framework, **spec)
        alone = make(framework, entry="features", **spec)
        names = [name for name in shapes(ModelSpec(classes=2, image_size=SIZE, **spec)) if is_head(name)]
        start = whole.export_weights()
        alone.load_weights({name: start[name] for name in names}, head=True)
        assert list(alone.export_weights()) == names
        images, labels = images_and_labels()
        batch = whole.to_host_batch(images, labels)
        features = whole.to_numpy(whole.features(batch))
        on_features = alone.to_host_batch(features, labels)
        assert_close(numpy_logits(alone, on_features), numpy_logits(whole, batch), 1e-9)
        for _ in range(3):
            whole.train_step(batch)
            alone.train_step(on_features)
        assert alone.take_metrics().loss == pytest.approx(whole.take_metrics().loss, rel=1e-8)
        expected, found = whole.export_weights(), alone.export_weights()
        for name in names:
            assert_close(found[name], expected[name], 1e-8)

    def test_float32_features_of_any_number(self, framework):
        backend = make(framework, entry="features", precision="float32", track="native")
        for count in (5, 2):
            features = np.random.RandomState(count).standard_normal((count, 512)).astype(np.float32)
            batch = backend.to_host_batch(features, np.zeros(count, np.int64))
            backend.train_step(batch)
            assert numpy_logits(backend, batch).shape == (count, 2)
        assert backend.take_metrics().images == 7
