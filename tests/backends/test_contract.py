"""The contract, held against every backend whose framework is installed here, with its real architecture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.architectures import (
    ARCHITECTURES,
    blocks_of,
    is_head,
    is_parameter,
    is_statistic,
    shapes,
    trained_from,
)
from backends.base import (
    NORMALIZATIONS,
    Backend,
    Batch,
    DeviceError,
    ImageList,
    ModelSpec,
    Session,
    Trainable,
    Transform,
    UsageError,
    WeightsError,
)
from backends.optimizers import SGD, Constant, InverseTime, Schedule, StepDecay, schedule_factor

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
    framework: type[Backend],
    architecture: str | None = None,
    *,
    seed: int = 0,
    track: str = "native",
    precision: str = "float32",
    **spec,
) -> Backend:
    """A backend with a network; by default its own users' choice of architecture."""
    backend = framework(Session(seed=seed, threads=2, track=track, precision=precision))
    backend.build(spec_of(framework, architecture, **spec))
    return backend


def spec_of(framework: type[Backend], architecture: str | None = None, **spec) -> ModelSpec:
    spec = {"classes": CLASSES, "image_size": SIZE, **spec}
    return ModelSpec(architecture=architecture or framework.info.architectures[0], **spec)


def normalizing(framework: type[Backend]) -> str:
    """The first of the backend's architectures that has batch norm."""
    return next(
        name for name in framework.info.architectures if ARCHITECTURES[name].batch_norm_epsilon is not None
    )


def logits_of(backend: Backend, batch: Batch) -> np.ndarray:
    return backend.to_numpy(backend.logits(batch))


def normalized(pixels: np.ndarray, normalization: str) -> np.ndarray:
    """RGB values (..., 3) as the input they become, in float64."""
    if normalization == "caffe":
        return pixels[..., ::-1] - np.array([103.939, 116.779, 123.68])
    if normalization == "inception":
        return pixels / 127.5 - 1
    return (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_softmax[np.arange(len(labels)), labels].mean())


FLOAT32, FLOAT64 = 2e-5, 1e-12  # what rounding may do to a network's outputs, relative to the largest


def assert_close(actual: np.ndarray, expected: np.ndarray, *, of: str, tolerance: float = FLOAT32) -> None:
    scale = max(float(np.abs(expected).max()), 1e-6)
    error = float(np.abs(actual - expected).max()) / scale
    assert error < tolerance, f"{of}: relative error {error:.1e}"


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
        prefixes = trained_from(framework.info.architectures[0], "all")
        assert all(name.startswith(prefixes) for name in backend.export_weights())

    def test_layouts_are_neutral(self, framework):
        tensors = make(framework).export_weights()
        first = next(name for name in tensors if "conv1" in name and name.endswith("weight"))
        assert tensors[first].shape[1] == 3  # OIHW: the second axis are the image's channels
        assert tensors["head.weight"].shape[0] == CLASSES
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}

    def test_the_mlp_head_has_its_three_layers(self, framework):
        tensors = make(framework, head="mlp-1024-128").export_weights()
        shapes = {name: tensor.shape for name, tensor in tensors.items() if is_head(name)}
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

    def test_a_head_of_another_architecture_is_refused(self, framework):
        with pytest.raises(UsageError, match="resnet18 has no head 'fc6-fc7'"):
            make(framework, "resnet18", head="fc6-fc7")


