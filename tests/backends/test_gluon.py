"""What only the Gluon backend promises, beyond the contract."""

from __future__ import annotations

import hashlib
import http.server
import math
import resource
import signal
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import (
    DataError,
    DeviceError,
    ImageList,
    ModelSpec,
    Session,
    Trainable,
    Transform,
    WeightsError,
)
from backends.optimizers import SGD, Adam, InverseTime, RMSprop, StepDecay, schedule_factor

GLUON = backends.resolve("gluon")
mx = pytest.importorskip("mxnet", reason="MXNet is not installed in this environment")
FrameworkBackend = backends.load(GLUON)
mixed = pytest.importorskip("backends.gluon.precision")
threads = pytest.importorskip("backends.gluon.threads")
SameConv2D = pytest.importorskip("backends.gluon.efficientnet_lite0").SameConv2D
model_zoo = pytest.importorskip("gluoncv.model_zoo")
model_store = pytest.importorskip("gluoncv.model_zoo.model_store")

SIZE = 32  # pixels
ARCHITECTURE = "resnet18_v2"


@pytest.mark.parametrize("flags", ["flags : sse avx avx2 fma", "flags : avx avx512f avx512bw"])
def test_a_processor_without_kernels_is_named_before_anything_is_built(monkeypatch, tmp_path, flags):
    monkeypatch.setattr(mixed, "PROCESSOR", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(flags)
    session = Session(precision="bfloat16", variant="tuned")
    if "avx512bw" in flags:
        FrameworkBackend(session)
    else:
        with pytest.raises(DeviceError, match=r"AVX-512 only, .*--precision float32"):
            FrameworkBackend(session)
    FrameworkBackend(Session(variant="tuned"))


def make(*, seed: int = 0, track: str = "native", precision: str = "float32", **spec):
    backend = FrameworkBackend(Session(seed=seed, threads=2, track=track, precision=precision))
    backend.build(ModelSpec(**{"architecture": ARCHITECTURE, "classes": 3, "image_size": SIZE, **spec}))
    return backend


@pytest.fixture
def batch():
    images = np.random.RandomState(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)
    return images, np.arange(8, dtype=np.int64) % 3


class TestNetwork:
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

    def test_threads_are_those_of_the_worker_that_computes_and_never_more_than_before(self, monkeypatch):
        """oneDNN's primitives, which MXNet keeps, have room for as many as there were when they were made."""
        monkeypatch.setattr(threads, "_fewest", math.inf)
        for asked, in_force in ((2, 2), (1, 1), (2, 1)):
            threads.use(asked)
            assert threads.in_use() == in_force

    @pytest.mark.parametrize("size", [4, 5, 6, 7, 9])
    @pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
    def test_same_padding_is_tensorflow_s(self, kernel, stride, size):
        """As a convolution of an image that has its rows of zeros already, the odd one below."""
        layer = SameConv2D(2, 4, kernel=kernel, stride=stride, before=size, groups=2)
        layer.initialize(mx.init.Normal(1))
        images = mx.nd.random.normal(shape=(1, 2, size, size))
        outputs = -(-size // stride)
        zeros = max((outputs - 1) * stride + kernel - size, 0)
        above, below = zeros // 2, zeros - zeros // 2
        padded = np.pad(images.asnumpy(), ((0, 0), (0, 0), (above, below), (above, below)))
        expected = mx.nd.Convolution(
            mx.nd.array(padded),
            layer.weight.data(),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            num_filter=4,
            num_group=2,
            no_bias=True,
        )
        assert layer(images).shape == (1, 4, outputs, outputs) and layer.size == outputs
        assert layer(images).asnumpy() == pytest.approx(expected.asnumpy(), abs=1e-5)

    def test_batch_norms_know_the_pixels_of_their_input(self):
        backend = make(track="matched", architecture="efficientnet_lite0", image_size=75)
        sides = [int(area**0.5) for area in backend._areas.values()]
        assert sides == [38] * 4 + [19] * 6 + [10] * 6 + [5] * 18 + [3] * 15


class TestTraining:
    def test_only_the_head_is_recorded_when_only_it_trains(self, batch):
        backend = make()
        images = backend.to_host_batch(*batch)
        recorded = {}
        for first in ("all", "head"):
            backend.set_trainable(Trainable(first=first))
            _, loss = backend._forward_loss(*images)
            recorded[first] = mx.autograd.get_symbol(loss)
        assert len(recorded["all"].list_arguments()) > 40  # every convolution and batch norm is in the graph
        assert len(recorded["head"].list_arguments()) == 4  # codes, labels, the head's weight and bias
        for name, parameter in backend._tensors.items():
            if not name.startswith("head."):
                with pytest.raises(RuntimeError, match="grad_req='null'"):
                    parameter.grad()

    def test_an_epoch_s_steps_are_queued_as_they_are_computed(self):
        """Not all at once: MXNet's queue would take them, and hold their batches."""
        backend = make(track="matched", image_size=64)
        random = np.random.RandomState(0)
        batch = random.standard_normal((16, 64, 64, 3)).astype(np.float32), np.arange(16) % 3
        backend.set_trainable(Trainable())
        backend.configure_optimizer(SGD(learning_rate=0.01))
        on_device = backend.to_host_batch(*batch)
        backend.train_step(on_device)
        backend.synchronize()
        stop = backend.stopwatch()
        start = time.perf_counter()
        for _ in range(10):
            backend.train_step(on_device)
        queued = time.perf_counter() - start
        assert queued > stop() / 2

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
        backend.configure_optimizer(SGD(learning_rate=0.01))
        backend.train_step(backend.to_host_batch(images, batch[1]))
        moved = backend.export_weights()
        assert moved["bn0.running_mean"] == pytest.approx(0.1 * images.mean(axis=(0, 1, 2)), abs=1e-6)
        variance = 0.9 + 0.1 * images.var(axis=(0, 1, 2), dtype=np.float64)  # biased, as MXNet's on the CPU
        assert moved["bn0.running_var"] == pytest.approx(variance, rel=1e-5)

    def test_one_value_to_a_channel_has_no_variance_to_correct(self):
        """At 32 pixels the last stage has one for each image."""
        backend = make(track="matched", architecture="resnet18")
        backend.configure_optimizer(SGD(learning_rate=0.01))
        before = backend.export_weights()["layer4.1.bn2.running_var"]
        image = np.random.RandomState(0).randint(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
        backend.train_step(backend.to_host_batch(image, np.zeros(1, np.int64)))
        after = backend.export_weights()
        assert after["layer4.1.bn2.running_var"] == pytest.approx(0.9 * before)
        assert all(np.isfinite(tensor).all() for tensor in after.values())

    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("schedule", [InverseTime(decay=1.0), StepDecay(steps=2, factor=0.25)])
    def test_momentum_under_a_schedule_keeps_the_rate_outside_the_velocity(self, batch, schedule, nesterov):
        """In the native track too."""
        backend = make()
        backend.set_trainable(Trainable(first="head"))
        backend.configure_optimizer(
            SGD(learning_rate=0.5, momentum=0.5, nesterov=nesterov, schedule=schedule)
        )
        images = backend.to_host_batch(*batch)
        velocity = np.zeros((3, 512), np.float32)
        for step in range(4):
            before = backend.export_weights()["head.weight"]
            gradient = backend.gradients(images)["head.weight"]
            velocity = 0.5 * velocity + gradient
            backend.train_step(images)
            change = backend.export_weights()["head.weight"] - before
            rate, rounding = 0.5 * schedule_factor(schedule, step), 1e-5 * np.abs(velocity).max()
            ahead = gradient + 0.5 * velocity if nesterov else velocity
            assert np.abs(change + rate * ahead).max() < rounding
            assert np.abs(backend.moments()["velocity of head.weight"] - velocity).max() < rounding

    def test_the_native_track_says_that_its_variances_are_biased(self):
        backend = make()
        backend.configure_optimizer(SGD(learning_rate=0.1))
        assert backend.settings()["batch_norm"]["running_variance"] == "biased"

    @pytest.mark.parametrize(
        ("optimizer", "native", "matched"),
        [
            (SGD(learning_rate=0.1), "SGD", "SGD"),
            (SGD(learning_rate=0.1, momentum=0.9, schedule=StepDecay(steps=2, factor=0.1)), "SGD", "SGD"),
            (SGD(learning_rate=0.1, schedule=InverseTime(decay=1.0)), "SGD", "MatchedSGD"),
            (SGD(learning_rate=0.1, momentum=0.9, nesterov=True), "NAG", "MatchedSGD"),
            (RMSprop(learning_rate=0.1), "RMSProp", "MatchedRMSProp"),
            (Adam(learning_rate=0.1), "Adam", "MatchedAdam"),
        ],
    )
    def test_mxnet_s_own_kernels_are_left_where_they_are_not_what_is_defined(
        self, optimizer, native, matched
    ):
        for track, name in (("native", native), ("matched", matched)):
            backend = make(track=track)
            backend.configure_optimizer(optimizer)
            module = "backends.gluon" if name.startswith("Matched") else "mxnet"
            assert backend.settings()["optimizer"]["class"] == f"{module}.optimizer.{name}"


class TestFeatures:
    def test_those_of_a_block_run_as_one_graph_that_is_made_once(self, batch):
        backend = make()
        images = backend.to_host_batch(*batch)
        first = backend.to_numpy(backend.features(images, "layer2"))
        part = backend._up_to["layer2"]
        graph = part._cached_op
        assert graph is not None
        assert np.array_equal(backend.to_numpy(backend.features(images, "layer2")), first)
        assert backend._up_to["layer2"] is part and part._cached_op is graph

    def test_they_follow_the_network_that_is_built_and_its_weights(self, batch):
        backend, other = make(seed=1), make(seed=2)
        images = backend.to_host_batch(*batch)
        backend.to_numpy(backend.features(images, "layer1"))
        expected = other.to_numpy(other.features(images, "layer1"))
        backend.load_weights(other.export_weights(), head=True)
        assert np.array_equal(backend.to_numpy(backend.features(images, "layer1")), expected)
        backend.build(ModelSpec(architecture="resnet18", classes=2, image_size=SIZE))
        found = backend.to_numpy(backend.features(images, "layer1"))
        outputs = backend.block_outputs(images)["layer1"]
        assert found == pytest.approx(outputs.mean(axis=(2, 3)), abs=1e-5)

    def test_those_of_vgg16_s_own_layers_are_not_averaged(self, batch):
        backend = make(architecture="vgg16", head="fc6-fc7")
        images = backend.to_host_batch(*batch)
        outputs = backend.block_outputs(images)
        for layer in ("fc6", "fc7"):
            found = backend.to_numpy(backend.features(images, layer))
            assert found == pytest.approx(outputs[layer], rel=1e-4, abs=1e-6)


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
    @pytest.mark.parametrize(
        ("name", "sha1"),
        [
            ("resnet18_v1", "a0666292f0a30ff61f857b0b66efc0228eb6a54b"),
            ("resnet18_v2", "a81db45fd7b7a2d12ab97cd88ef0a5ac48b8f657"),
            ("vgg16", "e660d4569ccb679ec68f1fd3cce07a387252a90a"),
        ],
    )
    def test_gluoncv_knows_the_published_hashes(self, name, sha1):
        assert model_store._model_sha1[name] == sha1

    def test_there_are_none_of_efficientnet_lite0(self):
        with pytest.raises(WeightsError, match=r"efficientnet_lite0: nobody has published.*--weights"):
            make(architecture="efficientnet_lite0").load_official()

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

    @pytest.mark.parametrize("head", [False, True])
    def test_the_features_are_taken_over_and_the_head_if_asked(
        self, home, mirror, monkeypatch, tmp_path, head
    ):
        published = make(classes=1000, seed=1, architecture="resnet18")
        file = tmp_path / "published.params"
        published.save_checkpoint(file)
        sha1 = hashlib.sha1(file.read_bytes()).hexdigest()
        monkeypatch.setitem(model_store._model_sha1, "resnet18_v1", sha1)
        with zipfile.ZipFile(mirror / f"resnet18_v1-{sha1[:8]}.zip", "w") as packed:
            packed.write(file, f"resnet18_v1-{sha1[:8]}.params")
        backend = make(classes=1000 if head else 3, seed=2, architecture="resnet18")
        new = backend.export_weights()
        assert backend.load_official(head=head) == f"resnet18_v1-{sha1[:8]}.params"
        expected, loaded = published.export_weights(), backend.export_weights()
        for name, tensor in loaded.items():
            source = new if name.startswith("head.") and not head else expected
            assert np.array_equal(tensor, source[name]), name


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- `.params` files ----------------------------------------------------------------------------------------


def _array(values: np.ndarray, version: str) -> bytes:
    """An array as MXNet wrote it over the years."""
    axes, shape = values.ndim, values.shape
    head = {
        "first": struct.pack(f"<I{axes}I", axes, *shape),
        "legacy shape": struct.pack(f"<Ii{axes}q", 0xF993FAC8, axes, *shape),
        "with storage": struct.pack(f"<Iii{axes}q", 0xF993FAC9, 0, axes, *shape),
        "numpy shape": struct.pack(f"<Iii{axes}q", 0xF993FACA, 0, axes, *shape),
    }[version]
    return head + struct.pack("<iii", 1, 0, 0) + values.astype("<f4").tobytes()


def _params(tensors: dict[str, np.ndarray], version: str) -> bytes:
    names = [name.encode() for name in tensors]
    return b"".join(
        [
            struct.pack("<QQQ", 0x112, 0, len(tensors)),
            *(_array(values, version) for values in tensors.values()),
            struct.pack("<Q", len(names)),
            *(struct.pack("<Q", len(name)) + name for name in names),
        ]
    )


class TestFiles:
    @pytest.mark.parametrize("version", ["first", "legacy shape", "with storage", "numpy shape"])
    def test_every_version_is_read_as_mxnet_reads_it(self, version, tmp_path):
        source, target = make(seed=1), make(seed=2)
        own, path = source._network._collect_params_with_prefix(), tmp_path / "old.params"
        path.write_bytes(_params({name: p.data().asnumpy() for name, p in own.items()}, version))
        with mx.util.np_shape(version == "numpy shape"):
            theirs = mx.nd.load(str(path))
        assert all(np.array_equal(theirs[name].asnumpy(), p.data().asnumpy()) for name, p in own.items())
        target.load_checkpoint(path)
        expected, loaded = source.export_weights(), target.export_weights()
        assert all(np.array_equal(loaded[name], expected[name]) for name in expected)

    @pytest.mark.parametrize("architecture", GLUON.architectures)
    @pytest.mark.parametrize("writer", ["export", "save_params"])
    def test_layers_own_names_are_understood(self, architecture, writer, tmp_path):
        make(architecture=architecture)  # networks are numbered, and so are the names of their layers
        source, target = (make(architecture=architecture, seed=seed) for seed in (1, 2))
        if writer == "export":
            source._network(mx.nd.zeros((1, 3, SIZE, SIZE)))
            source._network.export(str(tmp_path / "network"))
        else:
            source._network.collect_params().save(str(tmp_path / "network-0000.params"))
        target.load_checkpoint(tmp_path / "network-0000.params")
        expected, loaded = source.export_weights(), target.export_weights()
        assert all(np.array_equal(loaded[name], expected[name]) for name in expected)

    @pytest.mark.parametrize("entry", ["images", "features"])
    def test_the_names_of_a_head_s_layers_do_not_know_of_its_dropout(self, entry, tmp_path):
        head = {
            "architecture": "resnet18",
            "entry": entry,
            "head": "mlp-256",
            "output": "sigmoid",
            "classes": 2,
        }
        source, target = make(seed=1, dropout=0.5, **head), make(seed=2, **head)
        source._network.collect_params().save(str(tmp_path / "layers.params"))
        source.save_checkpoint(tmp_path / "places.params")
        expected = source.export_weights()
        for file in ("layers.params", "places.params"):
            target.load_weights({name: 0 * tensor for name, tensor in expected.items()}, head=True)
            target.load_checkpoint(tmp_path / file)
            loaded = target.export_weights()
            assert all(np.array_equal(loaded[name], expected[name]) for name in expected)
            if entry == "images":
                found = FrameworkBackend.inspect_checkpoint(tmp_path / file, "resnet18")
                assert (found.classes, found.head, found.output) == (2, "mlp-256", "sigmoid")

    def test_a_user_s_new_output_is_the_head(self, tmp_path):
        network = model_zoo.get_model("resnet18_v2", classes=1000)
        with network.name_scope():
            network.output = mx.gluon.nn.Dense(7)
        network.initialize()
        network.hybridize()
        network(mx.nd.zeros((1, 3, SIZE, SIZE)))
        network.save_parameters(str(tmp_path / "places.params"))
        network.export(str(tmp_path / "layers"))
        for file in ("places.params", "layers-0000.params"):
            spec = FrameworkBackend.inspect_checkpoint(tmp_path / file, "resnet18_v2")
            assert (spec.classes, spec.head) == (7, "linear")
            backend = make(classes=7)
            backend.load_checkpoint(tmp_path / file)
            assert np.array_equal(
                backend.export_weights()["head.weight"], network.output.weight.data().asnumpy()
            )

    def test_a_deeper_network_is_not_taken_for_this_one(self, tmp_path):
        network = model_zoo.get_model("resnet34_v2", classes=3)
        network.initialize()
        network(mx.nd.zeros((1, 3, SIZE, SIZE)))
        network.save_parameters(str(tmp_path / "deeper.params"))
        with pytest.raises(WeightsError, match=r"resnet18_v2 .* has no tensor 'features\.5\.2\.bn1\.gamma'"):
            make().load_checkpoint(tmp_path / "deeper.params")

    @pytest.mark.parametrize("end", range(0, 200, 7))
    def test_a_file_that_ends_early_is_refused_wherever_it_does(self, end, tmp_path):
        tensors = {"features.0.gamma": np.ones(3, np.float32), "output.weight": np.ones((2, 5), np.float32)}
        whole, path = _params(tensors, "with storage"), tmp_path / "short.params"
        assert end < len(whole)
        path.write_bytes(whole[:end])
        with pytest.raises(WeightsError, match=r"short\.params: not a whole \.params file") as raised:
            FrameworkBackend.inspect_checkpoint(path, "resnet18_v2")
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("missing", [10, 5000], ids=["the last bytes", "much"])
    def test_a_full_disk_leaves_what_was_there(self, missing, tmp_path):
        backend, path = make(), tmp_path / "weights.params"
        backend.save_checkpoint(path)
        whole = path.read_bytes()
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - missing, limits[1]))
            with pytest.raises(
                WeightsError, match=r"cannot be written \(.+\); name a folder.* 43 MB"
            ) as raised:
                backend.save_checkpoint(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert "\n" not in str(raised.value)
        assert path.read_bytes() == whole
        assert _files(tmp_path) == [path]


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
