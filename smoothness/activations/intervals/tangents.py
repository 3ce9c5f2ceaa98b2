"""The least secant slope from a point outside an arc of φ to a tangent point on it, bounded from below."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from smoothness.activations.intervals.enclosures import TINY, CertifiedCurve, Range, without_overflow

# The search ends when the bound is this close to an attained secant.
TOLERANCE = 1e-8
_ITERATIONS = 100
_ROUNDING = 8 * sys.float_info.epsilon


class Fixed(NamedTuple):
    """The point all secants of a row pass through: `at`, φ there and its error, and σ = +1 or -1."""

    at: Tensor
    origin: Tensor
    origin_error: Tensor
    sign: Tensor


@dataclass
class Arcs:
    """One arc of φ per row, on which φ' is monotone, and a fixed point that does not lie on it.

    With σ = `fixed.sign`, h(s) = σ (φ'(s)(s - at) - (φ(s) - φ(at))) increases on the arc; the tangent point is its
    zero, where σ times the secant slope is least.

    Attributes:
        fixed: the fixed point.
        left, right: the arc; it shrinks around the zero of h as signs of h are proved.
        left_h, right_h: a quarter of h there where its sign is proved, else 0.
        left_slope, right_slope: σ φ' there, rounded down.
        bound: below σ times every secant slope to the arc.
        target: a bound that need not be exceeded: the search ends there.
    """

    fixed: Fixed
    left: Tensor
    left_h: Tensor
    left_slope: Tensor
    right: Tensor
    right_h: Tensor
    right_slope: Tensor
    bound: Tensor
    target: Tensor

    def keep(self, rows: Tensor) -> Arcs:
        """These rows only."""
        others = (getattr(self, f.name)[rows] for f in fields(self)[1:])
        return Arcs(Fixed(*(z[rows] for z in self.fixed)), *others)


def joined(parts: list[Arcs]) -> Arcs:
    """All of them, one after the other."""
    fixed = Fixed(*(torch.cat(z) for z in zip(*(part.fixed for part in parts), strict=True)))
    return Arcs(fixed, *(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(parts[0])[1:]))


def proved_arcs(
    fixed: Fixed, left: tuple[Tensor, Range, Range], right: tuple[Tensor, Range, Range], nearest: Range, target: Tensor
) -> tuple[Arcs, Tensor]:
    """The arcs that may hold a tangent point below the target, and their rows.

    Each end is (s, (φ, error), enclosure of φ' from inside); `nearest` encloses the secant to the end nearer `at`.
    """
    at, sign = fixed.at, fixed.sign
    proved, floors = [], []
    for s, value, slope in (left, right):
        h, noise = tangency(fixed, s, value, ((slope[0] + slope[1]) / 2, (slope[1] - slope[0]) / 2))
        proved.append(torch.where(h.abs() > noise, h, 0.0))
        floors.append(_floor(sign, slope))
    bound = torch.minimum(*floors)
    # A secant to s averages the one to the nearer end and the slopes from there on.
    near, far = (
        torch.minimum((left[0] - at).abs(), (right[0] - at).abs()),
        torch.maximum((left[0] - at).abs(), (right[0] - at).abs()),
    )
    share, start = near / far * (1 - _ROUNDING), _floor(sign, nearest)
    average = share * start + (1 - share) * bound
    average = average - _ROUNDING * (start.abs() + bound.abs()) - TINY
    bound = torch.maximum(bound, torch.minimum(start, average).nan_to_num(-math.inf))
    arcs = Arcs(fixed, left[0], proved[0], floors[0], right[0], proved[1], floors[1], bound, target)
    chosen = ((proved[0] <= 0) & (proved[1] >= 0) & (bound < target)).nonzero().squeeze(1)
    return arcs.keep(chosen), chosen


def tangency(fixed: Fixed, s: Tensor, value: Range, slope: Range) -> Range:
    """h(s) / 4, which does not overflow, and a bound on its error, from φ(s) and φ'(s) with theirs."""
    run, rise = s / 4 - fixed.at / 4, value[0] / 4 - fixed.origin / 4
    h = fixed.sign * (slope[0] * run - rise)
    noise = slope[1] * run.abs() + value[1] / 4 + fixed.origin_error / 4
    noise = noise + _ROUNDING * ((slope[0] * run).abs() + rise.abs()) + TINY
    return h, torch.where(h.isfinite(), noise, math.inf).nan_to_num(math.inf, math.inf)


def least_secant(curve: CertifiedCurve, arcs: Arcs, tolerance: float = TOLERANCE) -> Tensor:
    """Lower bound of σ (φ(s) - φ(at)) / (s - at) at the zero s of h, for each arc.

    At any p on the arc the tangent line at p supports φ, which gives for all s on it

        σ (φ(s) - φ(at)) / (s - at) >= σ (φ(p) - φ(at)) / (p - at) + h(p) (s - p) / ((p - at)(s - at));

    and at the zero of h the secant slope is φ' there, hence between its values at both ends of the arc. The arc
    is cut by inverse quadratic interpolation or in the middle (Chandrupatla 1997); where rounding hides the sign of h,
    from both sides of that gap.
    """
    bound, best = arcs.bound.clone(), arcs.bound
    rows = torch.arange(len(best), device=best.device)
    # The stretch where the sign of h is not proved; the side moved last, and (s, h) of the end it had before.
    gap_left, gap_right = torch.full_like(best, math.inf), torch.full_like(best, -math.inf)
    attained, moved, third = torch.full_like(best, math.inf), torch.zeros_like(best), (best, torch.full_like(best, 0))
    for iteration in range(_ITERATIONS):
        if not len(rows):
            break
        at, origin, origin_error, sign = arcs.fixed
        p = _next_point(arcs, moved, third, gap_left, gap_right, iteration)
        value, slope = curve.value_and_slope(p)
        value = without_overflow(*value)
        h, noise = tangency(arcs.fixed, p, value, slope)
        below, above = h < -noise, h > noise
        unknown = ~(below | above)
        gap_left = torch.where(unknown, torch.minimum(gap_left, p), gap_left)
        gap_right = torch.where(unknown, torch.maximum(gap_right, p), gap_right)
        floor = sign * slope[0] - slope[1]
        third = torch.where(below, arcs.left, arcs.right), torch.where(below, arcs.left_h, arcs.right_h)
        arcs.left_h, arcs.right_h = torch.where(below, h, arcs.left_h), torch.where(above, h, arcs.right_h)
        moved = torch.where(above, 1.0, torch.where(below, -1.0, 0.0))
        arcs.left, arcs.left_slope = torch.where(below, p, arcs.left), torch.where(below, floor, arcs.left_slope)
        arcs.right, arcs.right_slope = torch.where(above, p, arcs.right), torch.where(above, floor, arcs.right_slope)

        run = p - at
        secant = sign * (value[0] - origin) / run
        error = (value[1] + origin_error) / run.abs() * (1 + _ROUNDING) + _ROUNDING * secant.abs() + TINY
        drops = []
        for s in (arcs.left, arcs.right):
            # Divided one after the other: the product of both distances may underflow.
            share, reach = 4 * (s - p) / run, s - at
            drops.append(h * share / reach - (noise + _ROUNDING * h.abs()) * share.abs() / reach.abs())
        supported = secant - error + torch.minimum(*drops)
        between = torch.minimum(arcs.left_slope, arcs.right_slope)
        best = torch.maximum(best, torch.maximum(between, supported.nan_to_num(-math.inf)))
        # σ φ' at the tangent point is at most the larger of the ends; their floors are within rounding of it.
        attained = torch.minimum(attained, (secant + error).nan_to_num(math.inf))
        attained = torch.minimum(attained, torch.maximum(arcs.left_slope, arcs.right_slope))
        bound[rows] = best
        open_rows = ((attained - best > tolerance) & (best < arcs.target)).nonzero().squeeze(1)
        if len(open_rows) < len(rows):
            rows, arcs, best = rows[open_rows], arcs.keep(open_rows), best[open_rows]
            gap_left, gap_right = gap_left[open_rows], gap_right[open_rows]
            attained, moved, third = attained[open_rows], moved[open_rows], (third[0][open_rows], third[1][open_rows])
    return bound


def _next_point(
    arcs: Arcs, moved: Tensor, third: tuple[Tensor, Tensor], gap_left: Tensor, gap_right: Tensor, iteration: int
) -> Tensor:
    middle = arcs.left + (arcs.right - arcs.left) / 2
    p = middle
    if iteration % 16 != 15:
        right = moved > 0
        a, b = torch.where(right, arcs.right, arcs.left), torch.where(right, arcs.left, arcs.right)
        fa, fb = torch.where(right, arcs.right_h, arcs.left_h), torch.where(right, arcs.left_h, arcs.right_h)
        c, fc = third
        place, level = (a - b) / (c - b), (fa - fb) / (fc - fb)
        share = fa / (fb - fa) * (fc / (fb - fc)) + (c - a) / (b - a) * (fa / (fc - fa)) * (fb / (fc - fb))
        quadratic = a + share * (b - a)
        # Where the inverse is monotone between the three points; any comparison with NaN is false.
        trusted = (level**2 < place) & ((1 - level) ** 2 < 1 - place) & (moved != 0)
        p = torch.where(trusted & (quadratic > arcs.left) & (quadratic < arcs.right), quadratic, middle)
    beside = (arcs.left + (gap_left - arcs.left) / 2) if iteration % 2 else (arcs.right + (gap_right - arcs.right) / 2)
    p = torch.where(gap_left <= gap_right, beside, p)
    # φ at a left end may belong to the piece before.
    return torch.maximum(p, torch.nextafter(arcs.left, arcs.right))


def _floor(sign: Tensor, slopes: Range) -> Tensor:
    return torch.minimum(sign * slopes[0], sign * slopes[1])