class TestWeights:
    def test_a_round_trip_is_exact_and_so_are_its_logits(self, framework, images, labels):
        source, target = make(framework, seed=1), make(framework, seed=2)
        tensors = source.export_weights()
        target.load_weights(tensors, head=True)
        returned = target.export_weights()
        assert set(returned) == set(tensors)
        assert all(np.array_equal(returned[name], tensors[name]) for name in tensors)
        batches = [backend.to_host_batch(images, labels) for backend in (source, target)]
        assert np.array_equal(logits_of(source, batches[0]), logits_of(target, batches[1]))

    def test_running_statistics_matter_to_the_logits(self, framework, images, labels):
        backend = make(framework, normalizing(framework))
        tensors = backend.export_weights()
        variances = [name for name in tensors if name.endswith("running_var")]
        batch = backend.to_host_batch(images, labels)
        before = logits_of(backend, batch)
        backend.load_weights({**tensors, variances[-1]: tensors[variances[-1]] * 4}, head=True)
        assert np.abs(logits_of(backend, batch) - before).max() > 1e-6

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
        together = logits_of(backend, backend.to_host_batch(images, labels))
        alone = logits_of(backend, backend.to_host_batch(images[:1], labels[:1]))
        assert together.shape == (8, CLASSES)
        assert_close(alone, together[:1], of="logits of one image")

    def test_logits_are_the_head_s_affine_map_of_the_features(self, framework, images, labels):
        backend = make(framework)
        batch = backend.to_host_batch(images, labels)
        tensors = backend.export_weights()
        features = backend.to_numpy(backend.features(batch))
        expected = features @ tensors["head.weight"].T + tensors["head.bias"]
        assert_close(logits_of(backend, batch), expected, of="logits")

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_bytes_are_normalised_on_the_device(self, framework, labels, normalization):
        backend = make(framework, track="matched", normalization=normalization)
        pixels = np.random.RandomState(1).randint(0, 256, (8, SIZE, SIZE, 3)).astype(np.uint8)
        batch = backend.to_host_batch(pixels, labels)
        by_hand = backend.to_host_batch(normalized(pixels, normalization).astype(np.float32), labels)
        assert backend.to_numpy(batch[0]).dtype == np.uint8
        assert_close(logits_of(backend, batch), logits_of(backend, by_hand), of="logits of bytes")
        of_bytes, of_floats = backend.gradients(batch), backend.gradients(by_hand)
        assert_close(of_bytes["head.bias"], of_floats["head.bias"], of="gradient on bytes")

    def test_the_features_are_the_last_block_s_output_averaged(self, framework, labels):
        backend = make(framework, image_size=64)
        images = np.random.RandomState(2).standard_normal((8, 64, 64, 3)).astype(np.float32)
        batch = backend.to_host_batch(images, labels)
        outputs = backend.block_outputs(batch)
        assert tuple(outputs) == blocks_of(spec_of(framework))
        last = outputs[tuple(outputs)[-1]]
        assert last.shape == (8, ARCHITECTURES[framework.info.architectures[0]].features, 2, 2)
        assert_close(backend.to_numpy(backend.features(batch)), last.mean(axis=(2, 3)), of="averaged output")

    def test_channels_are_not_mixed_up(self, framework, images, labels):
        """The first convolution of a constant image is known: bias plus the sum of the kernel per channel."""
        backend = make(framework)
        logits = [
            logits_of(backend, backend.to_host_batch(x, labels)) for x in (images, images[..., ::-1].copy())
        ]
        tensors = backend.export_weights()
        name = next(name for name in tensors if "conv1" in name and name.endswith("weight"))
        swapped = {**tensors, name: tensors[name][:, ::-1].copy()}
        if "bn0.running_mean" in tensors:
            swapped |= {key: value[::-1].copy() for key, value in tensors.items() if key.startswith("bn0.")}
        backend.load_weights(swapped, head=True)
        again = logits_of(backend, backend.to_host_batch(images[..., ::-1].copy(), labels))
        assert_close(again, logits[0], of="logits with channels and kernel both reversed")
        assert np.abs(logits[1] - logits[0]).max() > 1e-5


