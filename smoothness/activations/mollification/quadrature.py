"""Expectations under Gaussian noise where no closed form exists: two quadratures, and derivatives of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]

REACH = 8.75  # the normal mass beyond is 2e-18
_CHUNK = 2**20  # function values held at once
TRAPEZOID_ERROR = 1e-13  # of value and two derivatives in float64, beside mpmath; tests/activations/test_mollify.py


@dataclass(frozen=True, eq=False)
class Trapezoid:
    """z -> E φ^(m)(z + σu), u standard normal, for φ analytic in the strip |Im z| < strip.

    The trapezoidal rule with spacing h, geometric in 1/h (Trefethen and Weideman 2014, SIAM Review 56(3)):
    its error is of order exp(-2π²/h²), or exp(d²/2 - 2πd/h) where the strip, of half-width d = strip/σ in
    units of u, is narrower than 2π/h. h makes that e^-40.

    Attributes:
        function: φ, differentiable by autograd as often as asked.
        sigma: σ > 0.
        strip: half-width of the strip.
        order: m.
    """

    function: Function
    sigma: float
    strip: float
    order: int = 0

    @cached_property
    def derivative(self) -> Trapezoid:
        """The expectation of the next derivative."""
        return replace(self, order=self.order + 1)

    @cached_property
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        depth, digits = self.strip / self.sigma, 40.0 + 4 * self.order
        widest = math.pi * math.sqrt(2 / digits)
        h = widest if depth >= 2 * math.pi / widest else 2 * math.pi * depth / (digits + depth**2 / 2)
        count = math.ceil(REACH / h)
        nodes = h * np.arange(-count, count + 1)
        return nodes, h * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""
        nodes, weights = (z.new_tensor(a) for a in self._rule)
        flat = z.detach().reshape(-1, 1)
        parts = [
            nth_derivative(self.function, part + self.sigma * nodes, self.order) @ weights
            for part in torch.split(flat, max(1, _CHUNK // len(nodes)))
        ]
        return torch.cat(parts).reshape(z.shape)


@dataclass(frozen=True, eq=False)
class Panels:
    """z -> E φ^(m)(z + σu), u standard normal, for any φ that is smooth between the given breakpoints.

    Gauss-Legendre with 12 nodes on panels of equal width in u over [-8.75, 8.75], split wherever z + σu
    meets a breakpoint. Derivatives by Stein's identity (1981): φ_σ^(m)(z) = E[He_m(u) φ(z + σu)] / σ^m,
    which holds where φ' is 0 and across jumps; rounding grows as 1e-16 · |φ| / σ^m. In float64 throughout.

    Attributes:
        function: φ for float64 tensors.
        sigma: σ > 0.
        breakpoints: where φ or its first derivatives jump, ascending.
        panels: number of equal panels.
        order: m.
    """

    function: Function
    sigma: float
    breakpoints: tuple[float, ...] = ()
    panels: int = 18
    order: int = 0

    @cached_property
    def derivative(self) -> Panels:
        """The expectation of the next derivative."""
        return replace(self, order=self.order + 1)

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""
        flat = z.detach().double().reshape(-1)
        parts = [self._chunk(part) for part in torch.split(flat, max(1, _CHUNK // (24 * self.panels)))]
        return torch.cat(parts).reshape(z.shape).to(z.dtype)

    def _chunk(self, z: Tensor) -> Tensor:
        edges = torch.linspace(-REACH, REACH, self.panels + 1, dtype=z.dtype, device=z.device)
        edges = torch.cat([edges.expand(len(z), -1), self._crossings(z)], dim=1).sort(dim=1).values
        nodes, weights = (z.new_tensor(a) for a in np.polynomial.legendre.leggauss(12))
        half, middle = edges.diff(dim=1)[..., None] / 2, (edges[:, 1:] + edges[:, :-1])[..., None] / 2
        u = (middle + half * nodes).flatten(1)
        mass = (half * weights).flatten(1) * torch.exp(-u * u / 2) / math.sqrt(2 * math.pi)
        with torch.no_grad():
            value = self.function(z[:, None] + self.sigma * u)
            if self.order:  # E He_m = 0, so a constant may go: less rounding
                value = value - self.function(z)[:, None]
        return (mass * _hermite(u, self.order) * value).sum(dim=1) / self.sigma**self.order

    def _crossings(self, z: Tensor) -> Tensor:
        """Values of u at which z + σu meets each breakpoint within reach."""
        positions = z.new_tensor(self.breakpoints)
        first = torch.bucketize(z - REACH * self.sigma, positions)
        last = torch.bucketize(z + REACH * self.sigma, positions)
        width = int((last - first).max()) if len(z) and len(positions) else 0
        index = (first[:, None] + torch.arange(width, device=z.device)).clamp_max(len(positions) - 1)
        return ((positions[index] - z[:, None]) / self.sigma).clamp(-REACH, REACH)


def nth_derivative(function: Function, z: Tensor, order: int) -> Tensor:
    """φ^(order) by automatic differentiation; 0 where there is no graph."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(order > 0)
        value = function(z)
        for remaining in range(order - 1, -1, -1):
            if not value.requires_grad:
                return torch.zeros_like(z)
            (value,) = torch.autograd.grad(value.sum(), z, create_graph=remaining > 0, materialize_grads=True)
    return value.detach()


def _hermite(u: Tensor, order: int) -> Tensor:
    """He_m(u): He_{m+1} = u He_m - m He_{m-1}."""
    older, current = torch.zeros_like(u), torch.ones_like(u)
    for m in range(order):
        older, current = current, u * current - m * older
    return current
