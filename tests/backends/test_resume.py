"""A training that is put down after an epoch, and taken up again by another backend or another process, ends
with the bits of an unbroken one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

import backends
from backends.base import (
    Backend,
    BackendInfo,
    Batch,
    ImageList,
    ModelSpec,
    Pipeline,
    Session,
    Trainable,
    Transform,
    UsageError,
    WeightsError,
)
from backends.optimizers import (
    SGD,
    Adam,
    Constant,
    OneCycle,
    Optimizer,
    RMSprop,
    Schedule,
    StepDecay,
    optimizer_name,
    schedule_name,
)
from backends.resume import epoch_seed

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE, CLASSES, FEATURES = 32, 3, 512
STEPS = 3  # in an epoch
COMMON = {"learning_rate": 2**-6, "head_multiplier": 4, "weight_decay": 2**-5}
OPTIMIZERS: dict[str, Optimizer] = {
    "momentum": SGD(**COMMON, momentum=0.9),
    "nesterov": SGD(**COMMON, momentum=0.9, nesterov=True),
    "rmsprop": RMSprop(**COMMON),
    "adam": Adam(**COMMON),
}
SCHEDULES = (
    Constant(),
    StepDecay(steps=2, factor=0.5),
    OneCycle(steps=2 * STEPS, warmup=4 / 6),  # at its peak, the optimiser's own rate, as epoch 2 begins
)
HEAD = ModelSpec(
    architecture="vgg16", classes=CLASSES, image_size=SIZE, head="mlp-256", entry="features", dropout=0.5
)


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def card(request) -> BackendInfo:
    return request.param


@pytest.fixture
def folder(tmp_path) -> ImageList:
    """Noise, in which every crop can be told from every other."""
    random, files = np.random.RandomState(0), tuple(f"a/{index}.png" for index in range(10))
    (tmp_path / "a").mkdir()
    for file in files:
        Image.fromarray(random.randint(0, 256, (40, 48, 3)).astype(np.uint8)).save(tmp_path / file)
    labels = tuple(index % CLASSES for index in range(10))
    return ImageList(root=str(tmp_path), files=files, labels=labels, classes=("a", "b", "c"))


# --- Trainings ------------------------------------------------------------------------------------


class Snapshot(msgspec.Struct, frozen=True):
    """A training after an epoch, as it comes out of files."""

    weights: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to begin a training, here or in another process."""

    card: BackendInfo
    track: str
    spec: ModelSpec
    optimizer: Optimizer
    images: ImageList | None = None
    """For the native pipeline; None: batches of noise."""

    def begin(self) -> Backend:
        session = Session(track=self.track, variant="reproducible", seed=5)
        backend = backends.load(self.card)(session)
        backend.build(self.spec)
        backend.set_trainable(Trainable())
        backend.configure_optimizer(self.optimizer)
        return backend

    def proceed(self, snapshot: Snapshot) -> Backend:
        """A new backend, as far as the one was whose snapshot it is."""
        backend = self.begin()
        backend.load_weights(snapshot.weights, head=True)
        backend.load_optimizer_state(snapshot.state)
        return backend

    def batches(self, backend: Backend, epoch: int) -> Iterable[Batch]:
        if self.images is not None:
            return training_pipeline(backend, self.images)
        return self.noise(backend, epoch)

    def noise(self, backend: Backend, epoch: int) -> Iterator[Batch]:
        random = np.random.RandomState(epoch)
        for count in (8, 8, 5):
            if self.spec.entry == "features":
                inputs = random.standard_normal((count, FEATURES)).astype(np.float32)
            else:
                inputs = random.randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
            kept = random.randint(0, 2, (count, 256 if self.spec.head == "mlp-256" else FEATURES))
            masks = [kept.astype(np.uint8)] if self.track == "matched" else []
            yield backend.to_host_batch(inputs, np.arange(count, dtype=np.int64) % CLASSES, *masks)


def train(training: Training, backend: Backend, epoch: int) -> Snapshot:
    backend.reseed(epoch)
    for batch in training.batches(backend, epoch):
        backend.train_step(batch)
    backend.take_metrics()
    return Snapshot(load(save(backend.export_weights())), load(save(backend.optimizer_state())))


def unbroken(training: Training) -> tuple[Snapshot, Snapshot]:
    """After each of two epochs, with a look at the first one's result between them, as the harness takes."""
    backend = training.begin()
    first = train(training, backend, 1)
    for batch in training.batches(backend, 1):
        backend.to_numpy(backend.logits(batch))
    return first, train(training, backend, 2)


def second_epoch(training: Training, first: Snapshot) -> Snapshot:
    return train(training, training.proceed(first), 2)


def training_pipeline(backend: Backend, images: ImageList) -> Pipeline:
    return backend.input_pipeline(images, Transform(size=SIZE, resize=36), batch_size=4, training=True)


