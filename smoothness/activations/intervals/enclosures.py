"""φ and φ' enclosed: certified values at points, and extremes over the turning points between two of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.activations.polynomials import Polynomial, derivative

Range = tuple[Tensor, Tensor]

# Error allowed to torch's float64 kernels, relative to their result: 64 units in the last place.
SAFETY = 64 * sys.float_info.epsilon
# Error of one polynomial of degree at most 7 by Horner's rule, relative to the sum of |c_k z^k|.
HORNER = 16 * sys.float_info.epsilon
# Added where a result may underflow: two thousand of the smallest float64.
TINY = 2.0**-1063
# Beyond this point a φ without polynomial pieces is its asymptote.
FAR = 1e30
_MAX = sys.float_info.max


def widened(value: Tensor, error: Tensor) -> Range:
    """[value - error, value + error]; an overflow encloses the finite numbers beyond the largest float64."""
    overflow = value.isinf()
    low = torch.where(overflow, value.clamp(max=_MAX), value - error)
    return low, torch.where(overflow, value.clamp(min=-_MAX), value + error)


def without_overflow(value: Tensor, error: Tensor) -> Range:
    """The same, but an overflow becomes a number of unknown error."""
    return value.clamp(-_MAX, _MAX), torch.where(value.isinf(), math.inf, error)


def hull(first: Range, second: Range) -> Range:
    """The smallest range that holds both."""
    return torch.minimum(first[0], second[0]), torch.maximum(first[1], second[1])


def choose(choice: Tensor, first: Range, second: Range) -> Range:
    """The first range where `choice`, else the second."""
    return torch.where(choice, first[0], second[0]), torch.where(choice, first[1], second[1])


def empty_range(like: Tensor) -> Range:
    """(inf, -inf): the hull of nothing."""
    return torch.full_like(like, math.inf), torch.full_like(like, -math.inf)


class CertifiedCurve:
    """φ and φ' of one activation, in float64, with bounds on the error of evaluating them.

    A piecewise polynomial is the real function with the coefficients and breakpoints in its facts; its error is
    Horner's, and none on pieces of a piecewise affine φ that are constants of at most 24 bits or ±2^k z, k >= 0.
    Any other φ is evaluated by `facts.function` and `facts.derivative`, which are trusted to

        |error of φ(z)|  <= 64 ε (|φ(z)| + |z φ'(z)| + (w + r) M)      ε = 2^-52, M = max(1, sup |φ'|)
        |error of φ'(z)| <= 64 ε (|φ'(z)| + (1 + r/w) M)

    where w = sup |φ'| / `curvature` is the width of its transition (1 when that is not positive and finite) and r the
    farthest breakpoint or turning point from 0, whose distance to z is rounded; beyond 10^30 it is taken to be its
    asymptote. `side` chooses the limit at a breakpoint: -1 from the left (φ's own value), +1 from the right.

    Raises:
        TypeError: facts with neither polynomial pieces nor a function and its derivative.
    """

    def __init__(self, facts: ActivationFacts, device: torch.device) -> None:
        if facts.polynomial_pieces is None and (facts.function is None or facts.derivative is None):
            raise TypeError(
                f"the facts of {facts.name} hold neither polynomial_pieces nor function and derivative; give them both"
            )
        self.facts, self._device = facts, device
        self.lipschitz = max(abs(facts.slope_min), abs(facts.slope_max))
        curvature = facts.curvature
        width = self.lipschitz / curvature if 0 < curvature < math.inf else 1.0
        marks = [*(b.position for b in facts.breakpoints), *facts.value_turns, *facts.slope_turns]
        reach = max(map(abs, marks), default=0.0)
        self._slope_unit = max(self.lipschitz, 1.0) * (1 + reach / width)
        self._value_unit = width * self._slope_unit
        self._positions = self._tensor(b.position for b in facts.breakpoints)
        self._aside = {
            side: self._tensor(b.position + side * max(math.ulp(b.position), 2.0**-1000) for b in facts.breakpoints)
            for side in (-1, 1)
        }
        if facts.polynomial_pieces is None:
            self._polynomial = None
        else:
            affine = facts.affine_pieces is not None
            noise = [0.0 if affine and _exact(piece) else HORNER for piece in facts.polynomial_pieces]
            self._polynomial = _PiecewisePolynomial(facts.polynomial_pieces, noise, device)
            slopes = [derivative(piece) for piece in facts.polynomial_pieces]
            noise = [0.0 if _exact(slope) else HORNER for slope in slopes]
            self._polynomial_slope = _PiecewisePolynomial(slopes, noise, device)

        rough = [b.position for b in facts.breakpoints]
        self._value_turns = self._tensor(sorted({*rough, *facts.value_turns}))
        self.slope_turns = self._tensor(sorted({*rough, *facts.slope_turns}))
        self._value_extremes = _RunExtremes(*self._both_sides(self.value, self._value_turns))
        self._slope_extremes = _RunExtremes(*self._both_sides(self.slope, self.slope_turns))
        jumps = [b for b in facts.breakpoints if b.order == -1]
        self.jumps = self._tensor(b.position for b in jumps)
        self._rises = self._count(b.jump > 0 for b in jumps)
        self._falls = self._count(b.jump < 0 for b in jumps)

    def value(self, z: Tensor, side: int = -1) -> Range:
        """φ(z) and a bound on its error; the limit at an infinite z."""
        return self.value_and_slope(z, side)[0] if self._polynomial is None else self._polynomial_value(z, side)

    def slope(self, z: Tensor, side: int = -1) -> Range:
        """φ'(z) and a bound on its error; the limit at an infinite z."""
        if self._polynomial is not None:
            return self._polynomial_slope(z, self._piece(z, side))
        assert self.facts.derivative is not None
        slope = self.facts.derivative(self._beside(z.clamp(-FAR, FAR), side))
        return slope, SAFETY * (slope.abs() + self._slope_unit)

    def value_and_slope(self, z: Tensor, side: int = -1) -> tuple[Range, Range]:
        """(φ(z), error) and (φ'(z), error)."""
        slope, slope_error = self.slope(z, side)
        if self._polynomial is not None:
            return self._polynomial_value(z, side), (slope, slope_error)
        assert self.facts.function is not None
        near = z.clamp(-FAR, FAR)
        # φ is left-continuous: only a limit from the right is evaluated beside a breakpoint.
        value = self.facts.function(near if side < 0 else self._beside(near, side))
        error = SAFETY * (value.abs() + (near * slope).abs() + self._value_unit)
        if (near != z).any():
            level = (slope.abs() < 1e-25 * self._slope_unit) | self.facts.bounded
            beyond = value + torch.where(level, 0.0, slope) * (z.clamp(-_MAX, _MAX) - near)
            beyond = torch.where(z.isinf() & ~level, z * slope.sign(), beyond)
            error = torch.where(near == z, error, SAFETY * (beyond.abs() + self._value_unit))
            value = torch.where(near == z, value, beyond)
        return (value, error), (slope, slope_error)

    def value_extremes(self, lower: Tensor, upper: Tensor) -> Range:
        """Enclosure of {φ(s): lower <= s <= upper}, limits at jumps included."""
        ends = hull(widened(*self.value(lower)), widened(*self.value(upper)))
        first, last = (torch.searchsorted(self._value_turns, z) for z in (lower, upper))
        return hull(ends, self._value_extremes(first, last))

    def slope_extremes(self, lower: Tensor, upper: Tensor) -> Range:
        """Enclosure of the one-sided derivatives in [lower, upper]; infinite where a jump t has lower <= t < upper."""
        ends = hull(widened(*self.slope(lower, 1)), widened(*self.slope(upper, -1)))
        return self.signed(hull(ends, self.slope_run(lower, upper)))

    def slope_run(self, lower: Tensor, upper: Tensor) -> Range:
        """The part of `slope_extremes` that turning points strictly inside and jumps contribute."""
        first = torch.searchsorted(self.slope_turns, lower, right=True)
        low, high = self._slope_extremes(first, torch.searchsorted(self.slope_turns, upper))
        if len(self.jumps):
            first, last = (torch.searchsorted(self.jumps, z) for z in (lower, upper))
            high = torch.where(self._rises[last] > self._rises[first], math.inf, high)
            low = torch.where(self._falls[last] > self._falls[first], -math.inf, low)
        return low, high

    def signed(self, slopes: Range) -> Range:
        """Slopes cut at 0 when φ is monotone, so that a non-negative slope stays so after rounding."""
        low = slopes[0].clamp(min=0) if self.facts.slope_min >= 0 and not self._falls[-1] else slopes[0]
        high = slopes[1].clamp(max=0) if self.facts.slope_max <= 0 and not self._rises[-1] else slopes[1]
        return low, high

    def tail_edges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """For the left and the right tail: the edge beyond which φ' is constant within `slack`, and that slack."""
        return self._tail_edge(-1), self._tail_edge(1)

    def _tail_edge(self, direction: int) -> tuple[float, float]:
        pieces = self.facts.polynomial_pieces
        if pieces is not None and _degree(pieces[0 if direction < 0 else -1]) < 2:
            return direction * math.inf, 0.0
        turns = self.slope_turns
        start = float(turns[0 if direction < 0 else -1]) if len(turns) else 0.0
        width = self.lipschitz / self.facts.curvature if 0 < self.facts.curvature < math.inf else 1.0
        width = max(width, math.ulp(start))
        distances = width * torch.logspace(0, 12, 400, base=10, dtype=torch.float64, device=self._device)
        edges = start + direction * distances
        slopes, errors = self.slope(edges)
        limit, limit_error = self.slope(self._tensor([direction * math.inf]))
        drift = (slopes - limit).abs()
        settled = (drift <= 1e-10 * min(1.0, self.lipschitz) + errors).nonzero()
        if not limit.isfinite() or not len(settled):
            return start + direction * 1e8 * (1 + abs(start)), math.inf
        k = int(settled[0])
        return float(edges[k]), 2 * float(drift[k] + errors[k] + limit_error)

    def _polynomial_value(self, z: Tensor, side: int) -> Range:
        assert self._polynomial is not None
        return self._polynomial(z, self._piece(z, side))

    def _piece(self, z: Tensor, side: int) -> Tensor:
        return torch.bucketize(z, self._positions, right=side > 0)

    def _beside(self, z: Tensor, side: int) -> Tensor:
        if not len(self._positions):
            return z
        k = torch.searchsorted(self._positions, z).clamp(max=len(self._positions) - 1)
        return torch.where(self._positions[k] == z, self._aside[side][k], z)

    def _both_sides(self, evaluate: Callable[[Tensor, int], Range], turns: Tensor) -> Range:
        left, right = (widened(*evaluate(turns, side)) for side in (-1, 1))
        return hull(left, right)

    def _tensor(self, numbers: Iterable[float]) -> Tensor:
        return torch.tensor(list(numbers), dtype=torch.float64, device=self._device)

    def _count(self, flags: Iterable[bool]) -> Tensor:
        return torch.tensor([0, *flags], device=self._device).cumsum(0)


class _PiecewisePolynomial:
    """Horner's rule on the piece of each point, with its error."""

    def __init__(self, pieces: Sequence[Polynomial], noise: list[float], device: torch.device) -> None:
        degree = max(_degree(piece) for piece in pieces)
        padded = [(*piece, *[0.0] * degree)[: degree + 1] for piece in pieces]
        self._columns = torch.tensor(padded, dtype=torch.float64, device=device).unbind(dim=1)
        self._noise = torch.tensor(noise, dtype=torch.float64, device=device)
        self._exact = not any(noise)
        self._limits = _limit(pieces[0], -1), _limit(pieces[-1], 1)

    def __call__(self, z: Tensor, piece: Tensor) -> Range:
        near = z.clamp(-_MAX, _MAX)
        value = self._columns[-1][piece]
        for column in self._columns[-2::-1]:
            value = value * near + column[piece]
        for infinity, limit in zip((-math.inf, math.inf), self._limits, strict=True):
            value = torch.where(z == infinity, limit, value)
        if self._exact:
            return value, torch.zeros_like(value)
        size = self._columns[-1][piece].abs()
        for column in self._columns[-2::-1]:
            size = size * near.abs() + column[piece].abs()
        noise = self._noise[piece]
        return value, torch.where(noise > 0, noise * size + TINY, 0.0)


class _RunExtremes:
    """Smallest low and largest high over a run first <= k < last: a sparse table, two look-ups a query."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        count = len(low)
        self._low, self._high = [low], [high]
        while (reach := 2 ** (len(self._low) - 1)) * 2 <= count:
            # Level j holds runs of 2^j; positions whose run would pass the end are padding.
            for table, better in ((self._low, torch.minimum), (self._high, torch.maximum)):
                previous = table[-1]
                table.append(torch.cat([better(previous[:-reach], previous[reach:]), previous[-reach:]]))
        self._lows, self._highs = torch.stack(self._low).flatten(), torch.stack(self._high).flatten()
        levels = [max(length, 1).bit_length() - 1 for length in range(count + 1)]
        self._level = torch.tensor(levels, device=low.device)
        self._count = count

    def __call__(self, first: Tensor, last: Tensor) -> Range:
        if not self._count:
            return empty_range(first.double())
        length = (last - first).clamp(min=0)
        level = self._level[length]
        start = (level * self._count + first).clamp(max=len(self._lows) - 1)
        stop = (level * self._count + last - (1 << level)).clamp(min=0)
        empty = length == 0
        low = torch.minimum(self._lows[start], self._lows[stop]).masked_fill(empty, math.inf)
        high = torch.maximum(self._highs[start], self._highs[stop]).masked_fill(empty, -math.inf)
        return low, high


def _degree(piece: Polynomial) -> int:
    return max((k for k, c in enumerate(piece) if c != 0), default=0)


def _exact(piece: Polynomial) -> bool:
    """Whether the module and the facts must agree to the bit on this piece."""
    if _degree(piece) == 0:
        return float(torch.tensor(piece[0], dtype=torch.float32)) == piece[0]
    return _degree(piece) == 1 and piece[0] == 0 and abs(piece[1]) >= 1 and abs(math.frexp(piece[1])[0]) == 0.5


def _limit(piece: Polynomial, direction: int) -> float:
    degree = _degree(piece)
    return piece[0] if degree == 0 else math.copysign(math.inf, piece[degree] * direction**degree)
