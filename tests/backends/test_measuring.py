"""What measurements ask of every backend: stages of a step, matrix products, decoded images, a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

import backends
from backends.architectures import is_parameter, is_statistic
from backends.base import STAGES, Backend, Batch, DataError, ModelSpec, Session, Stage, Trainable
from backends.optimizers import SGD, StepDecay
from benchmarks.harness.measurement import throughput

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE, CLASSES, IMAGES = 32, 3, 8

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


# --- Stages of a step -----------------------------------------------------------------------------

OPTIMIZER = SGD(
    learning_rate=2**-6, momentum=0.9, weight_decay=2**-5, schedule=StepDecay(steps=1, factor=0.5)
)
"""A step that was counted, or a velocity that was moved, shows in the next one."""


def training(framework: type[Backend]) -> tuple[Backend, Batch]:
    """A network with batch norm, all of which trains, and a batch of bytes. Reproducible: equal computations
    give equal bits."""
    backend = framework(Session(track="matched", variant="reproducible", threads=2))
    backend.build(ModelSpec(architecture="resnet18", classes=CLASSES, image_size=SIZE))
    backend.set_trainable(Trainable())
    backend.configure_optimizer(OPTIMIZER)
    images = np.random.RandomState(0).randint(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8)
    return backend, backend.to_host_batch(images, np.arange(IMAGES, dtype=np.int64) % CLASSES)


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


GRADIENTS_LEFT: dict[str, Callable[[Any], dict[str, np.ndarray]]] = {
    "pytorch": lambda backend: {name: t.grad.numpy() for name, t in backend._learning.items()},
    "gluon": lambda backend: {name: t.grad().asnumpy() for name, t in backend._learning.items()},
}
"""Where a framework keeps the gradients of its last backward pass; Keras keeps them nowhere."""


class TestStages:
    def test_what_comes_before_the_update_trains_nothing(self, framework):
        """Only running statistics move, in the forward pass or in the backward one: it is training's."""
        backend, batch = training(framework)
        backend.train_step(batch)
        backend.take_metrics()
        start, moments = backend.export_weights(), backend.moments()
        statistics = {name for name in start if is_statistic(name)}
        before = start
        for stage in STAGES[:-1]:
            backend.run_stages(batch, stage)
            after = backend.export_weights()
            moved = changed(before, after)
            assert moved <= statistics and (stage != "transfer" or not moved), stage
            assert not changed(moments, backend.moments()), stage
            assert backend.take_metrics().images == 0, stage
            before = after
        assert changed(start, before) == statistics
        backend.run_stages(batch, "update")
        assert {name for name in start if is_parameter(name)} <= changed(before, backend.export_weights())
        assert backend.take_metrics().images == IMAGES

    def test_all_of_them_are_a_step_to_the_last_bit(self, framework):
        """And stages that were run beside are no part of it: no velocity, no step of a schedule."""
        backend, batch = training(framework)
        start = backend.export_weights()
        ends = []
        for work in (backend.train_step, lambda batch: backend.run_stages(batch, "update")):
            backend.load_weights(start, head=True)
            backend.configure_optimizer(OPTIMIZER)
            for _ in range(2):
                if work != backend.train_step:
                    weights = backend.export_weights()
                    for stage in STAGES[:-1]:
                        backend.run_stages(batch, stage)
                    backend.load_weights(weights, head=True)  # running statistics have moved
                work(batch)
            ends.append((backend.export_weights(), backend.moments(), backend.take_metrics()))
        (weights, moments, metrics), (by_stages, their_moments, their_metrics) = ends
        assert not changed(weights, by_stages)
        assert not changed(moments, their_moments)
        assert metrics == their_metrics and metrics.images == 2 * IMAGES

    def test_a_backward_pass_leaves_the_gradients(self, framework):
        if framework.info.name not in GRADIENTS_LEFT:
            pytest.skip("gradients are kept nowhere")
        backend, batch = training(framework)
        expected = {name: gradient.copy() for name, gradient in backend.gradients(batch).items()}
        backend.run_stages(batch, "transfer")
        backend.run_stages(batch, "forward")
        backend.run_stages(batch, "backward")
        left = GRADIENTS_LEFT[framework.info.name](backend)
        assert set(left) == set(expected)
        assert not changed(expected, left)
        assert all(np.abs(gradient).max() > 0 for gradient in left.values())

    def test_a_step_that_skips_the_update_is_told(self, framework):
        class Skipping(framework):
            def run_stages(self, batch: Batch, last: Stage) -> None:
                super().run_stages(batch, "backward" if last == "update" else last)

        features = np.random.RandomState(0).standard_normal((IMAGES, 512)).astype(np.float32)
        for kind, told in ((Skipping, pytest.raises(throughput.StepError)), (framework, nullcontext())):
            backend = kind(Session(track="matched", threads=2))
            backend.build(
                ModelSpec(architecture="resnet18", classes=CLASSES, image_size=SIZE, entry="features")
            )
            backend.configure_optimizer(OPTIMIZER)
            before = backend.export_weights()
            backend.train_step(backend.to_host_batch(features, np.arange(IMAGES, dtype=np.int64) % CLASSES))
            with told:
                throughput._require_trained(backend, before)


