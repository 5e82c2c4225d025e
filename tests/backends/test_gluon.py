"""What only the Gluon backend promises, beyond the contract."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import (
    DataError,
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

GLUON = backends.resolve("gluon")
mx = pytest.importorskip("mxnet", reason="MXNet is not installed in this environment")
FrameworkBackend = backends.load(GLUON)
model_store = pytest.importorskip("gluoncv.model_zoo.model_store")

SIZE = 32  # pixels
SHA1 = "a81db45fd7b7a2d12ab97cd88ef0a5ac48b8f657"  # of the official resnet18_v2


def make(*, classes: int = 3, seed: int = 0):
    backend = FrameworkBackend(Session(seed=seed, threads=2))
    backend.build(ModelSpec(architecture="resnet18_v2", classes=classes, image_size=SIZE))
    return backend


@pytest.fixture
def batch():
    images = np.random.RandomState(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)
    return images, np.arange(8, dtype=np.int64) % 3


class TestNetwork:
    def test_the_imagenet_network_has_the_published_number_of_parameters(self):
        backend = make(classes=1000)
        backend.configure_optimizer(Optimizer(learning_rate=0.1))
        assert backend.settings()["parameters"] == 11_687_848

    def test_the_scale_that_a_forward_overwrites_is_exported_as_loaded(self, batch):
        backend = make()
        loaded = {
            **backend.export_weights(),
            "bn0.weight": np.array([0.5, 2, 3], np.float32),
            "bn0.bias": np.array([0.25, -1, 0], np.float32),
        }
        backend.load_weights(loaded, head=True)
        before = backend.export_weights()
        backend.to_numpy(backend.logits(backend.to_host_batch(*batch)))
        after = backend.export_weights()
        assert all(np.array_equal(before[name], loaded[name]) for name in loaded)
        assert all(np.array_equal(after[name], loaded[name]) for name in loaded)

    def test_threads_are_those_of_the_worker_that_computes(self):
        for threads in (1, 2):
            backend = FrameworkBackend(Session(threads=threads))
            backend.build(ModelSpec(architecture="resnet18_v2", classes=2, image_size=SIZE))
            backend.configure_optimizer(Optimizer(learning_rate=0.1))
            assert backend.settings()["threads"] == threads


class TestTraining:
    def test_only_the_head_is_recorded_when_only_it_trains(self, batch):
        backend = make()
        images = backend.to_host_batch(*batch)
        recorded = {}
        for first in ("all", "head"):
            backend.set_trainable(Trainable(first=first))
            _, loss, _ = backend._forward_loss(images)
            recorded[first] = mx.autograd.get_symbol(loss)
        assert len(recorded["all"].list_arguments()) > 40  # every convolution and batch norm is in the graph
        assert len(recorded["head"].list_arguments()) == 4  # codes, labels, the head's weight and bias
        for name, parameter in backend._tensors.items():
            if not name.startswith("head."):
                with pytest.raises(RuntimeError, match="grad_req='null'"):
                    parameter.grad()

    def test_the_head_s_gradient_on_frozen_codes_is_known(self, batch):
        """Softmax minus one-hot, times the codes."""
        backend = make()
        backend.set_trainable(Trainable(first="head"))
        images = backend.to_host_batch(*batch)
        codes, logits = backend.to_numpy(backend.features(images)), backend.to_numpy(backend.logits(images))
        softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax /= softmax.sum(axis=1, keepdims=True)
        error = (softmax - np.eye(3, dtype=np.float32)[batch[1]]) / len(logits)
        gradients = backend.gradients(images)
        assert gradients["head.weight"] == pytest.approx(error.T @ codes, abs=1e-6)
        assert gradients["head.bias"] == pytest.approx(error.sum(axis=0), abs=1e-6)

    def test_freezing_below_a_block_leaves_the_gradients_above_it(self, batch):
        """On stored statistics the function is the same whatever trains, and so are its gradients."""
        backend = make()
        images = backend.to_host_batch(*batch)
        backend.set_trainable(Trainable(batch_norm="stored"))
        expected = backend.gradients(images)
        backend.set_trainable(Trainable(first="layer4", batch_norm="stored"))
        gradients = backend.gradients(images)
        assert {name.split(".")[0] for name in gradients} == {"layer4", "bn2", "head"}
        for name, gradient in gradients.items():
            assert np.abs(gradient - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max(), name

    def test_the_leading_statistics_move_as_mxnet_moves_the_others(self, batch):
        backend = make()
        images = 2 * batch[0] + 1
        backend.configure_optimizer(Optimizer(learning_rate=0.01))
        backend.train_step(backend.to_host_batch(images, batch[1]))
        moved = backend.export_weights()
        assert moved["bn0.running_mean"] == pytest.approx(0.1 * images.mean(axis=(0, 1, 2)), abs=1e-6)
        variance = 0.9 + 0.1 * images.var(axis=(0, 1, 2), dtype=np.float64)  # biased, as MXNet's on the CPU
        assert moved["bn0.running_var"] == pytest.approx(variance, rel=1e-5)

    def test_momentum_under_a_schedule_keeps_the_rate_outside_the_velocity(self, batch):
        backend = make()
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(
            Optimizer(learning_rate=0.5, momentum=0.5, schedule=InverseTime(decay=1.0))
        )
        images = backend.to_host_batch(*batch)
        velocity = np.zeros((3, 512), np.float32)
        for step in range(4):
            before = backend.export_weights()["head.weight"]
            velocity = 0.5 * velocity + backend.gradients(images)["head.weight"]
            backend.train_step(images)
            change = backend.export_weights()["head.weight"] - before
            assert np.abs(change + 0.5 / (1 + step) * velocity).max() < 1e-5 * np.abs(velocity).max()

    def test_nesterov_momentum_is_refused(self):
        with pytest.raises(UsageError, match="Nesterov"):
            make().configure_optimizer(Optimizer(learning_rate=0.1, momentum=0.9, nesterov=True))


# --- The official checkpoint --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that a local server offers as MXNET_GLUON_REPO; the folder of the models in it."""
    root = tmp_path / "mirror"
    models = root / "gluon" / "models"
    models.mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
        yield models
        server.shutdown()
        thread.join()


