"""Uncertainty of what was measured, and what follows from it when two things are compared.

scipy does the mathematics; what is ours is the choice of method, and its reason. The tests hold it to
statsmodels and to published examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
from scipy import stats
from scipy.stats import binomtest

ALPHA = 0.05
"""Of a two-sided test, and of each table's whole family of tests."""
CONFIDENCE = 1 - ALPHA
MOST_LOGARITHM = 700.0
"""Of a ratio that a float can hold."""
RESAMPLES = 2000
"""Of a bootstrap: its percentiles then move by a twentieth of the interval's width at most."""


class Interval(msgspec.Struct, frozen=True):
    """A confidence interval."""

    low: float
    high: float


# --- One classifier -------------------------------------------------------------------------------


def wilson(correct: int, images: int) -> Interval:
    """Wilson's score interval of a proportion at 95 % (E. B. Wilson, JASA 22, 1927): of one network's
    accuracy over test images. It says nothing of how another seed would have done."""
    interval = binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of a figure over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation, of what another seed would have given; null of a single seed."""
    interval: Interval | None
    """Of the mean, by Student's t at 95 %; null of a single seed."""


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and interval of the mean; `values` has one for each seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Spread(mean=mean, deviation=None, interval=None)
    deviation = float(np.std(values, ddof=1))
    of_mean = Estimate(mean, deviation / math.sqrt(len(values)), len(values) - 1)
    return Spread(mean=mean, deviation=deviation, interval=of_mean.interval())


# --- An estimate and its error --------------------------------------------------------------------


class Estimate(msgspec.Struct, frozen=True):
    """A figure that is normally distributed about its true value, with a standard error that was estimated
    too: all that follows is Student's t."""

    centre: float
    error: float
    """Standard error; 0 where nothing varied."""
    degrees: float
    """Degrees of freedom of `error`; infinite where it is known."""

    def interval(self) -> Interval:
        """At 95 %: that holds the true value with this probability."""
        half = self.least(ALPHA)
        return Interval(self.centre - half, self.centre + half)

    def p(self) -> float:
        """Two-sided, of no difference."""
        return min(1.0, 2 * self._beyond(abs(self.centre)))

    def equivalence_p(self, margin: float) -> float:
        """Of a true value outside of +-`margin`: the larger p of two one-sided tests (D. J. Schuirmann,
        J. Pharmacokinetics and Biopharmaceutics 15, 1987)."""
        return max(self._beyond(margin + self.centre), self._beyond(margin - self.centre))

    def least(self, alpha: float) -> float:
        """The smallest difference from zero that a two-sided test at `alpha` would have called
        significant."""
        return float(stats.t.isf(alpha / 2, self.degrees)) * self.error

    def _beyond(self, distance: float) -> float:
        """Probability of coming out so far above the true value, or farther."""
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stats.t.sf(distance / self.error, self.degrees))


# --- Two classifiers on the same images -----------------------------------------------------------