# --- Matrix products ------------------------------------------------------------------------------

ROUNDING = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 3e-2}
"""Of a product of 64 terms, relative to its largest value."""


class TestMatrixProduct:
    @pytest.mark.parametrize("precision", ROUNDING)
    def test_each_product_is_a_factor_of_the_next(self, framework, precision):
        size = 64
        backend = session(framework, precision)
        product = backend.matrix_product(size)

        def values(times: int) -> np.ndarray:
            found = backend.to_numpy(product(times))
            assert found.dtype == ("float64" if precision == "float64" else "float32")
            return found.reshape(size, size)

        factor = values(0)
        # Layers multiply by the transpose of what they hold, and torch's images have their rows last.
        ways = [
            lambda x: x @ factor,
            lambda x: x @ factor.T,
            lambda x: factor @ x,
            lambda x: factor.T @ x,
        ]
        errors = [np.abs(way(factor) - values(1)).max() / np.abs(values(1)).max() for way in ways]
        times = ways[int(np.argmin(errors))]
        assert min(errors) < ROUNDING[precision]
        for count in range(1, 5):
            before, after = values(count), values(count + 1)
            expected = times(before)
            assert np.abs(expected - after).max() < ROUNDING[precision] * np.abs(after).max()
            assert np.abs(after - before).max() > 0.1 * np.abs(after).max()

    @pytest.mark.parametrize("precision", ROUNDING)
    def test_values_neither_grow_nor_vanish(self, framework, precision):
        """Or products of subnormal numbers, or of infinite ones, would be timed."""
        backend = session(framework, precision)
        spread = backend.to_numpy(backend.matrix_product(256)(50)).std()
        assert 0.01 < spread < 100


def session(framework: type[Backend], precision: str) -> Backend:
    variant = "tuned" if precision == "bfloat16" else "default"
    return framework(Session(track="matched", precision=precision, variant=variant, threads=2))


# --- Decoding -------------------------------------------------------------------------------------


class TestDecode:
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_pixels_are_those_of_the_file(self, framework, tmp_path, mode):
        path = tmp_path / "noise.png"
        shape = (40, 48, 3) if mode == "RGB" else (40, 48)
        Image.fromarray(np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)).save(path)
        pixels = pixels_of(framework(Session(threads=2)), path)
        assert pixels.dtype == np.uint8
        with Image.open(path) as image:
            assert np.array_equal(pixels, np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("content", [b"<html>gone</html>", b"", None])
    def test_a_file_that_is_no_image_is_named(self, framework, tmp_path, content):
        path = tmp_path / "image.jpg"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^image {path} cannot be read \([^\n]+\)"):
            pixels_of(framework(Session(threads=2)), path)


def pixels_of(backend: Backend, path) -> np.ndarray:
    decoded = backend.decode(path)
    return np.asarray(decoded) if isinstance(decoded, Image.Image) else backend.to_numpy(decoded)


# --- The stopwatch --------------------------------------------------------------------------------


class TestStopwatch:
    def test_it_waits_for_work_that_was_given(self, framework):
        seen, shown, _ = clocks(framework(Session(threads=2)))
        assert shown > seen / 2

    def test_it_begins_when_what_was_given_before_is_done(self, framework):
        seen, _, after = clocks(framework(Session(threads=2)))
        assert after < seen / 2

    def test_one_that_does_not_wait_shows_next_to_nothing(self, framework):
        """Where a framework computes behind its caller's back, on every device; or the two tests above could
        not fail."""
        if framework.info.name != "gluon":
            pytest.skip("on a CPU its operations end before their calls do")

        class Hasty(framework):
            def synchronize(self) -> None:
                pass

        seen, shown, _ = clocks(Hasty(Session(threads=2)))
        assert shown < seen / 2


def clocks(backend: Backend) -> tuple[float, float, float]:
    """Seconds until a product of many factors lies in host memory; what the stopwatch shows of it; and what
    one shows that is started while it may still be computed. The shortest, or for what has to be long the
    longest, of some attempts."""
    product, times = backend.matrix_product(1024), 20
    backend.to_numpy(product(times))
    seen, shown, after = [], [], []
    for _ in range(3):
        start = perf_counter()
        backend.to_numpy(product(times))
        seen.append(perf_counter() - start)
        stop = backend.stopwatch()
        begun = product(times)
        shown.append(stop())
        begun = product(times)
        after.append(backend.stopwatch()())
        backend.to_numpy(begun)
    return min(seen), max(shown), min(after)
