from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backends.base import DataError, ImageList, ModelSpec, Transform
from benchmarks.harness.images import augment, data, pipelines
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.images.decoded import key_of, open_decoded
from benchmarks.harness.images.pipelines import Part, parts_of
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import (
    Validation,
    recipe_of,
)
from benchmarks.harness.record import Training

SPEC = ModelSpec(architecture="resnet18", classes=2, image_size=16, initializer="he")
RECIPE = recipe_of("matched-resnet18-finetune")


def data_of(*counts: int, name: str = "set") -> DataSet:
    """As many training images of each class; two test images of each. The files are not there."""
    classes = tuple(f"class{label}" for label in range(len(counts)))

    def split(numbers: list[int]) -> ImageList:
        labels = tuple(label for label, count in enumerate(numbers) for _ in range(count))
        return ImageList(root="/", files=tuple(map(str, range(len(labels)))), labels=labels, classes=classes)

    return DataSet(name=name, sha256="d" * 64, train=split(list(counts)), test=split([2] * len(counts)))


class TestParts:
    @given(
        st.lists(st.integers(2, 40), min_size=1, max_size=6),
        st.floats(0, 1, exclude_min=True, exclude_max=True),
        st.randoms(use_true_random=False),
    )
    @settings(deadline=None)
    def test_they_are_disjoint_and_leave_nothing_out(self, counts, share, random):
        images = data_of(*counts)
        labels = list(images.train.labels)
        random.shuffle(labels)  # classes need not follow each other
        images = msgspec.structs.replace(
            images, train=msgspec.structs.replace(images.train, labels=tuple(labels))
        )
        parts = parts_of(images, Validation(share=share))
        assert parts.validation is not None
        train, held = parts.train.places, parts.validation.places
        assert sorted(train + held) == list(range(len(labels)))
        assert (list(train), list(held)) == (sorted(train), sorted(held))  # in file order
        for part in (parts.train, parts.validation):
            assert part.split == "train"
            assert part.labels == tuple(labels[place] for place in part.places)
        in_training, in_validation = Counter(parts.train.labels), Counter(parts.validation.labels)
        for label, count in enumerate(counts):
            assert in_training[label] >= 1 and in_validation[label] >= 1
            assert abs(in_validation[label] - share * count) <= 1

    @pytest.mark.parametrize(
        ("counts", "share", "held"),
        [
            ((10, 20, 50), 0.2, (2, 4, 10)),
            ((300, 300), 0.2, (60, 60)),
            ((2, 3), 0.2, (1, 1)),  # one at least
            ((10, 4), 0.99, (9, 3)),  # and never all
        ],
    )
    def test_each_class_gives_the_same_share(self, counts, share, held):
        parts = parts_of(data_of(*counts), Validation(share=share))
        assert parts.validation is not None
        found = Counter(parts.validation.labels)
        assert tuple(found[label] for label in range(len(counts))) == held

    def test_they_are_drawn_and_stay_as_they_are(self):
        """Neither the first nor the last of a class; written down once."""
        parts = parts_of(data_of(10, 10), Validation(share=0.3))
        assert parts.validation is not None
        assert parts.validation.places == PLACES
        again = parts_of(data_of(10, 10, name="other"), Validation(share=0.3, patience=2))
        assert again == parts

    def test_a_larger_share_holds_out_the_smaller_one_s_images_too(self):
        smaller, larger = (
            set(parts_of(data_of(30, 30), Validation(share=share)).validation.places) for share in (0.2, 0.4)
        )
        assert smaller < larger

    def test_without_validation_everything_trains(self):
        parts = parts_of(data_of(3, 4), None)
        assert parts.train == Part("train", tuple(range(7)), (0, 0, 0, 1, 1, 1, 1))
        assert parts.validation is None

    @pytest.mark.parametrize("validation", [None, Validation(share=0.5)])
    def test_the_test_split_is_never_touched(self, validation):
        assert parts_of(data_of(3, 4), validation).test == Part("test", (0, 1, 2, 3), (0, 0, 1, 1))

    @pytest.mark.parametrize("counts", [(5, 1), (1, 1)])
    def test_a_class_of_one_image_cannot_be_trained_on_and_validated(self, counts):
        with pytest.raises(DataError, match=r"class 'class\d' has 1 training image") as caught:
            parts_of(data_of(*counts), Validation(share=0.2))
        assert "\n" not in str(caught.value)
        assert parts_of(data_of(*counts), None).train.places == tuple(range(sum(counts)))


PLACES = (1, 7, 9, 13, 17, 18)