class TestOfficialWeights:
    def test_gluoncv_knows_the_published_hash(self):
        assert model_store._model_sha1["resnet18_v2"] == SHA1

    def test_a_closed_network_says_in_one_line_what_to_do(self, home, monkeypatch, capfd):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{port}")
        ways_out = rf"127\.0\.0\.1:{port}/gluon/models/resnet18_v2-a81db45f\.zip.*MXNET_GLUON_REPO.*--weights"
        with pytest.raises(WeightsError, match=ways_out) as raised:
            make().load_official()
        assert "\n" not in str(raised.value)
        assert _files(home) == []
        assert "".join(capfd.readouterr()) == ""

    @pytest.mark.parametrize("served", ["garbage", "another checkpoint", "nothing"])
    def test_what_is_not_the_published_file_is_refused_and_removed(self, home, mirror, served, capfd):
        archive = mirror / "resnet18_v2-a81db45f.zip"
        if served == "garbage":
            archive.write_bytes(b"<html>Please log in</html>")
        elif served == "another checkpoint":
            with zipfile.ZipFile(archive, "w") as packed:
                packed.writestr("resnet18_v2-a81db45f.params", b"weights of something else")
        with pytest.raises(WeightsError, match="could not be fetched and verified") as raised:
            make().load_official()
        assert "\n" not in str(raised.value)
        assert _files(home) == []
        assert "".join(capfd.readouterr()) == ""

    def test_the_features_are_taken_over_and_the_output_is_new(self, home, mirror, monkeypatch, tmp_path):
        published = make(classes=1000, seed=1)
        file = tmp_path / "published.params"
        published._network.save_parameters(str(file))
        sha1 = hashlib.sha1(file.read_bytes()).hexdigest()
        monkeypatch.setitem(model_store._model_sha1, "resnet18_v2", sha1)
        with zipfile.ZipFile(mirror / f"resnet18_v2-{sha1[:8]}.zip", "w") as packed:
            packed.write(file, f"resnet18_v2-{sha1[:8]}.params")
        backend = make(seed=2)
        new = backend.export_weights()
        assert backend.load_official() == f"resnet18_v2-{sha1[:8]}.params"
        expected, loaded = published.export_weights(), backend.export_weights()
        for name, tensor in loaded.items():
            source = new if name.startswith("head.") else expected
            assert np.array_equal(tensor, source[name]), name
        assert loaded["head.weight"].shape == (3, 512)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- The input pipeline -------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path) -> ImageList:
    """Eight noise images of every colour mode that a JPEG or PNG file comes in."""
    pixels = np.random.RandomState(0).randint(0, 256, (8, 48, 56, 3), dtype=np.uint8)
    modes = ["RGB", "L", "CMYK", "RGB", "RGBA", "P", "LA", "RGB"]
    files = []
    (tmp_path / "a").mkdir()
    for index, (image, mode) in enumerate(zip(pixels, modes, strict=True)):
        files.append(f"a/{index}.{'jpg' if index < 4 else 'png'}")
        Image.fromarray(image).convert(mode).save(tmp_path / files[-1])
    return ImageList(root=str(tmp_path), files=tuple(files), labels=(0,) * 8, classes=("a",))


def epoch(images: ImageList, *, workers: int = 0, training: bool = False) -> list[np.ndarray]:
    backend = FrameworkBackend(Session(seed=4, input_workers=workers))
    pipeline = backend.input_pipeline(
        images, Transform(size=SIZE, resize=36), batch_size=3, training=training
    )
    return [backend.to_numpy(batch[0]) for batch in pipeline]


class TestInput:
    def test_every_colour_mode_becomes_three_channels(self, photographs):
        assert [batch.shape for batch in epoch(photographs)] == [(n, 3, SIZE, SIZE) for n in (3, 3, 2)]

    def test_the_number_of_workers_does_not_change_what_is_seen(self, photographs):
        alone, shared = (epoch(photographs, workers=workers, training=True) for workers in (0, 2))
        assert all(np.array_equal(a, b) for a, b in zip(alone, shared, strict=True))

    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("content", [b"no image", b"", None], ids=["garbage", "empty", "missing"])
    def test_an_image_that_cannot_be_read_is_named(self, photographs, content, workers):
        damaged = Path(photographs.root, photographs.files[4])
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        text = rf"image {damaged} cannot be read \(.+\); replace or remove it"
        with pytest.raises(DataError, match=text) as raised:
            epoch(photographs, workers=workers)
        assert "\n" not in str(raised.value)