def differing(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    assert left.keys() == right.keys()
    assert all(left[name].dtype == right[name].dtype for name in left)
    return [name for name in left if not np.array_equal(left[name], right[name])]


def assert_same_bits(actual: Snapshot, expected: Snapshot) -> None:
    assert not differing(actual.weights, expected.weights)
    assert not differing(actual.state, expected.state)


# --- Putting down and taking up -------------------------------------------------------------------


def in_a_process(function: Callable[..., Any], *given: Any) -> Any:
    """Of its own: what other tests left in this one, such as TensorFlow's threads, decides on the last
    bits."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *given).result()


class TestResuming:
    @pytest.mark.parametrize("track", ["native", "matched"])
    @pytest.mark.parametrize("schedule", SCHEDULES, ids=schedule_name)
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_every_optimizer_goes_on_as_if_it_had_never_stopped(self, card, name, schedule, track):
        training = head_training(card, name, schedule, track)
        first, second = unbroken(training)
        assert_same_bits(second_epoch(training, first), second)

    @pytest.mark.parametrize("track", ["native", "matched"])
    def test_a_whole_network_goes_on_in_another_process(self, card, track, folder):
        """Batch norm, dropout, and in the native track the framework's own pipeline."""
        architecture = card.architectures[0] if track == "native" else "resnet18"
        training = Training(
            card=card,
            track=track,
            spec=ModelSpec(architecture=architecture, classes=CLASSES, image_size=SIZE, dropout=0.5),
            optimizer=msgspec.structs.replace(
                OPTIMIZERS["nesterov"], learning_rate=2**-10, schedule=SCHEDULES[1]
            ),
            images=folder if track == "native" else None,
        )
        first, second = in_a_process(unbroken, training)
        assert_same_bits(in_a_process(second_epoch, training, first), second)

    @pytest.mark.parametrize("track", ["native", "matched"])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_what_a_state_holds_matters(self, card, name, track):
        """Without its buffers, or with other counts, a training goes elsewhere."""
        training = head_training(card, name, StepDecay(steps=2, factor=0.5), track)
        first, second = unbroken(training)
        for altered in (
            {entry: np.zeros_like(array) for entry, array in first.state.items() if array.ndim},
            {entry: np.array(2 * array) for entry, array in first.state.items() if not array.ndim},
        ):
            assert altered
            elsewhere = second_epoch(training, Snapshot(first.weights, first.state | altered))
            assert differing(elsewhere.weights, second.weights)

    def test_the_first_wrong_entry_is_named(self, card):
        for name, optimizer in OPTIMIZERS.items():
            training = head_training(card, name, StepDecay(steps=2, factor=0.5), "matched")
            backend = training.begin()
            train(training, backend, 1)
            state = backend.optimizer_state()
            for entry, array in state.items():
                others = {other: value for other, value in state.items() if other != entry}
                with pytest.raises(WeightsError, match=f"has no '{entry}'"):
                    backend.load_optimizer_state(others)
                with pytest.raises(WeightsError, match=rf"'{entry}' .* has shape \(7, 7\)"):
                    backend.load_optimizer_state({**others, entry: np.zeros((7, 7), array.dtype)})
            assert {str(array.dtype) for array in state.values()} <= {"float32", "float64", "int64"}, (
                optimizer
            )


def head_training(card: BackendInfo, name: str, schedule: Schedule, track: str) -> Training:
    optimizer = msgspec.structs.replace(OPTIMIZERS[name], schedule=schedule)
    training = Training(card=card, track=track, spec=HEAD, optimizer=optimizer)
    try:
        training.begin()
    except UsageError as error:
        pytest.skip(f"{optimizer_name(optimizer)}: {error}")
    return training


# --- Chance ---------------------------------------------------------------------------------------


class TestReseeding:
    def epoch(self, backend: Backend, pipeline: Pipeline, number: int) -> list[bytes]:
        backend.reseed(number)
        return [backend.to_numpy(part).tobytes() for batch in pipeline for part in batch]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_s_batches_depend_on_nothing_before_it(self, card, folder, workers):
        backend, fresh, other = (
            backends.load(card)(Session(seed=seed, input_workers=workers)) for seed in (3, 3, 4)
        )
        pipeline = training_pipeline(backend, folder)
        testing = backend.input_pipeline(
            folder, Transform(size=SIZE, resize=36), batch_size=4, training=False
        )
        first, second = self.epoch(backend, pipeline, 1), self.epoch(backend, pipeline, 2)
        assert first != second
        assert sum(1 for _ in testing) == STEPS
        assert sum(1 for _ in pipeline) == STEPS
        assert self.epoch(backend, pipeline, 2) == second
        assert self.epoch(fresh, training_pipeline(fresh, folder), 2) == second
        assert self.epoch(backend, pipeline, 1) == first
        assert self.epoch(other, training_pipeline(other, folder), 2) != second

    def test_no_seed_s_epoch_is_another_s(self):
        seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(1, 51)}
        assert len(seeds) == 20 * 50
        assert all(0 <= seed < 2**31 for seed in seeds)


# --- The variant ----------------------------------------------------------------------------------


class TestReproducible:
    def test_it_is_in_force_and_ends_with_the_session(self, card):
        found = []
        for variant in ("default", "reproducible", "default"):
            backend = backends.load(card)(Session(variant=variant))
            backend.build(HEAD)
            backend.configure_optimizer(SGD(learning_rate=0.5))
            found.append(backend.settings()["determinism"])
        assert found == [False, True, False]

    def test_where_a_batch_lies_in_memory_does_not_matter(self, card):
        linear = msgspec.structs.replace(HEAD, head="linear", dropout=0.0)
        training = Training(card=card, track="matched", spec=linear, optimizer=SGD(learning_rate=0.5))
        backend, labels = training.begin(), np.arange(64, dtype=np.int64) % CLASSES
        features = np.random.RandomState(0).standard_normal((64, FEATURES)).astype(np.float32)
        found = set()
        for offset in range(16):
            memory = np.empty(features.size + 16, np.float32)
            moved = memory[offset : offset + features.size].reshape(features.shape)
            moved[:] = features
            found.add(save(backend.gradients(backend.to_host_batch(moved, labels))))
        assert len(found) == 1
