"""Recipes, the protocols as data, and profiles, which scale them to a machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from backends.base import (
    Head,
    Initializer,
    ModelSpec,
    Normalization,
    Track,
    Trainable,
    Transform,
    UsageError,
    one_line,
)
from backends.optimizers import Optimizer

RECIPES = Path(__file__).parent.parent / "recipes"

Protocol = Literal["finetune", "frozen", "last-block", "scratch", "pretrain"]

REFERENCE_BACKEND = "pytorch"
"""Makes what the matched track shares: network A, and the gate's golden files."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipe's part of a `Transform`: all but the image size, which the profile decides."""

    normalization: Normalization
    resize_mode: Literal["shorter-side", "squash"]
    resize_factor: float = 256 / 224
    """Test images are resized to this times the image size before the centre is cut out."""
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol with every hyper-parameter written down: one TOML file, whose name is the recipe's id."""

    id: str = ""
    summary: str
    protocol: Protocol
    track: Track
    backend: str | None = None
    """The backend whose native track this is. None: every backend that has the architecture."""
    architecture: str
    seed_document: str
    """Number of the document that describes the protocol; see README."""
    pretrained: bool
    """Whether the body starts from given weights, or the whole network from random ones."""
    weights: Literal["source", "imagenet"] = "source"
    """What a pretrained body starts from if the user does not say."""
    published_by: str | None = None
    """Matched track: the backend whose published ImageNet checkpoint all of them start from."""
    epochs: int
    batch_size: int
    image_size: int | None = None
    """None: the profile's. Pretraining fixes its own, so that one network A serves every profile."""
    head: Head
    initializer: Initializer
    trainable: Trainable
    optimizer: Optimizer
    input: Input

    def model(self, *, classes: int, image_size: int) -> ModelSpec:
        """The network this recipe trains."""
        return ModelSpec(
            architecture=self.architecture,
            classes=classes,
            image_size=image_size,
            head=self.head,
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
            normalization=self.input.normalization,
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine can bear: changes the size of images and batches and the amount of data, and nothing
    else."""

    name: str
    purpose: str
    image_size: int
    batch_size: int | None
    """None: the recipe's."""
    train_per_class: int | None
    """None: all there are."""
    test_per_class: int | None
    timing_seconds: float
    """Longest time given to each throughput figure."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            purpose="a first look, and CI: minutes on two cores",
            image_size=48,
            batch_size=64,
            train_per_class=300,
            test_per_class=150,
            timing_seconds=4,
        ),
        Profile(
            name="cpu",
            purpose="published CPU tables: all photographs, small images",
            image_size=128,
            batch_size=32,
            train_per_class=None,
            test_per_class=None,
            timing_seconds=20,
        ),
        Profile(
            name="full",
            purpose="a GPU: the size and batch of the seeds",
            image_size=224,
            batch_size=None,
            train_per_class=None,
            test_per_class=None,
            timing_seconds=30,
        ),
    )
}


def profile_of(name: str) -> Profile:
    """The profile of this name.

    Raises:
        UsageError: names those there are.
    """
    if name not in PROFILES:
        raise UsageError(f"no profile '{name}'; there are: {', '.join(PROFILES)}")
    return PROFILES[name]


@cache
def all_recipes(folder: Path = RECIPES) -> tuple[Recipe, ...]:
    """Every recipe, in order of id.

    Raises:
        UsageError: a file that is not a recipe; names the file and the field.
    """
    return tuple(read_recipe(path) for path in sorted(folder.glob("*.toml")))


def read_recipe(path: Path) -> Recipe:
    """One recipe.

    Raises:
        UsageError: not TOML, or a field is missing, unknown or of the wrong type.
    """
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"recipe {path}: {one_line(error)}") from error
    if (recipe.backend is None) != (recipe.track == "matched" and recipe.protocol != "pretrain"):
        raise UsageError(
            f"recipe {path}: `backend` belongs into native and pretraining recipes, and into no other"
        )
    return msgspec.structs.replace(recipe, id=path.stem)


def recipe_of(name: str) -> Recipe:
    """The recipe of this id.

    Raises:
        UsageError: names those there are.
    """
    for recipe in all_recipes():
        if recipe.id == name:
            return recipe
    raise UsageError(f"no recipe '{name}'; there are: {', '.join(recipe.id for recipe in all_recipes())}")


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
