"""Whatever is in a file of weights: an error of ours or a result, nothing else, and no code of its runs."""

from __future__ import annotations

import functools
import importlib
import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends import weights
from backends.architectures import ARCHITECTURES, shapes
from backends.base import Backend, BackendInfo, ModelSpec, Session, WeightsError
from tests.damage import damaged, examples, ours

TENSORS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "head.weight": np.ones((3, 2), np.float32),
    "head.bias": np.zeros(3, np.float32),
}


@functools.cache
def written(write: Callable[[Path], object], name: str) -> bytes:
    """The file of this name that `write` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, name))
        return Path(folder, name).read_bytes()


# --- Neutral --------------------------------------------------------------------------------------


def write_neutral(path: Path) -> None:
    weights.write(path, TENSORS, weights.Origin(architecture="resnet18", origin="a test"))


NUMBERS = st.sampled_from((0, 1, 2, 3, 4, 12, 2**31, 2**32, 2**62, 2**63, 2**64, -1, 1.5, None, "1"))
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(("F32", "F64", "F16", "BF16", "F8_E4M3", "F4", "C64", "I64", "BOOL", "", 3)),
        "shape": st.lists(NUMBERS, max_size=3) | st.just([0] * 70) | st.just([1] * 70),
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2),
    }
)
METADATA = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
HEADERS = st.dictionaries(
    st.sampled_from(("head.weight", "a", "__metadata__", "\n")), ENTRY | METADATA, max_size=3
)
VGG16 = list(shapes(ModelSpec(architecture="vgg16", classes=2, image_size=32)))
SHAPES = st.lists(st.integers(0, 4), max_size=4)


class TestNeutral:
    def read(self, path: Path, content: bytes) -> weights.Checkpoint | None:
        path.write_bytes(content)
        return ours(lambda: weights.read(path))

    @examples(400)
    @given(content=damaged(written(write_neutral, "w.safetensors")))
    def test_damaged_values_are_never_taken_for_whole(self, tmp_path, content):
        found = self.read(tmp_path / "w.safetensors", content)
        if found is not None and found.origin.content_sha256:
            assert found.origin.architecture == "resnet18" and found.tensors.keys() == TENSORS.keys()
            assert all(np.array_equal(found.tensors[name], values) for name, values in TENSORS.items())

    def test_every_flipped_bit_of_the_values_is_found(self, tmp_path):
        path, whole = tmp_path / "w.safetensors", written(write_neutral, "w.safetensors")
        for place in range(8 * sum(values.nbytes for values in TENSORS.values())):
            content = bytearray(whole)
            content[-1 - place // 8] ^= 1 << place % 8
            path.write_bytes(content)
            with pytest.raises(WeightsError, match=r"w\.safetensors: damaged, .*made anew"):
                weights.read(path)

    @examples(400)
    @given(header=HEADERS)
    def test_any_header(self, tmp_path, header):
        text = json.dumps(header).encode()
        found = self.read(tmp_path / "w.safetensors", struct.pack("<Q", len(text)) + text + bytes(16))
        assert found is None or sum(tensor.nbytes for tensor in found.tensors.values()) <= 16

    @pytest.mark.parametrize("header", [b"[" * 10**6, b'{"a":' * 10**6, b"{}", b"", b"null", b'{"\xff":1}'])
    @pytest.mark.parametrize("size", [None, 0, 2**63, 2**64 - 1])
    def test_a_header_that_is_none(self, tmp_path, header, size):
        length = struct.pack("<Q", len(header) if size is None else size)
        assert self.read(tmp_path / "w.safetensors", length + header + bytes(16)) is None

    def test_a_type_that_numpy_lacks_is_named(self, tmp_path):
        header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
        with pytest.raises(
            WeightsError, match="values of type 'BF16', which NumPy lacks; save them as float32"
        ):
            weights.read(tmp_path / "w.safetensors")

    @examples(200)
    @given(
        st.dictionaries(st.sampled_from(VGG16), SHAPES, max_size=4), st.sampled_from([*ARCHITECTURES, None])
    )
    def test_a_network_of_any_shapes(self, found, architecture):
        tensors = {name: np.zeros(shape, np.float32) for name, shape in found.items()}
        checkpoint = weights.Checkpoint(name="x", sha256="", origin=weights.Origin(), tensors=tensors)
        assert ours(lambda: weights.spec_of(checkpoint, architecture)) is None

    def test_a_head_for_no_class_at_all_is_none(self):
        spec = ModelSpec(architecture="resnet18", classes=0, image_size=32)
        tensors = {name: np.ones(shape, np.float32) for name, shape in shapes(spec).items()}
        checkpoint = weights.Checkpoint(name="x", sha256="", origin=weights.Origin(), tensors=tensors)
        with pytest.raises(WeightsError, match=r"tensor 'head\.weight' has shape \(0, 512\)"):
            weights.spec_of(checkpoint)

    @pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
    def test_values_that_are_no_weights(self, dtype):
        with pytest.raises(WeightsError, match=f"'head.bias' holds values of type {dtype}"):
            weights.select({"head.bias": np.zeros(3, dtype)}, {"head.bias": (3,)}, head=True)


# --- The frameworks' own, damaged -----------------------------------------------------------------


def write_zip(path: Path) -> None:
    torch = importlib.import_module("torch")
    torch.save({name: torch.from_numpy(values) for name, values in TENSORS.items()}, path)


def write_legacy(path: Path) -> None:
    torch = importlib.import_module("torch")
    state = {name: torch.from_numpy(values) for name, values in TENSORS.items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def write_places(path: Path) -> None:
    nd = importlib.import_module("mxnet").nd
    nd.save(str(path), {f"features.{name}": nd.array(values) for name, values in TENSORS.items()})


def write_layers(path: Path) -> None:
    nd = importlib.import_module("mxnet").nd
    nd.save(str(path), {f"arg:dense{n}_weight": nd.array(v) for n, v in enumerate(TENSORS.values())})


def write_model(path: Path) -> None:
    keras = importlib.import_module("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)])
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)


WRITERS: Mapping[str, Mapping[str, Callable[[Path], None]]] = {
    "pytorch": {"zip.pth": write_zip, "legacy.pth": write_legacy},
    "gluon": {"places.params": write_places, "layers.params": write_layers},
    "keras": dict.fromkeys(("model.h5", "model.keras", "model.weights.h5"), write_model),
}
"""Of small files in each of a framework's formats. They are of no network known here."""

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
FILES = [(card, name) for card in INSTALLED for name in WRITERS[card.name]]
SUFFIXES = [(card, suffix) for card in INSTALLED for suffix in (*card.checkpoint_suffixes, ".weights.h5")
            if suffix != ".weights.h5" or card.name == "keras"]  # fmt: skip


