"""Profiles: what scales a recipe to a machine."""

from __future__ import annotations

import msgspec

from backends.base import UsageError


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine can bear: changes the size of images and batches, the amount of data and the length of
    long trainings, and nothing else."""

    name: str
    purpose: str
    image_size: int
    batch_size: int | None
    """None: the recipe's."""
    train_per_class: int | None
    """None: all there are."""
    test_per_class: int | None
    epochs: int | None
    """The most that a phase on images is given; None: the recipe's. On stored features epochs cost next to
    nothing: those are the recipe's."""
    timing_seconds: float
    """Longest time that a throughput figure may take to become steady; and then to be taken."""
    parts_seconds: float
    """The same of each look at where an epoch's time goes, which takes it whole."""
    timing_attempts: int
    """How often a timing that is disturbed, or does not become steady, is begun."""
    inference_batches: tuple[int, ...]
    """Batch sizes that inference is timed at, beside the training's own."""
    scored: bool = True
    """Whether accuracies are told and compared: of a few steps on a few images they mean nothing."""


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
            epochs=5,
            timing_seconds=4,
            parts_seconds=4,
            timing_attempts=2,
            inference_batches=(8,),
        ),
        Profile(
            name="cpu",
            purpose="published CPU tables: all photographs, small images",
            image_size=128,
            batch_size=32,
            train_per_class=None,
            test_per_class=None,
            epochs=15,
            timing_seconds=20,
            parts_seconds=20,
            timing_attempts=3,
            inference_batches=(1, 4, 16, 64),
        ),
        Profile(
            name="speed",
            purpose="what an image costs, at any size of image, in minutes; no accuracies",
            image_size=128,
            batch_size=16,
            train_per_class=96,
            test_per_class=32,
            epochs=3,
            timing_seconds=30,
            parts_seconds=6,
            timing_attempts=3,
            inference_batches=(1, 4),
            scored=False,
        ),
        Profile(
            name="full",
            purpose="a GPU: the size and batch of the seeds",
            image_size=224,
            batch_size=None,
            train_per_class=None,
            test_per_class=None,
            epochs=None,
            timing_seconds=30,
            parts_seconds=30,
            timing_attempts=3,
            inference_batches=(1, 4, 16, 64),
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
