"""Recipes: the protocols as data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from backends.architectures import ARCHITECTURES
from backends.base import (
    Head,
    Initializer,
    ModelSpec,
    Normalization,
    Output,
    ResizeMode,
    Track,
    Trainable,
    Transform,
    UsageError,
    one_line,
)
from backends.optimizers import Optimizer, StepDecay

RECIPES = Path(__file__).parent.parent / "recipes"

Protocol = Literal[
    "finetune",
    "head-then-finetune",
    "last-block",
    "frozen",
    "bottleneck",
    "classifier",
    "scratch",
    "pretrain",
]

LARGEST_RESIZE = 4.0
"""Of which the centre is a sixteenth of the image; below 1 the image would be smaller than its centre."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What an id looks like."""

REFERENCE_BACKEND = "pytorch"
"""Makes what the matched track shares: network A, and the gate's golden files."""


# --- Parts of a recipe ----------------------------------------------------------------------------


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipe's part of a `Transform`: all but the image size, which the profile decides."""

    normalization: Normalization
    resize_mode: ResizeMode
    resize_factor: float = 256 / 224
    """Test images are resized to this times the image size before the centre is cut out."""
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    augment: bool = True
    """Whether training images are cropped at random and mirrored, or treated as test images are."""


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training with one optimiser."""

    epochs: int
    on: Literal["images", "features"] = "images"
    """`features`: the head alone, from a store of what enters it, which is extracted once and without
    augmentation."""
    trainable: Trainable
    optimizer: Optimizer


class Validation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the training set that is not trained on, to choose by. The test set is never chosen on."""

    share: float
    """Of each class."""
    patience: int | None = None
    """Epochs without a better validation accuracy before training ends; None: it runs through. In either
    case the weights of the best epoch are restored at the end."""


class Classifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scikit-learn classifier on features, standardised, in the place of a trained head."""

    kind: Literal["svm", "logistic"]
    """A linear support vector machine, or logistic regression."""
    block: str
    """Whose output, averaged over H and W, are the features."""
    regularization: float = 1.0
    """scikit-learn's C: the smaller, the stronger."""


class HeadRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one class of the new head starts: from a row of the published head. The other classes start from
    the mean of all other rows."""

    row: int
    name: str
    """What the published network calls that class."""
    for_class: str
    """The data set's class that gets it."""


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What others report for a protocol."""

    accuracy: str
    source: str
    """Who, with which network, on which images."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a document says of this recipe and another; the report tests it where a run has both."""

    text: str
    against: str
    """Id of the other recipe."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol with every hyper-parameter written down: a TOML file, whose name is the recipe's id.

    A table `[sweep.NAME]` in the file is another recipe, `<id>-NAME`: the same but for what the table says.
    """

    id: str = ""
    summary: str
    protocol: Protocol
    track: Track
    backend: str | None = None
    """The backend whose native track this is. None: every backend that has the architecture."""
    architecture: str
    seed_document: str
    """Number of the document that describes the protocol; see docs/protocols.md."""
    pretrained: bool
    """Whether the body starts from given weights, or the whole network from random ones."""
    weights: Literal["source", "imagenet"] = "source"
    """What a pretrained body starts from if the user does not say."""
    published_by: str | None = None
    """Matched track: the backend whose published ImageNet checkpoint all of them start from."""
    reuse_below: str | None = None
    """Matched track: blocks from this one up start from random values, as the head does."""
    head_row: HeadRow | None = None
    """Matched track, linear head."""
    classes: int | None = None
    """How many the data must have; None: any number."""
    before: Phase | None = None
    """What is trained before; the optimiser starts anew."""
    epochs: int
    on: Literal["images", "features"] = "images"
    """See `Phase`."""
    batch_size: int
    image_size: int | None = None
    """None: the profile's. Pretraining fixes its own, so that one network A serves every profile."""
    head: Head
    output: Output = "softmax"
    dropout: float = 0.0
    initializer: Initializer
    trainable: Trainable
    optimizer: Optimizer
    validation: Validation | None = None
    classifier: Classifier | None = None
    input: Input
    published: tuple[Published, ...] = ()
    difference: str = ""
    """Why our figures are not the published ones."""
    claim: Claim | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What is trained, one after the other."""
        last = Phase(epochs=self.epochs, on=self.on, trainable=self.trainable, optimizer=self.optimizer)
        return (self.before, last) if self.before else (last,)

    @property
    def canonical(self) -> bool:
        """Whether it is what its track, architecture and protocol mean when nothing else is said."""
        return self.id == f"{self.track}-{self.architecture}-{self.protocol}"

    def model(self, *, classes: int, image_size: int) -> ModelSpec:
        """The network this recipe trains."""
        return ModelSpec(
            architecture=self.architecture,
            classes=classes,
            image_size=image_size,
            head=self.head,
            output=self.output,
            dropout=self.dropout,
            initializer=self.initializer,
            normalization=self.input.normalization,
        )

    def transform(self, image_size: int) -> Transform:
        """The way from decoded image to input at this size."""
        return Transform(
            size=image_size,
            resize=round(image_size * self.input.resize_factor),
            resize_mode=self.input.resize_mode,
            scale=self.input.scale,
            ratio=self.input.ratio,
            augment=self.input.augment,
            normalization=self.input.normalization,
        )


# --- Reading --------------------------------------------------------------------------------------


@cache
def all_recipes(folder: Path = RECIPES) -> tuple[Recipe, ...]:
    """Every recipe, in order of file and, within a file, of appearance.

    Raises:
        UsageError: a file that is not a recipe; names the file and the field.
    """
    return tuple(recipe for path in sorted(folder.glob("*.toml")) for recipe in read_recipes(path))


def read_recipes(path: Path) -> tuple[Recipe, ...]:
    """The recipe of a file, and those of its sweep.

    Raises:
        UsageError: not TOML, or a field is missing, unknown, of the wrong type or in the wrong place.
    """
    try:
        base = msgspec.toml.decode(path.read_bytes())
        sweep = base.pop("sweep", {})
        recipes = [msgspec.convert({**base, "id": path.stem}, Recipe)]
        recipes += [
            msgspec.convert(_merged(base, {**changes, "id": f"{path.stem}-{name}"}), Recipe)
            for name, changes in sweep.items()
        ]
    except (ValueError, RecursionError, AttributeError, TypeError, OSError) as error:
        raise UsageError(f"recipe {path}: {one_line(error)}") from error
    for recipe in recipes:
        for problem in _problems(recipe):
            raise UsageError(f"recipe {path}: {recipe.id}: {problem}")
    return tuple(recipes)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes in it, table by table; a table of another kind replaces what was there."""
    merged = dict(base)
    for key, value in changes.items():
        there = base.get(key)
        if isinstance(value, dict) and isinstance(there, dict) and _same_kind(value, there):
            merged[key] = _merged(there, value)
        else:
            merged[key] = value
    return merged


