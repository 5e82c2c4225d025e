from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backends.base import Transform
from benchmarks.harness.images import augment
from benchmarks.harness.images.augment import Crop

USUAL = Transform(size=32, resize=37)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise: no two neighbours are alike."""
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def resized_by_hand(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The definition, written out: a triangle filter along rows, then along columns."""
    return _along_columns(_along_columns(pixels.transpose(1, 0, 2), width).transpose(1, 0, 2), height)


def _along_columns(pixels: np.ndarray, size: int) -> np.ndarray:
    scale = len(pixels) / size
    support = max(scale, 1.0)
    rows = []
    for row in range(size):
        centre = (row + 0.5) * scale
        first, last = max(0, int(centre - support + 0.5)), min(len(pixels), int(centre + support + 0.5))
        distance = (np.arange(first, last) - centre + 0.5) * (1 / support)
        weights = np.maximum(0, 1 - np.abs(distance))
        weights = (weights / sum(weights.tolist()) * 2**22 + 0.5).astype(np.int64)  # Pillow's fixed point
        total = (weights[:, None, None] * pixels[first:last]).sum(axis=0)
        rows.append(np.clip((total + 2**21) >> 22, 0, 255))
    return np.array(rows, np.uint8)


class TestOrder:
    @given(
        st.integers(0, 200), st.integers(min_value=0, max_value=2**70), st.integers(min_value=0, max_value=99)
    )
    @settings(deadline=None)
    def test_it_is_a_permutation(self, count, seed, epoch):
        assert sorted(augment.order(count, seed=seed, epoch=epoch)) == list(range(count))

    def test_it_depends_on_seed_and_epoch(self):
        orders = {tuple(augment.order(50, seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}
        assert len(orders) == 16

    def test_it_stays_what_it_is(self):
        assert augment.order(10, seed=0, epoch=1) == [4, 3, 1, 8, 9, 0, 6, 5, 7, 2]

    def test_every_image_is_first_equally_often(self):
        first = Counter(augment.order(5, seed=3, epoch=epoch)[0] for epoch in range(2000))
        assert all(abs(first[index] - 400) < 90 for index in range(5))  # five standard deviations


class TestCrop:
    @given(
        width=st.integers(1, 700),
        height=st.integers(1, 700),
        scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
        ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted).map(tuple),
        index=st.integers(0, 10**9),
    )
    @settings(max_examples=300, deadline=None)
    def test_it_lies_within_the_image_and_its_bounds(self, width, height, scale, ratio, index):
        transform = Transform(size=8, resize=8, scale=scale, ratio=ratio)
        crop = augment.training_crop(width, height, transform, seed=1, epoch=1, index=index)
        assert crop.left >= 0 and crop.width >= 1 and crop.left + crop.width <= width
        assert crop.top >= 0 and crop.height >= 1 and crop.top + crop.height <= height
        if is_fallback(crop, width, height):
            return
        # Sides were rounded: each is within half a pixel of one that is in bounds.
        assert (crop.width - 0.5) * (crop.height - 0.5) <= scale[1] * width * height * (1 + 1e-9)
        assert (crop.width + 0.5) * (crop.height + 0.5) >= scale[0] * width * height * (1 - 1e-9)
        assert (crop.width - 0.5) / (crop.height + 0.5) <= ratio[1] * (1 + 1e-9)
        assert (crop.width + 0.5) / (crop.height - 0.5) >= ratio[0] * (1 - 1e-9)

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((1000, 10), (493, 0, 13, 10)),  # 4/3 of the height
            ((10, 1000), (0, 493, 10, 13)),  # 4/3 of the width
            ((1, 1), (0, 0, 1, 1)),
        ],
    )
    def test_where_no_box_fits_it_is_the_largest_central_one(self, size, box):
        all_of_it = Transform(size=8, resize=8, scale=(1.0, 1.0))
        crop = augment.training_crop(*size, all_of_it, seed=0, epoch=1, index=0)
        assert (crop.left, crop.top, crop.width, crop.height) == box

    def test_the_fallback_of_a_usual_image_is_all_of_it(self):
        """Twice the area never fits, and 400 x 300 is of an allowed ratio."""
        too_large = Transform(size=8, resize=8, scale=(2.0, 2.0))
        crop = augment.training_crop(400, 300, too_large, seed=0, epoch=1, index=0)
        assert (crop.left, crop.top, crop.width, crop.height) == (0, 0, 400, 300)

    def test_a_thin_image_under_thin_ratios_keeps_a_pixel(self):
        thin = Transform(size=8, resize=8, scale=(1.0, 1.0), ratio=(0.01, 0.02))
        crop = augment.training_crop(400, 3, thin, seed=0, epoch=1, index=0)
        assert (crop.width, crop.height) == (1, 3)

    def test_each_of_seed_epoch_and_index_changes_it(self):
        draws = {
            repr(augment.training_crop(400, 300, USUAL, seed=seed, epoch=epoch, index=index))
            for seed in range(3)
            for epoch in range(3)
            for index in range(3)
        }
        assert len(draws) == 27

    def test_digits_do_not_run_together(self):
        """Seed 1, epoch 12 is not seed 11, epoch 2."""
        one = augment.training_crop(400, 300, USUAL, seed=1, epoch=12, index=3)
        assert one != augment.training_crop(400, 300, USUAL, seed=11, epoch=2, index=3)

    def test_it_stays_what_it_is(self):
        crops = [augment.training_crop(400, 300, USUAL, seed=0, epoch=1, index=index) for index in (0, 5)]
        assert crops == [
            Crop(left=15, top=47, width=246, height=212, flip=False),
            Crop(left=8, top=30, width=272, height=210, flip=True),
        ]


