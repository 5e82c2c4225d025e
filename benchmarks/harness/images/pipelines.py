"""Which images train, which choose and which test, and how they come to the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from backends.architectures import head_widths
from backends.base import Backend, DataError, ImageList, ModelSpec, Pipeline
from benchmarks.harness.images.augment import order
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.images.decoded import Split, key_of, open_decoded
from benchmarks.harness.initial import generator
from benchmarks.harness.recipe import Recipe, Validation
from benchmarks.harness.record import Training


class Part(msgspec.Struct, frozen=True):
    """Some images of a split."""

    split: Split
    places: tuple[int, ...]
    """In the split's file order; one that was drawn several times stands there as often."""
    labels: tuple[int, ...]
    """Of these images."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Disjoint ones."""

    train: Part
    validation: Part | None
    test: Part


class Scored(NamedTuple):
    """Images to be scored, in order."""

    pipeline: Pipeline
    labels: tuple[int, ...]


def parts_of(data: DataSet, validation: Validation | None, *, resampling_seed: int | None = None) -> Parts:
    """What each image is for. Validation images are drawn from the training split, the same share of each
    class (one image at least, and never all), and the same ones for every seed and backend.

    Args:
        resampling_seed: draws a bootstrap sample of what is left to train on: of each class as many images as
            it has, with replacement. Seeds then vary the data too, and what differs between them holds what
            another training set would have changed (X. Bouthillier et al., Accounting for Variance in Machine
            Learning Benchmarks, MLSys 2021). The same sample for every backend; no image that validates is in
            it. The matched track crops an image by its place in the split: its copies in an epoch are alike.
            None: each image trains once.

    Raises:
        DataError: a class has too few images to be trained on and validated.
    """
    labels = data.train.labels
    held: set[int] = set()
    if validation is not None:
        permuted = order(len(labels), seed=0, epoch=0)
        for label, name in enumerate(data.classes):
            of_class = [place for place in permuted if labels[place] == label]
            if len(of_class) < 2:
                raise DataError(
                    f"data {data.name}: class '{name}' has {len(of_class)} training images, and validation"
                    " takes one: none would be left to train on; choose other --data or another recipe"
                )
            share = max(1, round(validation.share * len(of_class)))
            held |= set(of_class[: min(share, len(of_class) - 1)])
    training = [place for place in range(len(labels)) if place not in held]
    if resampling_seed is not None:
        training = _resampled(training, labels, seed=resampling_seed)
    return Parts(
        train=_part("train", training, labels),
        validation=_part("train", sorted(held), labels) if held else None,
        test=_part("test", range(len(data.test.files)), data.test.labels),
    )


def pipeline(
    backend: Backend,
    spec: ModelSpec,
    recipe: Recipe,
    data: DataSet,
    part: Part,
    settings: Training,
    *,
    training: bool,
    seed: int = 0,
    epoch: int = 1,
) -> Pipeline:
    """Batches of images: the framework's own pipeline or, in the matched track, the same bytes for all.

    Args:
        epoch: the first one's number, which augmentation depends on in the matched track.
    """
    if recipe.track == "native":
        return native(backend, recipe, data, part, settings, training=training)
    whole = split_of(data, part)
    return Batches(
        open_decoded(whole, key_of(data, part.split)),
        whole.labels,
        recipe.transform(settings.image_size),
        places=part.places,
        batch_size=settings.batch_size,
        training=training,
        seed=seed,
        epoch=epoch,
        dropout=masks_of(spec) if training else None,
        wrap=backend.to_host_batch,
    )


def native(
    backend: Backend, recipe: Recipe, data: DataSet, part: Part, settings: Training, *, training: bool
) -> Pipeline:
    """Batches of images by the framework's own pipeline."""
    whole = split_of(data, part)
    images = msgspec.structs.replace(
        whole, files=tuple(whole.files[place] for place in part.places), labels=part.labels
    )
    transform = recipe.transform(settings.image_size)
    return backend.input_pipeline(images, transform, batch_size=settings.batch_size, training=training)


def split_of(data: DataSet, part: Part) -> ImageList:
    """All images of the split that the part is of."""
    return data.train if part.split == "train" else data.test


def masks_of(spec: ModelSpec) -> tuple[float, int] | None:
    """Rate and width of the masks that the matched track brings with its batches."""
    return (spec.dropout, head_widths(spec)[-1]) if spec.dropout else None


def _resampled(places: Sequence[int], labels: Sequence[int], *, seed: int) -> list[int]:
    random = generator("resample", seed)
    drawn: list[int] = []
    for label in sorted(set(labels)):
        of_class = [place for place in places if labels[place] == label]
        # Of a fixed width: what `randint` draws by default depends on the platform's integers.
        chosen = random.randint(0, len(of_class), size=len(of_class), dtype=np.int64)
        drawn += [of_class[index] for index in chosen]
    return sorted(drawn)


def _part(split: Split, places: Sequence[int], labels: Sequence[int]) -> Part:
    return Part(split, tuple(places), tuple(labels[place] for place in places))