@cache
def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the exact McNemar test of two classifiers on the same images, of which so many
    only the one has right, and so many only the other."""
    different = only_first + only_second
    return float(binomtest(only_first, different).pvalue) if different else 1.0


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """Of what the variance of a mean over seeds and images is made."""

    seeds: float
    """Mean square of seeds: what another seed changes, times the number of images, and the rest."""
    images: float
    """What another image changes: more seeds do not make that smaller."""
    number: int
    """Of images."""

    def over(self, seeds: int, *, centre: float) -> Estimate:
        """The mean of so many seeds."""
        square = self.seeds + seeds * self.images
        degrees = (seeds - 1) * (square / self.seeds) ** 2 if self.seeds > 0 else math.inf
        return Estimate(centre, math.sqrt(square / (seeds * self.number)), degrees)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of one side less that of another, over the same seeds and the same images."""

    seeds: int
    images: int
    estimate: float
    low: float
    high: float
    """At 95 %."""
    p: float
    """Two-sided, of no difference."""
    equivalence_p: float
    """Of a difference beyond the margin."""
    bootstrap: Interval
    """At 95 %, over seeds and images, without any assumption of normality: a second opinion on `low` and
    `high`."""
    mcnemar: tuple[float, ...]
    """Exact p of each seed by itself."""
    disagreeing: int
    """Predictions that are right on one side only, over all seeds."""
    model: Estimate
    components: Components | None
    """What `model` is made of; None of a single seed."""

    def least(self, alpha: float) -> float:
        """The smallest difference that a test at `alpha` would have shown; more than 1 if none would."""
        if self.seeds > 1:
            return self.model.least(alpha)
        for surplus in range(self.images + 1):
            discordant = max(self.disagreeing, surplus)
            discordant += (discordant - surplus) % 2
            if mcnemar((discordant + surplus) // 2, (discordant - surplus) // 2) < alpha:
                return surplus / self.images
        return math.inf

    def least_of(self, seeds: int, alpha: float) -> float | None:
        """What so many seeds would have shown, if others vary as these do; None of a single seed, which does
        not tell how seeds vary."""
        if self.components is None:
            return None
        return self.components.over(seeds, centre=0.0).least(alpha)


def paired_difference(first: np.ndarray, second: np.ndarray, *, margin: float = 0.02) -> Difference:
    """Compare two sides over seeds and images at once.

    Seeds and images both are samples: another seed, or other photographs, would have given another
    difference. The model is that of reader studies, many readers and the same cases (D. D. Dorfman, K. S.
    Berbaum, C. E. Metz, Investigative Radiology 27, 1992): the difference of each seed on each image is a
    seed's effect, plus an image's, plus the rest. The error of the mean holds all three, with the degrees of
    freedom of S. L. Hillis (Statistics in Medicine 26, 2007); it is never taken to be smaller than the rest
    alone would make it, at the price of power where seeds have no effect of their own. Of one seed it holds
    the images' alone, and p is McNemar's exact one: the verdict is then on that seed.

    Two images are imagined beside the real ones, which one side each has right alone, in all seeds (D. G.
    Bonett, R. M. Price, J. Educational and Behavioral Statistics 37, 2012): two sides that agree on each of
    50 images are not thereby proven equal.

    Args:
        first, second: (S seeds, N images) of 1 and 0, in the same order.
        margin: within which they are called equivalent.

    Raises:
        ValueError: of different shapes, or empty.
    """
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.shape} and {second.shape}: not the same seeds and images")
    surplus = np.subtract(first, second, dtype=np.int64)
    seeds, images = surplus.shape
    model, components = _over_seeds_and_images(_with_imagined(surplus))
    exact = tuple(mcnemar(int((row > 0).sum()), int((row < 0).sum())) for row in surplus)
    interval = model.interval()
    return Difference(
        seeds=seeds,
        images=images,
        estimate=float(surplus.mean()),
        low=interval.low,
        high=interval.high,
        p=exact[0] if seeds == 1 else model.p(),
        equivalence_p=model.equivalence_p(margin),
        bootstrap=_bootstrap(surplus),
        mcnemar=exact,
        disagreeing=int(np.abs(surplus).sum()),
        model=model,
        components=components,
    )