class TestTraining:
    @pytest.mark.parametrize(("track", "multiplier"), [("native", 1.0), ("native", 10.0), ("matched", 8.0)])
    def test_sgd_steps_have_known_answers(self, framework, images, labels, track, multiplier):
        """`v = m*v + g + wd*w; w = w - lr*v` over two steps, with the backend's own gradients."""
        backend = make(framework, track=track)
        rate, momentum, decay = 2**-6, 0.5, 2**-5
        backend.set_trainable(Trainable())
        backend.configure_optimizer(
            SGD(learning_rate=rate, head_multiplier=multiplier, momentum=momentum, weight_decay=decay)
        )
        batch = backend.to_host_batch(images, labels)
        velocity: dict[str, np.ndarray] = {}
        visible = 0
        for _ in range(2):
            before = backend.export_weights()
            gradients = backend.gradients(batch)
            backend.train_step(batch)
            after = backend.export_weights()
            velocities = backend.moments()
            assert set(gradients) == {name for name in after if is_parameter(name)}
            for name, gradient in gradients.items():
                velocity[name] = momentum * velocity.get(name, 0) + gradient + decay * before[name]
                step = -rate * (multiplier if is_head(name) else 1) * velocity[name]
                rounding = 4 * np.finfo(np.float32).eps * np.abs(before[name]).max()
                error = np.abs(after[name] - before[name] - step).max()
                assert error < 1e-4 * np.abs(step).max() + rounding, f"step of {name} is off by {error:.1e}"
                assert_close(
                    velocities[f"velocity of {name}"],
                    velocity[name],
                    of=f"velocity of {name}",
                    tolerance=1e-4,
                )
                visible += np.abs(step).max() > 100 * rounding
        assert visible > len(velocity)  # of the two steps taken, more than half could have shown a fault

    @pytest.mark.parametrize("schedule", [InverseTime(decay=1.0), StepDecay(steps=2, factor=0.5)])
    def test_a_schedule_counts_steps_from_zero(self, framework, images, labels, schedule: Schedule):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=0.25, schedule=schedule))
        batch = backend.to_host_batch(images, labels)
        for count in range(3):
            rate = 0.25 * schedule_factor(schedule, count)
            before, gradient = backend.export_weights(), backend.gradients(batch)["head.weight"]
            backend.train_step(batch)
            step = backend.export_weights()["head.weight"] - before["head.weight"]
            assert np.abs(step + rate * gradient).max() < 1e-4 * np.abs(gradient).max()

    def test_frozen_layers_and_their_statistics_stay_and_get_no_gradient(self, framework, images, labels):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=0.1, weight_decay=0.001))
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
        architecture = framework.info.architectures[0]
        block = blocks_of(spec_of(framework))[-1]
        backend.set_trainable(Trainable(first=block))
        backend.configure_optimizer(SGD(learning_rate=0.1))
        before = backend.export_weights()
        backend.train_step(backend.to_host_batch(images, labels))
        after = backend.export_weights()
        changed = {name for name in after if not np.array_equal(after[name], before[name])}
        assert changed
        assert all(name.startswith(trained_from(architecture, block)) for name in changed)
        assert any(not is_head(name) for name in changed)

    def test_batch_norm_moves_its_statistics_only_where_asked(self, framework, images, labels):
        backend = make(framework, normalizing(framework))
        batch = backend.to_host_batch(images, labels)
        running = [name for name in backend.export_weights() if is_statistic(name)]
        for mode, moves in (("stored", False), ("batch", True)):
            backend.set_trainable(Trainable(batch_norm=mode))
            backend.configure_optimizer(SGD(learning_rate=0.01))
            before = backend.export_weights()
            backend.train_step(batch)
            after = backend.export_weights()
            moved = [not np.array_equal(after[name], before[name]) for name in running]
            assert all(moved) if moves else not any(moved)
            assert not np.array_equal(after["head.weight"], before["head.weight"])

    @pytest.mark.parametrize("track", ["native", "matched"])
    def test_running_means_keep_nine_tenths(self, framework, images, labels, track):
        """Of resnet18_v2's leading batch norm, which sees the images themselves."""
        backend = make(framework, "resnet18_v2", track=track)
        before = backend.export_weights()
        backend.configure_optimizer(SGD(learning_rate=0.01))
        backend.train_step(backend.to_host_batch(images, labels))
        after = backend.export_weights()
        expected = 0.9 * before["bn0.running_mean"] + 0.1 * images.mean(axis=(0, 1, 2))
        assert after["bn0.running_mean"] == pytest.approx(expected, abs=1e-6)
        assert np.array_equal(after["bn0.weight"], before["bn0.weight"])
        assert np.array_equal(after["bn0.bias"], before["bn0.bias"])

    def test_metrics_are_the_mean_loss_and_hits_of_all_images(self, framework, images, labels):
        backend = make(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=0.5))
        losses, hits = [], 0
        for part in (slice(0, 6), slice(6, 8)):  # unequal batches: the mean is over images, not over batches
            batch = backend.to_host_batch(images[part], labels[part])
            logits = logits_of(backend, batch)
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
        backend.configure_optimizer(SGD(learning_rate=0.125, momentum=0.5, schedule=Constant()))
        settings = backend.settings()
        assert set(settings) == {
            "threads", "input_workers", "tuning", "compiled", "layout", "dtype", "computed_in", "tf32",
            "denormals", "determinism", "batch_norm", "optimizer", "loss", "dropout", "resize",
            "trained_parameters", "parameters",
        }  # fmt: skip
        assert json.loads(json.dumps(settings)) == settings  # plain values
        assert settings["threads"] in (1, 2)  # those of the first session of this process, or the fewest
        assert settings["denormals"] in ("kept", "flushed", "flushed by some threads")
        assert settings["optimizer"]["learning_rates"] == [0.125]
        assert settings["optimizer"]["momentum"] == 0.5
        assert settings["optimizer"]["schedule"] == "constant"
        head = [t for name, t in backend.export_weights().items() if is_head(name)]
        assert settings["trained_parameters"] == sum(tensor.size for tensor in head)


