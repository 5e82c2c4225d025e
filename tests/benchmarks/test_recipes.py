"""Every recipe, run once in the reference backend, and one of each kind in every other that is installed:
on a few small images, for one epoch, from random weights, with the real framework and the real
architecture; one of each kind timed, as briefly as can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import backends
from backends import weights
from benchmarks.harness import initial, plan
from benchmarks.harness.gate import scenarios
from benchmarks.harness.images import data, pipelines
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.decoded import key_of, open_decoded
from benchmarks.harness.measurement import conditions, parts, peak, steady, throughput
from benchmarks.harness.messages import CellJob, StartingWeights
from benchmarks.harness.profile import Profile, profile_of
from benchmarks.harness.recipe import (
    Recipe,
    all_recipes,
    recipe_of,
)
from benchmarks.harness.record import Record
from benchmarks.harness.worker.cell import run_cell

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
TINY = msgspec.structs.replace(
    profile_of("smoke"),
    image_size=32,
    batch_size=8,
    train_per_class=6,
    test_per_class=3,
    epochs=1,
    timing_seconds=0,
    parts_seconds=0,
    timing_attempts=1,
    inference_batches=(),
)
BRIEFLY = (
    (steady, "WINDOW", 1),
    (steady, "COUNTED", 1),
    (steady, "BLOCK_SECONDS", 0),
    (peak, "SIZES", {"cpu": (64,)}),
    (peak, "BLOCKS", 2),
    (peak, "BLOCK_SECONDS", 0),
    (peak, "SEEN", 0),  # small products show nothing about a clock
    (parts, "ROUNDS", 2),
    (throughput, "FEWEST_LATENCIES", 2),
    # TensorFlow keeps the threads that whichever test of this process came first has asked for.
    (conditions, "require_threads", lambda _backend: None),
)
CASES = [
    (card, recipe)
    for recipe in all_recipes()
    for card in INSTALLED
    if recipe.protocol != "pretrain" and card.name in plan.backends_of(recipe, (card.name,))
]


def kind_of(recipe: Recipe) -> tuple[str, ...]:
    """What a timing depends on: the network, and what goes into it."""
    return (recipe.architecture, recipe.track, *(phase.on for phase in recipe.phases[-1:]))


TIMED = {kind_of(recipe): recipe.id for _, recipe in reversed(CASES) if recipe.classifier is None}
"""One recipe of each kind: to time a network takes as long as to train it that briefly."""

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Callable[[Recipe], Path]:
    """For each recipe a checkpoint of random weights with the published head."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}

    def path_of(recipe: Recipe) -> Path:
        head = "fc6-fc7" if recipe.head == "fc6-fc7" else "linear"
        name = f"{recipe.architecture}-{head}"
        if name not in paths:
            spec = msgspec.structs.replace(
                recipe.model(classes=1000, image_size=32), head=head, output="softmax", dropout=0.0,
                initializer="xavier",
            )  # fmt: skip
            paths[name] = folder / f"{name}.safetensors"
            origin = weights.Origin(architecture=recipe.architecture)
            weights.write(paths[name], initial.draw(spec, seed=1), origin)
        return paths[name]

    return path_of


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The drawn images, by number of classes; their cache outlives the tests, as a user's does."""
    folder = tmp_path_factory.mktemp("cache")
    sets = {}

    def open_set(recipe: Recipe, monkeypatch) -> data.DataSet:
        monkeypatch.setenv("BENCHMARKS_CACHE", str(folder))
        name = "sketch-five" if recipe.classes == 5 else "sketch"
        if name not in sets:
            sets[name] = data.open_data(name, TINY)
        return sets[name]

    return open_set


def run(
    card, recipe: Recipe, images: data.DataSet, start: Path, profile: Profile = TINY, **more: Any
) -> Record:
    usual = {"variant": "default", "seed": 0, "timed": recipe.id in TIMED.values()}
    cell = plan.Cell(
        backend=card.name, recipe=recipe, profile=profile, device="cpu", precision="float32",
        **{**usual, **more},
    )  # fmt: skip
    given = (
        StartingWeights(name="test", path=str(start)) if recipe.pretrained else StartingWeights(name="none")
    )
    job = CellJob(cell=cell, data=images, weights=given, threads=1, input_workers=0)
    return run_cell(job, lambda _event: None)