# --- Two speeds -----------------------------------------------------------------------------------


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as large one side's rates are as the other's."""

    pairs: int
    """Of rates; of rates that are no pairs, of the side with fewer."""
    estimate: float
    """Of the geometric means."""
    low: float
    high: float
    """At 95 %."""
    p: float
    """Two-sided, of no difference."""
    equivalence_p: float
    """Of a ratio beyond the margin."""
    model: Estimate
    """Of the logarithm."""

    def least(self, alpha: float) -> float:
        """The smallest ratio above 1 that a test at `alpha` would have shown."""
        least = self.model.least(alpha)
        return math.exp(least) if least < MOST_LOGARITHM else math.inf


def ratio_of_means(
    first: Sequence[float],
    second: Sequence[float],
    *,
    paired: bool,
    margin: float = 0.05,
) -> Ratio:
    """Compare rates by their logarithms: what disturbs a rate multiplies it.

    Args:
        first, second: rates, above 0.
        paired: whether those at one place were taken next to each other, so that what drifted met both;
            otherwise the test is Welch's (Biometrika 34, 1947).
        margin: within which they are called equivalent: from 1 / (1 + margin) to 1 + margin.

    Raises:
        ValueError: fewer than two on a side, or pairs of which one half is missing.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} rates: an interval takes two on each side")
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} rates: half of a pair is missing")
    a, b = np.log(first), np.log(second)
    if paired:
        variance, degrees = (a - b).var(ddof=1) / len(a), len(a) - 1.0
    else:
        variance = a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)
        degrees = float(stats.ttest_ind(a, b, equal_var=False).df) if variance else math.inf
    model = Estimate(float(a.mean() - b.mean()), math.sqrt(variance), degrees)
    interval = model.interval()
    return Ratio(
        pairs=min(len(first), len(second)),
        estimate=math.exp(model.centre),
        low=math.exp(interval.low),
        high=math.exp(interval.high),
        p=model.p(),
        equivalence_p=model.equivalence_p(math.log1p(margin)),
        model=model,
    )


# --- Many tests -----------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values of a family of tests (S. Holm, Scandinavian J. Statistics 6, 1979): with these, the
    chance of a single false difference in the whole family is at most that of one test.

    statsmodels has the same, and takes a tenth of a second for each call to collect garbage first.
    """
    order = np.argsort(p_values, kind="stable")
    multiples = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiples), 1.0)
    return tuple(adjusted.tolist())


# --- How ------------------------------------------------------------------------------------------


def _with_imagined(surplus: np.ndarray) -> np.ndarray:
    ones = np.ones((len(surplus), 1), surplus.dtype)
    return np.hstack([surplus, ones, -ones])


def _over_seeds_and_images(surplus: np.ndarray) -> tuple[Estimate, Components | None]:
    """Of the mean of (S, N), of which rows and columns both are samples; and of what its error is made."""
    seeds, images = surplus.shape
    mean = float(surplus.mean())
    of_images = surplus.mean(0) - mean
    if seeds == 1:
        return Estimate(mean, math.sqrt(float(np.mean(of_images**2)) / images), math.inf), None
    of_seeds = surplus.mean(1) - mean
    rest = surplus - mean - of_seeds[:, None] - of_images
    square_seeds = images * float((of_seeds**2).sum()) / (seeds - 1)
    square_images = seeds * float((of_images**2).sum()) / (images - 1)
    square_rest = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    # Variances are not below zero. That few seeds happen to lie close together tells little of how far apart
    # others would: the error has no more degrees of freedom for it.
    components = Components(
        seeds=max(square_seeds, square_rest),
        images=max(square_images - square_rest, 0.0) / seeds,
        number=images,
    )
    return components.over(seeds, centre=mean), components


def _bootstrap(surplus: np.ndarray) -> Interval:
    """Percentiles over resampled seeds and resampled images (A. B. Owen, The pigeonhole bootstrap, Annals of
    Applied Statistics 1, 2007). Of S seeds, S - 1 are drawn: to draw S of few understates their variance (J.
    N. K. Rao, C. F. J. Wu, JASA 83, 1988)."""
    rows, columns = _draws(*surplus.shape)
    means = np.einsum("bi,bi->b", rows @ surplus.astype(np.float32), columns)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(low), float(high))


@cache
def _draws(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (RESAMPLES, S) and (RESAMPLES, N) that sum to 1; the same in each call."""
    random = np.random.RandomState(0)
    drawn = max(seeds - 1, 1)
    rows = random.multinomial(drawn, [1 / seeds] * seeds, RESAMPLES) / drawn
    columns = random.multinomial(images, [1 / images] * images, RESAMPLES) / images
    return rows.astype(np.float32), columns.astype(np.float32)
