from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from backends.base import DataError, ImageList
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images import data, decoded
from benchmarks.harness.profile import PROFILES

KEY = "some-images"


def list_of(folder: Path) -> ImageList:
    return data.list_images(folder)


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Four images of as many kinds and sizes."""
    pixels = np.arange(30 * 20 * 4, dtype=np.uint8).reshape(30, 20, 4)
    for name, image in {
        "a/gray.png": Image.fromarray(pixels[:, :, 0].copy()),
        "a/rgb.png": Image.fromarray(pixels[:25, :, :3].copy()),
        "b/alpha.png": Image.fromarray(pixels[:, :13].copy()),
        "b/palette.bmp": Image.fromarray(pixels[:7, :, :3].copy()).quantize(16),
    }.items():
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return list_of(tmp_path / "train")


def folder_of(cache: Path) -> Path:
    (folder,) = (cache / "decoded").iterdir()
    return folder


def copied(opened: decoded.Decoded) -> list[bytes]:
    return [opened[index].tobytes() for index in range(len(opened))]


class TestOpen:
    def test_pixels_are_those_of_pillow_in_file_order(self, images):
        opened = decoded.open_decoded(images, KEY)
        assert len(opened) == 4
        for index, file in enumerate(images.files):
            with Image.open(Path(images.root, file)) as image:
                np.testing.assert_array_equal(opened[index], np.asarray(image.convert("RGB")))
            assert opened[index].dtype == np.uint8 and opened[index].flags.c_contiguous

    def test_they_are_views_of_the_file_that_nobody_can_write(self, images):
        opened = decoded.open_decoded(images, KEY)
        assert np.shares_memory(opened[1], opened[1])
        with pytest.raises(ValueError, match="read-only"):
            opened[1][0, 0, 0] = 1

    def test_the_second_time_nothing_is_decoded(self, images):
        seen: list[tuple[str, int, int]] = []
        first = copied(decoded.open_decoded(images, KEY, lambda *event: seen.append(event)))
        assert seen == [("decoding the train images", done, 4) for done in (1, 2, 3, 4)]
        shutil.rmtree(images.root)
        assert copied(decoded.open_decoded(images, KEY, lambda *event: pytest.fail("decoded"))) == first

    def test_released_pixels_stay_in_reach(self, images):
        opened = decoded.open_decoded(images, KEY)
        view, before = opened[2], opened[2].tobytes()
        opened.release()
        assert view.tobytes() == opened[2].tobytes() == before

    def test_both_splits_are_prepared_under_names_of_their_own(self, data_folder, cache):
        found = data.open_data(str(data_folder), PROFILES["full"])
        decoded.prepare(found)
        assert len(list((cache / "decoded").iterdir())) == 2
        train = decoded.open_decoded(found.train, decoded.key_of(found, "train"), _never)
        test = decoded.open_decoded(found.test, decoded.key_of(found, "test"), _never)
        assert (len(train), len(test)) == (20, 10)

    def test_another_version_decodes_anew(self, images, cache, monkeypatch):
        decoded.open_decoded(images, KEY)
        monkeypatch.setattr(decoded, "VERSION", decoded.VERSION + 1)
        decoded.open_decoded(images, KEY)
        assert len(list((cache / "decoded").iterdir())) == 2


def _never(*_: object) -> None:
    pytest.fail("decoded again")


class TestLargeImages:
    @pytest.mark.parametrize(
        ("size", "kept"),
        [
            ((1300, 700), (951, 512)),
            ((600, 601), (512, 513)),
            ((512, 2000), (512, 2000)),
            ((100, 3000), (100, 3000)),
        ],
    )
    def test_the_shorter_side_is_512_at_most(self, tmp_path, size, kept):
        Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "large.png")
        pixels = decoded.decode(tmp_path / "large.png")
        assert pixels.shape == (kept[1], kept[0], 3)
        assert (pixels == (9, 8, 7)).all()

    def test_reducing_is_antialiased(self, tmp_path):
        """Every second column white: their mean is left, and not a selection of them."""
        stripes = np.zeros((2048, 2048, 3), np.uint8)
        stripes[:, ::2] = 255
        Image.fromarray(stripes).save(tmp_path / "stripes.png")
        inner = decoded.decode(tmp_path / "stripes.png")[8:-8, 8:-8]
        assert abs(inner.astype(int) - 127.5).max() <= 1

    def test_too_many_pixels_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(data, "MAX_PIXELS", 99)
        Image.new("RGB", (10, 10)).save(tmp_path / "huge.png")
        with pytest.raises(DataError, match=r"huge\.png: 10 x 10 pixels are too many"):
            decoded.decode(tmp_path / "huge.png")


def cut_pixels(folder: Path) -> None:
    os.truncate(folder / decoded.PIXELS, 100)


def longer_pixels(folder: Path) -> None:
    with (folder / decoded.PIXELS).open("ab") as stream:
        stream.write(b"\0")


def no_pixels(folder: Path) -> None:
    (folder / decoded.PIXELS).unlink()


def no_index(folder: Path) -> None:
    (folder / decoded.INDEX).unlink()


def cut_index(folder: Path) -> None:
    os.truncate(folder / decoded.INDEX, 20)


def garbage_index(folder: Path) -> None:
    (folder / decoded.INDEX).write_bytes(bytes(range(256)))


def text_that_is_not_utf8(folder: Path) -> None:
    (folder / decoded.INDEX).write_bytes(b'{"\xff\xfe": 1}')


def an_image_less(folder: Path) -> None:
    path = folder / decoded.INDEX
    index = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({name: values[:-1] for name, values in index.items()}))


def other_heights(folder: Path) -> None:
    path = folder / decoded.INDEX
    index = msgspec.json.decode(path.read_bytes())
    index["heights"][0] += 1
    path.write_bytes(msgspec.json.encode(index))


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            cut_pixels, longer_pixels, no_pixels, no_index, cut_index, garbage_index, text_that_is_not_utf8,
            an_image_less, other_heights, shutil.rmtree,
        ],
    )  # fmt: skip
    def test_what_is_damaged_is_decoded_again(self, damage, images, cache):
        before = copied(decoded.open_decoded(images, KEY))
        damage(folder_of(cache))
        seen: list[int] = []
        assert copied(decoded.open_decoded(images, KEY, lambda *event: seen.append(event[1]))) == before
        assert seen == [1, 2, 3, 4]
        decoded.open_decoded(images, KEY, _never)
        assert [path.name for path in (cache / "decoded").iterdir()] == [folder_of(cache).name]

    def test_an_image_that_cannot_be_decoded_is_named_and_nothing_is_kept(self, images, cache):
        path = Path(images.root, images.files[2])
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(DataError, match=r"alpha\.png: cannot be decoded .*; replace or remove it"):
            decoded.open_decoded(images, KEY)
        assert list((cache / "decoded").iterdir()) == []

    def test_a_cache_that_cannot_be_written_is_named(self, images, cache):
        (cache / "decoded").write_text("a file where a folder should be")
        with pytest.raises(DataError, match="BENCHMARKS_CACHE") as caught:
            decoded.open_decoded(images, KEY)
        assert str(cache) in str(caught.value) and "\n" not in str(caught.value)

    def test_pixels_that_are_gone_at_once_end_in_an_error(self, images, monkeypatch):
        monkeypatch.setattr(decoded, "_opened", lambda *_: None)
        with pytest.raises(DataError, match="damaged as soon as written"):
            decoded.open_decoded(images, KEY)

    @pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
    def test_no_room_is_one_line_and_nothing_is_kept(self, images, cache):
        """A limit on the size of files: the closest to a full disk that needs no rights."""
        answer = in_a_process(
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))", images
        )
        assert "DataError: decoded images" in answer.stdout and "make room" in answer.stdout
        assert answer.returncode == 0 and "\n" not in answer.stdout.strip()
        assert list((cache / "decoded").iterdir()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
    def test_a_process_killed_while_it_decodes_leaves_nothing_that_is_taken_for_whole(self, images):
        answer = in_a_process("", images, on_progress="os.kill(os.getpid(), signal.SIGKILL)")
        assert answer.returncode == -signal.SIGKILL
        seen: list[int] = []
        assert len(decoded.open_decoded(images, KEY, lambda *event: seen.append(event[1]))) == 4
        assert seen == [1, 2, 3, 4]


def in_a_process(
    preparation: str, images: ImageList, on_progress: str = "None"
) -> subprocess.CompletedProcess[str]:
    program = f"""