def card_and_name(value: object) -> str:
    return getattr(value, "name", str(value))


def built(framework: type[Backend], architecture: str = "efficientnet_lite0") -> Backend:
    backend = framework(Session())
    backend.build(ModelSpec(architecture=architecture, classes=3, image_size=32))
    return backend


@pytest.mark.filterwarnings("ignore")  # of the frameworks' readers
class TestDamaged:
    @pytest.mark.parametrize(("card", "name"), FILES, ids=card_and_name)
    def test_a_small_file_is_an_error_of_ours(self, card, name, tmp_path):
        framework, path = backends.load(card), tmp_path / name

        @examples(120)
        @given(damaged(written(WRITERS[card.name][name], name)))
        def check(content: bytes) -> None:
            path.write_bytes(content)
            assert ours(lambda: framework.inspect_checkpoint(path, card.architectures[0])) is None

        check()

    @pytest.mark.parametrize(("card", "suffix"), SUFFIXES, ids=card_and_name)
    def test_a_network_is_loaded_with_finite_values_or_not_at_all(self, card, suffix, tmp_path):
        backend, path = built(backends.load(card)), tmp_path / f"w{suffix}"
        backend.save_checkpoint(path)
        before = backend.export_weights()

        @examples(10)
        @given(damaged(path.read_bytes()))
        def check(content: bytes) -> None:
            path.write_bytes(content)
            ours(lambda: backend.inspect_checkpoint(path, "efficientnet_lite0"))
            loaded = ours(lambda: backend.load_checkpoint(path) or True)
            after = backend.export_weights()
            assert all(np.isfinite(values).all() for values in after.values())
            if not loaded:
                assert all(np.array_equal(after[name], values) for name, values in before.items())
            before.update(after)

        check()


# --- PyTorch's, hostile ---------------------------------------------------------------------------


