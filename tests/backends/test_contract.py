"""The contract, held against every backend whose framework is installed here, with its real architecture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import backends
from backends import weights
from backends.base import (
    CAFFE_MEAN_BGR,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backend,
    Constant,
    DeviceError,
    ImageList,
    InverseTime,
    ModelSpec,
    Optimizer,
    Session,
    Trainable,
    Transform,
    UsageError,
    WeightsError,
)

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE = 32  # pixels: the smallest input all architectures take
CLASSES = 3

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.RandomState(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(8, dtype=np.int64) % CLASSES


def make(
    framework: type[Backend], *, seed: int = 0, head: str = "linear", initializer: str = "default"
) -> Backend:
    backend = framework(Session(seed=seed, threads=2))
    architecture = backend.architectures()[0]
    backend.build(
        ModelSpec(
            architecture=architecture, classes=CLASSES, image_size=SIZE, head=head, initializer=initializer
        )
    )
    return backend


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_softmax[np.arange(len(labels)), labels].mean())


def assert_close(actual: np.ndarray, expected: np.ndarray, *, of: str) -> None:
    scale = max(float(np.abs(expected).max()), 1e-6)
    error = float(np.abs(actual - expected).max()) / scale
    assert error < 2e-5, f"{of}: relative error {error:.1e}"


class TestDevices:
    def test_the_cpu_is_always_there(self, framework):
        assert framework.devices()[0] == "cpu"

    @pytest.mark.parametrize("device", ["cuda", "cuda:7", "tpu"])
    def test_a_device_that_is_not_there_is_named_with_those_that_are(self, framework, device):
        if device == "cuda" and len(framework.devices()) > 1:
            pytest.skip("this machine has a GPU")
        with pytest.raises(DeviceError, match=rf"no device '{device}' here.*cpu"):
            framework(Session(device=device, threads=2))


class TestBuild:
    def test_every_tensor_belongs_to_a_block(self, framework):
        backend = make(framework)
        prefixes = weights.trained_from(backend.architectures()[0], "all")
        assert all(name.startswith(prefixes) for name in backend.export_weights())

    def test_layouts_are_neutral(self, framework):
        tensors = make(framework).export_weights()
        first = next(name for name in tensors if "conv1" in name and name.endswith("weight"))
        assert tensors[first].shape[1] == 3  # OIHW: the second axis are the image's channels
        assert tensors["head.weight"].shape[0] == CLASSES
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}

    def test_the_mlp_head_has_its_three_layers(self, framework):
        tensors = make(framework, head="mlp-1024-128").export_weights()
        shapes = {name: tensor.shape for name, tensor in tensors.items() if weights.is_head(name)}
        assert shapes["head.fc1.weight"][0] == 1024
        assert shapes["head.fc2.weight"] == (128, 1024)
        assert shapes["head.fc3.weight"] == (CLASSES, 128)

    def test_the_seed_decides_the_initial_weights(self, framework):
        first, again, other = (make(framework, seed=seed).export_weights() for seed in (1, 1, 2))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not np.array_equal(first["head.weight"], other["head.weight"])

    @pytest.mark.parametrize(("initializer", "head"), [("he", "linear"), ("xavier", "mlp-1024-128")])
    def test_initialisers_draw_what_they_say(self, framework, initializer, head):
        tensors = make(framework, initializer=initializer, head=head).export_weights()
        kernels = {
            name: tensor for name, tensor in tensors.items() if tensor.ndim in (2, 4) and tensor.size > 10_000
        }
        assert kernels
        for name, kernel in kernels.items():
            field = int(np.prod(kernel.shape[2:], initial=1))
            fan_out, fan_in = kernel.shape[0] * field, kernel.shape[1] * field
            variance = 2 / fan_in if initializer == "he" else 2 / (fan_in + fan_out)
            assert kernel.std() == pytest.approx(np.sqrt(variance), rel=0.05), name
        biases = [t for name, t in tensors.items() if name.startswith("head") and name.endswith("bias")]
        assert all(not bias.any() for bias in biases)

    def test_an_unknown_architecture_is_named_with_those_that_exist(self, framework):
        backend = framework(Session(threads=2))
        with pytest.raises(UsageError, match="no architecture 'alexnet'; it has: "):
            backend.build(ModelSpec(architecture="alexnet", classes=2, image_size=SIZE))


class TestWeights:
    def test_a_round_trip_is_exact_and_so_are_its_logits(self, framework, images, labels):
        source, target = make(framework, seed=1), make(framework, seed=2)
        tensors = source.export_weights()
        target.load_weights(tensors, head=True)
        returned = target.export_weights()
        assert set(returned) == set(tensors)
        assert all(np.array_equal(returned[name], tensors[name]) for name in tensors)
        outputs = [
            backend.to_numpy(backend.logits(backend.to_host_batch(images, labels)))
            for backend in (source, target)
        ]
        assert np.array_equal(*outputs)

    def test_running_statistics_matter_to_the_logits(self, framework, images, labels):
        backend = make(framework)
        tensors = backend.export_weights()
        variances = [name for name in tensors if name.endswith("running_var")]
        if not variances:
            pytest.skip("this architecture has no batch norm")
        batch = backend.to_host_batch(images, labels)
        before = backend.to_numpy(backend.logits(batch))
        backend.load_weights({**tensors, variances[-1]: tensors[variances[-1]] * 4}, head=True)
        assert np.abs(backend.to_numpy(backend.logits(batch)) - before).max() > 1e-6

    def test_without_the_head_only_the_body_is_loaded(self, framework):
        source, target = make(framework, seed=1), make(framework, seed=2)
        head = target.export_weights()["head.weight"]
        target.load_weights(source.export_weights(), head=False)
        returned = target.export_weights()
        assert np.array_equal(returned["head.weight"], head)
        body = next(name for name in returned if "conv" in name)
        assert np.array_equal(returned[body], source.export_weights()[body])

    def test_the_first_wrong_tensor_is_named(self, framework):
        backend = make(framework)
        tensors = backend.export_weights()
        name = next(name for name in tensors if "conv" in name)
        missing = {key: value for key, value in tensors.items() if key != name}
        with pytest.raises(WeightsError, match=f"no tensor '{name}'"):
            backend.load_weights(missing, head=True)
        with pytest.raises(WeightsError, match=rf"tensor '{name}' has shape \(1,\)"):
            backend.load_weights({**tensors, name: np.zeros(1, np.float32)}, head=True)


class TestInference:
    def test_an_image_s_logits_do_not_depend_on_its_batch(self, framework, images, labels):
        backend = make(framework)
        together = backend.to_numpy(backend.logits(backend.to_host_batch(images, labels)))
        alone = backend.to_numpy(backend.logits(backend.to_host_batch(images[:1], labels[:1])))
        assert together.shape == (8, CLASSES)
        assert_close(alone, together[:1], of="logits of one image")

    def test_logits_are_the_head_s_affine_map_of_the_features(self, framework, images, labels):
        backend = make(framework)
        batch = backend.to_host_batch(images, labels)
        tensors = backend.export_weights()
        features = backend.to_numpy(backend.features(batch))
        expected = features @ tensors["head.weight"].T + tensors["head.bias"]
        assert_close(backend.to_numpy(backend.logits(batch)), expected, of="logits")

    def test_channels_are_not_mixed_up(self, framework, images, labels):
        """The first convolution of a constant image is known: bias plus the sum of the kernel per channel."""
        backend = make(framework)
        logits = [
            backend.to_numpy(backend.logits(backend.to_host_batch(x, labels)))
            for x in (images, images[..., ::-1].copy())
        ]
        tensors = backend.export_weights()
        name = next(name for name in tensors if "conv1" in name and name.endswith("weight"))
        swapped = {**tensors, name: tensors[name][:, ::-1].copy()}
        if "bn0.running_mean" in tensors:
            swapped |= {key: value[::-1].copy() for key, value in tensors.items() if key.startswith("bn0.")}
        backend.load_weights(swapped, head=True)
        again = backend.to_numpy(backend.logits(backend.to_host_batch(images[..., ::-1].copy(), labels)))
        assert_close(again, logits[0], of="logits with channels and kernel both reversed")
        assert np.abs(logits[1] - logits[0]).max() > 1e-5


class TestTraining:
    @pytest.mark.parametrize("multiplier", [1.0, 10.0])
    def test_sgd_steps_have_known_answers(self, framework, images, labels, multiplier):
        """`v = m*v + g + wd*w; w = w - lr*v` over two steps, with the backend's own gradients."""
        backend = make(framework)
        rate, momentum, decay = 2**-6, 0.5, 2**-5
        backend.set_trainable(Trainable())
        backend.configure_optimizer(
            Optimizer(learning_rate=rate, head_multiplier=multiplier, momentum=momentum, weight_decay=decay)
        )
        batch = backend.to_host_batch(images, labels)
        velocity: dict[str, np.ndarray] = {}
        visible = 0
        for _ in range(2):
            before = backend.export_weights()
            gradients = backend.gradients(batch)
            backend.train_step(batch)
            after = backend.export_weights()
            assert set(gradients) == {name for name in after if not _constant(name)}
            for name, gradient in gradients.items():
                velocity[name] = momentum * velocity.get(name, 0) + gradient + decay * before[name]
                step = -rate * (multiplier if weights.is_head(name) else 1) * velocity[name]
                rounding = 4 * np.finfo(np.float32).eps * np.abs(before[name]).max()
                error = np.abs(after[name] - before[name] - step).max()
                assert error < 1e-4 * np.abs(step).max() + rounding, f"step of {name} is off by {error:.1e}"
                visible += np.abs(step).max() > 100 * rounding
        assert visible > len(velocity)  # of the two steps taken, more than half could have shown a fault

    def test_the_inverse_time_schedule_counts_steps_from_zero(self, framework, images, labels):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(Optimizer(learning_rate=0.25, schedule=InverseTime(decay=1.0)))
        batch = backend.to_host_batch(images, labels)
        for rate in (0.25, 0.25 / 2, 0.25 / 3):
            before, gradient = backend.export_weights(), backend.gradients(batch)["head.weight"]
            backend.train_step(batch)
            step = backend.export_weights()["head.weight"] - before["head.weight"]
            assert np.abs(step + rate * gradient).max() < 1e-4 * np.abs(gradient).max()

    def test_frozen_layers_and_their_statistics_stay_and_get_no_gradient(self, framework, images, labels):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(Optimizer(learning_rate=0.1, weight_decay=0.001))
        before = backend.export_weights()
        batch = backend.to_host_batch(images, labels)
        assert set(backend.gradients(batch)) == {"head.weight", "head.bias"}
        for _ in range(2):
            backend.train_step(batch)
        after = backend.export_weights()
        changed = {name for name in after if not np.array_equal(after[name], before[name])}
        assert changed == {"head.weight", "head.bias"}

    def test_training_from_a_block_leaves_what_is_below(self, framework, images, labels):
        backend = make(framework)
        architecture = backend.architectures()[0]
        block = list(weights.BLOCKS[architecture])[-2]
        backend.set_trainable(Trainable(first=block))
        backend.configure_optimizer(Optimizer(learning_rate=0.1))
        before = backend.export_weights()
        backend.train_step(backend.to_host_batch(images, labels))
        after = backend.export_weights()
        changed = {name for name in after if not np.array_equal(after[name], before[name])}
        assert changed
        assert all(name.startswith(weights.trained_from(architecture, block)) for name in changed)
        assert any(not weights.is_head(name) for name in changed)

    def test_batch_norm_moves_its_statistics_only_where_asked(self, framework, images, labels):
        backend = make(framework)
        batch = backend.to_host_batch(images, labels)
        running = [name for name in backend.export_weights() if "running_mean" in name]
        if not running:
            pytest.skip("this architecture has no batch norm")
        for mode, moves in (("stored", False), ("batch", True)):
            backend.set_trainable(Trainable(batch_norm=mode))
            backend.configure_optimizer(Optimizer(learning_rate=0.01))
            before = backend.export_weights()
            backend.train_step(batch)
            after = backend.export_weights()
            assert any(not np.array_equal(after[name], before[name]) for name in running) is moves
            assert not np.array_equal(after["head.weight"], before["head.weight"])

    def test_running_means_keep_nine_tenths(self, framework, images, labels):
        backend = make(framework)
        tensors = backend.export_weights()
        first = next((name for name in tensors if name.endswith("bn0.running_mean")), None)
        if first is None:
            pytest.skip("no batch norm sees the image itself")
        backend.configure_optimizer(Optimizer(learning_rate=0.01))
        backend.train_step(backend.to_host_batch(images, labels))
        expected = 0.9 * tensors[first] + 0.1 * images.mean(axis=(0, 1, 2))
        assert backend.export_weights()[first] == pytest.approx(expected, abs=1e-6)

    def test_metrics_are_the_mean_loss_and_hits_of_all_images(self, framework, images, labels):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(Optimizer(learning_rate=0.5))
        losses, hits = [], 0
        for part in (slice(0, 6), slice(6, 8)):  # unequal batches: the mean is over images, not over batches
            batch = backend.to_host_batch(images[part], labels[part])
            logits = backend.to_numpy(backend.logits(batch))
            losses += [cross_entropy(logits, labels[part])] * len(labels[part])
            hits += int((logits.argmax(axis=1) == labels[part]).sum())
            backend.train_step(batch)
        metrics = backend.take_metrics()
        assert metrics.images == 8
        assert metrics.correct == hits
        assert metrics.loss == pytest.approx(np.mean(losses), rel=1e-4)
        assert (type(metrics.loss), type(metrics.correct)) == (float, int)  # not NumPy's: they go into JSON
        assert backend.take_metrics().images == 0

    def test_an_unknown_block_is_named_with_those_that_exist(self, framework):
        with pytest.raises(UsageError, match=r"no block 'neck'; it has: all, .*head"):
            make(framework).set_trainable(Trainable(first="neck"))

    def test_settings_are_the_same_questions_everywhere(self, framework):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(Optimizer(learning_rate=0.125, momentum=0.5, schedule=Constant()))
        settings = backend.settings()
        assert set(settings) == {
            "threads", "input_workers", "compiled", "layout", "dtype", "tf32", "determinism", "batch_norm",
            "optimizer", "loss", "resize", "trained_parameters", "parameters",
        }  # fmt: skip
        assert json.loads(json.dumps(settings)) == settings  # plain values
        assert settings["threads"] == 2
        assert settings["optimizer"]["learning_rates"] == [0.125]
        assert settings["optimizer"]["momentum"] == 0.5
        head = [t for name, t in backend.export_weights().items() if weights.is_head(name)]
        assert settings["trained_parameters"] == sum(tensor.size for tensor in head)


