"""What is damaged in the cache is made anew, or named in one line: it never becomes a result."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

import backends
from backends import weights
from backends.base import DataError, WeightsError
from benchmarks.harness import messages
from benchmarks.harness.cache import SEAL, kept
from benchmarks.harness.gate import scenarios
from benchmarks.harness.images import data, decoded
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import recipe_of
from benchmarks.harness.running import runner, source
from benchmarks.harness.running.progress import Display

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
ALL = PROFILES["full"]
FEW = msgspec.structs.replace(ALL, train_per_class=2, test_per_class=1)


def largest(folder: Path) -> Path:
    """The largest file below a folder."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(folder: Path) -> None:
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(folder: Path) -> None:
    os.truncate(largest(folder), 50)


def remove(folder: Path) -> None:
    largest(folder).unlink()


def add(folder: Path) -> None:
    shutil.copy(largest(folder), largest(folder).with_stem("another"))


def rename(folder: Path) -> None:
    largest(folder).rename(largest(folder).with_stem("renamed"))


def cut_seal(folder: Path) -> None:
    os.truncate(folder / SEAL, 10)


def remove_seal(folder: Path) -> None:
    (folder / SEAL).unlink()


def garbage_seal(folder: Path) -> None:
    (folder / SEAL).write_bytes(bytes(range(256)))


DAMAGES = pytest.mark.parametrize(
    "damage", [flip, cut, remove, add, rename, cut_seal, remove_seal, garbage_seal, shutil.rmtree]
)
Damage = Callable[[Path], None]


class TestKept:
    def fill(self, folder: Path) -> None:
        self.fills = getattr(self, "fills", 0) + 1
        (folder / "a").mkdir()
        (folder / "a" / "large").write_bytes(bytes(1000))
        (folder / "small").write_bytes(b"x")

    @DAMAGES
    def test_it_is_filled_once_and_again_where_it_has_changed(self, tmp_path, damage):
        target = tmp_path / "kept"
        for _ in range(2):
            assert kept(target, self.fill) == target
        assert self.fills == 1
        damage(target)
        for _ in range(2):
            kept(target, self.fill)
        assert self.fills == 2
        assert (target / "a/large").read_bytes() == bytes(1000) and (target / "small").read_bytes() == b"x"
        assert sorted(path.name for path in target.rglob("[!.]*")) == ["a", "large", "small"]
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]

    def test_hidden_files_do_not_count(self, tmp_path):
        kept(tmp_path / "kept", self.fill)
        (tmp_path / "kept/a/.DS_Store").write_bytes(b"a file manager's")
        kept(tmp_path / "kept", self.fill)
        assert self.fills == 1

    def test_what_another_process_mended_meanwhile_stays(self, tmp_path):
        target = kept(tmp_path / "kept", self.fill)
        flip(target)
        theirs: list[int] = []

        def fill_while_another_does(folder: Path) -> None:
            self.fill(folder)
            theirs.append((kept(target, self.fill) / "small").stat().st_ino)

        kept(target, fill_while_another_does)
        assert [(target / "small").stat().st_ino] == theirs

    def test_where_it_cannot_be_filled_nothing_is_taken_for_whole(self, tmp_path):
        target = kept(tmp_path / "kept", self.fill)
        cut(target)

        def full_disk(_folder: Path) -> None:
            raise OSError(28, "No space left on device")

        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                kept(target, full_disk)
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]