def card_of(name: str) -> BackendInfo:
    card = backends.known()[name]
    if card not in INSTALLED:
        pytest.skip(f"{card.title} is not installed")
    return card


class Creates:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestPyTorch:
    @pytest.fixture
    def framework(self) -> type[Backend]:
        return backends.load(card_of("pytorch"))

    @pytest.fixture
    def torch(self, framework) -> Any:
        return importlib.import_module("torch")

    @pytest.mark.parametrize("kind", ["zip", "legacy", "tar", "bare pickle"])
    def test_no_code_of_the_file_runs(self, framework, torch, tmp_path, kind):
        path, proof = tmp_path / "evil.pth", tmp_path / "proof"
        content = {"conv1.weight": torch.ones(3), "evil": Creates(proof)}
        if kind in ("zip", "legacy"):
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
        elif kind == "bare pickle":
            path.write_bytes(pickle.dumps(content))
        else:  # as torch wrote them before version 0.1.10
            with tarfile.open(path, "w") as archive:
                for name in ("sys_info", "pickle", "storages", "tensors"):
                    data = pickle.dumps(Creates(proof))
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        backend = built(framework, "resnet18")
        for read in (
            lambda: framework.inspect_checkpoint(path, "resnet18"),
            lambda: backend.load_checkpoint(path),
        ):
            with pytest.raises(WeightsError, match=r"evil\.pth: not a whole PyTorch state dictionary"):
                read()
            assert not proof.exists()
        if kind in ("zip", "legacy"):
            torch.load(path, weights_only=False)  # and it would, where the loader lets it
            assert proof.exists()

    def test_a_bomb_is_not_unpacked(self, framework, torch, tmp_path):
        torch.save({"conv1.weight": torch.zeros(2**24)}, tmp_path / "whole.pth")
        whole = zipfile.ZipFile(tmp_path / "whole.pth")
        with whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in whole.namelist():
                bomb.writestr(name, whole.read(name))
        with pytest.raises(WeightsError, match=r"bomb\.pth: .*it would unpack to 671\d+ bytes"):
            framework.inspect_checkpoint(tmp_path / "bomb.pth", "resnet18")

    @pytest.mark.parametrize("kind", ["repeated", "float8", "int64", "sparse", "meta", "nested"])
    def test_a_tensor_without_ordinary_values_is_named(self, framework, torch, tmp_path, kind):
        backend, path = built(framework, "resnet18"), tmp_path / "odd.pth"
        backend.save_checkpoint(path)
        state = torch.load(path, weights_only=True)
        values = torch.zeros(3, 512)
        state["fc.weight"] = {
            "repeated": lambda: torch.zeros(1).expand(2**30, 512),
            "float8": lambda: values.to(torch.float8_e4m3fn),
            "int64": lambda: values.long(),
            "sparse": lambda: values.to_sparse(),
            "meta": lambda: values.to("meta"),
            "nested": lambda: torch.nested.nested_tensor([values, values]),
        }[kind]()
        torch.save(state, path)
        with pytest.raises(WeightsError, match=r"tensor '(fc\.weight|conv1\.weight)'"):
            framework.inspect_checkpoint(path, "resnet18")
        with pytest.raises(WeightsError, match=r"tensor 'fc\.weight'"):
            backend.load_checkpoint(path)


# --- Gluon's, hostile -----------------------------------------------------------------------------


class TestGluon:
    @pytest.mark.parametrize(
        ("axes", "shape"),
        [
            (2, (2**31, 2**31)),
            (2, (2**62, 4)),
            (1, (-1,)),
            (2, (0, 2**62)),
            (2**31 - 1, ()),
            (-1, ()),
            (0, ()),
        ],
    )
    @pytest.mark.parametrize("count", [1, 2**40])
    def test_absurd_shapes_never_reach_mxnet(self, tmp_path, axes, shape, count):
        path = tmp_path / "absurd.params"
        head = struct.pack(f"<QQQIii{len(shape)}q", 0x112, 0, count, 0xF993FAC9, 0, axes, *shape)
        path.write_bytes(head + struct.pack("<iii", 1, 0, 0) + bytes(64))
        with pytest.raises(WeightsError, match=r"absurd\.params: not a whole \.params file"):
            backends.load(card_of("gluon")).inspect_checkpoint(path, "resnet18_v2")