# --- The matched track ----------------------------------------------------------------------------

RATE, MULTIPLIER, MOMENTUM, DECAY = 2**-7, 8.0, 0.875, 2**-10
"""Dyadic: MXNet's update and Keras' rate round to float32, which changes none of these."""


def double(framework: type[Backend], architecture: str | None = None, **spec) -> Backend:
    """A backend in float64 whose weights no float32 holds."""
    backend = make(framework, architecture, track="matched", precision="float64", **spec)
    random = np.random.RandomState(3)
    tensors = {
        name: random.uniform(0.5, 1.5, shape)
        if name.endswith(("running_var", "bn1.weight", "bn2.weight"))
        else random.standard_normal(shape) * np.sqrt(2 / max(np.prod(shape[1:]), 8))
        for name, shape in shapes(spec_of(framework, architecture, **spec)).items()
    }
    backend.load_weights(tensors, head=True)
    return backend


class TestMatched:
    def test_float64_is_double_all_the_way(self, framework, images, labels):
        backend = double(framework)
        tensors = backend.export_weights()
        assert all(not np.array_equal(t, t.astype(np.float32)) for t in tensors.values())
        batch = backend.to_host_batch(images, labels)
        logits, features = logits_of(backend, batch), backend.to_numpy(backend.features(batch))
        expected = features @ tensors["head.weight"].T + tensors["head.bias"]
        assert_close(logits, expected, of="logits", tolerance=FLOAT64)
        backend.set_trainable(Trainable(batch_norm="stored"))
        backend.configure_optimizer(SGD(learning_rate=RATE, momentum=MOMENTUM))
        gradients = backend.gradients(batch)
        backend.train_step(batch)
        assert backend.take_metrics().loss == pytest.approx(cross_entropy(logits, labels), rel=FLOAT64)
        outputs = (backend.export_weights(), gradients, backend.moments(), backend.block_outputs(batch))
        arrays = [logits, features, *(array for output in outputs for array in output.values())]
        assert {array.dtype for array in arrays} == {np.dtype("float64")}

    @pytest.mark.parametrize("schedule", [StepDecay(steps=2, factor=0.5), StepDecay(steps=1, factor=2.0)])
    def test_momentum_under_a_schedule_has_known_answers(self, framework, images, labels, schedule):
        """The rate stays outside the velocity, also where it changes."""
        backend = double(framework)
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(
            SGD(
                learning_rate=RATE,
                head_multiplier=MULTIPLIER,
                momentum=MOMENTUM,
                weight_decay=DECAY,
                schedule=schedule,
            )
        )
        batch = backend.to_host_batch(images, labels)
        tensors = {name: t for name, t in backend.export_weights().items() if is_head(name)}
        velocity = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        for count in range(5):
            gradients = backend.gradients(batch)
            backend.train_step(batch)
            rate = RATE * MULTIPLIER * schedule_factor(schedule, count)
            for name in tensors:
                velocity[name] = MOMENTUM * velocity[name] + gradients[name] + DECAY * tensors[name]
                tensors[name] = tensors[name] - rate * velocity[name]
        after, velocities = backend.export_weights(), backend.moments()
        assert set(velocities) == {f"velocity of {name}" for name in tensors}
        for name, tensor in tensors.items():
            assert_close(after[name], tensor, of=name, tolerance=FLOAT64)
            assert_close(
                velocities[f"velocity of {name}"], velocity[name], of=f"velocity of {name}", tolerance=FLOAT64
            )

    def test_the_leading_batch_norm_moves_to_the_images_unbiased_variance(self, framework, images, labels):
        backend = double(framework, "resnet18_v2")
        backend.configure_optimizer(SGD(learning_rate=RATE))
        before = backend.export_weights()
        backend.train_step(backend.to_host_batch(images, labels))
        after, seen = backend.export_weights(), images.astype(np.float64)
        for statistic, of_batch in (
            ("mean", seen.mean(axis=(0, 1, 2))),
            ("var", seen.var((0, 1, 2), ddof=1)),
        ):
            name = f"bn0.running_{statistic}"
            assert_close(after[name], 0.9 * before[name] + 0.1 * of_batch, of=name, tolerance=FLOAT64)

    def test_every_running_variance_moves_to_the_unbiased_one(self, framework, images, labels):
        """A batch twice over has the same biased variance in every layer, and another size to correct for."""
        backend = double(framework, "resnet18")
        backend.configure_optimizer(SGD(learning_rate=RATE))
        before = backend.export_weights()
        moved = []
        for times in (1, 2):
            backend.load_weights(before, head=True)
            backend.train_step(
                backend.to_host_batch(np.tile(images, (times, 1, 1, 1)), np.tile(labels, times))
            )
            moved.append(backend.export_weights())
        sides = {"bn1": SIZE // 2, **{f"layer{i}": SIZE // 2 ** (i + 1) for i in range(1, 5)}}
        names = [name for name in before if name.endswith("running_var")]
        assert len(names) == 20
        for name in names:
            once, twice = ((after[name] - 0.9 * before[name]) / 0.1 for after in moved)
            count = len(images) * sides[name.partition(".")[0]] ** 2
            biased = once * (count - 1) / count
            assert_close(twice, biased * 2 * count / (2 * count - 1), of=name, tolerance=1e-9)

    def test_stored_statistics_leave_scale_and_shift_to_train(self, framework, images, labels):
        """The gradient along a direction is the slope of the loss that inference shows."""
        backend = double(framework, normalizing(framework))
        backend.set_trainable(Trainable(batch_norm="stored"))
        backend.configure_optimizer(SGD(learning_rate=RATE))
        batch, tensors = backend.to_host_batch(images, labels), backend.export_weights()
        random, step = np.random.RandomState(4), 2**-30
        direction = {
            name: random.standard_normal(tensor.shape)
            for name, tensor in tensors.items()
            if is_parameter(name) and tensor.ndim == 1
        }
        losses = []
        for sign in (1, -1):
            moved = {name: tensors[name] + sign * step * along for name, along in direction.items()}
            backend.load_weights({**tensors, **moved}, head=True)
            losses.append(cross_entropy(logits_of(backend, batch), labels))
        backend.load_weights(tensors, head=True)
        gradients = backend.gradients(batch)
        slope = sum(float((gradients[name] * along).sum()) for name, along in direction.items())
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-4)
        backend.train_step(batch)
        after = backend.export_weights()
        assert all(np.array_equal(after[name], tensors[name]) for name in tensors if is_statistic(name))
        assert all(not np.array_equal(after[name], tensors[name]) for name in direction)

    def test_dropout_is_left_out(self, framework, images, labels):
        """VGG16's own two layers have it in torchvision and Gluon."""
        backend = make(framework, "vgg16", track="matched", head="fc6-fc7")
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=RATE))
        batch = backend.to_host_batch(images, labels)
        expected = cross_entropy(logits_of(backend, batch), labels)
        backend.train_step(batch)
        assert backend.take_metrics().loss == pytest.approx(expected, rel=FLOAT32)

    def test_settings_tell_its_batch_norm(self, framework):
        backend = make(framework, "efficientnet_lite0", track="matched")
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(SGD(learning_rate=RATE, schedule=StepDecay(steps=2, factor=0.5)))
        settings = backend.settings()
        assert settings["batch_norm"] == {
            "layers": 49,
            "on_stored_statistics": 49,
            "epsilon": [pytest.approx(1e-3)],
            "running_keeps": [pytest.approx(0.9)],
            "running_variance": "unbiased",
        }
        assert settings["optimizer"]["schedule"] == "step"


