"""Known answers from the literature, and what the methods promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from benchmarks.report.statistics import (
    Estimate,
    holm,
    mcnemar,
    paired_difference,
    ratio_of_means,
    spread,
    wilson,
)

pytestmark = pytest.mark.once

SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)
"""Hours of sleep that two drugs gave ten patients (Student, Biometrika 6, 1908); R's `sleep`."""


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers on the same images, of one seed."""
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return np.array([first]), np.array([second])


AIRWAYS = pairs(1, 1, 7, 12)
"""Airway hyper-responsiveness of 21 children before and after a transplantation, the example of M. W.
Fagerland, S. Lydersen, P. Laake (BMC Medical Research Methodology 13:91, 2013; Statistics in Medicine 33,
2014)."""


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(correct, images, low, high):
    """R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3."""
    interval = wilson(correct, images)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert proportion_confint(correct, images, method="wilson") == pytest.approx(
        (interval.low, interval.high)
    )


class TestMcNemar:
    def test_published_example(self):
        assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
        assert paired_difference(*AIRWAYS).mcnemar == (mcnemar(1, 7),)

    def test_none_that_differ(self):
        assert mcnemar(0, 0) == 1.0


class TestSpread:
    def test_known_answer(self):
        """Drug 2's mean extra sleep: 2.33, sd 2.002, 95 % from 0.8977 to 3.7623 (R's t.test)."""
        found = spread(SLEEP[1])
        assert found.mean == pytest.approx(2.33)
        assert found.deviation == pytest.approx(2.002249, abs=1e-6)
        assert (found.interval.low, found.interval.high) == pytest.approx((0.8976775, 3.7623225), abs=1e-6)

    def test_one_seed_says_nothing_of_others(self):
        found = spread([0.9])
        assert (found.mean, found.deviation, found.interval) == (0.9, None, None)


class TestEstimate:
    def test_nothing_varied(self):
        assert Estimate(0.0, 0.0, 4).p() == 1.0
        assert Estimate(0.1, 0.0, 4).p() == 0.0
        assert Estimate(0.01, 0.0, 4).equivalence_p(0.02) == 0.0
        assert Estimate(0.03, 0.0, 4).equivalence_p(0.02) == 1.0

    def test_what_could_have_been_shown_is_where_p_is_alpha(self):
        model = Estimate(0.0, 0.013, 7.5)
        assert Estimate(model.least(0.01), 0.013, 7.5).p() == pytest.approx(0.01)

    def test_interval_and_test_say_the_same(self):
        for centre in (0.1, 0.15, 0.2):
            model = Estimate(centre, 0.05, 3.2)
            assert (model.interval().low > 0) == (model.p() < 0.05)


class TestPairedDifference:
    def test_one_seed_is_bonett_and_prices(self):
        """-0.508 to -0.013, in Fagerland, Lydersen and Laake (2014)."""
        found = paired_difference(*AIRWAYS)
        assert found.estimate == pytest.approx(-6 / 21)
        assert (found.low, found.high) == pytest.approx((-0.508, -0.013), abs=5e-4)
        assert found.p == pytest.approx(0.0703, abs=5e-5) and found.mcnemar == (found.p,)
        assert (found.seeds, found.images, found.disagreeing) == (1, 21, 8)

    def test_mean_squares_are_those_of_a_two_way_table(self):
        random = np.random.RandomState(0)
        of_seeds = np.array([[0.4], [0.7], [0.9], [0.99]])
        first, second = (random.rand(4, 30) < of_seeds).astype(int), (random.rand(4, 30) < 0.6).astype(int)
        found = paired_difference(first, second)
        seeds, images, rest = _mean_squares(np.hstack([first - second, np.ones((4, 1)), -np.ones((4, 1))]))
        assert seeds > rest  # else the other branch is tested
        square = seeds + max(images - rest, 0)
        assert found.model.error == pytest.approx(math.sqrt(square / (4 * 32)))
        assert found.model.degrees == pytest.approx(square**2 / (seeds**2 / 3))

    def test_seeds_that_lie_together_by_luck_prove_nothing(self):
        """Three seeds with one mean difference: the error is the rest's, and as uncertain as three are."""
        random = np.random.RandomState(0)
        first = np.stack([random.permutation([1] * 30 + [0] * 10) for _ in range(3)])
        found = paired_difference(first, np.ones_like(first))
        *_, images, rest = _mean_squares(np.hstack([first - 1, np.ones((3, 1)), -np.ones((3, 1))]))
        square = rest + max(images - rest, 0)
        assert found.model.error == pytest.approx(math.sqrt(square / (3 * 42)))
        assert found.model.degrees == pytest.approx(2 * (square / rest) ** 2)

    def test_agreement_on_few_images_proves_little(self):
        few, many = np.ones((3, 50), int), np.ones((3, 2000), int)
        assert paired_difference(few, few, margin=0.02).equivalence_p > 0.05
        assert paired_difference(many, many, margin=0.02).equivalence_p < 0.001
        assert paired_difference(few, few).p == 1.0

    def test_sides_change_the_sign_only(self):
        random = np.random.RandomState(1)
        first, second = (random.rand(3, 40) < 0.7).astype(int), (random.rand(3, 40) < 0.5).astype(int)
        one, other = paired_difference(first, second), paired_difference(second, first)
        assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))
        assert (one.p, one.equivalence_p) == pytest.approx((other.p, other.equivalence_p))
        assert one.bootstrap.low == pytest.approx(-other.bootstrap.high, abs=0.02)

    @pytest.mark.parametrize(
        ("seeds", "alpha", "most"),
        # Where the chance is alpha, that of more than `most` in 300 is 1 in 1,000 at most.
        [(1, 0.05, 28), (2, 0.05, 28), (3, 0.05, 28), (5, 0.05, 28), (2, 0.0056, 7), (3, 0.0056, 7)],
    )
    def test_equal_sides_are_called_different_as_seldom_as_promised(self, seeds, alpha, most):
        """Two classifiers with the same chances, whose seeds and images differ."""
        random = np.random.RandomState(seeds)
        assert sum(paired_difference(*_alike(random, seeds)).p < alpha for _ in range(300)) <= most

    def test_intervals_hold_the_true_difference(self):
        random = np.random.RandomState(7)
        found = [paired_difference(*_alike(random, 4)) for _ in range(200)]
        assert sum(one.low <= 0 <= one.high for one in found) >= 180
        assert sum(one.bootstrap.low <= 0 <= one.bootstrap.high for one in found) >= 170

    def test_a_true_difference_is_found(self):
        random = np.random.RandomState(2)
        better, worse = _alike(random, 5, gain=1.0)
        found = paired_difference(better, worse)
        assert found.p < 0.001 and found.low > 0 and found.bootstrap.low > 0

    def test_what_more_seeds_would_have_shown(self):
        """Twice as many that vary alike, each on images of its own: the error falls by the root of 2, of 2
        degrees there are 5."""
        one, other = np.eye(3, dtype=np.int8).repeat(20, axis=1), np.zeros((3, 60), np.int8)
        found = paired_difference(one, other)
        assert found.least_of(3, 0.01) == pytest.approx(found.least(0.01))
        more = Estimate(0.0, found.model.error / math.sqrt(2), 5)
        assert found.least_of(6, 0.01) == pytest.approx(more.least(0.01))
        assert paired_difference(one[:1], other[:1]).least_of(5, 0.05) is None

    def test_more_seeds_of_the_same_images_do_not_help_where_only_images_matter(self):
        """40 of 800 images that each seed has right on one side alone."""
        one, other = np.zeros((3, 800), np.int8), np.zeros((3, 800), np.int8)
        one[:, :20] = other[:, 20:40] = 1
        found = paired_difference(one, other)
        assert found.least_of(100, 0.05) == pytest.approx(found.least(0.05))

    def test_the_same_in_each_call(self):
        assert paired_difference(*AIRWAYS).bootstrap == paired_difference(*AIRWAYS).bootstrap

    @pytest.mark.parametrize("shapes", [((2, 5), (2, 6)), ((0, 5), (0, 5))])
    def test_what_cannot_be_compared(self, shapes):
        with pytest.raises(ValueError, match="not the same seeds and images"):
            paired_difference(*(np.zeros(shape, int) for shape in shapes))


