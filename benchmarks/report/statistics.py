"""Uncertainty of what was measured."""

from __future__ import annotations

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
