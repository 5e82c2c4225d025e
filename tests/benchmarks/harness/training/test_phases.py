"""The phases of a training, in the real reference framework."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import backends
from backends.base import Session, Trainable
from backends.optimizers import SGD, OneCycle, StepDecay
from benchmarks.harness.images import data, pipelines
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.images.decoded import key_of, open_decoded
from benchmarks.harness.messages import EpochEnd, Event, Stage, StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import Profile, profile_of
from benchmarks.harness.recipe import (
    REFERENCE_BACKEND,
    Phase,
    Recipe,
    Validation,
    recipe_of,
)
from benchmarks.harness.training import loop, phases, starting
from benchmarks.harness.training.phases import Story, Trainer, settings_of

REFERENCE = backends.resolve(REFERENCE_BACKEND)

TINY = msgspec.structs.replace(profile_of("smoke"), image_size=32, batch_size=8, epochs=None)
HEAD_ONLY = Trainable(first="head", batch_norm="stored")
RESTLESS = SGD(learning_rate=1e-3, weight_decay=0.5)
"""Moves every weight at every step, also where nothing is left to learn."""
ON_FEATURES = Phase(epochs=3, on="features", trainable=HEAD_ONLY, optimizer=RESTLESS)
PLAIN = msgspec.structs.replace(
    recipe_of("matched-resnet18-finetune"), pretrained=False, epochs=1, optimizer=SGD(learning_rate=0.01)
)


@pytest.fixture
def images(data_folder) -> DataSet:
    """20 training images, 10 test images."""
    return data.open_data(str(data_folder), TINY)


def cell_of(recipe: Recipe, profile: Profile = TINY, seed: int = 0) -> Cell:
    return Cell(
        backend=REFERENCE_BACKEND, recipe=recipe, variant="default", seed=seed, profile=profile, device="cpu",
        precision="float32",
    )  # fmt: skip


class Run:
    """A training, with the weights as they were at the start and after each epoch."""

    def __init__(self, recipe: Recipe, images: DataSet, *, seed: int = 0) -> None:
        cell = cell_of(recipe, seed=seed)
        self.backend = backends.load(REFERENCE)(Session(track=recipe.track, threads=1, seed=seed))
        spec, _ = starting.build(self.backend, cell, images, StartingWeights(name="none"))
        self.story, self.images = Story(), images
        self.events: list[Event] = []
        self.after: list[dict[str, np.ndarray]] = [self.backend.export_weights()]
        self.trainer = Trainer(self.backend, spec, cell, images, self.story, self._emit)

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, EpochEnd):
            self.after.append(self.backend.export_weights())

    def logits(self, part: pipelines.Part) -> np.ndarray:
        """Of the whole network, on images."""
        made = self.trainer.images(part, training=False)
        return np.concatenate([self.backend.to_numpy(self.backend.logits(batch)) for batch in made])


def split(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Body and head."""
    head = starting.head_of(tensors)
    return {name: tensor for name, tensor in tensors.items() if name not in head}, head


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


# --- What is in force -----------------------------------------------------------------------------


