"""What only the Keras backend can get wrong; the rest is in `test_contract.py`."""

from __future__ import annotations

import collections
import functools
import gc
import hashlib
import http.server
import inspect
import os
import random
import socket
import subprocess
import sys
import threading
import time
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

import backends
from backends import weights
from backends.architectures import is_head
from backends.base import (
    NORMALIZATIONS,
    DataError,
    ImageList,
    ModelSpec,
    Session,
    Trainable,
    Transform,
    UsageError,
    WeightsError,
)
from backends.optimizers import (
    SGD,
    Adam,
    Exponential,
    InverseTime,
    OneCycle,
    RMSprop,
    StepDecay,
    schedule_factor,
    schedule_name,
)

pytestmark = pytest.mark.skipif(
    not backends.installed(backends.resolve("keras")), reason="Keras is not installed in this environment"
)

SIZE = 32  # pixels: the smallest input VGG16 takes
CLASSES = 3
ROOT = Path(__file__).parents[2]
IMAGENET = Path(os.environ.get("BENCHMARKS_SHARED", ROOT.parent / "shared")) / (
    "weights/vgg16_imagenet_notop.safetensors"
)


@pytest.fixture
def keras() -> Any:
    backends.load(backends.resolve("keras"))  # chooses Keras' own backend before keras is imported
    return pytest.importorskip("keras")


@pytest.fixture
def tf() -> Any:
    return pytest.importorskip("tensorflow")


def make(
    *,
    architecture: str = "vgg16",
    seed: int = 0,
    track: str = "native",
    precision: str = "float32",
    **spec: Any,
) -> Any:
    session = Session(seed=seed, threads=2, track=track, precision=precision)
    backend = backends.load(backends.resolve("keras"))(session)
    backend.build(ModelSpec(architecture=architecture, **{"classes": CLASSES, "image_size": SIZE, **spec}))
    return backend


def random_weights(backend: Any) -> dict[str, np.ndarray]:
    """Loaded too. No scale, shift or statistic is at rest."""
    random = np.random.RandomState(7)
    tensors = {
        name: (random.uniform(0.5, 1.5, tensor.shape) * tensor.shape[0] ** -0.5).astype(np.float32)
        for name, tensor in backend.export_weights().items()
    }
    backend.load_weights(tensors, head=True)
    return tensors


def batch_for(backend: Any, images: int = 4) -> Any:
    pixels = np.random.RandomState(0).standard_normal((images, SIZE, SIZE, 3)).astype(np.float32)
    return backend.to_host_batch(pixels, np.arange(images, dtype=np.int64) % CLASSES)


def vgg16_features(tensors: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """VGG16 below its head in NumPy, from neutral tensors: images (N, H, W, 3) to features (N, F)."""
    values = images.astype(np.float64)
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, convolutions + 1):
            kernel = tensors[f"block{block}_conv{index}.weight"]  # OIHW
            padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(
                padded, (3, 3), axis=(1, 2)
            )  # N, H, W, I, 3, 3
            values = np.tensordot(windows, kernel.astype(np.float64), axes=([3, 4, 5], [1, 2, 3]))
            values = np.maximum(values + tensors[f"block{block}_conv{index}.bias"], 0)
        n, height, width, channels = values.shape
        values = values.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    return values.mean(axis=(1, 2))


class TestCut:
    def test_nothing_of_the_old_head_is_left(self, keras):
        network = make(head="mlp-1024-128")._network.probabilities
        names = [layer.name for layer in network.layers]
        assert names[14] == "block4_pool"  # blocks 1 to 4 are the first 15 layers, the input among them
        assert names[18:] == ["block5_pool", "flatten", "head.fc1", "head.fc2", "head.fc3", "softmax"]
        assert network.output_shape == (None, CLASSES)
        affine = [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]
        assert affine == [1024, 128, CLASSES]

    def test_below_the_cut_it_is_the_network_of_keras_applications(self, keras):
        whole = keras.applications.VGG16(weights=None, input_shape=(SIZE, SIZE, 3))
        cut = keras.Model(whole.input, whole.get_layer("flatten").output)
        ours = make(head="mlp-1024-128")._network.logits
        assert len(cut.layers) == 20
        for theirs, layer in zip(cut.layers[1:], ours.layers[1:20], strict=True):
            assert layer.get_config() | {"dtype": None} == theirs.get_config() | {"dtype": None}

    def test_popping_layers_would_be_no_cut(self, keras):
        whole = keras.applications.VGG16(weights=None, input_shape=(SIZE, SIZE, 3))
        before = [layer.name for layer in whole.layers]
        for _ in range(3):
            whole.layers.pop()
        assert [layer.name for layer in whole.layers] == before
        assert whole.output_shape == (None, 1000)

    def test_the_convolutional_base_has_its_known_number_of_parameters(self):
        tensors = make().export_weights()
        assert sum(t.size for name, t in tensors.items() if not is_head(name)) == 14_714_688


