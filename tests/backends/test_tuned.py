"""What an expert switches on, and what it leaves as it was: in every backend, with real architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

import backends
from backends import allocator
from backends.architectures import ARCHITECTURES, blocks_of, shapes
from backends.base import Backend, Batch, ModelSpec, Session, Trainable, UsageError
from backends.optimizers import SGD
from benchmarks.harness.gate.parity import LOW_PRECISION, TOLERANCES

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SIZE, CLASSES, IMAGES, STEPS = 64, 3, 8, 4
FLOAT32, BFLOAT16 = TOLERANCES["logit"].error, LOW_PRECISION["bfloat16"]
TUNED = {
    "pytorch": ["channels-last", "keep-memory"],
    "gluon": ["keep-memory", "separate-updates", "static-memory"],
}
"""On a CPU, by backend; Keras' is to keep memory."""

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


# --- A network, seen under one set of conditions ---------------------------------------------------

USUAL = Session(track="matched", variant="reproducible", threads=2)
"""Nothing switched on; equal computations give equal bits."""
FAST = msgspec.structs.replace(USUAL, variant="tuned")
MIXED = msgspec.structs.replace(FAST, precision="bfloat16")
DOUBLE = msgspec.structs.replace(FAST, precision="float64")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend computed from the same weights and images."""

    logits: np.ndarray
    features: np.ndarray
    block_features: dict[str, np.ndarray]
    blocks: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    """After the training."""
    moments: dict[str, np.ndarray]
    losses: tuple[float, ...]
    settings: dict

    def arrays(self) -> dict[str, np.ndarray]:
        found = {"logits": self.logits, "features": self.features, "losses": np.array(self.losses)}
        parts = {
            "features of": self.block_features,
            "output of": self.blocks,
            "gradient of": self.gradients,
            "trained": self.weights,
            "": self.moments,
        }
        return found | {f"{kind} {name}": a for kind, part in parts.items() for name, a in part.items()}


SPEC = ModelSpec(architecture="resnet18", classes=CLASSES, image_size=SIZE)


def network(framework: type[Backend], session: Session) -> Backend:
    backend = framework(session)
    backend.build(SPEC)
    backend.load_weights(drawn(SPEC), head=True)
    return backend


def double_logits(framework: type[Backend]) -> np.ndarray:
    backend = network(framework, DOUBLE)
    return backend.to_numpy(backend.logits(noise(backend)))


def see(framework: type[Backend], session: Session) -> Seen:
    backend = network(framework, session)
    backend.set_trainable(Trainable())
    backend.configure_optimizer(SGD(learning_rate=2**-5, momentum=0.5))
    batch = noise(backend)
    last = blocks_of(SPEC)[-1]
    seen = {
        "logits": backend.to_numpy(backend.logits(batch)).copy(),
        "features": backend.to_numpy(backend.features(batch)).copy(),
        "block_features": {last: backend.to_numpy(backend.features(batch, last)).copy()},
        "blocks": backend.block_outputs(batch),
        "gradients": {name: array.copy() for name, array in backend.gradients(batch).items()},
    }
    backend.load_weights(drawn(SPEC), head=True)  # gradients may have moved the running statistics
    losses = []
    for _ in range(STEPS):
        backend.train_step(batch)
        losses.append(backend.take_metrics().loss)
    return Seen(
        **seen,
        weights=backend.export_weights(),
        moments=backend.moments(),
        losses=tuple(losses),
        settings=backend.settings(),
    )


def drawn(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Weights and statistics of which none is at rest."""
    random = np.random.RandomState(1)
    return {
        name: (
            random.standard_normal(shape) * math.sqrt(1 / np.prod(shape[1:]))
            if len(shape) > 1
            else random.uniform(0.5, 1.5, shape)
            if name.endswith((".running_var", ".weight"))
            else 0.1 * random.standard_normal(shape)
        ).astype(np.float32)
        for name, shape in shapes(spec).items()
    }