class TestSettings:
    """20 training images."""

    def settings(self, recipe: Recipe, images: DataSet, **profile: Any) -> phases.Training:
        given = msgspec.structs.replace(TINY, **profile)
        return settings_of(cell_of(recipe, given), pipelines.parts_of(images, recipe.validation))

    def test_a_profile_shortens_what_trains_on_images_and_nothing_else(self, images):
        recipe = msgspec.structs.replace(
            PLAIN, before=msgspec.structs.replace(ON_FEATURES, epochs=50), epochs=5
        )
        found = self.settings(recipe, images, epochs=2)
        assert [(phase.on, phase.epochs, phase.recipe_epochs) for phase in found.phases] == [
            ("features", 50, 50),
            ("images", 2, 5),
        ]
        assert found.epochs == 2
        bottleneck = self.settings(recipe_of("matched-resnet18-bottleneck"), images, epochs=2)
        assert bottleneck.epochs == bottleneck.phases[0].recipe_epochs > 2

    @pytest.mark.parametrize(("most", "epochs"), [(None, (2, 3)), (100, (2, 3)), (2, (2, 2)), (1, (1, 1))])
    def test_each_phase_on_images_is_cut_for_itself(self, images, most, epochs):
        found = self.settings(recipe_of("matched-resnet18-head-then-finetune"), images, epochs=most)
        assert tuple(phase.epochs for phase in found.phases) == epochs
        assert tuple(phase.recipe_epochs for phase in found.phases) == (2, 3)
        assert [phase.first_trained for phase in found.phases] == ["head", "all"]

    def test_a_schedule_in_epochs_counts_steps(self, images):
        """16 images train, 4 are held out: 4 batches of 4 are an epoch."""
        found = self.settings(recipe_of("004-finetune"), images, batch_size=None, epochs=15)
        assert (found.batch_size, found.train_images, found.validation_images) == (4, 16, 4)
        assert found.optimizer.schedule == StepDecay(factor=0.1, steps=28)
        assert (found.phases[0].epochs, found.phases[0].recipe_epochs) == (15, 25)

    def test_the_last_and_smaller_batch_is_a_step_too(self, images):
        found = self.settings(recipe_of("004-finetune"), images, batch_size=5)
        assert found.optimizer.schedule == StepDecay(factor=0.1, steps=7 * 4)  # 5 + 5 + 5 + 1

    def test_one_cycle_spans_the_training_as_the_profile_has_it(self, images):
        optimizer = SGD(learning_rate=1.0, schedule=OneCycle())
        recipe = msgspec.structs.replace(
            PLAIN, epochs=10, optimizer=optimizer,
            before=Phase(epochs=20, on="features", trainable=HEAD_ONLY, optimizer=optimizer),
        )  # fmt: skip
        found = self.settings(recipe, images, epochs=4)  # 20 images in batches of 8
        assert [phase.optimizer.schedule for phase in found.phases] == [
            OneCycle(steps=20 * 3),
            OneCycle(steps=4 * 3),
        ]


# --- Phases ---------------------------------------------------------------------------------------