def way_of(recipe: Recipe) -> tuple[object, ...]:
    """What a recipe asks of a backend; those that ask the same differ in a number or in their images. Each of
    a backend's own is one of its kind."""
    if recipe.track == "native":
        return (recipe.id,)
    return (*kind_of(recipe), recipe.classifier is None, recipe.head, recipe.pretrained,
            scenarios.coverage_of(recipe))  # fmt: skip


FIRST = {way_of(recipe): recipe.id for _, recipe in reversed(CASES)}
"""Every recipe runs on the reference backend, and one of each kind on the others."""


@pytest.mark.parametrize(
    ("card", "recipe"),
    [
        pytest.param(
            card,
            recipe,
            id=f"{card.name}-{recipe.id}",
            marks=() if recipe.id in FIRST.values() else pytest.mark.reference,
        )
        for card, recipe in CASES
    ],
)
def test_every_recipe_runs(card, recipe, starts, drawn, monkeypatch):
    for module, name, brief in BRIEFLY:
        monkeypatch.setattr(module, name, brief)
    images = drawn(recipe, monkeypatch)
    record = run(card, recipe, images, starts(recipe))
    assert record.error is None, f"{record.error.type}: {record.error.message}"
    assert record.accuracy is not None and record.accuracy.images == len(images.test.files)
    assert 0 <= record.accuracy.test <= 1
    if recipe.classifier is not None:
        assert [e.split for e in record.extractions] == ["train", "test"]
        assert record.curve == () and record.throughput is None
        return
    assert (record.throughput is not None) == (recipe.id in TIMED.values())
    if record.throughput is not None:
        watched = record.throughput.epoch_conditions
        assert watched is not None and watched.seconds >= sum(row.train_seconds for row in record.curve)
    assert record.training is not None
    assert [row.phase for row in record.curve] == [
        number for number, phase in enumerate(record.training.phases, start=1) for _ in range(phase.epochs)
    ]
    assert all(math.isfinite(row.train_loss) for row in record.curve)
    assert (record.curve[-1].validation_accuracy is None) == (recipe.validation is None)
    assert bool(record.extractions) == any(phase.on == "features" for phase in recipe.phases)


RESAMPLED = [
    (card, recipe)
    for card in INSTALLED
    for recipe in (
        recipe_of("matched-efficientnet_lite0-scratch"),
        recipe_of(f"native-{card.architectures[0]}-scratch"),
    )
]


@pytest.mark.parametrize(
    ("card", "recipe"), RESAMPLED, ids=[f"{card.name}-{recipe.track}" for card, recipe in RESAMPLED]
)
def test_a_resampled_cell_trains_on_the_sample_that_its_seed_draws(card, recipe, starts, drawn, monkeypatch):
    images = drawn(recipe, monkeypatch)
    record = run(card, recipe, images, starts(recipe), seed=3, resampled=True, timed=False)
    assert record.error is None, f"{record.error.type}: {record.error.message}"
    part = pipelines.parts_of(images, recipe.validation, resampling_seed=3).train
    assert record.cell.resampled and "-resampled-" in record.cell.id
    assert record.training is not None
    assert (record.training.train_images, record.training.distinct_train_images) == (
        12,
        len(set(part.places)),
    )
    assert record.training.distinct_train_images < 12
    assert [row.images for row in record.curve] == [12]
    if recipe.track == "matched":  # the same bytes in every backend, and these
        expected = Batches(
            open_decoded(images.train, key_of(images, "train")), images.train.labels, recipe.transform(32),
            places=part.places, batch_size=8, training=True, wrap=lambda *arrays: arrays, seed=3,
        )  # fmt: skip
        assert sum(len(batch[1]) for batch in expected) == 12
        assert record.batches_sha256 == (expected.sha256,)
