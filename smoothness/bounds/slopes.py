"""The slopes each unit can have: between any two points of its range, or from its value at the centre."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.activations.intervals.ranges import secant_range
from smoothness.bounds.ranges import Interval

Pairs = Literal["ball", "centre"]

# Of the steepest slope, by which an extreme secant may be off, outward.
_SLACK = 3e-4


def unit_slopes(facts: ActivationFacts, found: Interval, at: Interval | None = None) -> tuple[Tensor, Tensor]:
    """[α, β] of every unit, each (n, width), from the facts and rounded outward.

    Without `at`, of the pairs in the range: the extremes of (φ(s) - φ(t)) / (s - t). With `at`, the enclosure of
    the unit's value z at the centre, of the centre pairs: (φ(s) - φ(z)) / (s - z) for s in the range. A jump that
    is crossed makes an end infinite; of centre pairs, only one within the enclosure does.

    For fixed s the secant slope, as a function of z on an enclosure [a, b], is extreme at a, at b, or where it
    lies between the one-sided derivatives of φ at z: the hull of the secants from a, those from b and the slopes
    inside [a, b] holds them all.
    """
    if at is None:
        return facts.slope_range(*found)
    left = torch.minimum(torch.maximum(at.lower, found.lower), found.upper)
    right = torch.minimum(torch.maximum(at.upper, left), found.upper)
    if not (left.isfinite() & right.isfinite()).all():
        return facts.slope_range(*found)
    (alpha, low), (beta, high) = facts.slope_range(torch.stack([found.lower, left]), torch.stack([found.upper, right]))
    seen = secant_range(facts, torch.stack([left, right]), *found, slack=_SLACK)
    low, high = torch.minimum(low, seen[0].amin(dim=0)), torch.maximum(high, seen[1].amax(dim=0))
    return torch.maximum(low, alpha), torch.minimum(high, beta)
