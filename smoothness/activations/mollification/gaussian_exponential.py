"""Expectations of an exponential cut off at zero, plus a piecewise polynomial: elu, celu, selu."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from smoothness.activations.mollification.gaussian_polynomials import GaussianPolynomial


@dataclass(frozen=True)
class GaussianExponential:
    """z -> E[P(z + σu) + alpha · exp(rate · (z + σu)) · (z + σu <= 0)], u standard normal.

    The exponential part is alpha · exp(rate z + rate² σ²/2) · cdf(-z/σ - rate σ), written with erfcx where the
    exponential would overflow. Its derivative is rate times itself, minus alpha times a delta function at 0.

    Attributes:
        alpha: weight of the exponential.
        rate: its rate > 0.
        polynomial: the expectation of P, with one breakpoint, at 0.
    """

    alpha: float
    rate: float
    polynomial: GaussianPolynomial

    @staticmethod
    def elu(sigma: float, alpha: float, rate: float = 1.0, slope: float = 1.0) -> GaussianExponential:
        """Alpha · (exp(rate · z) - 1) left of 0, slope · z right of it."""
        return GaussianExponential(alpha, rate, GaussianPolynomial.of((0.0,), ((-alpha,), (0.0, slope)), sigma))

    @cached_property
    def derivative(self) -> GaussianExponential:
        """The expectation of the derivative."""
        below = self.polynomial.derivative
        jumps = dict(below.jumps[0])
        jumps[-1] = jumps.get(-1, 0.0) - self.alpha
        kept = tuple((k, g) for k, g in sorted(jumps.items()) if g)
        return GaussianExponential(self.alpha * self.rate, self.rate, replace(below, jumps=(kept,)))

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise; infinite z give limits, NaN stays NaN."""
        shift = self.rate * self.polynomial.sigma
        x = z / self.polynomial.sigma
        y = x + shift
        inner = torch.exp(-x * x / 2) * torch.special.erfcx(y.clamp_min(0) / math.sqrt(2))
        outer = torch.exp((shift * (x + shift / 2)).clamp_max(0)) * torch.erfc(y / math.sqrt(2))
        return self.polynomial(z) + (self.alpha / 2) * torch.where(y > 0, inner, outer)