class TestFeatures:
    def test_they_are_those_of_vgg16_in_numpy(self):
        backend = make(initializer="he")
        images, _ = batch = batch_for(backend)
        expected = vgg16_features(backend.export_weights(), backend.to_numpy(images))
        assert backend.to_numpy(backend.features(batch)) == pytest.approx(expected, rel=1e-3, abs=1e-4)

    @pytest.mark.skipif(not IMAGENET.exists(), reason=f"no {IMAGENET}; BENCHMARKS_SHARED names its folder")
    def test_the_imagenet_weights_load(self):
        backend = make()
        checkpoint = weights.read(IMAGENET)
        backend.load_weights(checkpoint.tensors, head=False)
        exported = backend.export_weights()
        assert all(np.array_equal(exported[name], tensor) for name, tensor in checkpoint.tensors.items())
        images = np.random.RandomState(0).uniform(-120, 130, (2, SIZE, SIZE, 3)).astype(np.float32)
        features = backend.to_numpy(backend.features(backend.to_host_batch(images, np.zeros(2, np.int64))))
        expected = vgg16_features(checkpoint.tensors, images)
        assert features == pytest.approx(expected, rel=1e-3, abs=1e-3 * expected.max())
        assert 0 < (features > 0).mean() < 0.6  # sparse, as a trained network's last block is

    def test_a_block_s_stop_there_and_are_traced_once(self):
        backend = make()
        for images in (4, 3):
            for block in ("block1", "block2", "block1"):
                backend.features(batch_for(backend, images), block)
        for block, convolutions in (("block1", 2), ("block2", 4)):
            function = backend._features[block]
            assert function.experimental_get_tracing_count() == 1
            assert executed(function)["Conv2D"] == convolutions


class TestSeed:
    def test_neither_earlier_networks_nor_other_draws_change_the_weights(self):
        backend = make(seed=3)
        first = backend.export_weights()
        random.random()
        backend.build(backend._spec)
        assert all(np.array_equal(first[name], again) for name, again in backend.export_weights().items())

    def test_an_epoch_s_seed_leaves_compiled_kernels_alone(self, tf, monkeypatch):
        from tensorflow.python.eager import context

        backend, cleared = make(), []
        monkeypatch.setattr(context.Context, "_set_global_seed", lambda _self, seed: cleared.append(seed))
        backend.reseed(1)
        assert not cleared
        tf.random.set_seed(1)  # what would clear them
        assert cleared


def executed(function: Any) -> collections.Counter[str]:
    """Types of the operations that a traced function executes.

    The trace of Keras' step holds a backward pass of frozen layers too, because their variables are watched;
    TensorFlow drops from it, before it runs, whatever leads neither to an output nor to a side effect.
    """
    graph = function.get_concrete_function().graph
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    seen = set()
    while waiting:
        operation = waiting.pop()
        if operation not in seen:
            seen.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return collections.Counter(operation.type for operation in seen)


class TestFrozen:
    @pytest.mark.parametrize(
        ("first", "filters", "inputs"), [("head", 0, 0), ("block5", 3, 2), ("all", 13, 12)]
    )
    def test_no_backward_runs_through_what_is_frozen(self, first, filters, inputs):
        backend = make(head="mlp-1024-128")
        backend.set_trainable(Trainable(first=first))
        backend.configure_optimizer(SGD(learning_rate=0.1, momentum=0.5))
        for function in (backend._train, backend._gradients):
            operations = executed(function)
            assert operations["Conv2D"] == 13
            assert operations["Conv2DBackpropFilter"] == filters
            assert operations["Conv2DBackpropInput"] == inputs

    def test_what_is_thawed_trains(self):
        backend = make()
        batch = batch_for(backend)
        for first, moves in (("head", False), ("all", True), ("head", False)):
            backend.set_trainable(Trainable(first=first))
            backend.configure_optimizer(SGD(learning_rate=0.1))
            before = backend.export_weights()
            backend.train_step(batch)
            after = backend.export_weights()
            assert np.array_equal(before["block5_conv3.weight"], after["block5_conv3.weight"]) is not moves
            assert not np.array_equal(before["head.weight"], after["head.weight"])


