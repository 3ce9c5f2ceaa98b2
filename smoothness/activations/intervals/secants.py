"""Extremes of the secants (φ(s) - φ(at)) / (s - at) over an interval: end points, breakpoints, tangents."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from smoothness.activations.intervals.enclosures import (
    TINY,
    CertifiedCurve,
    Range,
    choose,
    empty_range,
    hull,
    widened,
    without_overflow,
)
from smoothness.activations.intervals.tangents import TOLERANCE, Arcs, Fixed, joined, least_secant, proved_arcs

# Four roundings: two differences, a quotient, a product.
_ROUNDING = 4 * sys.float_info.epsilon


class _Point(NamedTuple):
    """An end or a knot s: φ with its error and slopes on both sides, and the secants found to it."""

    s: Tensor
    value: Range
    before: Range
    right_value: Range
    after: Range
    secant: Range


class _Secants:
    """Secants through (at, φ(at)) for one chunk of queries, with the range gathered so far."""

    def __init__(self, curve: CertifiedCurve, at: Tensor, lower: Tensor, upper: Tensor) -> None:
        self.curve, self.at, self.lower, self.upper = curve, at, lower, upper
        origin, before = curve.value_and_slope(at, -1)
        self.origin, self.origin_error = without_overflow(*origin)
        self.before = widened(*before)
        self.after = widened(*curve.slope(at, 1))
        self.low, self.high = empty_range(at)
        self.positions = at.new_tensor([b.position for b in curve.facts.breakpoints])
        self.left, self.right = (widened(*curve.slope(self.positions, side)) for side in (-1, 1))

    def everything(self) -> Range:
        return torch.full_like(self.at, -math.inf), torch.full_like(self.at, math.inf)

    def add(self, rows: Tensor, found: Range, kept: Range | None = None) -> None:
        if kept is not None:
            kept[0][rows], kept[1][rows] = found
        self.low[rows] = torch.minimum(self.low[rows], found[0])
        self.high[rows] = torch.maximum(self.high[rows], found[1])

    def loosen(self, rows: Tensor, slack: float) -> None:
        if slack:
            self.low[rows] -= slack
            self.high[rows] += slack

    def to(
        self, s: Tensor, rows: Tensor, value: Range, slopes: tuple[Range, Range], start: Tensor | None = None
    ) -> Range:
        """Secants from `at` to s != at: the quotient, cut by the slopes between (mean value theorem).

        `start` replaces s there when `value` is the limit right of a jump.
        """
        at, origin, origin_error = self.at[rows], self.origin[rows], self.origin_error[rows]
        # Scaled down where a difference might overflow.
        size = torch.maximum(torch.maximum(s.abs(), at.abs()), torch.maximum(value[0].abs(), origin.abs()))
        scale = torch.where(size > 1e300, 0.25, 1.0).double()
        rise, run = value[0] * scale - origin * scale, s * scale - at * scale
        secant = rise / run
        error = (value[1] * scale + origin_error * scale) / run.abs() * (1 + _ROUNDING)
        error = error + _ROUNDING * secant.abs() + TINY
        low, high = widened(secant, torch.where(error.isnan(), math.inf, error))
        low, high = low.nan_to_num(-math.inf, math.inf, -math.inf), high.nan_to_num(math.inf, math.inf, -math.inf)
        right = s > at
        beside_at = choose(right, _at(self.after, rows), _at(self.before, rows))
        beside_s = choose(right, slopes[0], slopes[1])
        between = self._mean_slope(at, s if start is None else start, beside_at, beside_s)
        low, high = torch.maximum(low, between[0]), torch.minimum(high, between[1])
        wide = (high - low > 1e-9).nonzero().squeeze(1)
        if len(wide) and len(self.positions):
            split = self._split_mean_slope(at[wide], s[wide], _at(beside_at, wide), _at(beside_s, wide))
            low[wide], high[wide] = torch.maximum(low[wide], split[0]), torch.minimum(high[wide], split[1])
        return low, high

    def _mean_slope(self, a: Tensor, b: Tensor, beside_a: Range, beside_b: Range) -> Range:
        """The mean value theorem: slopes between a and b, given those at both."""
        turns = self.curve.slope_run(torch.minimum(a, b), torch.maximum(a, b))
        return self.curve.signed(hull(hull(beside_a, beside_b), turns))

    def _split_mean_slope(self, a: Tensor, b: Tensor, beside_a: Range, beside_b: Range) -> Range:
        """The mean value theorem on both sides of a kink, when it is the only breakpoint between a and b."""
        first = torch.searchsorted(self.positions, torch.minimum(a, b), right=True)
        last = torch.searchsorted(self.positions, torch.maximum(a, b))
        k = first.clamp(max=len(self.positions) - 1)
        t, run, right = self.positions[k], b - a, b > a
        near, far = (
            choose(right, _at(self.left, k), _at(self.right, k)),
            choose(right, _at(self.right, k), _at(self.left, k)),
        )
        near, far = self._mean_slope(a, t, beside_a, near), self._mean_slope(t, b, far, beside_b)
        share = (t - a) / run, (b - t) / run
        parts = [(x * share[0], y * share[1]) for x, y in zip(near, far, strict=True)]
        slack = [_ROUNDING * (x.abs() + y.abs()) + TINY for x, y in parts]
        kink = (last - first == 1) & ~torch.isin(t, self.curve.jumps) & run.isfinite()
        low = torch.where(kink, parts[0][0] + parts[0][1] - slack[0], -math.inf)
        high = torch.where(kink, parts[1][0] + parts[1][1] + slack[1], math.inf)
        return low.nan_to_num(-math.inf, math.inf, -math.inf), high.nan_to_num(math.inf, math.inf, -math.inf)


def secant_extremes(
    curve: CertifiedCurve, at: Tensor, lower: Tensor, upper: Tensor, *, tolerance: float = TOLERANCE
) -> Range:
    """Enclosure of (φ(s) - φ(at)) / (s - at) over s in [lower, upper], s != at, for flat float64 tensors.

    Secants are extreme at end points, at breakpoints, and where they are tangent to φ. Between turning points φ'
    is monotone, hence so is φ'(s)(s - at) - (φ(s) - φ(at)), whose zeros are the tangent points: one at most.
    """
    found = _Secants(curve, at, lower, upper)
    _add_limits(found)
    ends = [_add_end(found, lower), _add_end(found, upper)]
    edges = curve.tail_edges()
    knots = torch.cat([at.new_tensor([edges[0][0]]), curve.slope_turns, at.new_tensor([edges[1][0]])])
    knots = knots[knots.isfinite()]
    points = [_add_knot(found, t) for t in knots]
    searches = []
    for left, right in pairwise(points):
        # A tail continues the stretch beside it.
        open_sides = bool(left.s != edges[0][0]), bool(right.s != edges[1][0])
        searches.append(_tangents(found, left, right, ends, open_sides))
    _add_tangents(found, [search for search in searches if search is not None], tolerance)
    _add_tails(found, edges)
    return curve.signed((found.low, found.high))


def _add_limits(found: _Secants) -> None:
    """The limit s -> at: the one-sided derivatives, infinite to the right of a jump."""
    at, lower, upper, curve = found.at, found.lower, found.upper, found.curve
    alone = (lower == at) & (upper == at)
    rows = ((lower < at) & (at <= upper) | alone).nonzero().squeeze(1)
    found.add(rows, _at(found.before, rows))
    after = found.after
    for b in curve.facts.breakpoints:
        if b.order == -1:
            jump = (at == b.position) & ~alone
            after = choose(jump, (torch.full_like(at, math.copysign(math.inf, b.jump)),) * 2, after)
    rows = ((lower <= at) & (at < upper) | alone).nonzero().squeeze(1)
    found.add(rows, _at(after, rows))


def _add_end(found: _Secants, s: Tensor) -> _Point:
    """The secant to an end point, in the limit when that is infinite."""
    value, left = found.curve.value_and_slope(s, -1)
    value, before, after = without_overflow(*value), widened(*left), widened(*found.curve.slope(s, 1))
    secant = found.everything()
    rows = ((s != found.at) & s.isfinite()).nonzero().squeeze(1)
    found.add(rows, found.to(s[rows], rows, _at(value, rows), (_at(before, rows), _at(after, rows))), secant)
    rows = s.isinf().nonzero().squeeze(1)
    found.add(rows, _at(before, rows))
    return _Point(s, value, before, value, after, secant)


def _add_knot(found: _Secants, t: Tensor) -> _Point:
    """The secants to a breakpoint or turning point inside, from both sides when it is a jump."""
    curve, at, lower, upper = found.curve, found.at, found.lower, found.upper
    jump = bool((curve.jumps == t).any())
    sides = [(curve.value(t, side), widened(*curve.slope(t, side))) for side in (-1, 1)]
    (left_value, before), (right_value, after) = sides
    inside, secant = (lower < t) & (t < upper) & (at != t), found.everything()
    wanted = [(left_value, (before, after), inside, None if jump else secant, t)]
    if jump:
        # From the left, the slopes between do not bound a secant to the limit beyond a jump.
        free = torch.full_like(t, -math.inf), torch.full_like(t, math.inf)
        beyond = (lower <= t) & (t < upper)
        wanted.append((right_value, (free, free), beyond & (at < t), None, t))
        wanted.append((right_value, (after, after), beyond & (at > t), None, t.nextafter(t.new_tensor(math.inf))))
    for value, slopes, mask, kept, start in wanted:
        rows = mask.nonzero().squeeze(1)
        if len(rows):
            s = t.expand(len(rows))
            value = value[0].expand_as(s), value[1].expand_as(s)
            found.add(rows, found.to(s, rows, value, slopes, start.expand_as(s)), kept)
    return _Point(t, left_value, before, right_value, after, secant)


def _add_tangents(found: _Secants, searches: list[tuple[Tensor, Arcs]], tolerance: float) -> None:
    """The secants to the tangent points, all searched for at once."""
    if not searches:
        return
    bounds = least_secant(found.curve, joined([arcs for _, arcs in searches]), tolerance)
    for (rows, arcs), bound in zip(searches, torch.split(bounds, [len(rows) for rows, _ in searches]), strict=True):
        low, high, sign = found.low[rows], found.high[rows], arcs.fixed.sign
        found.low[rows] = torch.where(sign > 0, torch.minimum(low, bound), low)
        found.high[rows] = torch.where(sign < 0, torch.maximum(high, -bound), high)


def _tangents(
    found: _Secants, left: _Point, right: _Point, ends: list[_Point], open_sides: tuple[bool, bool]
) -> tuple[Tensor, Arcs] | None:
    """Rows and arcs of the tangent points between two knots, unless h proves to keep its sign there."""
    at, lower, upper = found.at, found.lower, found.upper
    # +1 where φ is convex between the knots, -1 where concave, 0 where affine.
    bend = int(right.before[0] > left.after[1]) - int(right.before[1] < left.after[0])
    # Seen from the same monotone stretch of φ', secants have no tangent point; but from a jump they may.
    from_left = (at < left.s) if open_sides[0] else torch.zeros_like(at, dtype=torch.bool)
    from_right = (at > right.s) if open_sides[1] else torch.zeros_like(at, dtype=torch.bool)
    jump = (found.curve.jumps == left.s).any()
    if jump:
        from_left = from_left | (at == left.s)
    rows = ((from_left | from_right) & (lower < right.s) & (upper > left.s)).nonzero().squeeze(1)
    if not len(rows):
        return None
    if bend == 0:
        spread = torch.maximum(right.before[1], left.after[1]) - torch.minimum(right.before[0], left.after[0])
        found.loosen(rows, float(spread))
        return None
    cut_left, cut_right = lower[rows] > left.s, upper[rows] < right.s
    a = torch.where(cut_left, lower[rows], left.s), choose(cut_left, _at(ends[0].right_value, rows), left.right_value)
    b = torch.where(cut_right, upper[rows], right.s), choose(cut_right, _at(ends[1].value, rows), right.value)
    slope_a = choose(cut_left, _at(ends[0].after, rows), left.after)
    slope_b = choose(cut_right, _at(ends[1].before, rows), right.before)
    # A convex φ has a least secant to its right and a largest to its left; `sign` turns all into least.
    from_left = from_left[rows]
    sign = torch.where(from_left, float(bend), -float(bend))
    target = torch.where(sign > 0, found.low[rows], -found.high[rows])
    nearest = choose(
        from_left,
        choose((lower[rows] < left.s) | jump, _at(left.secant, rows), _at(ends[0].secant, rows)),
        choose(upper[rows] > right.s, _at(right.secant, rows), _at(ends[1].secant, rows)),
    )
    arcs, chosen = proved_arcs(
        Fixed(at[rows], found.origin[rows], found.origin_error[rows], sign),
        (*a, slope_a),
        (*b, slope_b),
        nearest,
        target,
    )
    return rows[chosen], arcs


def _add_tails(found: _Secants, edges: tuple[tuple[float, float], ...]) -> None:
    """Where φ' is all but constant, secants run between those to both ends; else the tail is one convex arc."""
    for (edge, slack), past, side in ((edges[0], found.lower, -1), (edges[1], found.upper, 1)):
        rows = (past * side > edge * side).nonzero().squeeze(1)
        if not len(rows):
            continue
        if math.isfinite(slack):
            found.loosen(rows, slack)
        else:
            # φ bends one way all along. From inside, secants are extreme at the ends; from outside, at the ends or
            # at a tangent, whose slope lies between those at the tail's start and at infinity.
            rows = rows[found.at[rows] * side < edge * side]
            start = found.lower[rows].clamp(min=edge) if side > 0 else found.upper[rows].clamp(max=edge)
            low, high = widened(*found.curve.slope(start, side))
            slopes, _ = found.curve.slope(past.new_tensor([edge, side * math.inf]))
            if slopes[1] > slopes[0]:
                found.low[rows] = torch.minimum(found.low[rows], low)
            else:
                found.high[rows] = torch.maximum(found.high[rows], high)


def _at(pair: Range, rows: Tensor) -> Range:
    return pair[0][rows], pair[1][rows]
