"""Intervals, tests and corrections against scipy, published numbers, enumeration, and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smoothness.study.statistics import (
    bootstrap_t,
    holm,
    sign_flip_test,
    smallest_p,
    spread_is_zero,
    t_interval,
    t_test,
)


def normal(seed, n=6):
    return np.random.default_rng(seed).normal(0.3, 1.0, n)


@pytest.mark.parametrize("seed", range(5))
def test_t_agrees_with_scipy(seed):
    level, baseline = normal(seed), normal(seed + 100)
    expected = stats.ttest_rel(level, baseline)
    assert t_test(level - baseline) == pytest.approx(expected.pvalue, rel=1e-10)
    for confidence in (0.9, 0.95, 0.99):
        interval = expected.confidence_interval(confidence)
        assert t_interval(level - baseline, confidence) == pytest.approx((interval.low, interval.high), rel=1e-10)


def test_t_agrees_with_students_own_example():
    # Student 1908, section IX: additional hours of sleep; t.test(extra, paired) in R gives p 0.002833.
    gain = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert t_test(gain) == pytest.approx(0.002833, abs=1e-6)
    assert t_interval(gain) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_holm_agrees_with_statsmodels():
    # multipletests(p, method="holm")[1] of statsmodels 0.15.0, computed once elsewhere.
    p = [0.001, 0.012, 0.04, 0.03, 0.2, 0.012, 0.9]
    expected = [0.007, 0.072, 0.12, 0.12, 0.4, 0.072, 0.9]
    assert holm(p) == pytest.approx(expected, abs=1e-15)


def _holm_by_definition(p):
    """The closed test: a hypothesis is rejected when every intersection that holds it is, by Bonferroni."""
    m = len(p)
    adjusted = []
    for i in range(m):
        others = [k for k in range(m) if k != i]
        sets = ((i, *chosen) for size in range(m) for chosen in itertools.combinations(others, size))
        adjusted.append(max(min(1.0, len(s) * min(p[k] for k in s)) for s in sets))
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_holm_is_the_closure_of_bonferroni(p):
    assert holm(p) == pytest.approx(_holm_by_definition(p), abs=1e-12)


def test_holm_counts_what_could_not_be_tested():
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


@pytest.mark.parametrize("n", range(2, 11))
def test_sign_flips_agree_with_enumeration(n):
    d = normal(n, n)
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=n)]
    expected = sum(x >= abs(d.sum()) - 1e-12 for x in sums) / 2**n
    assert sign_flip_test(d) == expected
    if n < 8:
        scipys = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_test(d) == pytest.approx(scipys.pvalue)


def test_sign_flips_at_their_extremes():
    assert sign_flip_test(np.arange(1.0, 7.0)) == 2 / 2**6 == smallest_p("permutation", 6)
    assert sign_flip_test(np.full(6, 0.1)) == 2 / 2**6  # ties and rounding
    assert sign_flip_test(np.zeros(4)) == 1.0
    d = np.random.default_rng(0).normal(0.4, 1.0, 25)  # drawn, not enumerated
    assert sign_flip_test(d) == pytest.approx(t_test(d), abs=0.01)
    assert sign_flip_test(d) == sign_flip_test(d)
    assert sign_flip_test(np.full(25, 1.0)) == smallest_p("permutation", 25)


def test_bootstrap_t_is_seeded_and_equivariant():
    d = np.random.default_rng(1).exponential(1.0, 12)
    low, high, p = bootstrap_t(d)
    assert (low, high, p) == bootstrap_t(d)
    assert bootstrap_t(d, seed=1) != (low, high, p)
    assert bootstrap_t(10 * d)[:2] == pytest.approx((10 * low, 10 * high))
    mirrored = bootstrap_t(-d)
    assert mirrored[:2] == pytest.approx((-high, -low), rel=0.02)
    assert p >= smallest_p("bootstrap-t", 12)


def test_bootstrap_t_agrees_with_a_slow_loop():
    d = np.array([0.2, 0.5, 1.7, 0.3, 0.9, 0.4, 3.1])
    rng = np.random.default_rng(9)
    error = d.std(ddof=1) / math.sqrt(len(d))
    pivots = []
    for _ in range(40_000):
        sample = rng.choice(d, len(d))
        spread = sample.std(ddof=1) / math.sqrt(len(d))
        pivots.append((sample.mean() - d.mean()) / spread if spread > 0 else math.inf)
    low, high = np.quantile(pivots, [0.025, 0.975])
    assert bootstrap_t(d)[:2] == pytest.approx((d.mean() - high * error, d.mean() - low * error), abs=0.08)


def test_few_pairs_give_infinite_ends():
    low, high, _ = bootstrap_t(np.array([1.0, 2.0, 4.0]))
    assert (low, high) == (-math.inf, math.inf)


def test_differences_without_spread():
    assert spread_is_zero(np.array([0.3 - 0.2, 0.9 - 0.8, 0.1]), scale=0.9)
    assert spread_is_zero(np.zeros(3))
    assert not spread_is_zero(np.array([1e-9, 2e-9, 3e-9]), scale=0.9)


@pytest.mark.slow
def test_t_covers_at_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(10_000):
        low, high = t_interval(rng.normal(0.7, 2.0, 5))
        hits += low <= 0.7 <= high
    assert 0.93 < hits / 10_000 < 0.97


@pytest.mark.slow
def test_bootstrap_t_covers_skewed_differences_better_than_percentiles():
    rng = np.random.default_rng(0)
    rounds, n, studentised, percentile = 1_000, 15, 0, 0
    for _ in range(rounds):
        d = rng.lognormal(0.0, 1.0, n)
        low, high, _ = bootstrap_t(d)
        studentised += low <= math.exp(0.5) <= high
        means = d[rng.integers(n, size=(1_999, n))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        percentile += low <= math.exp(0.5) <= high
    assert studentised / rounds > percentile / rounds + 0.05
    assert studentised / rounds > 0.88


@pytest.mark.slow
def test_p_is_uniform_without_an_effect():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0.0, 1.0, 6) for _ in range(4_000)]
    assert np.mean([t_test(d) <= 0.05 for d in drawn]) == pytest.approx(0.05, abs=0.011)
    assert np.mean([sign_flip_test(d) <= 2 / 2**6 for d in drawn]) == pytest.approx(2 / 2**6, abs=0.009)
