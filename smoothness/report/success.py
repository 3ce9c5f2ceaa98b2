"""Who was fooled, and at which ε: the study's reductions under the names that the report uses."""

from smoothness.study.reductions import (
    FAMILIES,
    HEADLINE,
    KEYS,
    PRECISION,
    attack_rates,
    audits,
    contradicted_share,
    first_success,
    masking,
    nearest_epsilon,
    normalised,
    robust_curves,
    round_epsilon,
    success_rates,
    tested_epsilons,
    zero_gradient_share,
)

__all__ = [
    "FAMILIES",
    "HEADLINE",
    "KEYS",
    "PRECISION",
    "attack_rates",
    "audits",
    "contradicted_share",
    "first_success",
    "masking",
    "nearest_epsilon",
    "normalised",
    "robust_curves",
    "round_epsilon",
    "success_rates",
    "tested_epsilons",
    "zero_gradient_share",
]
