"""The quadratic form of a network with slope intervals, as matrices over the input and the uncertain units."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.bounds.graph import Network
from smoothness.bounds.spectra import eigen

_EPS = sys.float_info.epsilon
# Sectors narrower than this share of the steepest slope are widened to it: their multipliers stay in range.
_NARROWEST = 1e-8


@dataclass(frozen=True, eq=False)
class Sectors:
    """Each unit's increment is h = c z + r u with |u| <= |z|: its slope lies in [c - r, c + r].

    Attributes:
        centre, radius: one (n, width) tensor a hidden layer each; a radius of 0 eliminates the unit exactly.
    """

    centre: tuple[Tensor, ...]
    radius: tuple[Tensor, ...]

    @property
    def finite(self) -> Tensor:
        """(n,) whether every slope is bounded."""
        rows = [(c.isfinite() & r.isfinite()).all(dim=1) for c, r in zip(self.centre, self.radius, strict=True)]
        return torch.stack(rows).all(dim=0)

    def rows(self, index: Tensor) -> Sectors:
        """Those of some examples."""
        return Sectors(tuple(c[index] for c in self.centre), tuple(r[index] for r in self.radius))


def sectors(slopes: Sequence[tuple[Tensor, Tensor]]) -> Sectors:
    """From [α, β] of every layer; rounded outward."""
    centres, radii = [], []
    for alpha, beta in slopes:
        centre = alpha + (beta - alpha) / 2
        size = alpha.abs() + beta.abs()
        radius = torch.maximum(beta - centre, centre - alpha) + 4 * _EPS * size
        radius = torch.maximum(radius, _NARROWEST * size.amax(dim=1, keepdim=True))
        same = alpha == beta
        centres.append(torch.where(same, alpha, centre))
        radii.append(torch.where(same, 0.0, radius))
    return Sectors(tuple(centres), tuple(radii))


@dataclass(frozen=True, eq=False)
class Form:
    """Increments as linear functions of Δx and of the u of the uncertain units, for one example.

    Attributes:
        units: (N,) indices of the uncertain units among all hidden units, in order.
        level: (N,) the hidden layer of each.
        zx, zu: (N, d), (N, N): pre-activation increments z = zx Δx + zu u; zu is strictly lower triangular by level.
        ox, ou: (m, d), (m, N): output increments.
    """

    units: Tensor
    level: Tensor
    zx: Tensor
    zu: Tensor
    ox: Tensor
    ou: Tensor

    def rows(self, k: slice) -> Form:
        """With some of the outputs."""
        return Form(self.units, self.level, self.zx, self.zu, self.ox[k], self.ou[k])

    def single(self) -> Form:
        """In float32, to find multipliers."""
        return Form(self.units, self.level, self.zx.float(), self.zu.float(), self.ox.float(), self.ou.float())

    def reduced(self) -> Form:
        """With as few input directions as matter: an orthogonal change of Δx, exact for the 2-norm.

        Directions in which everything read of the input stays below 1e-7 of the largest are left out: this serves to
        find multipliers, which are verified on all of it.
        """
        stacked = torch.cat([self.zx, self.ox])
        if stacked.shape[1] <= 32:
            return self
        wide = stacked.shape[1] > stacked.shape[0]
        values, vectors = eigen(stacked @ stacked.T if wide else stacked.T @ stacked)
        kept = values >= 1e-14 * values[-1]  # at least one, also of a network that is constant on the ball
        if bool(kept.all()) and not wide:
            return self
        less = vectors[:, kept] * values[kept].sqrt() if wide else stacked @ vectors[:, kept]
        return Form(self.units, self.level, less[: len(self.zx)], self.zu, less[len(self.zx) :], self.ou)


def assemble(network: Network, found: Sectors, row: int, mix: Tensor | None = None) -> Form:
    """The form of example `row`; `mix` (m, outputs) takes combinations of the outputs."""
    device = network.output.bias.device
    radius = torch.cat([r[row] for r in found.radius]) if found.radius else torch.zeros(0, device=device)
    units = radius.nonzero().squeeze(1)
    count, d = len(units), network.inputs
    level = torch.repeat_interleave(
        torch.arange(len(network.hidden), device=device),
        torch.tensor([layer.width for layer in network.hidden], device=device, dtype=torch.long),
    )[units]
    features: list[tuple[Tensor | None, Tensor]] = [(None, torch.zeros(d, 0, dtype=torch.float64, device=device))]
    zx, zu = [], []
    start = 0
    for k, layer in enumerate(network.hidden):
        x_part, u_part = combine(layer.affine.sources, layer.width, features, d, count)
        own = (level == k).nonzero().squeeze(1)
        local = units[own] - start
        zx.append(x_part[local])
        zu.append(u_part[local])
        centre = found.centre[k][row].unsqueeze(1)
        h_u = centre * u_part
        h_u[local, own] = found.radius[k][row, local]
        features.append((centre * x_part, h_u))
        start += layer.width
    ox, ou = combine(network.output.sources, network.output.width, features, d, count)
    if mix is not None:
        ox, ou = mix @ ox, mix @ ou
    none = torch.zeros(0, d + count, dtype=torch.float64, device=device)
    return Form(units, level, torch.cat([*zx, none[:, :d]]), torch.cat([*zu, none[:, d:]]), ox, ou)


def combine(
    sources: Sequence[tuple[int, Tensor]],
    width: int,
    features: Sequence[tuple[Tensor | None, Tensor]],
    inputs: int,
    count: int,
) -> tuple[Tensor, Tensor]:
    """Σ_j W_j h_j for features given by their coefficients of Δx (None for the input itself) and u."""
    x_part, u_part = features[0][1].new_zeros(width, inputs), features[0][1].new_zeros(width, count)
    for j, weight in sources:
        h_x, h_u = features[j]
        x_part = x_part + (weight if h_x is None else weight @ h_x)
        if h_x is not None:
            u_part = u_part + weight @ h_u
    return x_part, u_part