class TestRatio:
    """Of exponentials of the hours of sleep, whose logarithms they are: R's documented `t.test(sleep)`."""

    first, second = (np.exp(hours).tolist() for hours in SLEEP)

    def test_paired(self):
        found = ratio_of_means(self.first, self.second, paired=True)
        assert found.p == pytest.approx(0.002833, abs=1e-6)
        interval = (math.log(found.low), math.log(found.high))
        assert interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
        assert math.log(found.estimate) == pytest.approx(-1.58)

    def test_welch(self):
        found = ratio_of_means(self.first, self.second, paired=False)
        assert found.p == pytest.approx(0.07939, abs=1e-5)
        assert found.model.degrees == pytest.approx(17.776, abs=1e-3)
        interval = (math.log(found.low), math.log(found.high))
        assert interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)

    def test_equivalence_is_statsmodels(self):
        margin = math.expm1(2.0)
        paired = ratio_of_means(self.first, self.second, paired=True, margin=margin).equivalence_p
        assert paired == pytest.approx(ttost_paired(*map(np.array, SLEEP), -2.0, 2.0)[0])
        apart = ratio_of_means(self.first, self.second, paired=False, margin=margin).equivalence_p
        assert apart == pytest.approx(ttost_ind(*map(np.array, SLEEP), -2.0, 2.0, usevar="unequal")[0])

    def test_least_ratio(self):
        found = ratio_of_means([10.0, 11.0, 10.5], [10.2, 10.9, 10.4], paired=True)
        assert found.least(0.05) == pytest.approx(found.high / found.estimate)

    def test_no_ratio_could_have_been_shown(self):
        assert ratio_of_means([1.0, 2.0], [2.0, 1.0], paired=True).least(1e-6) == math.inf

    @pytest.mark.parametrize("first", [[], [1.0]])
    def test_one_rate_has_no_interval(self, first):
        with pytest.raises(ValueError, match="two on each side"):
            ratio_of_means(first, [1.0, 2.0], paired=False)

    def test_half_of_a_pair(self):
        with pytest.raises(ValueError, match="half of a pair"):
            ratio_of_means([1.0, 2.0, 3.0], [1.0, 2.0], paired=True)

    def test_rates_that_never_vary(self):
        found = ratio_of_means([2.0, 2.0], [1.0, 1.0], paired=False)
        assert (found.low, found.estimate, found.high, found.p) == (2.0, 2.0, 2.0, 0.0)


def test_holm():
    """S. Holm's procedure as any textbook has it: 4, 3, 2 and 1 times, and never smaller than before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


def test_holm_is_statsmodels():
    p_values = np.random.RandomState(0).rand(40) ** 4
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Of rows, columns and residuals, as statsmodels has them."""
    import pandas as pd
    from statsmodels.formula.api import ols

    rows, columns = np.indices(table.shape)
    frame = pd.DataFrame({"y": table.ravel(), "row": rows.ravel(), "column": columns.ravel()})
    found = anova_lm(ols("y ~ C(row) + C(column)", frame).fit())
    return tuple(found["sum_sq"] / found["df"])


def _alike(random: np.random.RandomState, seeds: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two classifiers on 200 images: images are easy or hard for both, seeds are good or bad
    for one."""
    easy = random.randn(200)
    effect = 0.2 if seeds > 1 else 0.0  # a single seed is not told from others
    one, other = (
        (1.0 + easy + effect * random.randn(seeds, 1) + 0.7 * random.randn(seeds, 200) + more > 0).astype(int)
        for more in (gain, 0.0)
    )
    return one, other
