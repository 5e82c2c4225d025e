from __future__ import annotations

import hashlib
import http.server
import re
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from backends.base import DataError
from benchmarks.harness.images import archive, data
from benchmarks.harness.profile import PROFILES, Profile

ALL = PROFILES["full"]


def zipped(folder: Path, target: Path, *, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    return target


class TestOpen:
    def test_a_folder_is_counted_in_order(self, data_folder):
        images = data.open_data(str(data_folder), ALL)
        assert images.classes == ("blue", "red")
        assert images.train.files[:2] == ("blue/0.jpg", "blue/1.jpg")
        assert images.test.labels == (0,) * 5 + (1,) * 5
        assert (images.name, len(images.train.files)) == ("set", 20)

    @pytest.mark.parametrize("name", ["valid", "val"])
    def test_the_second_split_may_have_another_name(self, data_folder, name):
        (data_folder / "test").rename(data_folder / name)
        assert len(data.open_data(str(data_folder), ALL).test.files) == 10

    def test_a_zip_is_the_same_as_its_folder(self, data_folder, tmp_path):
        archive_path = zipped(data_folder, tmp_path / "z.zip", prefix="hotdog/")
        assert data.open_data(str(archive_path), ALL).sha256 == data.open_data(str(data_folder), ALL).sha256

    def test_a_profile_takes_the_first_of_each_class(self, data_folder):
        few = Profile(
            name="few", purpose="", image_size=32, batch_size=4, train_per_class=3, test_per_class=2,
            epochs=None, timing_seconds=1, parts_seconds=1, timing_attempts=1, inference_batches=(),
        )  # fmt: skip
        images = data.open_data(str(data_folder), few)
        assert images.train.labels == (0, 0, 0, 1, 1, 1)
        assert images.sha256 != data.open_data(str(data_folder), ALL).sha256

    def test_one_changed_byte_changes_the_hash(self, data_folder):
        before = data.open_data(str(data_folder), ALL).sha256
        file = data_folder / "train/red/0.jpg"
        file.write_bytes(file.read_bytes() + b"\0")
        assert data.open_data(str(data_folder), ALL).sha256 != before

    def test_hidden_files_are_passed_over(self, data_folder):
        (data_folder / "train/red/.DS_Store").write_bytes(b"x")
        assert len(data.open_data(str(data_folder), ALL).train.files) == 20

    def test_the_drawn_set_has_both_classes(self):
        few = Profile(
            name="few", purpose="", image_size=32, batch_size=4, train_per_class=2, test_per_class=1,
            epochs=None, timing_seconds=1, parts_seconds=1, timing_attempts=1, inference_batches=(),
        )  # fmt: skip
        seen: list[tuple[str, int, int]] = []
        images = data.open_data("sketch", few, lambda *event: seen.append(event))
        assert images.classes == ("hotdog", "not-hotdog")
        assert seen[-1][1:] == (6, 6)
        assert data.open_data("sketch", few).sha256 == images.sha256

    def test_the_photographs_run_as_they_are(self, photographs):
        images = data.open_data(str(photographs), PROFILES["cpu"])
        assert images.classes == ("hotdog", "not-hotdog")
        assert [images.train.labels.count(label) for label in (0, 1)] == [1000, 1000]
        assert [images.test.labels.count(label) for label in (0, 1)] == [400, 400]


class TestBadData:
    def refuses(self, path: Path, text: str) -> None:
        with pytest.raises(DataError, match=text) as caught:
            data.open_data(str(path), ALL)
        assert "\n" not in str(caught.value)

    def test_nothing_there(self, tmp_path):
        self.refuses(tmp_path / "none", "no such folder or zip; give sketch, sketch-five, hotdog, or a path")

    def test_no_splits(self, tmp_path):
        (tmp_path / "train").mkdir()
        self.refuses(tmp_path, "needs train/<class>")

    def test_an_empty_class_is_named(self, data_folder):
        (data_folder / "train/green").mkdir()
        self.refuses(data_folder, "train/green: this class is empty")

    def test_one_class_only(self, data_folder):
        (data_folder / "train/blue").rename(data_folder / "blue")
        self.refuses(data_folder, "only the class 'red'")

    def test_splits_with_other_classes(self, data_folder):
        (data_folder / "test/red").rename(data_folder / "test/rot")
        self.refuses(data_folder, "train has the classes blue, red but test has blue, rot")

    def test_a_file_that_is_no_image(self, data_folder):
        (data_folder / "train/red/notes.txt").write_text("x")
        self.refuses(data_folder, r"notes\.txt: not one of \.jpg")

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0" + b"\0" * 50])
    def test_an_unreadable_image_is_named(self, data_folder, content):
        (data_folder / "test/red/1.jpg").write_bytes(content)
        self.refuses(data_folder, r"test/red/1\.jpg: cannot be decoded")

    def test_a_truncated_image_is_named_whatever_a_framework_told_pillow(self, data_folder, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        file = data_folder / "test/red/1.jpg"
        file.write_bytes(file.read_bytes()[:-200])
        self.refuses(data_folder, r"test/red/1\.jpg: cannot be decoded")

    @pytest.mark.parametrize("side", [11_000, 20_000])  # above our limit, and above Pillow's
    def test_a_decompression_bomb_is_named(self, data_folder, side):
        Image.new("1", (side, side)).save(data_folder / "train/red/bomb.png")
        self.refuses(data_folder, r"bomb\.png: .*pixels")

    def test_a_bad_image_is_found_again_the_second_time(self, data_folder):
        (data_folder / "test/red/1.jpg").write_bytes(b"x")
        for _ in range(2):
            self.refuses(data_folder, "cannot be decoded")


class TestArchives:
    @pytest.mark.parametrize(
        "name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "C:/evil.jpg", "a\\..\\evil.jpg"]
    )
    def test_a_member_outside_is_refused_and_nothing_stays(self, tmp_path, cache, name):
        path = tmp_path / "z.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("train/a/1.jpg", b"x")
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            file.writestr(info, b"x")
        with pytest.raises(DataError, match=re.escape(name.split("/")[-1].split("\\")[-1])):
            data.open_data(str(path), ALL)
        assert not list(cache.rglob("*.jpg")) and not list(tmp_path.rglob("evil*"))

    def test_a_link_is_refused(self, tmp_path):
        info = zipfile.ZipInfo("train/a/link.jpg")
        info.external_attr = (0o120777 << 16) | 0
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
            file.writestr(info, "/etc/passwd")
        with pytest.raises(DataError, match="is a link"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_bomb_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("train/a/1.bmp", b"\0" * 5_000_000)
        with pytest.raises(DataError, match="unpacks to 5000000 bytes"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")

    @pytest.mark.parametrize("keep", [0.3, 0.9])
    def test_a_truncated_zip_is_refused_and_nothing_stays(self, data_folder, tmp_path, keep):
        whole = zipped(data_folder, tmp_path / "z.zip").read_bytes()
        (tmp_path / "z.zip").write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(DataError, match="not a whole zip file"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))

    def test_damage_inside_a_member_is_found(self, data_folder, tmp_path):
        content = bytearray(zipped(data_folder, tmp_path / "z.zip").read_bytes())
        content[300] ^= 0xFF
        (tmp_path / "z.zip").write_bytes(bytes(content))
        with pytest.raises(DataError, match="not a whole zip file"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_zip_or_an_error_of_ours(self, tmp_path_factory, content):
        folder = tmp_path_factory.mktemp("any")
        (folder / "z.zip").write_bytes(content)
        with pytest.raises(DataError):
            archive.unpack(folder / "z.zip", folder / "out")


class TestFetch:
    @pytest.fixture
    def server(self, tmp_path):
        """A local HTTP server on a folder; yields the folder and the address."""
        folder = tmp_path / "served"
        folder.mkdir()

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, directory=str(folder), **kwargs)

            def log_message(self, *args):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            yield folder, f"http://127.0.0.1:{running.server_address[1]}"
            running.shutdown()

    def test_the_second_mirror_serves_when_the_first_does_not(self, server, data_folder, cache):
        folder, address = server
        content = zipped(data_folder, folder / "hotdog.zip").read_bytes()
        sha1 = hashlib.sha1(content).hexdigest()
        path = data.fetch_hotdog((f"{address}/missing.zip", f"{address}/hotdog.zip"), sha1)
        assert path.read_bytes() == content
        (folder / "hotdog.zip").unlink()
        assert data.fetch_hotdog((f"{address}/hotdog.zip",), sha1) == path  # from the cache

    def test_a_wrong_hash_is_refused_and_nothing_stays(self, server, cache):
        folder, address = server
        (folder / "hotdog.zip").write_bytes(b"something else")
        with pytest.raises(DataError, match=r"wrong hash.*--data PATH") as caught:
            data.fetch_hotdog((f"{address}/hotdog.zip",), "0" * 40)
        assert "\n" not in str(caught.value)
        assert not [path for path in (cache / "downloads").rglob("*") if path.is_file()]

    def test_no_network_is_one_line_with_a_way_out(self):
        with pytest.raises(DataError, match=r"could not be fetched .*--data sketch") as caught:
            data.fetch_hotdog(("http://127.0.0.1:9/hotdog.zip",))
        assert "\n" not in str(caught.value)


def test_the_contact_sheet_shows_the_first_and_the_last_eight(data_folder):
    sheet = data.contact_sheet(data.open_data(str(data_folder), ALL).train)
    top, bottom = sheet.getpixel((40, 80)), sheet.getpixel((40, 250))
    assert top[2] > top[0] and bottom[0] > bottom[2]  # blue comes first, red last