def _constant(name: str) -> bool:
    """Running statistics, and the scale and shift of Gluon's leading batch norm, which learns neither."""
    return "running_" in name or name in ("bn0.weight", "bn0.bias")


# --- The input pipeline ---------------------------------------------------------------------------

COLORS = [(255, 0, 0), (0, 128, 255)]


@pytest.fixture
def folder(tmp_path) -> ImageList:
    """Two classes of images in one plain colour each; sizes, aspect ratios and formats vary."""
    files, labels = [], []
    for label, (name, color) in enumerate(zip(("a", "b"), COLORS, strict=True)):
        (tmp_path / name).mkdir()
        for index, size in enumerate([(40, 60), (80, 50), (64, 64), (33, 90), (120, 41)]):
            file = f"{name}/{index}.{'png' if index % 2 else 'jpg'}"
            Image.new("RGB", size, color).save(tmp_path / file, quality=95)
            files.append(file)
            labels.append(label)
    return ImageList(root=str(tmp_path), files=tuple(files), labels=tuple(labels), classes=("a", "b"))


def normalized(color: tuple[int, int, int], normalization: str) -> np.ndarray:
    if normalization == "caffe":
        return np.array(color[::-1]) - np.array(CAFFE_MEAN_BGR)
    return (np.array(color) / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)