def _same_kind(value: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return all(value.get(tag, there.get(tag)) == there.get(tag) for tag in ("name", "type"))


def _problems(recipe: Recipe) -> Iterator[str]:
    """What the types alone do not forbid."""
    if not PLAIN_NAME.fullmatch(recipe.id):
        yield "an id names files: letters and digits make it, with '-', '_' and '.' between them"
    if recipe.architecture not in ARCHITECTURES:
        yield f"no architecture '{recipe.architecture}'; there are: {', '.join(ARCHITECTURES)}"
    yield from _impossible_numbers(recipe)
    matched = recipe.track == "matched"
    if (recipe.backend is None) != (matched and recipe.protocol != "pretrain"):
        yield "`backend` belongs into native and pretraining recipes, and into no other"
    if not matched:
        for field, unusual in (
            ("reuse_below", recipe.reuse_below is not None),
            ("head_row", recipe.head_row is not None),
            ("input.augment", not recipe.input.augment),
            ("input.resize_mode", recipe.input.resize_mode == "none"),
        ):
            if unusual:
                yield f"`{field}` belongs into matched recipes: native pipelines are the frameworks' own"
    if not recipe.pretrained and (recipe.head_row or recipe.reuse_below):
        yield "`head_row` and `reuse_below` need pretrained weights"
    if recipe.head_row is not None and recipe.head != "linear":
        yield "`head_row` needs a linear head"
    if (recipe.classifier is None) != (recipe.protocol != "classifier"):
        yield "`classifier` belongs into recipes of that protocol, and into no other"
    for phase in recipe.phases:
        if phase.epochs < 1 and recipe.classifier is None:
            yield f"epochs {phase.epochs}: a phase needs one at least"
        if phase.on == "features" and phase.trainable.first != "head":
            yield f"trainable.first '{phase.trainable.first}': on features the head alone is trained"
        schedule = phase.optimizer.schedule
        if isinstance(schedule, StepDecay) and (schedule.steps is None) == (schedule.epochs is None):
            yield "a `step` schedule needs `steps` or `epochs`, and not both"
    if not 0 <= recipe.dropout < 1:
        yield f"dropout {recipe.dropout} is no rate from 0 to below 1"
    if recipe.dropout * 256 % 1:
        yield f"dropout {recipe.dropout} is no multiple of 1/256"
    if recipe.validation is not None and not 0 < recipe.validation.share < 1:
        yield f"validation.share {recipe.validation.share} is no part of the training set"


def _impossible_numbers(recipe: Recipe) -> Iterator[str]:
    for field, value in _numbers(msgspec.to_builtins(recipe)):
        if not math.isfinite(value):
            yield f"{field} {value} is no number to train with"
    schedules = [phase.optimizer.schedule for phase in recipe.phases]
    for field, count in (
        ("batch_size", recipe.batch_size),
        ("image_size", recipe.image_size),
        ("classes", recipe.classes),
        *(("schedule.steps", getattr(schedule, "steps", None)) for schedule in schedules),
        *(("schedule.epochs", getattr(schedule, "epochs", None)) for schedule in schedules),
    ):
        if count is not None and count < 1:
            yield f"{field} {count}: one is the least"
    for field, (least, most), limit in (
        ("input.scale", recipe.input.scale, 1.0),
        ("input.ratio", recipe.input.ratio, math.inf),
    ):
        if not 0 < least <= most <= limit:
            yield f"{field} [{least}, {most}]: from a small positive number to a larger one, {limit} at most"
    if not 1 <= recipe.input.resize_factor <= LARGEST_RESIZE:
        yield f"input.resize_factor {recipe.input.resize_factor}: from 1 to {LARGEST_RESIZE:g}"


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number within plain values, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, float):
        yield name, value


def recipes_of(pattern: str) -> tuple[Recipe, ...]:
    """The recipes of this id, or whose ids match a pattern with `*`.

    Raises:
        UsageError: there are none; names those that are nearest.
    """
    found = tuple(recipe for recipe in all_recipes() if fnmatchcase(recipe.id, pattern))
    if not found:
        raise _unknown(pattern)
    return found


def recipe_of(name: str) -> Recipe:
    """The recipe of this id.

    Raises:
        UsageError: names those that are nearest.
    """
    if name not in recipes_by_id():
        raise _unknown(name)
    return recipes_by_id()[name]


@cache
def recipes_by_id() -> Mapping[str, Recipe]:
    """Every recipe."""
    return {recipe.id: recipe for recipe in all_recipes()}


def _unknown(name: str) -> UsageError:
    ids = [recipe.id for recipe in all_recipes()]
    near = get_close_matches(name, ids, n=4, cutoff=0) or ids[:4]
    return UsageError(
        f"no recipe '{name}'; the nearest of {len(ids)} are {', '.join(near)};"
        " `python -m benchmarks list` shows all"
    )


def pretraining_of(recipe: Recipe) -> Recipe:
    """The recipe that trains network A for this recipe: its own backend's or, in the matched track, the
    reference's.

    Raises:
        UsageError: there is none.
    """
    backend = recipe.backend or REFERENCE_BACKEND
    for other in all_recipes():
        if other.protocol == "pretrain" and (other.backend, other.architecture) == (
            backend,
            recipe.architecture,
        ):
            return other
    raise UsageError(
        f"no recipe pretrains {recipe.architecture} in {backend}; choose --weights imagenet or a file"
    )