def is_fallback(crop: Crop, width: int, height: int) -> bool:
    central = crop.left == (width - crop.width) // 2 and crop.top == (height - crop.height) // 2
    return central and (crop.width == width or crop.height == height)


class TestDistribution:
    """4000 draws; the bounds are four standard deviations and more."""

    DRAWS = 4000

    def crops(self, side: int, transform: Transform) -> list[Crop]:
        return [
            augment.training_crop(side, side, transform, seed=7, epoch=1, index=index)
            for index in range(self.DRAWS)
        ]

    def test_half_are_mirrored_whatever_the_box(self):
        crops = self.crops(500, USUAL)
        assert abs(np.mean([crop.flip for crop in crops]) - 0.5) < 0.032
        areas = np.array([crop.width * crop.height for crop in crops])
        assert abs(np.corrcoef(areas, [crop.flip for crop in crops])[0, 1]) < 0.07

    def test_the_area_is_uniform(self):
        transform = Transform(size=8, resize=8, scale=(0.1, 0.5), ratio=(1.0, 1.0))  # always fits
        areas = np.sort([crop.width * crop.height / 1000**2 for crop in self.crops(1000, transform)])
        expected = 0.1 + 0.4 * (np.arange(self.DRAWS) + 0.5) / self.DRAWS
        assert np.abs(areas - expected).max() < 0.4 * 0.03  # Kolmogorov-Smirnov: 0.026 at one in 1000

    def test_the_logarithm_of_the_ratio_is_uniform(self):
        transform = Transform(size=8, resize=8, scale=(0.1, 0.1), ratio=(0.5, 2.0))
        ratios = np.sort([math.log2(crop.width / crop.height) for crop in self.crops(1000, transform)])
        expected = -1 + 2 * (np.arange(self.DRAWS) + 0.5) / self.DRAWS
        assert np.abs(ratios - expected).max() < 2 * 0.03

    def test_the_place_is_uniform_to_the_last_pixel(self):
        transform = Transform(size=8, resize=8, scale=(0.25, 0.25), ratio=(1.0, 1.0))
        crops = self.crops(8, transform)  # boxes of 4: five places in each direction
        places = Counter((crop.left, crop.top) for crop in crops)
        assert len(places) == 25
        assert all(abs(found - 160) < 60 for found in places.values())


class TestResize:
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
    @settings(deadline=None)
    def test_it_is_its_definition_in_every_version_of_pillow(self, width, height, to_width, to_height):
        pixels = picture(width, height)
        image = augment.resized(Image.fromarray(pixels), to_width, to_height)
        np.testing.assert_array_equal(np.asarray(image), resized_by_hand(pixels, to_width, to_height))

    def test_an_image_that_loses_much_height_too(self):
        pixels = picture(40, 200)
        image = augment.resized(Image.fromarray(pixels), 32, 32)
        np.testing.assert_array_equal(np.asarray(image), resized_by_hand(pixels, 32, 32))