class TestData:
    @pytest.fixture(params=["drawn", "unpacked"])
    def spec(self, request, data_folder, tmp_path) -> str:
        if request.param == "drawn":
            return "sketch"
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
            for path in sorted(data_folder.rglob("*.jpg")):
                file.write(path, path.relative_to(data_folder))
        return str(tmp_path / "set.zip")

    @DAMAGES
    def test_images_are_made_anew(self, spec, cache, damage):
        before = data.open_data(spec, FEW)
        (folder,) = (cache / "data").iterdir()
        damage(folder)
        assert data.open_data(spec, FEW) == before
        kept_now = largest(folder).stat().st_mtime_ns
        assert data.open_data(spec, FEW) == before
        assert largest(folder).stat().st_mtime_ns == kept_now

    @pytest.mark.parametrize("content", [b"", b"\xff" * 100, None])
    def test_a_mark_says_only_that_these_very_bytes_were_decoded(self, data_folder, cache, content):
        before = data.open_data(str(data_folder), ALL)
        (mark,) = (cache / "verified").iterdir()
        mark.unlink() if content is None else mark.write_bytes(content)
        assert data.open_data(str(data_folder), ALL) == before
        cut(data_folder)
        with pytest.raises(DataError, match=r"\.jpg: cannot be decoded .*; replace or remove it"):
            data.open_data(str(data_folder), ALL)

    def test_a_damaged_download_is_not_used(self, cache):
        (cache / "downloads").mkdir()
        (cache / "downloads/hotdog.zip").write_bytes(b"half a download")
        with pytest.raises(DataError, match="could not be fetched"):
            data.fetch_hotdog(("http://127.0.0.1:9/hotdog.zip",))


class TestDecoded:
    @DAMAGES
    def test_pixels_are_decoded_again(self, data_folder, cache, damage):
        found = data.open_data(str(data_folder), ALL)
        decoded.prepare(found)
        key = decoded.key_of(found, "train")
        before = [image.tobytes() for image in opened(found.train, key)]
        damage(cache / "decoded" / f"{key}-v{decoded.VERSION}")
        decoded.prepare(found)
        assert [image.tobytes() for image in opened(found.train, key)] == before
        seen: list[object] = []
        decoded.prepare(found, lambda *event: seen.append(event))
        assert not seen


def opened(images, key: str) -> list[np.ndarray]:
    found = decoded.open_decoded(images, key, lambda *_: pytest.fail("decoded again"))
    return [found[index] for index in range(len(found))]


class TestGates:
    @pytest.mark.reference
    def test_a_damaged_one_is_compared_again(self, cache, tmp_path):
        job = messages.GateJob(
            backend=INSTALLED[0].name, network=scenarios.Network("resnet18"), modes=("frozen",), rules=(),
            device="cpu", precision="float32", variant="default", threads=1,
        )  # fmt: skip
        gates = [runner.pass_gate(job, log=tmp_path / "log", on_event=lambda _: None) for _ in range(2)]
        assert gates[0] == gates[1]  # its seconds too: it was kept
        flip(cache / "gates")
        gates.append(runner.pass_gate(job, log=tmp_path / "log", on_event=lambda _: None))
        assert gates[2].passed and gates[2].seconds != gates[0].seconds


class TestWeights:
    def test_network_a_is_trained_anew(self, cache, monkeypatch):
        """Its training alone is left out; what it would write is written."""
        recipe = recipe_of("native-resnet18-pretrain")
        trained: list[Path] = []

        def train(job, **_) -> None:
            trained.append(Path(job.target))
            weights.write(trained[-1], {"conv1.weight": np.ones((8, 8), np.float32)}, weights.Origin())

        monkeypatch.setattr(runner, "pretrain", train)
        monkeypatch.setattr(data, "SOURCE_TRAIN_PER_CLASS", 1)
        monkeypatch.setattr(data, "SOURCE_TEST_PER_CLASS", 1)
        display = Display(Console(quiet=True))
        first = source.network_a(recipe, device="cpu", display=display)
        assert source.network_a(recipe, device="cpu", display=display) == first
        flip(cache / "weights")
        assert source.network_a(recipe, device="cpu", display=display) == first
        assert trained == [Path(first.path)] * 2

    @pytest.mark.parametrize("damage", [flip, cut])
    def test_they_are_named_with_what_to_do(self, tmp_path, damage):
        path = tmp_path / "source-pytorch-resnet18-0123.safetensors"
        weights.write(path, {"conv1.weight": np.ones((8, 8), np.float32)}, weights.Origin(key="k"))
        damage(tmp_path)
        with pytest.raises(WeightsError, match=r"0123\.safetensors: .*remove it where it is the cache's own"):
            weights.read(path)
