"""A training that is broken off after an epoch, and goes on in another object to the same end, bit for
bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import backends
from backends.base import Session, Trainable
from backends.optimizers import SGD, Adam, OneCycle
from benchmarks.harness.images.data import DataSet, open_data
from benchmarks.harness.initial import sha256_of
from benchmarks.harness.messages import EpochEnd, Event, Notice, StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import REFERENCE_BACKEND, Phase, Recipe, Validation, recipe_of
from benchmarks.harness.record import Epoch
from benchmarks.harness.training import starting
from benchmarks.harness.training.loop import EpochResult
from benchmarks.harness.training.phases import Story, Trained, Trainer
from benchmarks.harness.training.snapshot import Keeper, Notes, Snapshot, SnapshotError

REFERENCE = backends.resolve(REFERENCE_BACKEND)

TINY = msgspec.structs.replace(PROFILES["smoke"], image_size=32, batch_size=8)
HEAD_ONLY, EVERYTHING = Trainable(first="head", batch_norm="stored"), Trainable()
PLAIN = msgspec.structs.replace(
    recipe_of("matched-resnet18-finetune"), pretrained=False, epochs=3, optimizer=SGD(learning_rate=0.01)
)
RECIPES = {
    "momentum": msgspec.structs.replace(PLAIN, optimizer=SGD(learning_rate=0.01, momentum=0.9)),
    "adam-one-cycle": msgspec.structs.replace(PLAIN, optimizer=Adam(learning_rate=1e-3, schedule=OneCycle())),
    "two-phases-on-images": msgspec.structs.replace(
        PLAIN,
        epochs=2,
        before=Phase(epochs=2, trainable=HEAD_ONLY, optimizer=SGD(learning_rate=0.1, momentum=0.9)),
    ),
    "features-then-images": msgspec.structs.replace(
        PLAIN,
        before=Phase(epochs=4, on="features", trainable=HEAD_ONLY, optimizer=SGD(learning_rate=0.1)),
    ),
    "best-by-validation": msgspec.structs.replace(
        PLAIN,
        epochs=6,
        validation=Validation(share=0.4, patience=2),
        optimizer=SGD(learning_rate=0.05, momentum=0.9),
    ),
    "native": msgspec.structs.replace(
        recipe_of("native-resnet18-scratch"), epochs=3, optimizer=SGD(learning_rate=0.01, momentum=0.9)
    ),
}


class Broken(Exception):
    """The training was broken off here."""


@pytest.fixture
def images(data_folder: Path) -> DataSet:
    return open_data(str(data_folder), TINY)


class Training:
    """Each is a process of its own, as far as the framework can tell."""

    def __init__(self, recipe: Recipe, images: DataSet, keeper: Keeper | None, stop_at: int | None = None):
        cell = Cell(
            backend=REFERENCE_BACKEND, recipe=recipe, variant="reproducible", seed=3, profile=TINY,
            device="cpu", precision="float32",
        )  # fmt: skip
        session = Session(track=recipe.track, variant="reproducible", threads=1, seed=3)
        self.backend = backends.load(REFERENCE)(session)
        spec, _ = starting.build(self.backend, cell, images, StartingWeights(name="none"))
        self.story, self.stop_at, self.events = Story(), stop_at, list[Event]()
        trainer = Trainer(self.backend, spec, cell, images, self.story, self._emit, keeper)
        self.trained: Trained = trainer.train()

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, EpochEnd) and event.row.epoch == self.stop_at:
            raise Broken

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on how often it was broken off."""
        return {
            "weights": sha256_of(self.backend.export_weights()),
            "hashes": self.story.hashes,
            "chosen": (self.trained.epoch, self.trained.correct),
            "curve": [without_clocks(row) for row in self.story.curve],
        }


def without_clocks(row: Epoch) -> Epoch:
    return msgspec.structs.replace(row, train_seconds=0, input_wait_seconds=0, eval_seconds=0)


@pytest.mark.reference
@pytest.mark.parametrize("name", RECIPES)
def test_broken_off_after_an_epoch_it_ends_the_same(name, images, tmp_path):
    recipe = RECIPES[name]
    unbroken = Training(recipe, images, None)
    for epoch in {2, len(unbroken.story.curve)}:
        keeper = Keeper(tmp_path / f"{epoch}.safetensors", "key")
        with pytest.raises(Broken):
            Training(recipe, images, keeper, stop_at=epoch)
        continued = Training(recipe, images, keeper)
        kept = [row.epoch for row in unbroken.story.curve[: epoch - 1] if _on_images(recipe, row)]
        assert continued.story.resumed == kept[-1:]
        assert continued.outcome() == unbroken.outcome()


