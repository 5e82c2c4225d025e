"""The same picture in both splits is found in whatever file, and different pictures are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from PIL import Image, ImageEnhance, ImageOps

from backends.base import DataError
from benchmarks.harness.cache import cache_folder
from benchmarks.harness.images import data, duplicates, sketch
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.profile import PROFILES

pytestmark = pytest.mark.once

ALL = PROFILES["full"]


def trimmed(image: Image.Image, part: float) -> Image.Image:
    """The middle, with this part of every side."""
    across, down = (round(side * (1 - part) / 2) for side in image.size)
    return image.crop((across, down, image.width - across, image.height - down))


@pytest.fixture
def opened(tmp_path) -> Callable[..., DataSet]:
    """Makes a data set of pictures by name: `<split>/<class>/<file>`."""

    def make(**splits: dict[str, Image.Image]) -> DataSet:
        for split, files in splits.items():
            for name, image in files.items():
                path = tmp_path / "set" / split / name
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, quality=90)
        return data.open_data(str(tmp_path / "set"), ALL)

    return make


def drawn(count: int, first: int = 0) -> list[Image.Image]:
    return [sketch.draw(("hotdog", "not-hotdog")[seed % 2], seed) for seed in range(first, first + count)]


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "another aspect": lambda image: image.resize((image.width, round(image.height * 0.8))),
    "trimmed": lambda image: trimmed(image, 0.95),
    "mirrored": ImageOps.mirror,
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "mirrored, trimmed and darker": lambda image: ImageEnhance.Brightness(
        ImageOps.mirror(trimmed(image, 0.95))
    ).enhance(0.8),
}


class TestFind:
    @pytest.mark.parametrize("how", ALTERED)
    def test_an_altered_picture_is_found_among_others(self, opened, how):
        pictures, others = drawn(4), drawn(6, first=100)
        train = {f"a/{place}.jpg": image for place, image in enumerate([*others[:3], *pictures])}
        test = {f"a/{place}.jpg": ALTERED[how](image) for place, image in enumerate(pictures)}
        rest = {"b/other.jpg": others[4]}
        images = opened(train={**train, **rest}, test={**test, "b/other.jpg": others[5]})
        found = list(duplicates.find(images))
        assert [(one.test, one.train) for one in found] == [
            (f"a/{place}.jpg", f"a/{place + 3}.jpg") for place in range(4)
        ]
        assert [one.mirrored for one in found] == ["mirrored" in how] * 4
        assert not any(one.exact for one in found)
        assert all(one.correlation >= duplicates.SIMILAR for one in found)
        assert all(one.bits <= duplicates.CANDIDATE_BITS for one in found)

    @pytest.mark.parametrize("quality", [20, 50])
    def test_a_jpeg_of_another_quality_is_found(self, opened, tmp_path, quality):
        pictures = drawn(3)
        images = opened(
            train={"a/0.jpg": pictures[0], "b/1.jpg": pictures[1]},
            test={"a/0.jpg": pictures[2], "b/1.jpg": pictures[1]},
        )
        pictures[1].save(tmp_path / "set/test/b/1.jpg", quality=quality)
        (found,) = duplicates.find(images)
        assert (found.train, found.test, found.exact) == ("b/1.jpg", "b/1.jpg", False)

    def test_the_same_pixels_are_exact_in_whatever_file(self, opened):
        first, second, third = drawn(3)
        images = opened(
            train={"a/0.png": first, "a/1.png": first, "b/0.png": second},
            test={"a/x.bmp": first, "b/x.bmp": third},
        )
        assert list(duplicates.find(images)) == [
            duplicates.Duplicate(test="a/x.bmp", train="a/0.png", exact=True)
        ]

    def test_pictures_of_one_colour_are_the_same_only_to_the_pixel(self, opened):
        def plain(grey: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
            return Image.new("RGB", size, (grey, grey, grey))

        images = opened(
            train={"a/0.png": plain(90), "b/0.png": plain(200)},
            test={"a/0.png": plain(90), "a/1.png": plain(91), "b/0.png": plain(90, (41, 40))},
        )
        assert [one.test for one in duplicates.find(images)] == ["a/0.png"]

    def test_the_most_similar_is_named(self, opened):
        picture, other = drawn(2)
        images = opened(
            train={"a/0.jpg": ALTERED["lighter"](picture), "a/1.jpg": picture, "b/0.jpg": other},
            test={"a/0.jpg": picture.resize((64, 48)), "b/0.jpg": drawn(1, first=50)[0]},
        )
        assert [one.train for one in duplicates.find(images)] == ["a/1.jpg"]

    def test_drawn_pictures_are_different(self, tmp_path):
        folder = tmp_path / "drawn"
        sketch.write_data_set(
            folder, classes=("corn", "hotdog"), train_per_class=60, test_per_class=30, seed=0
        )
        assert list(duplicates.find(data.open_data(str(folder), ALL))) == []

    def test_the_photographs_of_hot_dogs_have_none(self, photographs):
        few = msgspec.structs.replace(ALL, train_per_class=150, test_per_class=60)
        assert list(duplicates.find(data.open_data(str(photographs), few))) == []

    def test_progress_ends_with_the_last_image(self, data_folder):
        seen: list[tuple[str, int, int]] = []
        list(duplicates.find(data.open_data(str(data_folder), ALL), lambda *event: seen.append(event)))
        ends = {what: (done, total) for what, done, total in seen}
        assert list(ends.values()) == [(30, 30), (10, 10)]


class TestAudit:
    def test_it_is_made_once_for_the_same_images(self, data_folder):
        images = data.open_data(str(data_folder), ALL)
        first = duplicates.audit(images)
        assert len(first.duplicates) == 10 and all(one.exact for one in first.duplicates)
        (data_folder / "train/red/0.jpg").unlink()  # it could not be made again
        assert duplicates.audit(images) == first

    def test_what_is_damaged_in_the_cache_is_made_again(self, data_folder):
        images = data.open_data(str(data_folder), ALL)
        first = duplicates.audit(images)
        (remembered,) = (cache_folder() / "duplicates").iterdir()
        remembered.write_bytes(remembered.read_bytes()[:-20] + b"\0" * 20)
        assert duplicates.audit(images) == first

    def test_a_cache_that_cannot_be_written_is_one_line(self, data_folder, cache: Path):
        images = data.open_data(str(data_folder), ALL)
        (cache / "duplicates").write_text("a file where the folder should be")
        with pytest.raises(DataError, match=r"data set: .*BENCHMARKS_CACHE names another"):
            duplicates.audit(images)
