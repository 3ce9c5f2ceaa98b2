"""Expectations of piecewise polynomials, and of all their derivatives, under Gaussian noise: closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from smoothness.activations import polynomials
from smoothness.activations.polynomials import Polynomial

# |z - t|/σ is cut there, which leaves 1e-298 (float32: 2e-27) of a tail: numbers near underflow are slow.
_FAR = {torch.float64: 37.0}
_FAR_SINGLE = 11.0
_MANY = 16  # breakpoints from which only those within reach of z are summed

Jumps = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class GaussianPolynomial:
    """z -> E P(z + σu), u standard normal, for a piecewise polynomial P.

    With g_k the jump of the k-th derivative at t, P is a sum of g_k (z - t)_+^k / k!, whose expectation is
    g_k σ^k J_k((z - t)/σ). J_k is the k-th repeated integral of the normal distribution function:
    J_0 = cdf, J_1(x) = x cdf(x) + pdf(x), k J_k = x J_{k-1} + J_{k-2}; J_{-1} = pdf, and J_{-1-n} is its
    n-th derivative. So a derivative lowers every k by one, and a negative k stands for a derivative of
    the delta function.

    The sum starts from the piece that z lies in and adds J_k(-|x|) alone, so that nothing large cancels
    and the tails are those of the outer pieces to the bit.

    Attributes:
        sigma: σ > 0.
        positions: breakpoints, ascending.
        pieces: coefficients (c0, c1, ...) of P between them.
        jumps: at each breakpoint, pairs (k, g_k).
    """

    sigma: float
    positions: tuple[float, ...]
    pieces: tuple[Polynomial, ...]
    jumps: tuple[Jumps, ...]

    @staticmethod
    def of(positions: tuple[float, ...], pieces: tuple[Polynomial, ...], sigma: float) -> GaussianPolynomial:
        """The expectation for pieces without delta functions."""
        found = [
            tuple((k, g) for k, g in enumerate(polynomials.taylor_jumps(t, left, right)) if g)
            for t, left, right in zip(positions, pieces[:-1], pieces[1:], strict=True)
        ]
        return GaussianPolynomial(sigma, positions, pieces, tuple(found))

    @cached_property
    def derivative(self) -> GaussianPolynomial:
        """The expectation of P'."""
        lowered = tuple(tuple((k - 1, g) for k, g in jumps) for jumps in self.jumps)
        return replace(self, pieces=tuple(polynomials.derivative(c) for c in self.pieces), jumps=lowered)

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise; infinite z give limits, NaN stays NaN."""
        if self._lone_jump is not None:
            return self._beside_constant(z, *self._lone_jump)
        if any(any(c) for c in self._moment_pieces):
            finite = z.device.type == "cpu" and not bool(z.isinf().any())  # elsewhere, asking means waiting
            value = polynomials.evaluate(self.positions, self._moment_pieces, z, finite=finite)
        else:
            value = z * 0.0
            value.masked_fill_(z.isinf(), 0.0)
        for x, right, jumps in self._terms(z):
            _add_term(value, x, right, [(k, g * self.sigma**k) for k, g in jumps])
        return value

    @property
    def brief(self) -> bool:
        """Whether evaluating takes only a few passes."""
        return self._lone_jump is not None

    @cached_property
    def _moment_pieces(self) -> tuple[Polynomial, ...]:
        """E c(z + σu) as a polynomial in z: the sum of (σ²/2)^j / j! times the 2j-th derivative of c."""
        expected = []
        for c in self.pieces:
            total = list(c)
            for j in range(1, (len(c) + 1) // 2):
                factor = (self.sigma**2 / 2) ** j / math.factorial(j)
                for k, value in enumerate(polynomials.derivative(c, 2 * j)):
                    total[k] += factor * value
            expected.append(tuple(total))
        return tuple(expected)

    @cached_property
    def _lone_jump(self) -> tuple[float, float, int, float] | None:
        """(constant, position, k, g) when P is a constant plus one term of order -1, 0 or 1: step, relu."""
        if len(self.jumps) != 1 or len(self.jumps[0]) != 1 or any(self.pieces[0][1:]):
            return None
        ((k, g),) = self.jumps[0]
        return (self.pieces[0][0], self.positions[0], k, g) if k in (-1, 0, 1) else None

    def _beside_constant(self, z: Tensor, constant: float, position: float, k: int, g: float) -> Tensor:
        y = z - position if position else z
        root, far = 1 / (self.sigma * math.sqrt(2)), _FAR.get(z.dtype, _FAR_SINGLE) / math.sqrt(2)
        if k == -1:
            value = _density(y, root, far, abs(g) * root / math.sqrt(math.pi))
            return value.neg_() if g < 0 else value
        if k == 0:
            value = (y * -root).clamp_max_(far).erfc_().mul_(g / 2)
        else:
            y = y.clamp_min(-far / root)  # -inf · 0 must not arise
            value = _density(y, root, far, self.sigma / math.sqrt(2 * math.pi))
            value.addcmul_(y, (y * -root).erfc_(), value=0.5).mul_(g)
        return value.add_(constant) if constant else value

    def _terms(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, float | Tensor]]]]:
        """(z - t)/σ, whether z > t, and the jumps at t, for every breakpoint that matters.

        The side is not the sign of (z - t)/σ, which may underflow to 0.
        """
        if len(self.positions) >= _MANY and z.numel():
            positions = z.new_tensor(self.positions)
            reach = _FAR.get(z.dtype, _FAR_SINGLE) * self.sigma
            first = torch.bucketize(z - reach, positions)
            last = torch.bucketize(z + reach, positions)
            width = int((last - first).max())
            if width < len(positions) / 2:
                orders = sorted({k for jumps in self.jumps for k, _ in jumps})
                table = z.new_tensor([[dict(jumps).get(k, 0.0) for k in orders] for jumps in self.jumps])
                for offset in range(width):
                    # An index past `last` is further than `reach` away, or repeats the last breakpoint.
                    index = first + offset
                    inside = index < len(positions)
                    index = index.clamp_max(len(positions) - 1)
                    x = (z - positions[index]) / self.sigma
                    yield x, z > positions[index], [(k, table[index, i] * inside) for i, k in enumerate(orders)]
                return
        for t, jumps in zip(self.positions, self.jumps, strict=True):
            if jumps:
                yield (z - t) / self.sigma, z > t, list(jumps)


def _density(y: Tensor, root: float, far: float, scale: float) -> Tensor:
    """A Gaussian, scale · exp(-(root y)²); the scale within the exponent: one pass less."""
    start = math.log(scale)
    square = min(root * root, float(torch.finfo(y.dtype).max))
    return torch.addcmul(y.new_tensor(start), y, y, value=-square).clamp_min_(start - far * far).exp_()


def _add_term(value: Tensor, x: Tensor, right: Tensor, weights: list[tuple[int, float | Tensor]]) -> None:
    """Add the sum of g (-s)^(k + 1) J_k(-|x|), where s = 1 right of the breakpoint and -1 left of it."""
    a = x.abs().clamp_max_(_FAR.get(x.dtype, _FAR_SINGLE))
    orders = [k for k, _ in weights]
    integrals = {-1: (a * a).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))}
    if max(orders) >= 0:
        integrals[0] = (a * (1 / math.sqrt(2))).erfc_().mul_(0.5)
    for k in range(1, max(orders) + 1):
        integrals[k] = (integrals[k - 2] - a * integrals[k - 1]) / k
    for k in range(-2, min(orders) - 1, -1):
        upper = integrals[k + 2] * (k + 2) if k < -2 else 0.0
        integrals[k] = a * integrals[k + 1] + upper
    mirrored = None
    for k, g in weights:
        if k % 2:
            value.add_(integrals[k] * g)
        else:
            mirrored = integrals[k] * g if mirrored is None else mirrored.add_(integrals[k] * g)
    if mirrored is not None:
        side = right.to(x.dtype).mul_(-2).add_(1)  # several times faster than torch.where
        value.addcmul_(side, mirrored)