def noise(backend: Backend, images: int = IMAGES) -> Batch:
    pixels = np.random.RandomState(0).randint(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.arange(IMAGES, dtype=np.int64) % CLASSES
    return backend.to_host_batch(pixels[:images], labels[:images])


def error_of(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def worst(actual: Seen, expected: Seen, kinds: Sequence[str]) -> tuple[float, str]:
    found, wanted = actual.arrays(), expected.arrays()
    assert set(found) == set(wanted)
    return max(
        (error_of(found[name], wanted[name]), name) for name in wanted if name.startswith(tuple(kinds))
    )


INFERENCE = ("logits", "features", "output of")


class TestNetwork:
    """One story: sessions follow each other in one process, as in a gate."""

    @pytest.mark.bfloat16
    def test_it_computes_the_same_and_leaves_nothing_behind(self, framework):
        before = see(framework, USUAL)
        double = double_logits(framework)
        fast = see(framework, FAST)
        mixed = see(framework, MIXED)
        again = see(framework, USUAL)
        double_again = double_logits(framework)

        assert worst(fast, before, INFERENCE)[0] < FLOAT32
        assert error_of(np.array(fast.losses[:1]), np.array(before.losses[:1])) < FLOAT32
        error, where = worst(mixed, before, INFERENCE)
        assert error < BFLOAT16, where
        assert error > 10 * FLOAT32, "this was not computed in a low precision"
        assert error_of(np.array(mixed.losses[:1]), np.array(before.losses[:1])) < BFLOAT16

        for seen in (before, fast, mixed, again):
            for name, array in seen.arrays().items():
                assert np.isfinite(array).all(), name
                assert array.dtype == np.float32 or name == "losses", name
            last = seen.blocks["layer4"]
            assert last.shape == (IMAGES, 512, 2, 2) and last.flags.c_contiguous
            tolerance = BFLOAT16 / 4 if seen is mixed else FLOAT32
            assert error_of(seen.features, last.mean(axis=(2, 3))) < tolerance
            assert error_of(seen.block_features["layer4"], seen.features) < tolerance
            assert seen.losses[-1] < seen.losses[0]
            # The updates are whole as well: bfloat16 has no room for a step of a thousandth of a weight.
            assert any(np.unique(array.view(np.uint32) & 0xFFFF).size > 1 for array in seen.weights.values())

        found, wanted = again.arrays(), before.arrays()
        assert [name for name in wanted if not np.array_equal(found[name], wanted[name])] == []
        assert double.dtype == double_again.dtype == np.float64
        assert np.array_equal(double_again, double)
        assert error_of(before.logits, double) < FLOAT32

        name = framework.info.name
        assert fast.settings["tuning"] == mixed.settings["tuning"] == TUNED.get(name, ["keep-memory"])
        assert before.settings["tuning"] == again.settings["tuning"] == []
        in_use = [seen.settings["computed_in"] for seen in (before, fast, mixed, again)]
        assert in_use == ["float32", "float32", "bfloat16", "float32"]
        assert before.settings["dtype"] == mixed.settings["dtype"] == "float32"
        assert [seen.settings["determinism"] for seen in (before, mixed, again)] == [True, False, True]
        assert again.settings == before.settings
        assert fast.settings["layout"] == (
            "NHWC (channels_last)" if name == "pytorch" else before.settings["layout"]
        )
        assert ("static_alloc=True" in fast.settings["compiled"]) == (name == "gluon")
        assert "static_alloc=True" not in before.settings["compiled"]


# --- Names ------------------------------------------------------------------------------------------


class TestNames:
    @pytest.mark.parametrize("variant", ["default", "reproducible"])
    def test_bfloat16_is_for_the_tuned_variant(self, framework, variant):
        with pytest.raises(UsageError, match=f"bfloat16 is for the tuned variant, not for {variant}"):
            framework(Session(precision="bfloat16", variant=variant, threads=2))

    def test_what_does_not_exist_is_answered_with_what_does(self, framework):
        there = ", ".join(framework.info.tuning)
        with pytest.raises(UsageError, match=f"no tuning 'turbo'; it has: {there}"):
            framework(Session(tuning=("turbo",), threads=2))

    def test_what_is_asked_for_is_on_and_nothing_else(self, framework):
        for tuning in ((), ("keep-memory",)):
            backend = head_alone(framework, Session(variant="tuned", tuning=tuning, threads=2))
            assert backend.settings()["tuning"] == list(tuning)
            assert allocator.keeps_freed() == bool(tuning) or allocator.platform.libc_ver()[0] != "glibc"
            assert backend.settings()["layout"] != "NHWC (channels_last)"
            assert "static_alloc=True" not in backend.settings()["compiled"]
        head_alone(framework, Session(threads=2))
        assert not allocator.keeps_freed()

    def test_a_compiler_is_named(self, framework):
        """XLA's, where it computes the same; torch's is started by the first step alone."""
        name = {"keras": "xla", "pytorch": "compile"}.get(framework.info.name)
        if name is None:
            pytest.skip("it has none")
        compiled = {"xla": "graph, with XLA (jit_compile=True)", "compile": "torch.compile"}[name]
        backend = head_alone(framework, Session(track="matched", variant="tuned", tuning=(name,), threads=2))
        assert backend.settings()["compiled"] == compiled
        if name == "xla":
            batch = features_of(backend)
            expected = head_by_hand(backend.export_weights(), rows())
            assert error_of(backend.to_numpy(backend.logits(batch)), expected) < FLOAT32
            backend.train_step(batch)
            assert backend.take_metrics().loss == pytest.approx(cross_entropy(expected), rel=1e-4)
        assert head_alone(framework, Session(threads=2)).settings()["compiled"] != compiled


# --- Heads: masks, one unit, smaller batches --------------------------------------------------------


def head_alone(framework: type[Backend], session: Session, **fields) -> Backend:
    """A network that begins at the features: 512 values, 256 hidden ones."""
    fields = {"classes": CLASSES, **fields}
    backend = framework(session)
    backend.build(
        ModelSpec(
            architecture="vgg16",
            image_size=32,
            head="mlp-256",
            entry="features",
            initializer="xavier",
            **fields,
        )
    )
    backend.configure_optimizer(SGD(learning_rate=2**-6, momentum=0.5))
    return backend


def rows(images: int = IMAGES) -> np.ndarray:
    return np.abs(np.random.RandomState(2).standard_normal((IMAGES, 512)).astype(np.float32))[:images]


def labels_of(images: int = IMAGES, classes: int = CLASSES) -> np.ndarray:
    return np.arange(images, dtype=np.int64) % classes


def features_of(backend: Backend, images: int = IMAGES, *masks: np.ndarray) -> Batch:
    return backend.to_host_batch(rows(images), labels_of(images), *masks)


def head_by_hand(tensors: dict, values: np.ndarray, kept: np.ndarray | float = 1.0) -> np.ndarray:
    """The last layer's outputs, with `kept` as what multiplies the values that enter it."""
    hidden = np.maximum(values @ tensors["head.fc1.weight"].T + tensors["head.fc1.bias"], 0)
    return (hidden * kept) @ tensors["head.fc2.weight"].T + tensors["head.fc2.bias"]


def cross_entropy(logits: np.ndarray) -> float:
    """Mean over the images of `labels_of`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_softmax[np.arange(len(logits)), labels_of(len(logits))].mean())


@pytest.mark.parametrize(
    ("session", "tolerance"), [(FAST, 1e-4), (MIXED, BFLOAT16 / 4)], ids=["float32", "bfloat16"]
)
class TestHeads:
    def test_dropout_is_that_of_the_batch(self, framework, session, tolerance):
        backend = head_alone(framework, session, dropout=0.5)
        kept = (np.random.RandomState(3).uniform(size=(IMAGES, 256)) < 0.5).astype(np.uint8)
        tensors = backend.export_weights()
        with_masks = cross_entropy(head_by_hand(tensors, rows(), kept * 2.0))
        without = cross_entropy(head_by_hand(tensors, rows()))
        assert abs(with_masks - without) > 4 * tolerance * with_masks  # the two can be told apart
        backend.train_step(features_of(backend, IMAGES, kept))
        assert backend.take_metrics().loss == pytest.approx(with_masks, rel=tolerance)
        tensors = backend.export_weights()
        logits = backend.to_numpy(backend.logits(features_of(backend)))
        assert error_of(logits, head_by_hand(tensors, rows())) < tolerance

    def test_one_unit_tells_two_classes_apart(self, framework, session, tolerance):
        backend = head_alone(framework, session, output="sigmoid", classes=2)
        labels = labels_of(classes=2)
        batch = backend.to_host_batch(rows(), labels)
        logits = backend.to_numpy(backend.logits(batch))
        z = head_by_hand(backend.export_weights(), rows())
        assert logits.dtype == np.float32 and not logits[:, 0].any()
        assert error_of(logits[:, 1:], z) < tolerance
        backend.train_step(batch)
        expected = float(np.mean(np.logaddexp(0, z[:, 0]) - labels * z[:, 0]))
        metrics = backend.take_metrics()
        assert metrics.loss == pytest.approx(expected, rel=tolerance)
        assert metrics.correct == int(((logits[:, 1] > 0) == labels).sum())

    def test_outputs_outlive_the_calls_after_them(self, framework, session, tolerance):
        """Static memory is written over; what was handed out is not a part of it."""
        backend = network(framework, session)
        backend.set_trainable(Trainable(first="head", batch_norm="stored"))
        backend.configure_optimizer(SGD(learning_rate=2**-5))
        whole, last = noise(backend), noise(backend, 3)
        for outputs in (backend.logits, backend.features, lambda batch: backend.features(batch, "layer3")):
            expected = backend.to_numpy(outputs(whole)).copy()
            kept = [outputs(whole), outputs(last), outputs(whole), outputs(last)]
            backend.run_stages(whole, "backward")  # its frozen part is the same network
            for values in kept:
                found = backend.to_numpy(values)
                assert error_of(found, expected[: len(found)]) < tolerance
                assert len(found) in (IMAGES, 3)

    def test_a_last_and_smaller_batch_is_a_step_like_others(self, framework, session, tolerance):
        backend = head_alone(framework, session)
        for images in (IMAGES, 3, IMAGES, 1):
            expected = cross_entropy(head_by_hand(backend.export_weights(), rows(images)))
            backend.train_step(features_of(backend, images))
            metrics = backend.take_metrics()
            assert metrics.loss == pytest.approx(expected, rel=tolerance)
            assert metrics.images == images


# --- Files and states --------------------------------------------------------------------------------


@pytest.mark.parametrize("session", [FAST, MIXED], ids=["float32", "bfloat16"])
class TestStates:
    def test_files_are_those_of_any_session(self, framework, session, tmp_path):
        """Written in one and read in the other, both ways, to the last bit."""
        spec = ModelSpec(architecture=normalizing(framework), classes=CLASSES, image_size=SIZE)
        tensors = drawn(spec)
        for writing, reading in ((session, USUAL), (USUAL, session)):
            path = Path(tmp_path, f"from-{writing.variant}{framework.info.checkpoint_suffixes[0]}")
            backend = framework(writing)
            backend.build(spec)
            backend.load_weights(tensors, head=True)
            backend.save_checkpoint(path)
            backend = framework(reading)
            backend.build(spec)
            backend.load_checkpoint(path)
            returned = backend.export_weights()
            assert list(returned) == list(shapes(spec))
            for name, tensor in tensors.items():
                assert returned[name].dtype == np.float32
                assert np.array_equal(returned[name], tensor), name

    def test_a_training_goes_on_where_it_was(self, framework, session):
        """Also on convolutions, whose buffers may lie in memory as their weights do."""
        spec = ModelSpec(architecture="resnet18", classes=CLASSES, image_size=32)
        images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)

        def begin() -> tuple[Backend, Batch]:
            backend = framework(session)
            backend.build(spec)
            backend.set_trainable(Trainable(first="layer4"))
            backend.configure_optimizer(SGD(learning_rate=2**-6, momentum=0.875))
            return backend, backend.to_host_batch(images, labels_of(4))

        backend, batch = begin()
        backend.load_weights(drawn(spec), head=True)
        backend.train_step(batch)
        weights, state = backend.export_weights(), backend.optimizer_state()
        assert all(array.flags.c_contiguous for array in state.values())
        moments = backend.moments()
        assert all(moment.shape == weights[name.split(" of ")[1]].shape for name, moment in moments.items())
        backend.train_step(batch)
        expected, further = backend.export_weights(), backend.moments()

        backend, batch = begin()
        backend.load_weights(weights, head=True)
        backend.load_optimizer_state(state)
        assert all(np.array_equal(array, moments[name]) for name, array in backend.moments().items())
        backend.train_step(batch)
        for name, tensor in backend.export_weights().items():
            step = expected[name] - weights[name]
            assert step.any() == name.startswith(("layer4.", "head.")), name
            assert np.abs(tensor - expected[name]).max() <= 1e-4 * np.abs(step).max(), name
        for name, moment in backend.moments().items():
            assert error_of(moment, further[name]) < 1e-4, name


def normalizing(framework: type[Backend]) -> str:
    """The first of the backend's architectures that has batch norm."""
    return next(
        name for name in framework.info.architectures if ARCHITECTURES[name].batch_norm_epsilon is not None
    )
