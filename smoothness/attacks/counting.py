"""What a count of successes allows to say: exact intervals of a share, and an exact paired comparison."""

from __future__ import annotations

from smoothness._checks import check_count


def share_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial share (Clopper and Pearson 1934, Biometrika 26).

    The lowest and highest share under which `hits` or more, and `hits` or fewer, of `trials` still happen with
    probability (1 - confidence) / 2. Never covers less than `confidence`. (0, 1) without any trial.

    >>> [round(end, 4) for end in share_interval(0, 10)]
    [0.0, 0.3085]
    """
    tail = (1 - confidence) / 2
    return _lowest(hits, trials, tail), highest_share(hits, trials, 1 - tail)


def highest_share(hits: int, trials: int, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a binomial share (Clopper and Pearson 1934); 1 without any trial.

    >>> round(highest_share(0, 20), 4)  # 1 - 0.05^(1/20)
    0.1391
    """
    from scipy.special import betaincinv  # scipy takes its time to import

    _check(hits, trials)
    return 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, confidence))


def lead_chance(only_first: int, only_second: int) -> float:
    """One-sided p of McNemar's exact test that the first of two attacks turns more examples than the second.

    P(X >= only_first) for X ~ Binomial(only_first + only_second, 1/2), over the examples that exactly one of the
    two turned (McNemar 1947, Psychometrika 12). 1 where they turned the same ones.

    >>> lead_chance(5, 0), lead_chance(0, 0)
    (0.03125, 1.0)
    """
    from scipy.stats import binomtest

    both = check_count("only_first", only_first, 0) + check_count("only_second", only_second, 0)
    return float(binomtest(only_first, both, 0.5, alternative="greater").pvalue) if both else 1.0


def _lowest(hits: int, trials: int, tail: float) -> float:
    from scipy.special import betaincinv

    _check(hits, trials)
    return 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))


def _check(hits: int, trials: int) -> None:
    check_count("trials", trials, 0)
    check_count("hits", hits, 0)
    if hits > trials:
        raise ValueError(f"hits must be at most the number of trials, got {hits} of {trials}")