@pytest.mark.reference
class TestPhases:
    def test_first_the_head_moves_and_then_everything(self, images):
        recipe = recipe_of("matched-resnet18-head-then-finetune")
        recipe = msgspec.structs.replace(recipe, pretrained=False)
        run = Run(recipe, images)
        trained = run.trainer.train()
        start, first, second, third, fourth, fifth = run.after
        assert changed(start, first) == changed(first, second) == {"head.weight", "head.bias"}
        moved = changed(second, third)
        assert moved >= {name for name in start if name.endswith("conv1.weight")}
        assert not any(name.endswith(("running_mean", "running_var")) for name in moved)  # the recipe says so
        assert changed(third, fourth) and changed(fourth, fifth)
        assert [(row.epoch, row.phase) for row in run.story.curve] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
        assert [event.epochs for event in run.events if isinstance(event, EpochEnd)] == [2, 2, 5, 5, 5]
        assert (trained.epoch, trained.body) == (5, None)
        assert trained.correct == tuple(
            (run.logits(run.trainer.parts.test).argmax(axis=1) == images.test.labels).astype(int)
        )

    def test_each_epoch_has_images_of_its_own_through_all_phases(self, images):
        recipe = msgspec.structs.replace(
            recipe_of("matched-resnet18-head-then-finetune"), pretrained=False, epochs=2
        )
        run = Run(recipe, images, seed=7)
        run.trainer.train()
        epoch = Batches(
            open_decoded(images.train, key_of(images, "train")), images.train.labels, recipe.transform(32),
            batch_size=8, training=True, seed=7, wrap=lambda *arrays: arrays,
        )  # fmt: skip
        hashes = []
        for _ in range(4):
            assert sum(len(labels) for _, labels in epoch) == 20
            hashes.append(epoch.sha256)
        assert run.story.hashes == hashes and len(set(hashes)) == 4

    @pytest.mark.parametrize("track", ["matched", "native"])
    def test_the_head_trained_alone_arrives_in_the_whole_network(self, images, monkeypatch, track):
        native = {"track": "native", "backend": REFERENCE_BACKEND} if track == "native" else {}
        recipe = msgspec.structs.replace(PLAIN, before=ON_FEATURES, **native)
        run = Run(recipe, images)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        rebuild = Trainer.rebuild

        def watched(trainer: Trainer, body: dict[str, np.ndarray]) -> None:
            head = run.backend.export_weights()
            assert set(head) == {"head.weight", "head.bias"}
            rebuild(trainer, body)
            values = trainer.stored(trainer.parts.test).values
            found.append((run.logits(trainer.parts.test), values @ head["head.weight"].T + head["head.bias"]))
            assert changed(split(run.after[0])[0], split(run.backend.export_weights())[0]) == set()

        monkeypatch.setattr(Trainer, "rebuild", watched)
        trained = run.trainer.train()
        ((whole, alone),) = found
        np.testing.assert_allclose(whole, alone, atol=1e-5 * np.abs(alone).max())
        assert np.ptp(whole) > 0
        assert [(row.epoch, row.phase) for row in run.story.curve] == [(1, 1), (2, 1), (3, 1), (4, 2)]
        assert trained.body is None
        start_head, head = split(run.after[0])[1], run.after[3]
        assert changed(start_head, head) == {"head.weight", "head.bias"}
        assert changed(run.after[0], run.after[4]) >= {"conv1.weight", "head.weight"}

    def test_a_training_on_features_alone_leaves_the_body_as_it_was(self, images):
        recipe = msgspec.structs.replace(
            PLAIN, on="features", epochs=3, trainable=HEAD_ONLY, optimizer=SGD(learning_rate=0.05)
        )
        run = Run(recipe, images)
        trained = run.trainer.train()
        assert set(run.backend.export_weights()) == {"head.weight", "head.bias"}
        assert trained.body is not None
        run.trainer.rebuild(trained.body)
        body, head = split(run.backend.export_weights())
        start_body, start_head = split(run.after[0])
        assert changed(start_body, body) == set()
        assert changed(start_head, head) == {"head.weight", "head.bias"}
        whole = run.logits(run.trainer.parts.test).argmax(axis=1) == np.array(images.test.labels)
        assert trained.correct == tuple(whole.astype(int))
        assert run.story.curve[-1].train_loss < run.story.curve[0].train_loss
        assert run.story.hashes == []  # those are of images

    def test_features_are_extracted_once_for_all_who_have_the_same_body(self, images):
        recipe = msgspec.structs.replace(PLAIN, on="features", trainable=HEAD_ONLY)
        first, again = Run(recipe, images), Run(recipe, images)
        first.trainer.train()
        again.trainer.train()
        extractions = [(e.split, e.images, e.extracted) for e in first.story.extractions]
        assert extractions == [("train", 20, 20), ("test", 10, 10)]
        assert [e.extracted for e in again.story.extractions] == [0, 0]
        texts = [event.text for event in first.events if isinstance(event, Stage)]
        assert "extracting the features of the train images: 20/20" in texts
        assert "extracting the features of the test images: 10/10" in texts
        assert not [event for event in again.events if isinstance(event, Stage)]
        assert changed(first.after[-1], again.after[-1]) == set()

    def test_dropout_s_masks_reach_a_head_that_trains_alone(self, images):
        recipe = msgspec.structs.replace(
            PLAIN, on="features", epochs=2, trainable=HEAD_ONLY, head="mlp-256", output="sigmoid", dropout=0.5
        )
        runs = [Run(recipe, images), Run(msgspec.structs.replace(recipe, dropout=0.0), images)]
        for run in runs:
            run.trainer.train()
        dropped, kept = (run.after[-1]["head.fc2.weight"] for run in runs)
        assert dropped.shape == (1, 256)
        assert not np.array_equal(dropped, kept)
        np.testing.assert_array_equal(
            runs[0].after[0]["head.fc2.weight"], runs[1].after[0]["head.fc2.weight"]
        )

    def test_validation_images_are_neither_trained_on_nor_tested_on(self, images):
        recipe = msgspec.structs.replace(
            PLAIN, on="features", trainable=HEAD_ONLY, validation=Validation(share=0.2)
        )
        run = Run(recipe, images)
        run.trainer.train()
        (row,) = run.story.curve
        assert row.images == run.trainer.settings.train_images == 16
        assert row.validation_accuracy in (0, 0.25, 0.5, 0.75, 1)
        assert run.trainer.settings.validation_images == 4


