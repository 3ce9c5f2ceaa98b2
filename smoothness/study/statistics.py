"""Numbers from paired differences: intervals, tests and their correction; no frames here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 9_999
EXACT_PAIRS = 20  # up to here every one of the 2^n sign flips is looked at

Floats = NDArray[np.float64]


def spread_is_zero(differences: Floats, scale: float = 0.0) -> bool:
    """Whether all differences are equal but for rounding; `scale` is the size of the values subtracted.

    >>> spread_is_zero(np.array([0.3 - 0.1, 0.2, 0.2]), scale=0.3)
    True
    """
    rounding = 8 * np.finfo(np.float64).eps * max(scale, float(np.abs(differences).max()))
    return bool(np.ptp(differences) <= rounding)


def t_interval(differences: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean difference: mean ± t · s / sqrt(n), t of n - 1 degrees of freedom.

    Exact for normal differences. Student 1908, "The probable error of a mean", Biometrika 6.

    >>> [round(end, 3) for end in t_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    n = len(differences)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * _error(differences)
    mean = float(differences.mean())
    return mean - half, mean + half


def t_test(differences: Floats) -> float:
    """Two-sided p of Student's paired test: t = mean / (s / sqrt(n)), n - 1 degrees of freedom (Student 1908).

    >>> round(t_test(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    return float(2 * stats.t.sf(abs(float(differences.mean())) / _error(differences), len(differences) - 1))


def bootstrap_t(differences: Floats, confidence: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Studentised bootstrap: the interval's ends, and a two-sided p.

    t* = (mean* - mean) / (s* / sqrt(n)) over `RESAMPLES` resamples; the interval is mean - t*_high · s / sqrt(n)
    to mean - t*_low · s / sqrt(n), and p = (1 + #{|t*| >= |t|}) / (resamples + 1), never below 1 / 10,000.
    Second-order accurate also for skewed differences, where percentiles of the mean are first-order (Hall 1992,
    "The Bootstrap and Edgeworth Expansion", 3.6; Efron & Tibshirani 1993, 12.5). That is a statement about large n:
    with few pairs it is wide and erratic, and a resample without spread counts as t* = ±infinity, so that an end
    can be infinite. The draws are seeded.

    >>> low, high, p = bootstrap_t(np.array([0.8, 1.0, 1.1, 1.3, 0.9, 1.2]))
    >>> 0.7 < low < 1.0 < high < 1.4, p < 0.01
    (True, True)
    """
    n, mean, error = len(differences), float(differences.mean()), _error(differences)
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    samples = differences[drawn]
    shifts = samples.mean(axis=1) - mean
    errors = samples.std(axis=1, ddof=1) / math.sqrt(n)
    flat = np.ptp(samples, axis=1) == 0
    t = np.where(shifts > 0, np.inf, -np.inf)
    t[~flat] = shifts[~flat] / errors[~flat]
    t.sort()
    # The k-th of B with k = (B + 1) · level: no interpolation, which would mix finite and infinite ends.
    place = max(1, math.floor((RESAMPLES + 1) * (1 - confidence) / 2))
    p = (1 + int((np.abs(t) >= abs(mean) / error).sum())) / (RESAMPLES + 1)
    return mean - float(t[-place]) * error, mean - float(t[place - 1]) * error, p


def sign_flip_test(differences: Floats, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test: the share of the 2^n flips with |Σ ±d| at least |Σ d|.

    Exact when, without an effect, each difference is as likely to be its negative (Fisher 1935, "The Design of
    Experiments", 21). Never below 2 / 2^n; see `smallest_p`. Beyond 20 pairs 99,999 flips are drawn, seeded, and
    p = (1 + hits) / 100,000.

    >>> sign_flip_test(np.array([0.1, 0.2, 0.3]))
    0.25
    """
    n = len(differences)
    if n <= EXACT_PAIRS:
        sums = np.zeros(1)
        for size in differences:
            sums = np.concatenate([sums + size, sums - size])
    else:
        rng = np.random.default_rng(seed)
        signs = (rng.integers(2, size=n) * 2 - 1 for _ in range(99_999))
        sums = np.array([float(flips @ differences) for flips in signs])
    rounding = 1e-12 * float(np.abs(differences).sum())
    hits = int((np.abs(sums) >= abs(float(differences.sum())) - rounding).sum())
    return hits / 2**n if n <= EXACT_PAIRS else (1 + hits) / (1 + len(sums))


def smallest_p(test: str, pairs: int) -> float:
    """The smallest p that a test can give with this many pairs, whatever the data; 0 for Student's.

    >>> smallest_p("permutation", 5), smallest_p("bootstrap-t", 5), smallest_p("t", 5)
    (0.0625, 0.0001, 0.0)
    """
    if test == "t":
        return 0.0
    if test == "bootstrap-t":
        return 1 / (RESAMPLES + 1)
    return 2 / 2**pairs if pairs <= EXACT_PAIRS else 1 / 100_000


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p_(k) becomes max over j <= k of min(1, (m - j + 1) · p_(j)).

    Holds the chance of any false rejection in the family, whatever the dependence. NaN counts as 1 in the family
    and stays NaN. Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.array([1.0 if math.isnan(x) else x for x in p])
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [math.nan if math.isnan(x) else float(a) for x, a in zip(p, adjusted, strict=True)]


def _error(differences: Floats) -> float:
    return float(differences.std(ddof=1)) / math.sqrt(len(differences))