class TestResampling:
    @given(
        st.lists(st.integers(2, 40), min_size=1, max_size=6),
        st.none() | st.floats(0.05, 0.95).map(lambda share: Validation(share=share)),
        st.integers(0, 50),
    )
    @settings(deadline=None)
    def test_each_class_keeps_its_count_and_nothing_comes_in_from_elsewhere(self, counts, validation, seed):
        images = data_of(*counts)
        usual = parts_of(images, validation)
        drawn = parts_of(images, validation, resampling_seed=seed)
        assert Counter(drawn.train.labels) == Counter(usual.train.labels)
        assert set(drawn.train.places) <= set(usual.train.places)
        assert drawn.train.labels == tuple(images.train.labels[place] for place in drawn.train.places)
        assert list(drawn.train.places) == sorted(drawn.train.places)
        assert (drawn.validation, drawn.test) == (usual.validation, usual.test)

    def test_it_depends_on_the_seed_alone(self):
        """Written down once: the same in every version of NumPy."""
        first, again, other = (
            parts_of(data_of(6, 4, name=name), None, resampling_seed=seed).train.places
            for name, seed in (("one", 0), ("two", 0), ("one", 1))
        )
        assert first == again == RESAMPLED
        assert other != first

    def test_about_a_third_of_the_images_is_left_out_and_no_image_is_preferred(self):
        """An image is in a sample of n with probability 1 - (1 - 1/n)^n, and as often as n * 1/n = 1 on
        average."""
        samples = [parts_of(data_of(100), None, resampling_seed=seed).train.places for seed in range(200)]
        distinct = [len(set(places)) for places in samples]
        assert np.mean(distinct) == pytest.approx(100 * (1 - 0.99**100), abs=1)
        times = Counter(place for places in samples for place in places)
        # 20,000 draws of 100: a Poisson count of 200 each, which 5 deviations hold
        assert all(abs(times[place] - 200) < 5 * 200**0.5 for place in range(100))


RESAMPLED = (2, 3, 3, 3, 4, 5, 6, 7, 8, 8)


# --- The matched track's batches ------------------------------------------------------------------