class TestTrainingImage:
    @given(st.integers(1, 40), st.integers(1, 40), st.data())
    @settings(deadline=None)
    def test_a_crop_of_the_input_s_size_is_the_pixels_themselves(self, width, height, draw):
        size = draw.draw(st.integers(1, min(width, height)))
        left = draw.draw(st.integers(0, width - size))
        top = draw.draw(st.integers(0, height - size))
        pixels = picture(width, height)
        part = pixels[top : top + size, left : left + size]
        for flip in (False, True):
            crop = Crop(left=left, top=top, width=size, height=size, flip=flip)
            image = augment.training_image(pixels, Transform(size=size, resize=size), crop)
            np.testing.assert_array_equal(image, part[:, ::-1] if flip else part)

    @pytest.mark.parametrize("size", [1, 8, 32, 100])
    @pytest.mark.parametrize("flip", [False, True])
    def test_it_is_the_cut_out_resized(self, size, flip):
        pixels = picture(61, 47)
        crop = Crop(left=11, top=5, width=40, height=29, flip=flip)
        image = augment.training_image(pixels, Transform(size=size, resize=size), crop)
        expected = resized_by_hand(pixels[5:34, 11:51], size, size)
        np.testing.assert_array_equal(image, expected[:, ::-1] if flip else expected)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8

    def test_nothing_outside_the_crop_matters(self):
        crop = Crop(left=11, top=5, width=40, height=29, flip=False)
        pixels, framed = picture(61, 47), np.zeros((47, 61, 3), np.uint8)
        framed[5:34, 11:51] = pixels[5:34, 11:51]
        np.testing.assert_array_equal(
            augment.training_image(pixels, USUAL, crop), augment.training_image(framed, USUAL, crop)
        )

    def test_any_layout_in_memory_will_do(self):
        crop = Crop(left=3, top=2, width=20, height=20, flip=False)
        pixels = picture(30, 40)
        turned = np.asfortranarray(pixels)
        turned.setflags(write=False)
        np.testing.assert_array_equal(
            augment.training_image(pixels, USUAL, crop), augment.training_image(turned, USUAL, crop)
        )


class TestTestingImage:
    def test_the_shorter_side_is_resized_and_the_centre_cut_out(self):
        pixels = picture(61, 47)
        whole = resized_by_hand(pixels, 48, 37)  # 37 * 61 / 47 = 48.02
        image = augment.testing_image(pixels, USUAL)
        np.testing.assert_array_equal(image, whole[2:34, 8:40])  # (37 - 32) / 2 = 2.5, rounded to even

    def test_squashed_both_sides_are(self):
        pixels = picture(61, 47)
        transform = Transform(size=32, resize=40, resize_mode="squash")
        whole = resized_by_hand(pixels, 40, 40)
        np.testing.assert_array_equal(augment.testing_image(pixels, transform), whole[4:36, 4:36])

    @pytest.mark.parametrize("mode", ["squash", "shorter-side"])
    def test_what_is_smaller_than_the_centre_gets_a_black_border(self, mode):
        pixels = np.full((20, 20, 3), 200, np.uint8)
        image = augment.testing_image(pixels, Transform(size=8, resize=5, resize_mode=mode))
        expected = np.zeros((8, 8, 3), np.uint8)
        expected[1:6, 1:6] = 200
        np.testing.assert_array_equal(image, expected)

    @given(
        st.integers(1, 90),
        st.integers(1, 90),
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from(["squash", "shorter-side"]),
    )
    @settings(max_examples=60, deadline=None)
    def test_every_image_has_the_input_s_size(self, width, height, size, resize, mode):
        transform = Transform(size=size, resize=resize, resize_mode=mode)
        assert augment.testing_image(picture(width, height), transform).shape == (size, size, 3)
        crop = augment.training_crop(width, height, transform, seed=0, epoch=1, index=0)
        assert augment.training_image(picture(width, height), transform, crop).shape == (size, size, 3)


class TestUnresized:
    """`resize_mode="none"`: the centre as it is in the photograph."""

    @pytest.mark.parametrize(
        ("width", "height", "left", "top"), [(40, 30, 12, 7), (41, 31, 12, 8), (16, 16, 0, 0), (16, 30, 0, 7)]
    )
    def test_the_centre_is_cut_out_and_nothing_is_resized(self, width, height, left, top):
        transform = Transform(size=16, resize=1000, resize_mode="none")
        pixels = picture(width, height)
        np.testing.assert_array_equal(
            augment.testing_image(pixels, transform), pixels[top : top + 16, left : left + 16]
        )

    def test_what_is_smaller_gets_a_border_and_stays_as_it_is(self):
        transform = Transform(size=16, resize=1000, resize_mode="none")
        pixels = picture(10, 20)
        expected = np.zeros((16, 16, 3), np.uint8)
        expected[:, 3:13] = pixels[2:18]
        np.testing.assert_array_equal(augment.testing_image(pixels, transform), expected)