def _on_images(recipe: Recipe, row: Epoch) -> bool:
    return recipe.phases[row.phase - 1].on == "images"


@pytest.mark.reference
def test_finished_and_broken_off_while_it_was_timed_nothing_is_trained_again(images, tmp_path):
    keeper = Keeper(tmp_path / "it.safetensors", "key")
    for name in ("momentum", "best-by-validation"):  # the latter ends before its last epoch
        keeper.remove()
        first = Training(RECIPES[name], images, keeper)
        again = Training(RECIPES[name], images, keeper)
        assert not [event for event in again.events if isinstance(event, EpochEnd)]
        assert again.outcome() == first.outcome()


@pytest.mark.reference
def test_broken_off_twice_it_says_where(images, tmp_path):
    keeper = Keeper(tmp_path / "it.safetensors", "key")
    for epoch in (2, 3):
        with pytest.raises(Broken):
            Training(RECIPES["momentum"], images, keeper, stop_at=epoch)
    assert Training(RECIPES["momentum"], images, keeper).story.resumed == [1, 2]


@pytest.mark.reference
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" * 99])
def test_a_damaged_snapshot_is_told_and_the_training_starts_anew(damage, images, tmp_path):
    keeper = Keeper(tmp_path / "it.safetensors", "key")
    with pytest.raises(Broken):
        Training(RECIPES["momentum"], images, keeper, stop_at=2)
    keeper.path.write_bytes(damage(keeper.path.read_bytes()))
    found = Training(RECIPES["momentum"], images, keeper)
    (notice,) = (event for event in found.events if isinstance(event, Notice))
    assert str(keeper.path) in notice.text and "damaged" in notice.text and "starts anew" in notice.text
    assert found.story.resumed == []
    assert found.outcome() == Training(RECIPES["momentum"], images, None).outcome()


def snapshot(key: str = "key") -> Snapshot:
    row = Epoch(
        epoch=1, train_loss=0.1, train_accuracy=0.2, test_accuracy=0.3, train_seconds=1.0,
        input_wait_seconds=0.0, eval_seconds=0.5, images=8,
    )  # fmt: skip
    notes = Notes(
        key=key, phase=1, chosen=EpochResult(row=row, correct=(1, 0), first_step_seconds=0.25), curve=(row,),
        hashes=("h",), extractions=(), resumed=(),
    )  # fmt: skip
    tensors = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    optimizer = {"steps": np.array(7), "velocity of head.weight": np.ones((3, 2))}
    return Snapshot(notes=notes, weights=tensors, optimizer=optimizer, chosen=None)


class TestKeeper:
    def test_it_gives_back_what_it_took(self, tmp_path):
        keeper = Keeper(tmp_path / "new" / "it.safetensors", "key")
        assert keeper.read() is None
        keeper.write(snapshot())
        found = keeper.read()
        assert found is not None and found.notes == snapshot().notes and found.chosen is None
        for taken, given in ((found.weights, snapshot().weights), (found.optimizer, snapshot().optimizer)):
            assert taken.keys() == given.keys()
            for name, value in given.items():
                assert np.array_equal(taken[name], value) and taken[name].dtype == value.dtype
        keeper.remove()
        assert keeper.read() is None
        keeper.remove()

    def test_that_of_another_recipe_is_none(self, tmp_path):
        Keeper(tmp_path / "it", "other").write(snapshot("other"))
        assert Keeper(tmp_path / "it", "key").read() is None

    def test_one_flipped_bit_is_damage(self, tmp_path):
        keeper = Keeper(tmp_path / "it", "key")
        keeper.write(snapshot())
        data = bytearray(keeper.path.read_bytes())
        data[-3] ^= 1
        keeper.path.write_bytes(data)
        with pytest.raises(SnapshotError, match="damaged"):
            keeper.read()

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(SnapshotError, match=r"file/it: cannot be written .*--resume"):
            Keeper(tmp_path / "file" / "it", "key").write(snapshot())