# --- Keras', hostile ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestKeras:
    @pytest.fixture
    def framework(self) -> type[Backend]:
        return backends.load(card_of("keras"))

    @pytest.mark.parametrize("suffix", [".h5", ".keras"])
    def test_no_code_of_a_lambda_layer_runs(self, framework, tmp_path, suffix):
        keras = importlib.import_module("keras")
        path, proof = tmp_path / f"evil{suffix}", tmp_path / "proof"
        code = f"lambda x: (open({str(proof)!r}, 'w'), x)[1]"
        model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(eval(code)), keras.layers.Dense(3)])
        proof.unlink()  # it ran when the model was made
        model.save(path)
        proof.unlink(missing_ok=True)
        with pytest.raises(WeightsError, match=r"no tensor 'block1_conv1\.weight'"):
            framework.inspect_checkpoint(path, "vgg16")
        assert not proof.exists()
        keras.saving.load_model(path, safe_mode=False)  # and it would, where Keras itself loads the model
        assert proof.exists()

    def test_a_shape_without_values_is_refused(self, framework, tmp_path):
        h5py = importlib.import_module("h5py")
        path = tmp_path / "model.h5"
        built(framework).save_checkpoint(path)
        with h5py.File(path, "a") as file:
            kernel = file["model_weights/head/head/kernel"]
            group, shape = kernel.parent, (kernel.shape[0], 2**31)
            del group["kernel"]
            group.create_dataset("kernel", shape, "f4", compression="gzip")
        with pytest.raises(
            WeightsError, match=r"model\.h5: .*kernel would take 10\d+ bytes, more than the file"
        ):
            framework.inspect_checkpoint(path, "efficientnet_lite0")

    def test_an_archive_of_zeros_is_not_unpacked(self, framework, tmp_path):
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", bytes(2**26))
        with pytest.raises(WeightsError, match=r"model\.weights\.h5 would take 67108864 bytes"):
            framework.inspect_checkpoint(path, "vgg16")

    def test_a_group_of_another_file_is_refused(self, framework, tmp_path):
        h5py = importlib.import_module("h5py")
        built(framework).save_checkpoint(tmp_path / "other.h5")
        with h5py.File(tmp_path / "model.h5", "w") as file:
            file["model_weights"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "model_weights")
        with pytest.raises(WeightsError, match="lies in another file"):
            framework.inspect_checkpoint(tmp_path / "model.h5", "efficientnet_lite0")

    @pytest.mark.parametrize(
        ("index", "size"),
        [(0, 0), (0, 15), (0, 2**40), (1, 2**40), (1, 2**63), (1, 2**64 - 16), (1, 2**64 - 1)],
    )
    def test_a_heap_without_an_end_never_reaches_the_library(self, framework, tmp_path, index, size):
        """HDF5 1.14 goes from text to text by their sizes; these would lead it in a circle."""
        path, content = tmp_path / "model.h5", bytearray(written(write_model, "model.h5"))
        heap = content.index(b"GCOL\1\0\0\0")
        content[heap + 16 : heap + 32] = struct.pack("<HH4xQ", index, 1, size)
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"model\.h5: .*its texts are damaged at byte \d+"):
            framework.inspect_checkpoint(path, "vgg16")

    def test_an_attribute_that_is_no_text_is_refused(self, framework, tmp_path):
        """The library has been seen to fall over a sequence where there were none when it was written."""
        h5py = importlib.import_module("h5py")
        with h5py.File(tmp_path / "model.h5", "w") as file:
            sequences = np.empty(1, object)
            sequences[0] = np.array([1, 2], np.int32)
            file.attrs.create("layer_names", sequences, dtype=h5py.vlen_dtype(np.int32))
        with pytest.raises(WeightsError, match="attribute 'layer_names' is no text of this file"):
            framework.inspect_checkpoint(tmp_path / "model.h5", "vgg16")

    def test_groups_that_hold_each_other_end(self, framework, tmp_path):
        """Sixty floors of two doors that lead to the same next floor: 2**60 ways through."""
        h5py = importlib.import_module("h5py")
        with h5py.File(tmp_path / "model.weights.h5", "w") as file:
            floor = file.create_group("layers")
            for _ in range(60):
                door = floor.create_group("a")
                floor["b"] = door
                floor = door.create_group("layers")
        with pytest.raises(WeightsError, match="linked twice"):
            framework.inspect_checkpoint(tmp_path / "model.weights.h5", "vgg16")