class TestMasks:
    def mask(self, width: int = 64, rate: float = 0.5, **where: int) -> np.ndarray:
        return augment.dropout_mask(width, rate, **{"seed": 0, "epoch": 1, "index": 0, **where})

    def test_it_stays_what_it_is(self):
        """Written down once: the same in every environment."""
        assert self.mask(16).tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0]
        assert self.mask(200, 0.25, seed=3, epoch=2, index=7).sum() == 146

    @given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 255), st.integers(0, 2**40))
    @settings(deadline=None)
    def test_a_narrower_one_is_the_beginning_of_a_wider_one(self, width, more, rate, index):
        wide = self.mask(width + more, rate / 256, index=index)
        assert wide.shape == (width + more,) and wide.dtype == np.uint8 and set(wide.tolist()) <= {0, 1}
        np.testing.assert_array_equal(self.mask(width, rate / 256, index=index), wide[:width])

    @given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 99))
    def test_a_higher_rate_drops_what_a_lower_one_drops(self, one, other, index):
        lower, higher = (self.mask(256, rate / 256, index=index) for rate in sorted((one, other)))
        assert (higher <= lower).all()

    @pytest.mark.parametrize("rate", [0, 0.25, 0.5, 1 / 256, 255 / 256])
    def test_as_many_are_dropped_as_the_rate_says(self, rate):
        kept = np.concatenate([self.mask(1000, rate, index=index) for index in range(200)])
        deviation = np.sqrt(rate * (1 - rate) / len(kept))
        assert abs(kept.mean() - (1 - rate)) <= 5 * deviation

    def test_a_rate_between_two_256ths_is_the_next_one(self):
        """Recipes refuse such rates, so that nobody is given another one than he asked for."""
        assert (
            self.mask(4096, 0.1).sum() == self.mask(4096, 26 / 256).sum() != self.mask(4096, 25 / 256).sum()
        )

    def test_each_of_seed_epoch_and_index_changes_it(self):
        masks = {
            self.mask(seed=seed, epoch=epoch, index=index).tobytes()
            for seed in range(3)
            for epoch in range(3)
            for index in range(3)
        }
        assert len(masks) == 27


class TestAgainstTorchvision:
    """Where it is installed: the same crops and sizes give the same bytes, but for the last digit where its
    Pillow resizes columns first; see `augment.resized`."""

    @pytest.fixture(autouse=True)
    def torchvision(self):
        self.functional = pytest.importorskip("torchvision.transforms.functional")

    @pytest.mark.parametrize("index", range(8))
    def test_training(self, index):
        pixels = picture(61, 47, seed=index)
        crop = augment.training_crop(61, 47, USUAL, seed=0, epoch=1, index=index)
        expected = self.functional.resized_crop(
            Image.fromarray(pixels), crop.top, crop.left, crop.height, crop.width, [32, 32]
        )
        expected = self.functional.hflip(expected) if crop.flip else expected
        exact = crop.height - 32 <= max(0, 2 * (crop.width - 32))
        assert_alike(augment.training_image(pixels, USUAL, crop), expected, exact=exact)

    @pytest.mark.parametrize("mode", ["squash", "shorter-side"])
    @pytest.mark.parametrize(
        ("size", "resize"), [(32, 37), (32, 36), (33, 36), (32, 32), (32, 20), (31, 20), (1, 1)]
    )
    @pytest.mark.parametrize(("width", "height"), [(61, 47), (47, 61), (5, 60), (1, 1)])
    def test_testing(self, mode, size, resize, width, height):
        pixels = picture(width, height)
        transform = Transform(size=size, resize=resize, resize_mode=mode)
        resized = self.functional.resize(
            Image.fromarray(pixels), [resize, resize] if mode == "squash" else resize
        )
        expected = self.functional.center_crop(resized, [size, size])
        exact = height - resized.height <= max(0, 2 * (width - resized.width))
        assert_alike(augment.testing_image(pixels, transform), expected, exact=exact)


def assert_alike(found: np.ndarray, expected: Image.Image, *, exact: bool) -> None:
    difference = np.abs(found.astype(int) - np.asarray(expected))
    assert difference.max() <= (0 if exact else 1)