class TestStep:
    def test_the_loss_is_taken_from_the_logits_behind_the_softmax(self):
        """From the probabilities it could not exceed -log(1e-7) = 16.1."""
        backend = make()
        bias = np.array([200, 0, 0], np.float32)
        kernel = np.zeros_like(backend.export_weights()["head.weight"])
        backend.load_weights(
            {**backend.export_weights(), "head.weight": kernel, "head.bias": bias}, head=True
        )
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=2**-10))
        images, _ = batch_for(backend)
        batch = backend.to_host_batch(backend.to_numpy(images), np.ones(4, np.int64))
        assert backend.gradients(batch)["head.bias"] == pytest.approx([1, -1, 0])
        backend.train_step(batch)
        metrics = backend.take_metrics()
        assert metrics.loss == pytest.approx(200)
        assert metrics.correct == 0

    def test_so_is_the_one_behind_the_sigmoid(self):
        backend = make(output="sigmoid", classes=2)
        tensors = backend.export_weights()
        still = {
            "head.weight": np.zeros_like(tensors["head.weight"]),
            "head.bias": np.array([200], np.float32),
        }
        backend.load_weights({**tensors, **still}, head=True)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=2**-10))
        images, _ = batch_for(backend)
        batch = backend.to_host_batch(backend.to_numpy(images), np.array([0, 0, 0, 1]))
        assert backend.gradients(batch)["head.bias"] == pytest.approx(0.75)
        backend.train_step(batch)
        metrics = backend.take_metrics()
        assert metrics.loss == pytest.approx(150)
        assert (metrics.correct, metrics.images) == (1, 4)

    def test_one_trace_serves_batches_of_every_size_and_kind(self):
        backend = make()
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=0.1))
        for images in (4, 3, 1):
            pixels = np.zeros((images, SIZE, SIZE, 3), np.uint8)
            for batch in (
                batch_for(backend, images),
                backend.to_host_batch(pixels, np.zeros(images, np.int64)),
            ):
                backend.train_step(batch)
                backend.logits(batch)
        assert backend._train.experimental_get_tracing_count() == 1
        assert backend._logits.experimental_get_tracing_count() == 1

    def test_what_was_trained_is_let_go(self, keras):
        """Peak memory is compared, and a training of several phases builds several networks."""
        backend = make()
        backend.configure_optimizer(SGD(learning_rate=2**-6, momentum=0.5))
        backend.train_step(batch_for(backend))
        kept = [weakref.ref(variable.value.handle) for variable in backend._optimizer.variables]
        kept += [weakref.ref(variable.value.handle) for variable in backend._network.logits.weights]
        assert len(kept) > 2 * 28 and all(handle() is not None for handle in kept)
        del backend
        keras.utils.clear_session()
        gc.collect()
        assert not [handle() for handle in kept if handle() is not None]

    @pytest.mark.parametrize(("multiplier", "decay"), [(1.0, 0.0), (8.0, 2**-5)])
    def test_nesterov_is_the_contract_s_at_a_constant_rate(self, keras, multiplier, decay):
        backend = make()
        rate, momentum = 2**-4, 0.5
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(
            SGD(
                learning_rate=rate,
                head_multiplier=multiplier,
                momentum=momentum,
                nesterov=True,
                weight_decay=decay,
            )
        )
        assert (type(backend._optimizer) is keras.optimizers.SGD) is (multiplier == 1)
        batch, velocity = batch_for(backend), 0.0
        for _ in range(3):
            before = backend.export_weights()["head.weight"]
            gradient = backend.gradients(batch)["head.weight"] + decay * before
            velocity = momentum * velocity + gradient
            backend.train_step(batch)
            step = backend.export_weights()["head.weight"] - before
            expected = -rate * multiplier * (gradient + momentum * velocity)
            assert step == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))

    def test_a_native_velocity_holds_the_rates_it_was_made_with(self):
        """`-m / lr` of Keras' buffer `m = momentum * m - lr * g`, by the rate of the last step."""
        backend, decay = make(), 1.0
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(
            SGD(learning_rate=0.25, head_multiplier=2, momentum=0.5, schedule=InverseTime(decay=decay))
        )
        batch = batch_for(backend)
        assert backend.moments() == {}
        first = backend.gradients(batch)["head.weight"]
        backend.train_step(batch)
        assert backend.moments()["velocity of head.weight"] == pytest.approx(first, rel=1e-5, abs=1e-6)
        second = backend.gradients(batch)["head.weight"]
        backend.train_step(batch)
        expected = second + 0.5 * first * (1 + decay)
        assert backend.moments()["velocity of head.weight"] == pytest.approx(expected, rel=1e-4, abs=1e-6)

    @pytest.mark.parametrize("kind", [RMSprop, Adam])
    @pytest.mark.parametrize(("multiplier", "decay"), [(1.0, 0.0), (8.0, 2**-5)])
    def test_the_native_track_puts_epsilon_where_keras_does(self, keras, kind, multiplier, decay):
        """RMSprop inside the root, Adam beside the root that is not corrected."""
        backend, rate, epsilon = make(), 16.0, 2**-4  # so high that the weights' own rounding is not seen
        common = {"learning_rate": rate, "head_multiplier": multiplier, "weight_decay": decay}
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(kind(**common, epsilon=epsilon))
        own = getattr(keras.optimizers, kind.__name__)
        assert (type(backend._optimizer) is own) is (multiplier == 1)
        assert isinstance(backend._optimizer, own)
        batch, before = batch_for(backend), backend.export_weights()["head.weight"]
        gradient = backend.gradients(batch)["head.weight"] + decay * before
        backend.train_step(batch)
        if kind is RMSprop:
            square = 0.01 * gradient**2
            expected = gradient / np.sqrt(square + epsilon)
        else:
            mean, square = 0.1 * gradient, 0.001 * gradient**2
            expected = np.sqrt(0.001) / 0.1 * mean / (np.sqrt(square) + epsilon)
        step = backend.export_weights()["head.weight"] - before
        tolerance = 1e-4 * float(np.abs(expected).max())
        assert step / (-rate * multiplier) == pytest.approx(expected, rel=1e-3, abs=tolerance)
        assert backend.moments()["square of head.weight"] == pytest.approx(square, rel=1e-4)

    @pytest.mark.parametrize(
        "schedule",
        [InverseTime(decay=0.5), StepDecay(factor=0.5, steps=2), Exponential(factor=1.5)],
        ids=schedule_name,
    )
    def test_the_native_track_s_schedules_are_keras_own(self, keras, schedule):
        backend, rate = make(), 2**-4
        backend.configure_optimizer(Adam(learning_rate=rate, schedule=schedule))
        own = backend._optimizer._learning_rate
        assert type(own).__module__.startswith("keras.")
        for step in range(5):
            assert float(own(step)) == pytest.approx(rate * schedule_factor(schedule, step))

    def test_keras_has_no_one_cycle(self):
        with pytest.raises(UsageError, match="no one-cycle schedule of its own"):
            make().configure_optimizer(SGD(learning_rate=0.1, schedule=OneCycle(steps=4)))

    def test_a_matched_rate_is_held_in_the_session_s_precision(self):
        """What the gate's tolerance would let through: in float32 it would be off by 6e-8 of itself."""
        backend = make(track="matched", precision="float64")
        backend.set_trainable(Trainable(first="head"))
        schedule = InverseTime(decay=2.0)
        backend.configure_optimizer(SGD(learning_rate=0.1, schedule=schedule))
        for step in range(3):
            backend.train_step(batch_for(backend))
            assert float(backend._optimizer.learning_rate) == 0.1 * schedule_factor(schedule, step)

    def test_adam_s_corrections_are_not_lost_in_float32(self):
        """1 - 0.999 is off by 1e-5 of itself there. In the first step they leave `g / |g|`."""
        backend, rate = make(track="matched"), 2**-4
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(Adam(learning_rate=rate, epsilon=0.0))
        tensors = backend.export_weights()
        backend.load_weights({**tensors, "head.bias": np.zeros_like(tensors["head.bias"])}, head=True)
        backend.train_step(batch_for(backend))
        assert np.abs(backend.export_weights()["head.bias"]) == pytest.approx(rate, rel=1e-6)

    def test_a_map_of_one_value_has_no_unbiased_variance_and_does_no_harm(self):
        backend = make(architecture="resnet18", track="matched")
        backend.configure_optimizer(SGD(learning_rate=2**-10))
        backend.train_step(batch_for(backend, 1))  # behind layer4 an image of 32 pixels is one value
        assert all(np.isfinite(tensor).all() for tensor in backend.export_weights().values())

    def test_settings_state_what_was_made(self):
        backend = make()
        backend.set_trainable(Trainable(first="block5"))
        backend.configure_optimizer(
            SGD(learning_rate=0.01, head_multiplier=10, weight_decay=0.001, schedule=InverseTime(decay=0.5))
        )
        optimizer = backend.settings()["optimizer"]
        assert optimizer["learning_rates"] == [0.01, 0.1]
        assert optimizer["weight_decay"] == 0.001
        assert optimizer["schedule"] == "inverse-time"
        backend.configure_optimizer(SGD(learning_rate=0.01))
        optimizer = backend.settings()["optimizer"]
        assert optimizer["learning_rates"] == [0.01]
        assert optimizer["weight_decay"] == 0
        assert optimizer["schedule"] == "constant"

    def test_threads_are_those_in_force_not_those_asked_for(self, tf):
        make().logits(batch_for(make(), 1))  # TensorFlow has started
        in_force = tf.config.threading.get_intra_op_parallelism_threads()
        backend = backends.load(backends.resolve("keras"))(Session(threads=in_force + 3))
        backend.build(make()._spec)
        backend.configure_optimizer(SGD(learning_rate=0.1))
        assert backend.settings()["threads"] == in_force

    def test_synchronize_waits(self, tf):
        backend = make()
        finished = threading.Event()

        def slow() -> np.float32:
            time.sleep(0.3)
            finished.set()
            return np.float32(0)

        tf.config.experimental.set_synchronous_execution(False)  # as a GPU is: calls return at once
        try:
            tf.function(lambda: tf.py_function(slow, [], tf.float32))()
            assert not finished.is_set()
            backend.synchronize()
            assert finished.is_set()
        finally:
            tf.config.experimental.set_synchronous_execution(True)


