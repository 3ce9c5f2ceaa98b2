"""Expectations under Gaussian noise where no closed form exists: two quadratures, and derivatives of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from smoothness.activations.mollification.gaussian_polynomials import GaussianPolynomial, Jumps

Function = Callable[[Tensor], Tensor]

REACH = 8.75  # the normal mass beyond is 2e-18
_CHUNK = 2**20  # function values held at once
QUADRATURE_ERROR = 1e-13  # of ours in float64, beside mpmath; tests/activations/test_mollify.py


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
    """z -> E φ^(m)(z + σu), u standard normal, for any φ that is smooth between the given cuts.

    Gauss-Legendre with 12 nodes on panels of equal width in u over [-8.75, 8.75], split wherever z + σu
    meets a cut. The first n derivatives are those of φ between its breakpoints, plus delta functions for the jumps
    g_k of φ^(k) at t: φ_σ^(n) = E φ^(n)(z + σu) + Σ g_k (d/dz)^(n-1-k) pdf((z - t)/σ)/σ, k < n. The rest are
    by Stein's identity (1981): φ_σ^(m) = E[He_{m-n}(u) φ^(n)(z + σu)] / σ^(m-n) + deltas, which holds where φ' is 0
    and across jumps; rounding grows as 1e-16 · |φ^(n)| / σ^(m-n). In float64 throughout.

    Attributes:
        function: φ for float64 tensors.
        sigma: σ > 0.
        cuts: where φ or its first derivatives jump, and where a panel should end, ascending.
        panels: number of equal panels.
        order: m.
        native: the largest n; φ must be differentiable by autograd as often.
        jumps: (t, ((k, g_k), ...)) for every breakpoint where φ^(k) jumps for some k < native.
    """

    function: Function
    sigma: float
    cuts: tuple[float, ...] = ()
    panels: int = 18
    order: int = 0
    native: int = 0
    jumps: tuple[tuple[float, Jumps], ...] = ()

    @cached_property
    def derivative(self) -> Panels:
        """The expectation of the next derivative."""
        return replace(self, order=self.order + 1)

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""
        flat = z.detach().double().reshape(-1)
        size = max(1, _CHUNK // (12 * (self.panels + len(self.cuts) + 1)))
        value = torch.cat([self._chunk(part) for part in torch.split(flat, size)])
        if self._deltas is not None:
            value = value + self._deltas(flat)
        return value.reshape(z.shape).to(z.dtype)

    @property
    def _taken(self) -> int:
        """n: how many derivatives are those of φ itself."""
        return min(self.order, self.native)

    @cached_property
    def _deltas(self) -> GaussianPolynomial | None:
        lowered = [(t, tuple((k - self.order, g) for k, g in jumps if k < self._taken)) for t, jumps in self.jumps]
        felt = [(t, jumps) for t, jumps in lowered if jumps]
        if not felt:
            return None
        positions, jumps = zip(*felt, strict=True)
        return GaussianPolynomial(self.sigma, positions, ((0.0,),) * (len(felt) + 1), jumps)

    def _chunk(self, z: Tensor) -> Tensor:
        edges = torch.linspace(-REACH, REACH, self.panels + 1, dtype=z.dtype, device=z.device)
        edges = torch.cat([edges.expand(len(z), -1), self._crossings(z)], dim=1).sort(dim=1).values
        nodes, weights = (z.new_tensor(a) for a in np.polynomial.legendre.leggauss(12))
        half, middle = edges.diff(dim=1)[..., None] / 2, (edges[:, 1:] + edges[:, :-1])[..., None] / 2
        u = (middle + half * nodes).flatten(1)
        mass = (half * weights).flatten(1) * torch.exp(-u * u / 2) / math.sqrt(2 * math.pi)
        value = nth_derivative(self.function, z[:, None] + self.sigma * u, self._taken)
        left = self.order - self._taken
        if left:  # E He_m = 0, so a constant may go: less rounding
            value = value - nth_derivative(self.function, z, self._taken)[:, None]
        return (mass * _hermite(u, left) * value).sum(dim=1) / self.sigma**left

    def _crossings(self, z: Tensor) -> Tensor:
        """Values of u at which z + σu meets each cut within reach."""
        positions = z.new_tensor(self.cuts)
        first = torch.bucketize(z - REACH * self.sigma, positions)
        last = torch.bucketize(z + REACH * self.sigma, positions)
        width = int((last - first).max()) if len(z) and len(positions) else 0
        index = (first[:, None] + torch.arange(width, device=z.device)).clamp_max(len(positions) - 1)
        return ((positions[index] - z[:, None]) / self.sigma).clamp(-REACH, REACH)


def graded_cuts(centres: Sequence[float], width: float, sigma: float) -> tuple[float, ...]:
    """Cuts at the centres and at doubling distances from them, from width/2 to 2σ and half-way to the next centre.

    With singularities at least `width` away from the real axis and near the centres, every panel between such
    cuts is no longer than its distance from them: 12 nodes give 1e-15 whatever σ / width is.
    """
    steps = [width * 2.0**k for k in range(-1, max(-1, math.ceil(math.log2(2 * sigma / width))))]
    cuts = set(centres)
    for i, t in enumerate(centres):
        low = (centres[i - 1] + t) / 2 if i else -math.inf
        high = (centres[i + 1] + t) / 2 if i + 1 < len(centres) else math.inf
        cuts |= {t + side * step for side in (-1, 1) for step in steps if low <= t + side * step <= high}
    return tuple(sorted(cuts))


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