class Wrapping:
    """As much of a backend as a matched pipeline asks for."""

    def to_host_batch(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return arrays


@pytest.fixture
def images(tmp_path) -> DataSet:
    """Noise, in which every crop can be told from every other, of two sizes; 10 and 5 of each class."""
    random = np.random.RandomState(0)
    for split, count in (("train", 10), ("test", 5)):
        for name in ("a", "b"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                size = (40, 31) if index % 2 else (24, 45)
                pixels = random.randint(0, 256, (*size, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return data.open_data(str(tmp_path / "set"), profile_of("full"))


def settings_for(**changes: Any) -> Training:
    usual = {"epochs": 1, "batch_size": 4, "image_size": 16, "optimizer": RECIPE.optimizer}
    return Training(**{**usual, **changes})


def pipeline(images: DataSet, part: Part, *, training: bool, recipe=RECIPE, spec=SPEC, **more: int) -> Any:
    backend: Any = Wrapping()
    return pipelines.pipeline(
        backend, spec, recipe, images, part, settings_for(), training=training, **more
    )  # fmt: skip


def part_of(images: DataSet, places: tuple[int, ...]) -> Part:
    return Part("train", places, tuple(images.train.labels[place] for place in places))


def joined(epoch: Any) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*epoch, strict=True)]


class TestMatched:
    PLACES = (3, 4, 9, 11, 12, 19, 0)

    def whole(self, images: DataSet, *, training: bool, **more: Any) -> dict[int, bytes]:
        """Of each image of the split what its batch holds."""
        everything = tuple(range(len(images.train.files)))
        pixels, *_ = joined(pipeline(images, part_of(images, everything), training=training, **more))
        order = augment.order(20, seed=more.get("seed", 0), epoch=more.get("epoch", 1))
        return {place: pixels[row].tobytes() for row, place in enumerate(order if training else everything)}

    def test_a_part_has_exactly_its_images_as_the_whole_split_has_them(self, images):
        whole = self.whole(images, training=True, seed=2, epoch=5)
        assert len(set(whole.values())) == 20
        made = pipeline(images, part_of(images, self.PLACES), training=True, seed=2, epoch=5)
        pixels, labels = joined(made)
        places = [self.PLACES[index] for index in augment.order(7, seed=2, epoch=5)]
        assert [image.tobytes() for image in pixels] == [whole[place] for place in places]
        assert labels.tolist() == [images.train.labels[place] for place in places]
        assert (len(made), made.epoch) == (2, 6)

    def test_a_part_that_is_scored_keeps_its_order(self, images):
        whole = self.whole(images, training=False)
        made = pipeline(images, part_of(images, self.PLACES), training=False)
        for _ in range(2):
            pixels, labels = joined(made)
            assert [image.tobytes() for image in pixels] == [whole[place] for place in self.PLACES]
            assert labels.tolist() == [images.train.labels[place] for place in self.PLACES]

    def test_an_image_that_was_drawn_twice_is_there_twice(self, images):
        whole = self.whole(images, training=True, seed=2, epoch=5)
        drawn = parts_of(images, None, resampling_seed=2).train
        assert len(set(drawn.places)) < len(drawn.places) == 20
        pixels, labels = joined(pipeline(images, drawn, training=True, seed=2, epoch=5))
        assert Counter(image.tobytes() for image in pixels) == Counter(whole[place] for place in drawn.places)
        assert Counter(labels.tolist()) == {0: 10, 1: 10}

    def test_test_images_come_from_the_test_split(self, images):
        part = Part("test", (1, 6), (images.test.labels[1], images.test.labels[6]))
        pixels, labels = joined(pipeline(images, part, training=False))
        decoded = open_decoded(images.test, key_of(images, "test"))
        for image, place in zip(pixels, part.places, strict=True):
            np.testing.assert_array_equal(image, augment.testing_image(decoded[place], RECIPE.transform(16)))
        assert labels.tolist() == [0, 1]

    def test_training_without_augmentation_sees_the_testing_images(self, images):
        plain = msgspec.structs.replace(RECIPE, input=msgspec.structs.replace(RECIPE.input, augment=False))
        tested = self.whole(images, training=False)
        assert self.whole(images, training=True, recipe=plain) == tested
        assert self.whole(images, training=True, recipe=plain, epoch=2) == tested
        assert self.whole(images, training=True) != tested

    def test_without_resizing_the_centre_of_the_photograph_is_cut_out(self, images):
        recipe = recipe_of("003-vgg16-centre-crop")
        assert recipe.input.resize_mode == "none"
        pixels, _ = joined(pipeline(images, part_of(images, (0, 5)), training=True, recipe=recipe))
        decoded = open_decoded(images.train, key_of(images, "train"))
        order = augment.order(2, seed=0, epoch=1)
        for image, place in zip(pixels, [(0, 5)[index] for index in order], strict=True):
            height, width = decoded[place].shape[:2]
            top, left = round((height - 16) / 2), round((width - 16) / 2)
            np.testing.assert_array_equal(image, decoded[place][top : top + 16, left : left + 16])

    def test_dropout_brings_masks_to_training_and_to_nothing_else(self, images):
        spec = msgspec.structs.replace(SPEC, dropout=0.25)
        part = part_of(images, self.PLACES)
        for pixels, labels, masks in pipeline(images, part, training=True, spec=spec):
            assert masks.shape == (len(labels), 512) and masks.dtype == np.uint8
            assert len(pixels) == len(labels)
        assert {len(batch) for batch in pipeline(images, part, training=False, spec=spec)} == {2}
        assert {len(batch) for batch in pipeline(images, part, training=True)} == {2}

    @pytest.mark.parametrize(
        ("spec", "masks"),
        [
            ({}, None),
            ({"dropout": 0.5}, (0.5, 512)),
            ({"dropout": 0.5, "head": "mlp-256"}, (0.5, 256)),  # what enters the last layer, not the first
            ({"dropout": 0.25, "architecture": "vgg16", "head": "mlp-1024-128"}, (0.25, 128)),
        ],
    )
    def test_masks_are_for_what_enters_the_last_layer(self, spec, masks):
        assert pipelines.masks_of(msgspec.structs.replace(SPEC, **spec)) == masks


class TestMasksInBatches:
    @pytest.fixture
    def made(self, images):
        decoded = open_decoded(images.train, key_of(images, "train"))

        def make(dropout: tuple[float, int] | None, **more: Any) -> Batches:
            return Batches(
                decoded, images.train.labels, Transform(size=16, resize=20), batch_size=6, training=True,
                wrap=lambda *arrays: arrays, dropout=dropout, **more,
            )  # fmt: skip

        return make

    def test_each_image_has_its_own_in_whatever_part_it_comes(self, made):
        whole, part = made((0.5, 70), seed=1, epoch=4), made((0.5, 70), seed=1, epoch=4, places=(4, 17, 2))
        for epoch, places in ((whole, range(20)), (part, (4, 17, 2))):
            order = [places[index] for index in augment.order(len(places), seed=1, epoch=4)]
            *_, masks = joined(epoch)
            for mask, index in zip(masks, order, strict=True):
                np.testing.assert_array_equal(
                    mask, augment.dropout_mask(70, 0.5, seed=1, epoch=4, index=index)
                )

    def test_the_hash_is_over_them_too(self, made):
        epoch = made((0.5, 70))
        whole = hashlib.sha256()
        for pixels, labels, masks in epoch:
            one = hashlib.sha256(np.array(pixels.shape, "<i8").tobytes())
            for array in (pixels, labels, masks):
                one.update(array.tobytes())
            whole.update(one.digest())
        assert epoch.sha256 == whole.hexdigest()
        hashes = set()
        for dropout in (None, (0.5, 70), (0.25, 70), (0.5, 71)):
            other = made(dropout)
            assert sum(len(batch[1]) for batch in other) == 20
            hashes.add(other.sha256)
        assert len(hashes) == 4 and epoch.sha256 in hashes
