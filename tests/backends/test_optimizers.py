"""Optimisers and schedules: their definitions, and that every backend's steps are theirs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import backends
from backends.architectures import is_head
from backends.base import Backend, ModelSpec, Session, Trainable, UsageError
from backends.optimizers import (
    SGD,
    Adam,
    Constant,
    Exponential,
    InverseTime,
    OneCycle,
    Optimizer,
    RMSprop,
    StepDecay,
    in_steps,
    optimizer_name,
    schedule_factor,
    schedule_name,
)

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE, CLASSES, STEPS = 32, 3, 4
RATE, MULTIPLIER, DECAY = 2**-6, 4, 2**-5
COMMON = {"learning_rate": RATE, "head_multiplier": MULTIPLIER, "weight_decay": DECAY}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(**COMMON),
    "momentum": SGD(**COMMON, momentum=0.5),
    "nesterov": SGD(**COMMON, momentum=0.5, nesterov=True),
    "rmsprop": RMSprop(**COMMON, alpha=0.75, epsilon=2**-6),
    "adam": Adam(**COMMON, betas=(0.75, 0.875), epsilon=2**-6),
}


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


class Reference:
    """One tensor under the definitions in the docstrings of `backends.optimizers`, in NumPy."""

    def __init__(self, optimizer: Optimizer, weight: np.ndarray, multiplier: float) -> None:
        self.optimizer, self.weight = optimizer, weight.astype(np.float64)
        self.multiplier, self.step = multiplier, 0
        self.moments: dict[str, np.ndarray] = {}

    def update(self, gradient: np.ndarray) -> None:
        optimizer, count = self.optimizer, self.step
        rate = optimizer.learning_rate * self.multiplier * schedule_factor(optimizer.schedule, count)
        g = gradient + optimizer.weight_decay * self.weight
        if isinstance(optimizer, SGD):
            v = optimizer.momentum * self.moments.get("velocity", 0) + g
            if optimizer.momentum:
                self.moments["velocity"] = v
            step = g + optimizer.momentum * v if optimizer.nesterov else v
        elif isinstance(optimizer, RMSprop):
            s = optimizer.alpha * self.moments.get("square", 0) + (1 - optimizer.alpha) * g**2
            self.moments["square"] = s
            step = g / (np.sqrt(s) + optimizer.epsilon)
        else:
            first, second = optimizer.betas
            m = first * self.moments.get("mean", 0) + (1 - first) * g
            s = second * self.moments.get("square", 0) + (1 - second) * g**2
            self.moments |= {"mean": m, "square": s}
            corrected = m / (1 - first ** (count + 1)), s / (1 - second ** (count + 1))
            step = corrected[0] / (np.sqrt(corrected[1]) + optimizer.epsilon)
        self.weight = self.weight - rate * step
        self.step += 1


@pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")
class TestSteps:
    @pytest.mark.parametrize(
        ("name", "schedule"),
        [*((name, Constant()) for name in OPTIMIZERS), ("adam", OneCycle(steps=STEPS))],
        ids=lambda value: value if isinstance(value, str) else schedule_name(value),
    )
    def test_the_matched_track_follows_the_definition(self, framework, name, schedule):
        """In float64, weights and moments after each of some steps on the backend's own gradients."""
        optimizer = msgspec.structs.replace(OPTIMIZERS[name], schedule=schedule)
        backend = framework(Session(threads=2, track="matched", precision="float64"))
        backend.build(ModelSpec(architecture="vgg16", classes=CLASSES, image_size=SIZE, initializer="xavier"))
        backend.set_trainable(Trainable(first="block5"))
        backend.configure_optimizer(optimizer)
        random = np.random.RandomState(0)
        images = random.randint(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
        batch = backend.to_host_batch(images, np.arange(4, dtype=np.int64) % CLASSES)
        assert backend.moments() == {}
        weights = backend.export_weights()
        references = {
            tensor: Reference(optimizer, weights[tensor], MULTIPLIER if is_head(tensor) else 1)
            for tensor in ("block5_conv1.weight", "block5_conv3.bias", "head.weight", "head.bias")
        }
        for _ in range(STEPS):
            gradients = backend.gradients(batch)
            backend.train_step(batch)
            weights, moments = backend.export_weights(), backend.moments()
            for tensor, reference in references.items():
                reference.update(gradients[tensor])
                assert_close(weights[tensor], reference.weight, tensor)
                for moment, expected in reference.moments.items():
                    assert_close(moments[f"{moment} of {tensor}"], expected, f"{moment} of {tensor}")
        names = {name.split(" of ")[0] for name in moments}
        assert names == set(references["head.bias"].moments)
        assert len(moments) == len(names) * len(backend.gradients(batch))

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_the_native_track_descends(self, framework, name):
        """By the framework's own rule, whose details are its own: the loss falls."""
        backend = framework(Session(threads=2))
        architecture = framework.info.architectures[0]
        backend.build(ModelSpec(architecture=architecture, classes=CLASSES, image_size=SIZE))
        backend.set_trainable(Trainable(first="head"))
        gentle = {"learning_rate": 2**-10, "head_multiplier": 1, "weight_decay": 0.0}
        backend.configure_optimizer(msgspec.structs.replace(OPTIMIZERS[name], **gentle))
        images = np.random.RandomState(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)
        batch = backend.to_host_batch(images, np.arange(8, dtype=np.int64) % CLASSES)
        losses = []
        for _ in range(6):
            backend.train_step(batch)
            losses.append(backend.take_metrics().loss)
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]

    def test_settings_say_what_is_in_force(self, framework):
        backend = framework(Session(threads=2, track="matched"))
        backend.build(ModelSpec(architecture="vgg16", classes=CLASSES, image_size=SIZE))
        backend.set_trainable(Trainable(first="head"))
        found = {}
        for name, optimizer in OPTIMIZERS.items():
            backend.configure_optimizer(optimizer)
            found[name] = backend.settings()["optimizer"]
            assert found[name]["weight_decay"] == DECAY
            assert found[name]["learning_rates"] == [RATE * MULTIPLIER]
            assert found[name]["schedule"] == "constant"
        read = {name: [found[name][key] for key in KEYS] for name in found}
        assert read["sgd"][:2] == [0.0, False] and read["sgd"][2:] == [None, None, None]
        assert read["momentum"] == [0.5, False, None, None, None]
        assert read["nesterov"] == [0.5, True, None, None, None]
        assert read["rmsprop"] == [None, None, 0.75, None, 2**-6]
        assert read["adam"] == [None, None, None, [0.75, 0.875], 2**-6]