import os, signal, sys
import msgspec
from backends.base import DataError, ImageList
from benchmarks.harness.images import decoded
images = msgspec.json.decode(sys.stdin.read(), type=ImageList)
{preparation}
try:
    decoded.open_decoded(images, {KEY!r}, lambda *event: {on_progress})
except DataError as error:
    print(f"DataError: {{error}}")
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        input=msgspec.json.encode(images).decode(),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=60,
    )


class TestOthers:
    def test_two_at_once_end_with_the_same_pixels(self, images):
        results: list[list[bytes]] = []
        threads = [
            threading.Thread(target=lambda: results.append(copied(decoded.open_decoded(images, KEY))))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 2 and results[0] == results[1]

    @pytest.mark.parametrize("damaged", [False, True])
    def test_what_another_process_finished_meanwhile_stays(self, damaged, images, cache):
        if damaged:
            decoded.open_decoded(images, KEY)
            cut_pixels(folder_of(cache))
        theirs: list[int] = []

        def on_progress(_what: str, done: int, _total: int) -> None:
            if done == 2:
                decoded.open_decoded(images, KEY)
                (folder,) = (path for path in (cache / "decoded").iterdir() if path.name[0] != ".")
                theirs.append((folder / decoded.PIXELS).stat().st_ino)

        decoded.open_decoded(images, KEY, on_progress)
        assert [(folder_of(cache) / decoded.PIXELS).stat().st_ino] == theirs


def test_the_photographs_are_decoded(photographs):
    """The first ten of each class, 512 pixels and less: nothing is reduced."""
    few = msgspec.structs.replace(PROFILES["cpu"], train_per_class=10, test_per_class=1)
    found = data.open_data(str(photographs), few)
    opened = decoded.open_decoded(found.train, decoded.key_of(found, "train"))
    for index, file in enumerate(found.train.files):
        with Image.open(Path(found.train.root, file)) as image:
            np.testing.assert_array_equal(opened[index], np.asarray(image.convert("RGB")))
