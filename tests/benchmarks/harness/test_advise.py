"""The four cases, and what they are told by."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import backends
from benchmarks.harness import advise, plan
from benchmarks.harness.advise import Evidence, Probe
from benchmarks.harness.images import data
from benchmarks.harness.messages import AdviseJob, StartingWeights
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import (
    recipe_of,
)
from benchmarks.harness.worker import probes


def evidence(*, images: int = 2000, last: float = 0.9, middle: float = 0.8, random: float = 0.6) -> Evidence:
    def probe_of(what: str, accuracy: float) -> Probe:
        return Probe(what=what, correct=round(accuracy * images), images=images)

    return Evidence(
        images=images,
        classes=("a", "b"),
        smallest_class=images // 2,
        last=probe_of("the last features", last),
        middle=probe_of("the features of block3", middle),
        random=probe_of("random features", random),
        middle_block="block3",
        shift=0.1,
    )


def shown(found: Evidence) -> str:
    return "\n".join(f"{heading} {text}" for heading, text in advise.explained(found, advise.advise(found)))


class TestCases:
    @pytest.mark.parametrize(
        ("images", "last", "case", "protocol"),
        [
            (2000, 0.9, 1, "bottleneck"),
            (20000, 0.9, 2, "finetune"),
            (2000, 0.65, 3, "classifier"),
            (20000, 0.65, 4, "finetune"),
        ],
    )
    def test_size_and_distance_decide(self, images, last, case, protocol):
        advice = advise.advise(evidence(images=images, last=last))
        assert (advice.case, advice.protocol) == (case, protocol)
        assert advice.protocol != advice.then

    def test_the_line_is_half_of_the_errors_on_random_features(self):
        assert evidence(last=0.8, random=0.6).errors_removed == pytest.approx(0.5)
        assert evidence(last=0.8, random=0.6).similar
        assert not evidence(last=0.79, random=0.6).similar

    def test_random_features_that_err_nowhere_leave_nothing_to_remove(self):
        assert evidence(last=1.0, random=1.0).errors_removed == 0.0

    def test_case_three_says_whether_the_earlier_block_does_better(self):
        assert "which does better here" in advise.advise(evidence(last=0.6, middle=0.7)).why
        assert "no better" in advise.advise(evidence(last=0.6, middle=0.5)).why

    def test_the_evidence_is_shown(self):
        found = evidence()
        text = shown(found)
        for part in (
            "2000 for training",
            " 90.0%",
            " 80.0%",
            " 60.0%",
            "75%",
            "0.10 standard",
            "case 1 of 4",
        ):
            assert part in text, part
        without = msgspec.structs.replace(found, shift=None)
        assert "standard deviations" not in shown(without)


class TestProbe:
    def test_what_a_line_separates_is_told_apart(self):
        random = np.random.RandomState(0)
        labels = np.arange(60) % 2
        values = random.standard_normal((60, 5)).astype(np.float32)
        values[:, 3] += 100 * labels
        assert probes.probe("x", values, labels) == Probe(what="x", correct=60, images=60)

    def test_noise_is_not(self):
        values = np.random.RandomState(0).standard_normal((400, 5)).astype(np.float32)
        assert 0.35 < probes.probe("x", values, np.arange(400) % 2).accuracy < 0.65

    def test_a_class_of_three_has_three_folds(self):
        values = np.random.RandomState(0).standard_normal((20, 2)).astype(np.float32)
        labels = np.array([0] * 17 + [1] * 3)
        assert probes.probe("x", values, labels).images == 20


@pytest.mark.parametrize(
    "card",
    [card for card in backends.known().values() if backends.installed(card)],
    ids=lambda card: card.name,
)
@pytest.mark.parametrize("architecture", ["resnet18", "vgg16"])
def test_a_measurement_for_real(card, architecture, data_folder):
    """Blue against red: a network with any weights can tell; training images only."""
    images = data.open_data(str(data_folder), profile_of("full"))
    cell = plan.Cell(
        backend=card.name, recipe=recipe_of(f"matched-{architecture}-frozen"), variant="default", seed=0,
        profile=msgspec.structs.replace(profile_of("smoke"), image_size=32, batch_size=8),
        device="cpu", precision="float32",
    )  # fmt: skip
    job = AdviseJob(cell=cell, data=images, weights=StartingWeights(name="none"), threads=1, input_workers=0)
    found = probes.measure(job, lambda _event: None).evidence
    assert found.images == found.last.images == 20 and found.smallest_class == 10
    assert found.last == msgspec.structs.replace(found.random, what=found.last.what)  # no weights: the same
    assert found.last.accuracy > 0.7
    assert (found.shift is None) == (architecture == "vgg16")
    assert found.shift is None or found.shift > 0.1