# --- The input pipeline ---------------------------------------------------------------------------


def listing(folder: Path, *images: Image.Image, suffix: str = "png", copies: int = 1) -> ImageList:
    (folder / "a").mkdir()
    files = []
    for index, image in enumerate(images):
        image.save(folder / "a" / f"{index}.{suffix}")
        files += [f"a/{index}.{suffix}"] * copies
    return ImageList(root=str(folder), files=tuple(files), labels=(0,) * len(files), classes=("a",))


def read(images: ImageList, transform: Transform, *, training: bool, seed: int = 0, epochs: int = 1) -> Any:
    """Images (N, H, W, 3) in RGB, 0..255, of each epoch."""
    backend = backends.load(backends.resolve("keras"))(Session(seed=seed, threads=2))
    pipeline = backend.input_pipeline(images, transform, batch_size=len(images.files), training=training)
    return [
        (backend.to_numpy(pixels) + np.float32(NORMALIZATIONS["caffe"].mean))[..., ::-1]
        for _ in range(epochs)
        for pixels, _ in pipeline
    ]


def coordinates(width: int, height: int) -> Image.Image:
    """An image whose red is its column and whose green is its row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))


transform_of = functools.partial(Transform, normalization="caffe")


class TestInput:
    def test_the_same_seed_repeats_every_pixel_and_no_epoch_repeats_another(self, tmp_path):
        images = listing(tmp_path, *(coordinates(80, 60 + index) for index in range(4)), copies=4)
        transform = transform_of(size=SIZE, resize=36)
        first, again, other = (
            read(images, transform, training=True, seed=seed, epochs=2) for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first[0], other[0])

    @pytest.mark.parametrize("ratio", [0.5, 2.0])
    def test_training_crops_have_the_area_and_the_shape_asked_for(self, tmp_path, ratio):
        images = listing(tmp_path, coordinates(200, 200), copies=16)
        transform = transform_of(size=SIZE, resize=36, scale=(0.125, 0.125), ratio=(ratio, ratio))
        (crops,) = read(images, transform, training=True)
        spans = np.ptp(crops, axis=(1, 2)) / 200 * SIZE / (SIZE - 1)  # of the columns and of the rows
        width, height = (0.125 * ratio) ** 0.5, (0.125 / ratio) ** 0.5
        assert spans[:, 0] == pytest.approx(width, abs=0.03)
        assert spans[:, 1] == pytest.approx(height, abs=0.03)

    def test_flips_do_not_depend_on_the_crop(self, tmp_path):
        images = listing(tmp_path, coordinates(200, 200), copies=200)
        transform = transform_of(size=SIZE, resize=36, scale=(0.1, 0.6), ratio=(0.5, 2.0))
        (crops,) = read(images, transform, training=True)
        flipped = crops[:, 0, 0, 0] > crops[:, 0, -1, 0]
        assert 0.35 < flipped.mean() < 0.65  # 200 fair coins: 4.2 standard deviations
        corner, size = crops[..., :2].min(axis=(1, 2)), np.ptp(crops[..., :2], axis=(1, 2))
        for measure in (*corner.T, *size.T, size[:, 0] / size[:, 1]):
            assert abs(np.corrcoef(flipped, measure)[0, 1]) < 0.3

    @pytest.mark.parametrize(("width", "height"), [(100, 50), (50, 100)])
    def test_testing_takes_the_centre(self, tmp_path, width, height):
        (pixels,) = read(
            listing(tmp_path, coordinates(width, height)), transform_of(size=40, resize=50), training=False
        )
        left, top = (width - 40) // 2, (height - 40) // 2
        expected = np.asarray(coordinates(width, height))[top : top + 40, left : left + 40]
        assert pixels[0] == pytest.approx(expected, abs=1e-3)

    def test_squashing_keeps_every_corner(self, tmp_path):
        transform = transform_of(size=50, resize=50, resize_mode="squash")
        (pixels,) = read(listing(tmp_path, coordinates(200, 100)), transform, training=False)
        assert pixels[0, :, 0, 0] == pytest.approx(1.5)  # the middle of four columns
        assert pixels[0, :, -1, 0] == pytest.approx(197.5)
        assert pixels[0, 0, :, 1] == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("RGB", "bmp")],
    )
    def test_other_formats_come_out_as_rgb(self, tmp_path, mode, suffix):
        image = Image.new("RGB", (40, 40), (90, 90, 90)).convert(mode, palette=Image.Palette.ADAPTIVE)
        (pixels,) = read(
            listing(tmp_path, image, suffix=suffix), transform_of(size=SIZE, resize=36), training=False
        )
        assert pixels[0] == pytest.approx(90, abs=3)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("fault", ["cut short", "no image", "empty", "missing"])
    def test_an_unreadable_image_is_named(self, tmp_path, fault, training):
        noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)
        images = listing(tmp_path, *[Image.fromarray(noise)] * 5, suffix="jpg")
        bad = tmp_path / "a" / "3.jpg"
        content = {"cut short": bad.read_bytes()[:900], "no image": b"<html>gone</html>", "empty": b""}
        bad.unlink()
        if fault != "missing":
            bad.write_bytes(content[fault])
        with pytest.raises(DataError, match=rf"image {bad} cannot be read \(") as error:
            read(images, transform_of(size=SIZE, resize=36), training=training)
        assert "\n" not in str(error.value)
        assert "{{" not in str(error.value)


# --- The official checkpoint ----------------------------------------------------------------------


@pytest.fixture
def official(keras, tmp_path, monkeypatch) -> Any:
    """Points the backend at an empty cache, and at a URL and an MD5 of the test's choice."""
    from backends.keras import checkpoint

    published = checkpoint.OFFICIAL["vgg16"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def point(url: str, md5: str = published[False].md5, *, top: bool = False) -> None:
        other = checkpoint.Published(url, md5)
        monkeypatch.setitem(checkpoint.OFFICIAL, "vgg16", {**checkpoint.OFFICIAL["vgg16"], top: other})

    return SimpleNamespace(point=point, published=published, cache=tmp_path / "models")


@pytest.fixture
def served(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A folder and the URL of a local server that serves it."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refused(backend: Any) -> str:
    with pytest.raises(WeightsError) as error:
        backend.load_official()
    assert "\n" not in str(error.value)
    return str(error.value)


class TestOfficial:
    def test_what_it_asks_for_is_what_keras_applications_would_ask_for(self, official, keras):
        module = sys.modules[keras.applications.VGG16.__module__]
        source = inspect.getsource(module)
        assert official.published[False].url == module.WEIGHTS_PATH_NO_TOP
        assert official.published[True].url == module.WEIGHTS_PATH
        for published in official.published.values():
            assert f'"{published.url.rsplit("/", 1)[1]}",' in source
            assert f'"{published.md5}"' in source

    @pytest.mark.parametrize("architecture", ["resnet18", "resnet18_v2", "efficientnet_lite0"])
    def test_what_keras_applications_lacks_is_said(self, official, architecture):
        backend = make(architecture=architecture)
        assert f"keras {architecture}: keras.applications publishes no weights" in refused(backend)

    def test_a_closed_network_is_one_line_at_once_and_in_silence(self, official, capfd):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/vgg16.h5"
        official.point(url)
        backend = make()
        capfd.readouterr()
        started = time.monotonic()
        message = refused(backend)
        assert time.monotonic() - started < 5
        assert capfd.readouterr() == ("", "")
        for part in (url, str(official.cache), "--weights source", "refused"):
            assert part in message
        assert list(official.cache.iterdir()) == []

    def test_a_server_that_falls_silent_is_given_up(self, official, monkeypatch):
        from backends.keras import checkpoint

        monkeypatch.setattr(checkpoint, "DOWNLOAD_SILENCE", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            official.point(f"http://127.0.0.1:{silent.getsockname()[1]}/vgg16.h5")
            started = time.monotonic()
            assert "timed out" in refused(make())
        assert time.monotonic() - started < 5
        assert socket.getdefaulttimeout() is None
        assert list(official.cache.iterdir()) == []

    def test_what_cannot_be_verified_does_not_stay(self, official, served):
        folder, url = served
        (folder / "vgg16.h5").write_bytes(b"not what was promised")
        official.point(f"{url}/vgg16.h5")
        assert "hash" in refused(make())
        assert list(official.cache.iterdir()) == []

    def test_a_damaged_file_in_the_cache_is_named_and_left_to_its_owner(self, official):
        official.point("http://127.0.0.1:9/vgg16.h5")
        official.cache.mkdir()
        (official.cache / "vgg16.h5").write_bytes(b"half a download")
        message = refused(make())
        assert f"{official.cache / 'vgg16.h5'} has the MD5" in message
        assert (official.cache / "vgg16.h5").read_bytes() == b"half a download"

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, in `save`
    def test_a_good_file_is_fetched_once_and_loaded(self, official, served, keras):
        folder, url = served
        source = keras.applications.VGG16(include_top=False, weights=None)
        source.save(folder / "vgg16.h5")
        md5 = hashlib.md5((folder / "vgg16.h5").read_bytes()).hexdigest()
        official.point(f"{url}/vgg16.h5", md5)
        first = make(seed=1)
        head = first.export_weights()["head.weight"]
        assert first.load_official() == f"vgg16.h5 {md5}"
        assert [path.name for path in official.cache.iterdir()] == ["vgg16.h5"]

        official.point("http://127.0.0.1:9/vgg16.h5", md5)  # now from the cache, without a network
        second = make(seed=2)
        second.load_official()
        tensors, again = first.export_weights(), second.export_weights()
        kernel = source.get_layer("block3_conv2").kernel.numpy()  # HWIO
        assert np.array_equal(tensors["block3_conv2.weight"], kernel.transpose(3, 2, 0, 1))
        assert np.array_equal(tensors["block3_conv2.weight"], again["block3_conv2.weight"])
        assert np.array_equal(tensors["head.weight"], head)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_its_own_layers_of_4096_come_from_the_file_that_has_them(self, official, served, keras):
        folder, url = served
        source = keras.applications.VGG16(weights=None, input_shape=(64, 64, 3), classes=10)
        source.save(folder / "top.h5")
        official.point(f"{url}/top.h5", hashlib.md5((folder / "top.h5").read_bytes()).hexdigest(), top=True)
        backend = make(head="fc6-fc7", image_size=64, classes=10)
        head = backend.export_weights()["head.weight"]
        backend.load_official()
        tensors = backend.export_weights()
        assert np.array_equal(tensors["fc7.weight"], source.get_layer("fc2").kernel.numpy().T)
        flattened = source.get_layer("fc1").kernel.numpy().reshape(2, 2, 512, 4096)  # (H, W, C, out)
        assert np.array_equal(tensors["fc6.weight"], flattened.transpose(3, 2, 0, 1).reshape(4096, -1))
        assert np.array_equal(tensors["head.weight"], head)
        backend.load_official(head=True)
        predictions = source.get_layer("predictions").kernel.numpy()
        assert np.array_equal(backend.export_weights()["head.weight"], predictions.T)


# --- Files ----------------------------------------------------------------------------------------


def users_model(keras: Any) -> Any:
    """A model as Keras' guides on transfer learning make one: VGG16 is one layer, the head has no name."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    layers = keras.layers
    return keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, in `save`
class TestFiles:
    @pytest.mark.parametrize("suffix", [".h5", ".keras"])
    @pytest.mark.parametrize("architecture", ["vgg16", "resnet18_v2"])
    def test_keras_opens_them_without_this_project_s_layers(self, keras, tmp_path, architecture, suffix):
        backend, path = make(architecture=architecture), tmp_path / f"model{suffix}"
        random_weights(backend)  # with a scale of resnet18_v2's leading batch norm, which must not be used
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=0.1, momentum=0.5, weight_decay=0.1))
        backend.save_checkpoint(path)
        opened = keras.saving.load_model(path)
        assert {type(layer).__module__.partition(".")[0] for layer in opened.layers} == {"keras"}
        assert not opened.compiled
        images = batch_for(backend)[0]
        expected = backend._network.probabilities(images, training=False).numpy()
        assert np.array_equal(opened(images, training=False).numpy(), expected)

    def test_a_file_of_weights_holds_the_scale_that_is_not_used(self, tmp_path):
        backend, path = make(architecture="resnet18_v2"), tmp_path / "model.weights.h5"
        tensors = random_weights(backend)
        backend.save_checkpoint(path)
        other = make(architecture="resnet18_v2", seed=1)
        other.load_checkpoint(path)
        returned = other.export_weights()
        assert all(np.array_equal(returned[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
    @pytest.mark.parametrize("track", ["native", "matched"])
    def test_dropout_and_a_sigmoid_go_into_a_file_and_come_back(self, keras, tmp_path, track, suffix):
        spec = {"head": "mlp-256", "output": "sigmoid", "classes": 2, "dropout": 0.25}
        backend, path = make(track=track, normalization="caffe", **spec), tmp_path / f"model{suffix}"
        tensors = backend.export_weights()
        backend.save_checkpoint(path)
        if suffix != ".weights.h5":
            opened = keras.saving.load_model(path)
            assert [layer.name for layer in opened.layers][-1] == "sigmoid"
            assert ("dropout" in [layer.name for layer in opened.layers]) is (track == "native")
            images = batch_for(backend)[0]
            expected = 1 / (1 + np.exp(-backend.to_numpy(backend.logits((images, None)))[:, 1:]))
            assert opened(images, training=False).numpy() == pytest.approx(expected, rel=1e-5)
        found = backend.inspect_checkpoint(path, "vgg16")
        assert found == msgspec.structs.replace(backend._spec, dropout=0.0)
        other = make(seed=1, **spec)
        other.load_checkpoint(path)
        returned = other.export_weights()
        assert all(np.array_equal(returned[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
    def test_a_user_s_model_of_cats_and_dogs_is_read(self, keras, tmp_path, suffix):
        """As F. Chollet 2016, Building powerful image classification models, puts one on VGG16."""
        base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
        layers, path = keras.layers, tmp_path / f"model{suffix}"
        top = [
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
        model = keras.Sequential([base, layers.Flatten(), *top])
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        backend = make(head="mlp-256", output="sigmoid", classes=2, image_size=64, normalization="caffe")
        assert backend.inspect_checkpoint(path, "vgg16") == backend._spec
        backend.load_checkpoint(path)
        images = np.random.RandomState(0).standard_normal((4, 64, 64, 3)).astype(np.float32)
        z = backend.to_numpy(backend.logits(backend.to_host_batch(images, np.zeros(4, np.int64))))[:, 1:]
        assert 1 / (1 + np.exp(-z)) == pytest.approx(model(images).numpy(), rel=1e-4)

    def test_so_does_a_head_alone(self, tmp_path):
        spec = {"head": "mlp-256", "entry": "features", "image_size": 64}
        backend, path = make(**spec), tmp_path / "head.keras"
        backend.save_checkpoint(path)
        other = make(seed=1, **spec)
        other.load_checkpoint(path)
        returned = other.export_weights()
        assert list(returned) == [f"head.fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")]
        for name, tensor in backend.export_weights().items():
            assert np.array_equal(returned[name], tensor)

    @pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
    def test_a_user_s_model_is_read(self, keras, tmp_path, suffix):
        model, path = users_model(keras), tmp_path / f"model{suffix}"
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.5), loss="mse")  # its state is there too
        model.train_on_batch(np.zeros((1, SIZE, SIZE, 3)), np.zeros((1, CLASSES)))
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        backend = make()
        spec = backend.inspect_checkpoint(path, "vgg16")
        assert msgspec.structs.replace(spec, image_size=SIZE) == msgspec.structs.replace(
            backend._spec, normalization="caffe"
        )
        backend.load_checkpoint(path)
        images = batch_for(backend)[0]
        assert backend.to_numpy(backend.logits((images, None))) == pytest.approx(
            model(images).numpy(), abs=1e-6
        )

    def test_the_oldest_names_are_read(self, keras, tmp_path):
        """As in the official files: weights alone, named after their layer."""
        h5py = pytest.importorskip("h5py")
        source = keras.applications.VGG16(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
        with h5py.File(tmp_path / "weights.h5", "w") as file:
            file.attrs["layer_names"] = [layer.name.encode() for layer in source.layers]
            for layer in source.layers:
                names = [f"{layer.name}_{kind}_1:0" for kind in ("W", "b")][: len(layer.weights)]
                group = file.create_group(layer.name)
                group.attrs["weight_names"] = np.array([name.encode() for name in names], dtype="S40")
                for name, value in zip(names, layer.get_weights(), strict=True):
                    group[name] = value
        backend = make(head="fc6-fc7")
        backend.load_checkpoint(tmp_path / "weights.h5")
        kernel = source.get_layer("predictions").kernel.numpy()
        assert np.array_equal(backend.export_weights()["head.weight"], kernel.T)

    @pytest.mark.parametrize("kind", ["link", "storage"])
    def test_a_file_cannot_bring_in_another(self, tmp_path, kind):
        h5py = pytest.importorskip("h5py")
        backend, path, secret = make(), tmp_path / "model.h5", tmp_path / "secret"
        backend.save_checkpoint(path)
        backend.save_checkpoint(tmp_path / "other.h5")
        secret.write_bytes(bytes(4 * 3 * 3 * 3 * 64))
        name = "model_weights/block1_conv1/block1_conv1/kernel"
        with h5py.File(path, "a") as file:
            del file[name]
            if kind == "link":
                file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), name)
            else:
                file.create_dataset(
                    name, (3, 3, 3, 64), "f4", external=[(str(secret), 0, secret.stat().st_size)]
                )
        with pytest.raises(WeightsError, match="lies in another file"):
            backend.load_checkpoint(path)

    def test_an_archive_cannot_unpack_without_end(self, tmp_path):
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", b"0" * 2**25)
        with pytest.raises(WeightsError, match=r"config\.json would take 33554432 bytes"):
            make().inspect_checkpoint(path, "vgg16")

    def test_a_file_without_its_head_is_named(self, keras, tmp_path):
        path = tmp_path / "notop.h5"
        keras.applications.VGG16(include_top=False, weights=None).save(path)
        with pytest.raises(WeightsError, match=r"no tensor 'head.weight'.*saved with its head"):
            make().inspect_checkpoint(path, "vgg16")

    def test_nothing_of_a_failed_save_stays(self, tmp_path, monkeypatch):
        from backends.keras import models

        backend, path = make(), tmp_path / "model.h5"
        backend.save_checkpoint(path)
        before = path.read_bytes()

        def full_disk(_: Any) -> Any:
            raise OSError("No space left on device")

        monkeypatch.setattr(models, "plain", full_disk)
        with pytest.raises(WeightsError, match=r"cannot be written \(No space left"):
            backend.save_checkpoint(path)
        assert [file.name for file in tmp_path.iterdir()] == ["model.h5"]
        assert path.read_bytes() == before


def test_another_keras_backend_is_refused_before_it_is_imported():
    program = "import backends; backends.load(backends.resolve('keras'))"
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 1
    assert (
        finished.stderr.strip()
        .splitlines()[-1]
        .startswith(
            "backends.base.UsageError: KERAS_BACKEND is 'jax', but this backend is Keras on TensorFlow"
        )
    )
