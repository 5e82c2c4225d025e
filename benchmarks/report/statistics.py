"""Uncertainty of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from scipy.stats import binomtest

CONFIDENCE = 0.95


class Interval(msgspec.Struct, frozen=True):
    """A confidence interval."""

    low: float
    high: float


def wilson(correct: int, images: int) -> Interval:
    """Wilson's score interval of a proportion at 95 % (E. B. Wilson, JASA 22, 1927): of one network's
    accuracy over test images. It says nothing of how another seed would have done."""
    interval = binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar(first: Sequence[int], second: Sequence[int]) -> tuple[int, int, float]:
    """Exact McNemar test of two classifiers on the same images: how many only the first has right, how many
    only the second, and the two-sided p-value.

    Args:
        first, second: 1 or 0 for each image, in the same order.

    Raises:
        ValueError: they are not of the same images.
    """
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count((1, 0)), pairs.count((0, 1))
    different = only_first + only_second
    p = float(binomtest(only_first, different).pvalue) if different else 1.0
    return only_first, only_second, p


def least_difference(discordant: int) -> int | None:
    """The smallest surplus of images right on one side only that the exact test would have called
    significant, with as many images on which the two differ; None if no split of so few would.

    For 8 images that is 8: all of them on one side (p = 2 / 2**8).
    """
    for surplus in range(discordant % 2, discordant + 1, 2):
        if binomtest((discordant + surplus) // 2, discordant).pvalue < 1 - CONFIDENCE:
            return surplus
    return None