# --- Choosing by validation -----------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch):
    """Has the network answer as many of 4 validation images right as told, one number per epoch; the test
    images (10) that are right after epoch n are the first n."""

    def play(*right: int) -> None:
        numbers = iter(right)
        epoch = 0

        def evaluate(_backend: Any, _images: Any, labels: tuple[int, ...]) -> tuple[int, ...]:
            nonlocal epoch
            if len(labels) == 4:
                epoch += 1
                return tuple(int(index < number) for number in [next(numbers)] for index in range(4))
            assert len(labels) == 10
            return tuple(int(index < epoch) for index in range(10))

        monkeypatch.setattr(loop, "evaluate", evaluate)

    return play


@pytest.mark.reference
class TestValidation:
    def run(self, images: DataSet, **changes: Any) -> tuple[Run, Any]:
        validation = Validation(share=0.2, patience=changes.pop("patience", None))
        run = Run(
            msgspec.structs.replace(
                PLAIN,
                on="features",
                trainable=HEAD_ONLY,
                validation=validation,
                optimizer=RESTLESS,
                **changes,
            ),
            images,
        )
        return run, run.trainer.train()

    @pytest.mark.parametrize(
        ("right", "best"),
        [
            ((2, 3, 1, 0), 2),  # worse and worse after it
            ((2, 3, 3, 3), 2),  # the earliest of equals
            ((1, 2, 3, 4), 4),
            ((4, 3, 2, 1), 1),
            ((0, 0, 0, 0), 1),
        ],
    )
    def test_the_best_epoch_s_weights_are_restored(self, images, script, right, best):
        script(*right)
        run, trained = self.run(images, epochs=4)
        assert trained.epoch == best
        assert changed(run.after[best], run.backend.export_weights()) == set()
        others = [epoch for epoch in range(1, 5) if epoch != best]
        assert all(changed(run.after[best], run.after[epoch]) for epoch in others)
        assert trained.correct == (1,) * best + (0,) * (10 - best)
        assert [row.validation_accuracy for row in run.story.curve] == [number / 4 for number in right]
        assert [row.test_accuracy for row in run.story.curve] == [0.1, 0.2, 0.3, 0.4]

    @pytest.mark.parametrize(
        ("patience", "right", "last"),
        [
            (1, (2, 3, 3), 3),  # no better is not better
            (2, (2, 3, 1, 3), 4),
            (2, (3, 1, 4, 1, 1), 5),  # what is better begins the count anew
            (3, (0, 0, 0, 0), 4),
        ],
    )
    def test_patience_ends_it(self, images, script, patience, right, last):
        script(*right, *[4] * 20)  # what it does not wait for
        run, trained = self.run(images, epochs=20, patience=patience)
        assert len(run.story.curve) == last
        assert trained.epoch == 1 + max(range(last), key=lambda epoch: right[epoch])
        assert changed(run.after[trained.epoch], run.backend.export_weights()) == set()

    def test_without_validation_it_is_the_last_epoch(self, images):
        run = Run(msgspec.structs.replace(PLAIN, on="features", trainable=HEAD_ONLY, epochs=3), images)
        trained = run.trainer.train()
        assert trained.epoch == 3
        assert [row.validation_accuracy for row in run.story.curve] == [None] * 3
        assert changed(run.after[3], run.backend.export_weights()) == set()

    def test_the_next_phase_starts_from_the_epoch_chosen(self, images, script):
        """And counts on from the last one that was run."""
        script(1, 4, 0, 2, 1)
        recipe = msgspec.structs.replace(
            PLAIN, epochs=2, optimizer=SGD(learning_rate=0.0), trainable=HEAD_ONLY,
            before=ON_FEATURES, validation=Validation(share=0.2),
        )  # fmt: skip
        run = Run(recipe, images)
        trained = run.trainer.train()
        assert [(row.epoch, row.phase) for row in run.story.curve] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
        assert trained.epoch == 4
        chosen = run.after[2]
        assert changed(chosen, split(run.after[4])[1]) == set()  # at a rate of nothing it stays as it began
        assert changed(run.after[3], chosen)
