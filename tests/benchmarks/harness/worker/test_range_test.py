"""The arithmetic of the range test, on curves whose steepest place is known; and one run for real."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

import backends
from backends.base import UsageError
from benchmarks.harness import plan
from benchmarks.harness.images import data
from benchmarks.harness.messages import RangeTestJob, StartingWeights
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import (
    recipe_of,
)
from benchmarks.harness.worker import range_test

STEPS = 100
RATES = [10 ** (-6 + 7 * step / (STEPS - 1)) for step in range(STEPS)]


def falling(steepest: float) -> list[float]:
    """A loss that falls most steeply at this rate, and explodes at 1."""
    return [
        2 - 1.5 / (1 + math.exp(-4 * math.log10(rate / steepest))) + min(rate, 1) ** 4 * 50 for rate in RATES
    ]


class TestSuggestion:
    @pytest.mark.parametrize("steepest", [1e-4, 1e-3, 1e-2])
    def test_it_is_where_the_loss_falls_most_steeply(self, steepest):
        curve = range_test.smoothed(falling(steepest), STEPS)
        assert range_test.suggestion(RATES, curve) == pytest.approx(steepest, rel=0.6)

    def test_noise_of_single_batches_does_not_move_it_far(self):
        noise = np.random.RandomState(0).standard_normal(STEPS) * 0.15
        curve = range_test.smoothed(list(np.array(falling(1e-3)) + noise), STEPS)
        assert 1e-4 < range_test.suggestion(RATES, curve) < 1e-2

    def test_what_never_falls_suggests_nothing(self):
        assert range_test.suggestion(RATES, [1.0 + step for step in range(STEPS)]) is None


class TestSmoothing:
    def test_a_constant_stays(self):
        assert range_test.smoothed([2.0] * 7, 100) == pytest.approx([2.0] * 7)

    def test_it_does_not_lag(self):
        ramp = [float(step) for step in range(100)]
        assert range_test.smoothed(ramp, 100)[50] == pytest.approx(50)


class TestDivergence:
    def test_a_single_bad_batch_is_none(self):
        assert not range_test.diverged([1.0] * 20 + [100.0])

    def test_several_are(self):
        assert range_test.diverged([1.0] * 20 + [100.0] * 3)

    def test_a_few_steps_are_too_few_to_tell(self):
        assert not range_test.diverged([1.0, 100.0])


def job(card, images: data.DataSet, recipe: str = "matched-resnet18-frozen", **fields) -> RangeTestJob:
    profile = msgspec.structs.replace(profile_of("smoke"), image_size=32, batch_size=4)
    recipe_ = msgspec.structs.replace(recipe_of(recipe), pretrained=False)
    cell = plan.Cell(
        backend=card.name, recipe=recipe_, variant="default", seed=0, profile=profile, device="cpu",
        precision="float32",
    )  # fmt: skip
    usual = {"lowest": 1e-6, "highest": 1e6, "steps": 40}
    return RangeTestJob(
        cell=cell, data=images, weights=StartingWeights(name="none"), threads=1, input_workers=0,
        **{**usual, **fields},
    )  # fmt: skip


@pytest.mark.parametrize(
    "card",
    [card for card in backends.known().values() if backends.installed(card)],
    ids=lambda card: card.name,
)
class TestRun:
    def test_the_rate_rises_until_the_loss_explodes(self, card, data_folder):
        images = data.open_data(str(data_folder), profile_of("full"))
        done = range_test.run(job(card, images), lambda _event: None)
        rates, losses = done.result.rates, done.result.losses
        assert len(rates) == len(losses) == len(done.result.smoothed) < 40
        assert rates[0] == 1e-6
        ratios = np.array(rates[1:]) / np.array(rates[:-1])
        assert ratios == pytest.approx(ratios[0])
        assert losses[-1] > 4 * min(losses)
        suggested = done.result.suggestion
        assert suggested is None or rates[0] <= suggested < rates[-1]

    def test_training_on_a_store_has_no_use_for_it(self, card, data_folder):
        images = data.open_data(str(data_folder), profile_of("full"))
        with pytest.raises(UsageError, match="for what trains on images"):
            range_test.run(job(card, images, "matched-resnet18-bottleneck"), lambda _event: None)
