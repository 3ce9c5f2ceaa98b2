"""Exact intervals and tests against scipy's and against sums of binomial probabilities."""

import math

import pytest
from scipy import stats

from smoothness.attacks.counting import highest_share, lead_chance, share_interval


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (3, 11), (11, 11), (40, 200)])
def test_intervals_are_those_of_clopper_and_pearson(hits, trials):
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert share_interval(hits, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)
    one_sided = stats.binomtest(hits, trials, alternative="less").proportion_ci(0.95, method="exact").high
    assert highest_share(hits, trials) == pytest.approx(one_sided, abs=1e-9)


def test_no_trial_says_nothing():
    assert share_interval(0, 0) == (0.0, 1.0)
    assert highest_share(0, 0) == 1.0


@pytest.mark.parametrize(("first", "second"), [(3, 1), (0, 4), (10, 0), (6, 6)])
def test_the_lead_is_a_sum_of_binomial_probabilities(first, second):
    both = first + second
    assert lead_chance(first, second) == pytest.approx(
        sum(math.comb(both, k) for k in range(first, both + 1)) / 2**both
    )


def test_counts_are_checked():
    with pytest.raises(ValueError, match="hits must be at most the number of trials, got 3 of 2"):
        share_interval(3, 2)
    with pytest.raises(ValueError, match="trials must be a whole number"):
        highest_share(0, -1)
