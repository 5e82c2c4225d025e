from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import UsageError
from benchmarks.harness.images.pipelines import Part, Parts
from benchmarks.harness.recipe import Classifier, recipe_of
from benchmarks.harness.training import classifier

KINDS = ("svm", "logistic")


def blobs(count: int, *, seed: int, classes: int = 2) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows around one centre per class, ten deviations apart, in turn."""
    random = np.random.RandomState(seed)
    labels = tuple(index % classes for index in range(count))
    centres = 10 * np.eye(classes, 6)
    return (centres[list(labels)] + random.standard_normal((count, 6))).astype(np.float32), labels


class Features:
    """As much of a trainer as a classifier asks for; the training split has rows that are held out."""

    def __init__(self, train, test, *, places: tuple[int, ...] | None = None, seed: int = 0) -> None:
        self.rows = {"train": train[0], "test": test[0]}
        places = places or tuple(range(len(train[1])))
        labels = tuple(train[1][place] for place in places)
        self.parts = Parts(
            train=Part("train", places, labels),
            validation=None,
            test=Part("test", tuple(range(len(test[1]))), test[1]),
        )
        self.recipe = recipe_of("003-svm")
        self.spec = self.recipe.model(classes=2, image_size=32)
        self.cell = SimpleNamespace(seed=seed)
        self.asked: list[tuple[str, str]] = []

    def stored(self, part: Part, block: str) -> Any:
        self.asked.append((part.split, block))
        return SimpleNamespace(values=self.rows[part.split])


def recipe(kind: str, **changes: Any) -> Classifier:
    return Classifier(**{"kind": kind, "block": "block3", **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_what_can_be_told_apart_is_told_apart(kind, classes):
    trainer: Any = Features(blobs(60, seed=0, classes=classes), blobs(30, seed=1, classes=classes))
    fitted = classifier.fit(trainer, recipe(kind))
    assert fitted.correct == (1,) * 30
    assert fitted.seconds > 0
    assert trainer.asked == [("train", "block3"), ("test", "block3")]


@pytest.mark.parametrize("kind", KINDS)
def test_each_test_image_is_marked_for_itself_in_order(kind):
    """Test rows 2 and 5 bear the other class's label."""
    rows, labels = blobs(8, seed=1)
    wrong = tuple(1 - label if index in (2, 5) else label for index, label in enumerate(labels))
    fitted = classifier.fit(Features(blobs(60, seed=0), (rows, wrong)), recipe(kind))
    assert fitted.correct == (1, 1, 0, 1, 1, 0, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_features_does_not_matter(kind):
    """Each is standardised by the training images: the model that is fitted is the same one."""
    (train, labels), (test, _) = blobs(60, seed=0), blobs(30, seed=1)
    train, test = train + 12 * np.eye(6)[1], test + 12 * np.eye(6)[1]
    noise = 15 * np.random.RandomState(5).standard_normal((60, 6))
    scale, shift = np.array([1e-3, 1, 40, 1e3, 7, 1e-2]), np.array([5, -3, 0, 1e4, 1, 0])
    models = []
    for train_rows, test_rows in (
        (train + noise, test),
        ((train + noise) * scale + shift, test * scale + shift),
    ):
        model = classifier.unfitted(recipe(kind), seed=0).fit(train_rows, labels)
        models.append(model.decision_function(test_rows))
    assert np.ptp(models[0]) > 0.1
    np.testing.assert_allclose(models[0], models[1], atol=2e-2 * np.ptp(models[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_smaller_c_the_stronger_the_regularisation(kind):
    rows, labels = blobs(60, seed=0)
    sizes = [
        np.linalg.norm(
            classifier.unfitted(recipe(kind, regularization=c), seed=0).fit(rows, labels)[-1].coef_
        )
        for c in (1e-4, 1e-2, 1)
    ]
    assert sizes[0] < sizes[1] <= sizes[2] * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_both_are_linear(kind):
    """An exclusive or is beyond them."""
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 10, np.float32)
    labels = tuple(int(a != b) for a, b in corners)
    fitted = classifier.fit(Features((corners, labels), (corners, labels)), recipe(kind))
    assert sum(fitted.correct) <= 30


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_held_out_are_not_fitted_to(kind):
    """Every other row of the store is of a part that does not train, and is mislabelled there."""
    rows, labels = blobs(120, seed=0)
    places = tuple(index for index in range(120) if index % 4 < 2)
    spoilt = rows.copy()
    spoilt[[index for index in range(120) if index % 4 >= 2]] *= -1
    fitted = classifier.fit(Features((spoilt, labels), blobs(30, seed=1), places=places), recipe(kind))
    clean = classifier.fit(
        Features((rows[list(places)], tuple(labels[place] for place in places)), blobs(30, seed=1)),
        recipe(kind),
    )
    assert fitted.correct == clean.correct == (1,) * 30


def test_it_is_the_same_each_time():
    data = blobs(60, seed=0)[0] * 0.1, blobs(60, seed=0)[1]
    answers = {classifier.fit(Features(data, blobs(30, seed=1)), recipe("svm")).correct for _ in range(3)}
    assert len(answers) == 1


def test_a_block_that_is_not_there_is_named_with_those_that_are():
    trainer: Any = Features(blobs(8, seed=0), blobs(8, seed=1))
    with pytest.raises(UsageError, match=r"vgg16 has no block 'layer4'; it has: block1, .*block5") as caught:
        classifier.fit(trainer, recipe("svm", block="layer4"))
    assert trainer.asked == [] and "\n" not in str(caught.value)