KEYS = ("momentum", "nesterov", "alpha", "betas", "epsilon")


def assert_close(actual: np.ndarray, expected: np.ndarray, of: str) -> None:
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error < 1e-7, f"{of}: relative error {error:.1e}"


class TestSchedules:
    def test_names_are_those_of_recipes(self):
        schedules = (Constant(), InverseTime(decay=1), StepDecay(factor=1), Exponential(1), OneCycle())
        assert [schedule_name(s) for s in schedules] == [
            "constant", "inverse-time", "step", "exponential", "one-cycle",
        ]  # fmt: skip
        assert [optimizer_name(o) for o in OPTIMIZERS.values()] == ["sgd", "sgd", "sgd", "rmsprop", "adam"]

    @pytest.mark.parametrize(
        ("schedule", "factors"),
        [
            (Constant(), [1, 1, 1, 1]),
            (InverseTime(decay=1.0), [1, 1 / 2, 1 / 3, 1 / 4]),
            (StepDecay(steps=2, factor=0.5), [1, 1, 0.5, 0.5]),
            (Exponential(factor=2.0), [1, 2, 4, 8]),
        ],
        ids=lambda value: schedule_name(value) if not isinstance(value, list) else "",
    )
    def test_steps_are_counted_from_zero(self, schedule, factors):
        assert [schedule_factor(schedule, step) for step in range(4)] == pytest.approx(factors)

    def test_one_cycle_is_torch_s(self):
        torch = pytest.importorskip("torch")
        steps, peak = 20, 0.3
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=peak, total_steps=steps, cycle_momentum=False
        )
        ours = OneCycle(steps=steps)
        for step in range(steps):
            rate = optimizer.param_groups[0]["lr"]
            assert peak * schedule_factor(ours, step) == pytest.approx(rate, rel=1e-9)
            optimizer.step()
            if step < steps - 1:
                scheduler.step()

    def test_one_cycle_rises_to_the_rate_falls_and_stays_down(self):
        schedule = OneCycle(steps=10)
        factors = [schedule_factor(schedule, step) for step in range(15)]
        assert factors[0] == pytest.approx(1 / 25)
        assert max(factors) == 1.0 and factors.index(1.0) == 2
        assert factors[9:] == pytest.approx([1 / 250_000] * 6)

    @pytest.mark.parametrize("steps", [1, 2, 3, 4])
    def test_one_cycle_of_very_few_steps_is_finite(self, steps):
        factors = [schedule_factor(OneCycle(steps=steps), step) for step in range(steps + 1)]
        assert all(0 < factor <= 1 for factor in factors)

    def test_epochs_become_steps(self):
        by_epochs = StepDecay(epochs=7, factor=0.1)
        assert in_steps(by_epochs, steps_per_epoch=16, epochs=25) == StepDecay(steps=112, factor=0.1)
        assert in_steps(OneCycle(), steps_per_epoch=16, epochs=5) == OneCycle(steps=80)
        unchanged = (Constant(), InverseTime(decay=1.0), StepDecay(steps=3, factor=0.5), OneCycle(steps=4))
        assert all(in_steps(s, steps_per_epoch=16, epochs=5) is s for s in unchanged)


def test_nesterov_without_momentum_is_plain_descent():
    for card in INSTALLED:
        backend = backends.load(card)(Session(threads=2))
        backend.build(ModelSpec(architecture=card.architectures[0], classes=CLASSES, image_size=SIZE))
        backend.set_trainable(Trainable(first="head"))
        try:
            backend.configure_optimizer(SGD(learning_rate=0.5, nesterov=True))
        except UsageError:
            pytest.fail("there is nothing to refuse")