# --- Files in the framework's own format ----------------------------------------------------------

SUFFIXES = [(card, suffix) for card in INSTALLED for suffix in card.checkpoint_suffixes]
NETWORKS = [(card, architecture) for card in INSTALLED for architecture in card.architectures]


def card_and_name(value) -> str:
    return getattr(value, "name", value)


def assert_one_line_about(error: pytest.ExceptionInfo, file: Path, *, tensor: bool = False) -> None:
    text = str(error.value)
    assert "\n" not in text and file.name in text
    assert not tensor or re.search(r"tensor '[^']+'", text), f"no tensor named: {text}"


class TestCheckpoints:
    def round_trip(self, card, path: Path, **spec) -> ModelSpec:
        framework = backends.load(card)
        source, target = (make(framework, seed=seed, **spec) for seed in (1, 2))
        random = np.random.RandomState(5)
        tensors = {
            name: random.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
            for name, tensor in source.export_weights().items()
        }
        source.load_weights(tensors, head=True)
        source.save_checkpoint(path)
        target.load_checkpoint(path)
        returned = target.export_weights()
        assert list(returned) == list(tensors)
        assert all(np.array_equal(returned[name], tensors[name]) for name in tensors)
        return framework.inspect_checkpoint(path, spec["architecture"])

    @pytest.mark.parametrize(("card", "architecture"), NETWORKS, ids=card_and_name)
    def test_a_round_trip_is_bit_exact(self, card, architecture, tmp_path):
        found = self.round_trip(
            card, tmp_path / f"w{card.checkpoint_suffixes[0]}", architecture=architecture, image_size=64
        )
        assert (found.architecture, found.classes, found.head) == (architecture, CLASSES, "linear")

    @pytest.mark.parametrize(("card", "suffix"), SUFFIXES, ids=card_and_name)
    @pytest.mark.parametrize("head", ["mlp-1024-128", "fc6-fc7"])
    def test_what_to_build_is_read_off_the_file(self, card, suffix, head, tmp_path):
        found = self.round_trip(card, tmp_path / f"w{suffix}", architecture="vgg16", image_size=64, head=head)
        assert (found.classes, found.head, found.image_size) == (CLASSES, head, 64)

    @pytest.mark.parametrize(("card", "suffix"), SUFFIXES, ids=card_and_name)
    def test_a_file_that_is_not_whole_or_not_there_is_named(self, card, suffix, tmp_path):
        framework, path = backends.load(card), tmp_path / f"weights{suffix}"
        architecture = card.architectures[0]
        backend = make(framework)
        backend.save_checkpoint(path)
        whole = path.read_bytes()
        contents = [
            whole[: len(whole) // 2],
            whole[:-1],
            whole[:100],
            b"",
            b"PK\x03\x04",
            b"<html>404</html>",
        ]
        for content in [*contents, None]:
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            with pytest.raises(WeightsError) as error:
                framework.inspect_checkpoint(path, architecture)
            assert_one_line_about(error, path)
            with pytest.raises(WeightsError) as error:
                backend.load_checkpoint(path)
            assert_one_line_about(error, path)

    @pytest.mark.parametrize(("card", "suffix"), SUFFIXES, ids=card_and_name)
    def test_the_first_wrong_tensor_is_named(self, card, suffix, tmp_path):
        framework, path = backends.load(card), tmp_path / f"weights{suffix}"
        make(framework).save_checkpoint(path)
        for other in (
            {"classes": CLASSES + 1},
            {"head": "mlp-1024-128"},
            {"architecture": card.architectures[1]},
        ):
            with pytest.raises(WeightsError) as error:
                make(framework, **other).load_checkpoint(path)
            assert_one_line_about(error, path, tensor=True)
        for architecture in card.architectures[1:]:
            with pytest.raises(WeightsError) as error:
                framework.inspect_checkpoint(path, architecture)
            assert_one_line_about(error, path, tensor=True)

    @pytest.mark.parametrize(("card", "suffix"), SUFFIXES, ids=card_and_name)
    def test_values_that_are_not_finite_are_refused(self, card, suffix, tmp_path):
        backend, path = make(backends.load(card)), tmp_path / f"weights{suffix}"
        tensors = backend.export_weights()
        name = next(iter(reversed(tensors)))
        backend.load_weights({**tensors, name: np.full_like(tensors[name], np.nan)}, head=True)
        backend.save_checkpoint(path)
        backend.load_weights(tensors, head=True)
        with pytest.raises(WeightsError, match="NaN") as error:
            backend.load_checkpoint(path)
        assert_one_line_about(error, path, tensor=True)

    def test_a_suffix_of_another_framework_is_refused_with_those_there_are(self, framework, tmp_path):
        with pytest.raises(UsageError, match=re.escape(framework.info.checkpoint_suffixes[0])):
            make(framework).save_checkpoint(tmp_path / "weights.onnx")
        assert not list(tmp_path.iterdir())


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

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
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
        step = 2 if normalization == "caffe" else 2 / 255 / 0.224  # JPEG is off by a level or two
        for mean, label in zip(means, labels, strict=True):
            assert mean == pytest.approx(normalized(np.array(COLORS[label]), normalization), abs=step)

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