class TestInput:
    def epoch(self, backend: Backend, pipeline) -> tuple[list[np.ndarray], list[int]]:
        images, labels = [], []
        for batch in pipeline:
            images.append(backend.to_numpy(batch[0]))
            labels += backend.to_numpy(batch[1]).astype(int).tolist()
        return images, labels

    @pytest.mark.parametrize("resize_mode", ["shorter-side", "squash"])
    def test_testing_keeps_the_file_order_and_drops_nothing(self, framework, folder, resize_mode):
        backend = framework(Session(threads=2))
        pipeline = backend.input_pipeline(
            folder,
            Transform(size=SIZE, resize=36, resize_mode=resize_mode),
            batch_size=4,
            training=False,
        )
        images, labels = self.epoch(backend, pipeline)
        assert labels == list(folder.labels)
        assert [len(batch) for batch in images] == [4, 4, 2]
        assert len(pipeline) == 3
        assert {tuple(sorted(batch.shape[1:])) for batch in images} == {(3, SIZE, SIZE)}

    @pytest.mark.parametrize("normalization", ["imagenet", "caffe"])
    @pytest.mark.parametrize("training", [True, False])
    def test_normalised_colours_are_known(self, framework, folder, normalization, training):
        backend = framework(Session(threads=2))
        pipeline = backend.input_pipeline(
            folder,
            Transform(size=SIZE, resize=36, normalization=normalization),
            batch_size=10,
            training=training,
        )
        (images,), labels = self.epoch(backend, pipeline)
        channel_axis = 1 if images.shape[1] == 3 else 3
        means = images.mean(axis=tuple(axis for axis in (1, 2, 3) if axis != channel_axis))
        step = 2 if normalization == "caffe" else 2 / 255 / min(IMAGENET_STD)  # JPEG is off by a level or two
        for mean, label in zip(means, labels, strict=True):
            assert mean == pytest.approx(normalized(COLORS[label], normalization), abs=step)

    def test_training_shuffles_anew_each_epoch_and_repeats_by_seed(self, framework, folder):
        orders = []
        for _ in range(2):
            backend = framework(Session(seed=3, threads=2))
            pipeline = backend.input_pipeline(
                folder, Transform(size=SIZE, resize=36), batch_size=10, training=True
            )
            orders.append([self.epoch(backend, pipeline)[1] for _ in range(6)])
        assert orders[0] == orders[1]
        assert len({tuple(order) for order in orders[0]}) > 1
        assert all(sorted(order) == sorted(folder.labels) for order in orders[0])

    def test_training_crops_and_flips(self, framework, tmp_path):
        """A left-to-right ramp comes out rising and falling, and never the same twice."""
        ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
        (tmp_path / "a").mkdir()
        Image.fromarray(np.stack([ramp] * 3, axis=2)).save(tmp_path / "a" / "ramp.png")
        listing = ImageList(root=str(tmp_path), files=("a/ramp.png",) * 24, labels=(0,) * 24, classes=("a",))
        backend = framework(Session(threads=2))
        pipeline = backend.input_pipeline(
            listing, Transform(size=SIZE, resize=36), batch_size=24, training=True
        )
        (images,), _ = self.epoch(backend, pipeline)
        green = images[:, 1] if images.shape[1] == 3 else images[..., 1]  # (24, H, W)
        slopes = green[:, :, -1].mean(axis=1) - green[:, :, 0].mean(axis=1)
        assert (slopes > 0).any() and (slopes < 0).any()
        assert len(np.unique(np.round(np.abs(slopes), 3))) > 8
