"""Ranges of waves on a line: each query is moved by whole periods to one window near 0."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.activations.intervals.enclosures import TINY, CertifiedCurve, Range, choose, hull, widened
from smoothness.activations.intervals.secants import secant_extremes

# Beyond as many periods from 0 the position in the period is too uncertain, and global bounds answer.
_FARTHEST = 2.0**27
# Periods on each side of 0 with turning points: the windows reach 1.51 periods, and one more lies beyond them.
_REACH = 3
# A window's length in periods: a little more than one, since the period is rounded.
_LENGTH = 1.001
# Error of a position moved by D, relative to |D| and to the result: of the period, a product and a difference; and of
# the product frequency · z.
_MOVED = 2 * sys.float_info.epsilon
# Points that bound a wave, and rounding of a few operations on it.
_GRID = 1 << 13
_ROUNDING = 8 * sys.float_info.epsilon


class PeriodicCurve(CertifiedCurve):
    """φ(z) = c z + ψ(z), ψ of period P: φ(z + P) = φ(z) + c P, certified near 0 and moved from there.

    Extremes lie within one period of a point m of [lower, upper], which is moved by D = nP to |m - D| <= P/2:

    - slopes: any m, since φ' has period P;
    - values: m = lower and m = upper, since every period adds c P to φ;
    - secants: m nearest to `at`. They are c + (ψ(s) - ψ(at)) / (s - at). A full period beside m takes every value of
      ψ, so its secants of ψ have both signs or 0; and a point beyond has the same ψ as one there that is nearer to
      `at`, hence a secant of ψ of the same sign and no larger.

    Moving displaces a point by at most δ = 2ε (|D| + |z - D|) within the period: values gain sup |φ'| δ, slopes
    `curvature` δ, secants `curvature` (δ(at) + δ(s)) / 2.

    Where |m| or |at| exceeds 2^27 periods (8e8 / frequency) the answer is global: slopes between slope_min and
    slope_max, values within the range of ψ around the line, secants within c ± (max ψ - min ψ) / distance.

    Raises:
        TypeError: a periodic φ with breakpoints.
    """

    def __init__(self, facts: ActivationFacts, device: torch.device) -> None:
        if facts.breakpoints or facts.period is None:
            raise TypeError(f"ranges of periodic facts need a period and no breakpoints; {facts.name} has others")
        period = facts.period
        shifts = [k * period for k in range(-_REACH, _REACH + 1)]
        value_turns, slope_turns = (
            tuple(sorted(t + shift for shift in shifts for t in turns))
            for turns in (facts.value_turns, facts.slope_turns)
        )
        super().__init__(replace(facts, period=None, value_turns=value_turns, slope_turns=slope_turns), device)
        self._period = period
        self._drift = self._drift_of_a_period()
        self._wave = self._wave_extremes()

    def value_extremes(self, lower: Tensor, upper: Tensor) -> Range:
        """Enclosure of {φ(s): lower <= s <= upper}."""
        return hull(*(self._values_beside(m, lower, upper) for m in (lower, upper)))

    def slope_extremes(self, lower: Tensor, upper: Tensor) -> Range:
        """Enclosure of φ' in [lower, upper]."""
        _, moved, near, (low, high) = self._window(lower, lower, upper)
        found = _widened(super().slope_extremes(low, high), self.facts.curvature * moved)
        return self.signed(choose(near, found, self._all_slopes(lower)))

    def secant_extremes(self, at: Tensor, lower: Tensor, upper: Tensor) -> Range:
        """Enclosure of (φ(s) - φ(at)) / (s - at) over s != at in [lower, upper]."""
        m = torch.minimum(torch.maximum(at, lower), upper)
        shift, moved, near, (low, high) = self._window(m, lower, upper)
        near = near & (at.abs() <= _FARTHEST * self._period)
        centre = torch.where(near, at - shift * self._period, 0.0)
        found = secant_extremes(self, centre, low, high)
        slack = self.facts.curvature * (moved + _MOVED * centre.abs())
        # Every secant lies within c ± (max ψ - min ψ) / |s - at|.
        swing = (self._wave[1] - self._wave[0]) * (1 + _ROUNDING) / (at - m).abs()
        line = self._line(torch.full_like(at, self._period))
        line = line[0] / self._period, line[1] / self._period
        error = _ROUNDING * self.lipschitz + TINY
        everywhere = _widened(line, swing + error)
        everywhere = _cut(everywhere, self._all_slopes(at))
        return self.signed(choose(near, _cut(_widened(found, slack), everywhere), everywhere))

    def tail_edges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """No tails: windows end before the last turning points."""
        return (-torch.inf, 0.0), (torch.inf, 0.0)

    def _values_beside(self, m: Tensor, lower: Tensor, upper: Tensor) -> Range:
        shift, moved, near, (low, high) = self._window(m, lower, upper)
        found = _widened(super().value_extremes(low, high), self.lipschitz * moved)
        periods = self._line(torch.where(near, shift, 0.0) * self._period)
        found = found[0] + periods[0], found[1] + periods[1]
        found = _widened(found, _ROUNDING * torch.maximum(found[0].abs(), found[1].abs()))
        line = self._line(m)
        far = widened(line[0] + self._wave[0], _ROUNDING * line[0].abs())[0]
        return choose(near, found, (far, widened(line[1] + self._wave[1], _ROUNDING * line[1].abs())[1]))

    def _window(self, m: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, Range]:
        """Periods to move by, error δ of that, where it is known, and what of [lower, upper] is about a period from m.

        The difference of m and D is exact (Sterbenz), and so are those of points beside it.
        """
        near = m.abs() <= _FARTHEST * self._period
        shift = torch.where(near, m / self._period, 0.0).round()
        distance = shift * self._period
        moved = _MOVED * (distance.abs() + 2 * self._period)
        centre, length = torch.where(near, m - distance, 0.0), _LENGTH * self._period
        low = torch.where(near, torch.maximum(lower - distance, centre - length), 0.0)
        high = torch.where(near, torch.minimum(upper - distance, centre + length), 0.0)
        return shift, moved, near, (low, high)

    def _all_slopes(self, like: Tensor) -> Range:
        error = torch.full_like(like, _ROUNDING * self.lipschitz)
        return self.facts.slope_min - error, self.facts.slope_max + error

    def _drift_of_a_period(self) -> tuple[float, float]:
        """Enclosure of c P, which is 0 when φ is bounded."""
        if self.facts.bounded:
            return 0.0, 0.0
        value, error = self.value(self._tensor([0.0, self._period]))
        rise, slack = float(value[1] - value[0]), float(error.sum()) + _ROUNDING * self.lipschitz * self._period
        return rise - slack, rise + slack

    def _line(self, z: Tensor) -> Range:
        """Enclosure of c z; 0 at infinity when c is."""
        first, second = ((drift * (z / self._period)).nan_to_num(0.0, torch.inf, -torch.inf) for drift in self._drift)
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        return widened(low, _ROUNDING * low.abs())[0], widened(high, _ROUNDING * high.abs())[1]

    def _wave_extremes(self) -> tuple[float, float]:
        """Bounds of ψ: a smooth ψ exceeds the grid beside its extreme by at most curvature · spacing² / 8."""
        z = torch.linspace(0, self._period, _GRID + 1, dtype=torch.float64, device=self._device)
        (low, high), line = widened(*self.value(z)), self._line(z)
        beyond = self.facts.curvature * (self._period / _GRID) ** 2 / 8 * (1 + _ROUNDING)
        return float((low - line[1]).min()) - beyond, float((high - line[0]).max()) + beyond


def _widened(found: Range, slack: Tensor) -> Range:
    """The range with slack on both sides."""
    return found[0] - slack, found[1] + slack


def _cut(first: Range, second: Range) -> Range:
    return torch.maximum(first[0], second[0]), torch.minimum(first[1], second[1])
