"""Straight lines below and above any activation on an interval."""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.activations.intervals.ranges import secant_range

_ROUNDING = 8 * sys.float_info.epsilon
_TINY = 1e-300
# Of the steepest slope, by which a tangent may be off: the lines are no looser by more, and found in half the time.
_SLACK = 3e-3


class Lines(NamedTuple):
    """low_slope · z + low_offset <= φ(z) <= high_slope · z + high_offset on each interval."""

    low_slope: Tensor
    low_offset: Tensor
    high_slope: Tensor
    high_offset: Tensor


def line_bounds(facts: ActivationFacts, lower: Tensor, upper: Tensor) -> Lines:
    """Lines that enclose φ on [lower, upper], at inflection points, kinks and jumps too.

    Candidates: the constants; the lines through an end with the extreme secant slope seen from there (the chord
    of a convex φ, the tangent from an end of a sigmoidal one); and a line near the tangent at the middle, moved
    by what the secants from the middle allow. The one nearest φ at the middle of the interval is chosen.
    Secant and value ranges come from the facts, rounded outward.

    Ends are float64 and of one shape; infinite ones get constant lines.

    >>> from smoothness.activations import activation_facts
    >>> lines = line_bounds(activation_facts("relu"), torch.tensor([-1.0]).double(), torch.tensor([3.0]).double())
    >>> lines.high_slope, lines.low_slope
    (tensor([0.7500], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    finite = lower.isfinite() & upper.isfinite()
    a, b = torch.where(finite, lower, 0.0), torch.where(finite, upper, 0.0)
    middle = a + (b - a) / 2
    middle = torch.minimum(torch.maximum(middle, a), b)
    # One query each: most of its cost does not depend on the number of intervals.
    values = facts.value_range(torch.stack([lower, a, b, middle]), torch.stack([upper, a, b, middle]))
    (value_low, value_high), *ends = zip(*values, strict=True)
    secants = secant_range(
        facts,
        *map(torch.stack, ([a, b, middle, middle], [a, a, a, middle], [b, b, middle, b])),
        slack=_SLACK,
    )
    left, right, before, after = zip(*secants, strict=True)
    zero = torch.zeros_like(a)
    low = [(zero, value_low)]
    high = [(zero, value_high)]
    low += [_line(left[0], a, ends[0][0], a, b, -1), _line(right[1], b, ends[1][0], a, b, -1)]
    high += [_line(left[1], a, ends[0][1], a, b, 1), _line(right[0], b, ends[1][1], a, b, 1)]
    for found, sign in ((low, -1.0), (high, 1.0)):
        # φ(z) - φ(m) - s (z - m) is at least (after_low - s)(z - m) right of m, and so on.
        inner, outer = (before[1], after[0]) if sign < 0 else (before[0], after[1])
        slope = (inner + outer) / 2
        error = torch.maximum(-sign * (slope - outer) * (b - middle), -sign * (inner - slope) * (middle - a))
        anchor = (ends[2][0] if sign < 0 else ends[2][1]) + sign * error.clamp_min(0) * (1 + _ROUNDING)
        found.append(_line(slope, middle, anchor, a, b, int(sign)))
    low_slope, low_offset = _nearest(low, middle, finite, -1)
    high_slope, high_offset = _nearest(high, middle, finite, 1)
    return Lines(low_slope, low_offset, high_slope, high_offset)


def _line(slope: Tensor, at: Tensor, value: Tensor, a: Tensor, b: Tensor, direction: int) -> tuple[Tensor, Tensor]:
    """The line of this slope through (at, value), moved outward by its rounding."""
    size = value.abs() + slope.abs() * torch.maximum(a.abs(), b.abs())
    return slope, value - slope * at + direction * (_ROUNDING * size + _TINY)


def _nearest(lines: list[tuple[Tensor, Tensor]], middle: Tensor, finite: Tensor, side: int) -> tuple[Tensor, Tensor]:
    slope, offset = lines[0]
    best = offset
    for other_slope, other_offset in lines[1:]:
        value = other_slope * middle + other_offset
        usable = finite & other_slope.isfinite() & other_offset.isfinite() & value.isfinite()
        better = usable & ((value > best) if side < 0 else (value < best))
        slope, offset = torch.where(better, other_slope, slope), torch.where(better, other_offset, offset)
        best = torch.where(better, value, best)
    return slope, offset
