"""Classical classifiers on features of a network that is not trained, by scikit-learn."""

from __future__ import annotations

import time

import msgspec
import numpy as np

from backends.architectures import blocks_of
from backends.base import UsageError
from benchmarks.harness.recipe import Classifier
from benchmarks.harness.training.phases import Trainer

MAX_ITERATIONS = 5000
"""Of logistic regression, which converges in a few hundred on standardised features; scikit-learn warns if
not."""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """How the test images fared."""

    correct: tuple[int, ...]
    seconds: float
    """Of fitting, features in memory."""


def fit(trainer: Trainer, recipe: Classifier) -> Fitted:
    """Extract the features of a block, fit the classifier on the training images and score the test images.

    Raises:
        UsageError: the architecture has no such block.
    """
    blocks = blocks_of(trainer.spec)
    if recipe.block not in blocks:
        raise UsageError(
            f"recipe {trainer.recipe.id}: {trainer.spec.architecture} has no block '{recipe.block}';"
            f" it has: {', '.join(blocks)}"
        )
    parts = trainer.parts
    train = trainer.stored(parts.train, recipe.block).values[list(parts.train.places)]
    test = trainer.stored(parts.test, recipe.block).values
    begin = time.perf_counter()
    model = unfitted(recipe, seed=trainer.cell.seed)
    model.fit(train, np.array(parts.train.labels))
    seconds = time.perf_counter() - begin
    right = model.predict(test) == np.array(parts.test.labels)
    return Fitted(correct=tuple(right.astype(int).tolist()), seconds=seconds)


def unfitted(recipe: Classifier, *, seed: int):  # type: ignore[no-untyped-def]
    """Standardisation and the classifier, unfitted: a `sklearn.pipeline.Pipeline`."""
    from sklearn.linear_model import LogisticRegression  # slow to import, and few cells need it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if recipe.kind == "svm":
        classifier = SVC(kernel="linear", C=recipe.regularization, random_state=seed)
    else:
        classifier = LogisticRegression(C=recipe.regularization, max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), classifier)
