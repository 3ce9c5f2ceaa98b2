"""The quadratic form of a chain of layers, units eliminated layer by layer: for networks too large for one matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.bounds.forms import Sectors
from smoothness.bounds.graph import Network
from smoothness.bounds.spectra import eigen, largest_eigenvalue

# How much of the worst inputs counts, by their eigenvalue's share of the largest: share to this power.
_SHARPNESS = 24
_WORST = 16
# Three moves that lower ρ by no more than this share are the last.
_GAIN = 2e-3


@dataclass(frozen=True, eq=False)
class Chain:
    """One example of a network whose every layer reads the layer before alone.

    Attributes:
        weights: W_1, ..., W_L; the last is the output's, or the combinations of the outputs.
        centre, radius: (width,) of each hidden layer: h = c z + r u with |u| <= |z|.
    """

    weights: tuple[Tensor, ...]
    centre: tuple[Tensor, ...]
    radius: tuple[Tensor, ...]

    @property
    def flops(self) -> float:
        """Of one elimination."""
        rows, total = self.weights[-1].shape[0], 0.0
        for k in range(len(self.centre) - 1, -1, -1):
            width, before = self.weights[k].shape
            total += rows**2 * width + 2.0 * rows * width * before + rows**2 * (rows / 3 + before)
            rows += int((self.radius[k] > 0).sum())
        return total + 1.0 * rows * self.weights[0].shape[1] ** 2

    def to(self, dtype: torch.dtype) -> Chain:
        """In another precision, for proposals."""
        parts = (tuple(v.to(dtype) for v in part) for part in (self.weights, self.centre, self.radius))
        return Chain(*parts)


def chain_of(network: Network, found: Sectors, row: int, mix: Tensor | None = None) -> Chain | None:
    """The chain of example `row`; None for a network with skips, or without hidden layers."""
    maps = network.maps
    if len(maps) < 2 or any([j for j, _ in affine.sources] != [k] for k, affine in enumerate(maps)):
        return None
    weights = [affine.sources[0][1] for affine in maps]
    depth = len(weights) - 1  # the sectors may go on
    if mix is not None:
        weights[-1] = mix @ weights[-1]
    return Chain(
        tuple(weights), tuple(c[row] for c in found.centre[:depth]), tuple(r[row] for r in found.radius[:depth])
    )


@dataclass(frozen=True, eq=False)
class _Elimination:
    """|o|² + Σ t (z² - u²) <= |S Δx|², and what the best u of each layer are made of.

    Attributes:
        last: S (rows, d).
        steps: per hidden layer, first to last: (B, L, G) with G h of the later layers' form, B = G R T^(-1/2) and
            L Lᵀ = I - B Bᵀ.
    """

    last: Tensor
    steps: tuple[tuple[Tensor, Tensor, Tensor], ...]


def _eliminate(chain: Chain, t: list[Tensor]) -> _Elimination | int:
    """With max over u of |G (C z + R u)|² - t u² = |L⁻¹ G C z|²; the layer that is unbounded, where one is."""
    rows, steps = chain.weights[-1], []
    for k in range(len(t) - 1, -1, -1):
        scaled = rows * (chain.radius[k] * t[k].rsqrt())
        gap = -(scaled @ scaled.T)
        gap.diagonal().add_(1)
        factor, info = torch.linalg.cholesky_ex(gap)
        if int(info) or not bool(factor.diagonal().isfinite().all()):
            return k
        steps.append((scaled, factor, rows))
        passed = torch.linalg.solve_triangular(factor, (rows * chain.centre[k]) @ chain.weights[k], upper=False)
        own = chain.radius[k] > 0
        rows = torch.cat([passed, t[k][own].sqrt().unsqueeze(1) * chain.weights[k][own]])
    return _Elimination(rows, tuple(reversed(steps)))


def _worst(chain: Chain, t: list[Tensor], found: _Elimination) -> tuple[float, list[tuple[Tensor, Tensor]]]:
    """ρ, and the mean z² and u² of every layer at the worst inputs."""
    last = found.last
    if last.shape[0] < last.shape[1]:
        values, vectors = eigen(last @ last.T)
        vectors = last.T @ (vectors[:, -_WORST:] / values[-_WORST:].clamp_min(1e-300).sqrt())
    else:
        values, vectors = eigen(last.T @ last)
    top = values[-_WORST:].clamp_min(0)
    share = (top / top[-1].clamp_min(1e-300)) ** _SHARPNESS
    h, seen = vectors[:, -_WORST:] * (share / share.sum()).sqrt(), []
    for k, (scaled, factor, rows) in enumerate(found.steps):
        z = chain.weights[k] @ h
        centred = chain.centre[k].unsqueeze(1) * z
        reply = torch.cholesky_solve(rows @ centred, factor)
        u = (scaled.T @ reply) * t[k].rsqrt().unsqueeze(1)
        seen.append(((z**2).sum(dim=1), (u**2).sum(dim=1)))
        h = centred + chain.radius[k].unsqueeze(1) * u
    return float(top[-1]), seen


def chain_multipliers(chain: Chain, rounds: int) -> list[Tensor] | None:
    """Multipliers (width,) of every layer for a small ρ; None where none was found.

    Balanced at first, t_i = |gain of u_i| / |z_i|, each layer with the scale that suits it. The gradient of ρ in t is
    z² - u² at the worst inputs, so t moves by the logarithm of |u| / |z|, with some inertia, and less whenever ρ grew.
    """
    t = _balanced(chain)
    if not all(bool((part > 0).all()) and bool(part.isfinite().all()) for part in t):
        return None
    moved = [torch.zeros_like(part) for part in t]
    best, step, reached = None, 0.5, [math.inf]
    for _ in range(rounds + 8):  # some more, for those that are infeasible
        found = _eliminate(chain, t)
        if isinstance(found, int):
            t[found] = 2 * t[found]
            continue
        rho, seen = _worst(chain, t, found)
        step = 0.7 * step if rho > reached[-1] else step
        if rho < min(reached):
            best = [part.clone() for part in t]
        reached.append(rho)
        stuck = len(reached) > 4 and min(reached) > (1 - _GAIN) * min(reached[:-3])
        if len(reached) > rounds + 1 or stuck:
            break
        for k, (z, u) in enumerate(seen):
            tiny = 1e-6 * (z.mean() + u.mean()) + 1e-30
            moved[k] = 0.5 * moved[k] + 0.25 * ((u + tiny) / (z + tiny)).log().clamp(-2, 2)
            t[k] = t[k] * (step * moved[k]).exp()
    return best


def _balanced(chain: Chain) -> list[Tensor]:
    sizes, ahead = [], chain.weights[0]
    for k, centre in enumerate(chain.centre):
        size = torch.linalg.vector_norm(ahead, dim=1)
        sizes.append((size + 1e-4 * size.mean() + 1e-30, ahead))
        ahead = chain.weights[k + 1] @ (centre.unsqueeze(1) * ahead) if k + 1 < len(chain.centre) else ahead
    rows, t = chain.weights[-1], []
    for k in range(len(chain.centre) - 1, -1, -1):
        size, ahead = sizes[k]
        gain = torch.linalg.vector_norm(rows, dim=0) * chain.radius[k]
        shape = (gain + 1e-4 * gain.mean() + 1e-30) / size
        scaled = rows * (chain.radius[k] * shape.rsqrt())
        small = scaled @ scaled.T
        largest = float(largest_eigenvalue(small) if len(small) < 200 else _power(scaled))
        nominal = _power((rows * chain.centre[k]) @ ahead)
        spread = _power(shape.sqrt().unsqueeze(1) * ahead)
        scale = largest * 1.02 + float(nominal.sqrt() * math.sqrt(largest) / spread.sqrt().clamp_min(1e-150))
        t.append(shape * scale)
        gap = -(scaled @ scaled.T) / scale
        gap.diagonal().add_(1)
        factor, _ = torch.linalg.cholesky_ex(gap)
        passed = torch.linalg.solve_triangular(factor, rows * chain.centre[k], upper=False)
        own = chain.radius[k] > 0
        if k:
            rows = torch.cat([passed @ chain.weights[k], t[-1][own].sqrt().unsqueeze(1) * chain.weights[k][own]])
    return t[::-1]


def _power(matrix: Tensor, rounds: int = 20) -> Tensor:
    """Nearly the squared spectral norm."""
    x = torch.ones(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(rounds):
        x = x / torch.linalg.vector_norm(x).clamp_min(1e-150)
        x = matrix.T @ (matrix @ x)
    size: Tensor = torch.linalg.vector_norm(x)
    return size
