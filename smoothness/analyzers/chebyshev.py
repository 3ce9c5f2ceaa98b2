"""Functions on many intervals as Chebyshev series: resolved or not, their integrals, their variation."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

DEGREE = 16
_DENSE = 48  # points at which a sign change of the slope is looked for
_BISECTIONS = 52


@cache
def nodes() -> Tensor:
    """Chebyshev points of the second kind in [-1, 1], ascending: (DEGREE + 1,)."""
    return -torch.cos(torch.arange(DEGREE + 1, dtype=torch.float64) * (math.pi / DEGREE))


@cache
def _transform() -> Tensor:
    """Values at the nodes -> coefficients."""
    matrix: Tensor = torch.linalg.inv(_basis(nodes(), DEGREE))
    return matrix


def coefficients(values: Tensor) -> Tensor:
    """Of the interpolant through values at the nodes: (panels, DEGREE + 1, outputs), by degree.

    >>> coefficients(nodes()[None, :, None] ** 2)[0, :3, 0].abs().round(decimals=12).tolist()
    [0.5, 0.0, 0.5]
    """
    return torch.einsum("ij,pjk->pik", _transform().to(values), values)


def derivative(series: Tensor) -> Tensor:
    """d/dx of each series."""
    out = torch.zeros_like(series)
    for k in range(series.shape[1] - 1, 0, -1):
        out[:, k - 1] = 2 * k * series[:, k] + (out[:, k + 1] if k + 1 < series.shape[1] else 0)
    out[:, 0] /= 2
    return out


def antiderivative(series: Tensor) -> Tensor:
    """An integral of each series, 0 at the middle term; one degree more."""
    padded = torch.cat([series, torch.zeros_like(series[:, :2])], dim=1)
    out = torch.zeros_like(padded[:, :-1])
    for k in range(1, out.shape[1]):
        lower = padded[:, k - 1] * (2 if k == 1 else 1)
        out[:, k] = (lower - padded[:, k + 1]) / (2 * k)
    return out


def evaluate(series: Tensor, x: Tensor) -> Tensor:
    """(panels, degrees, outputs) at (points,) -> (panels, points, outputs)."""
    return torch.einsum("xi,pik->pxk", _basis(x.to(series), series.shape[1] - 1), series)


def variation(series: Tensor) -> Tensor:
    """Total variation of each series on [-1, 1], (panels,): ∫ |p'|, in the l2 norm over several outputs.

    One output: between the zeros of p', exact. Several: Gauss-Legendre of the norm.

    >>> variation(torch.tensor([[[0.5], [0.0], [0.5]]], dtype=torch.float64))
    tensor([2.], dtype=torch.float64)
    """
    slope = derivative(series)
    if series.shape[2] > 1:
        x, weights = gauss()
        lengths: Tensor = torch.linalg.vector_norm(evaluate(slope, x), dim=2)
        return lengths @ weights.to(series)
    x = torch.linspace(-1, 1, _DENSE + 1, dtype=series.dtype, device=series.device)
    value, rising = evaluate(series, x)[..., 0], evaluate(slope, x)[..., 0]
    turns = rising[:, 1:] * rising[:, :-1] < 0
    total = (value[:, 1:] - value[:, :-1]).abs().masked_fill(turns, 0.0).sum(dim=1)
    panel, cell = turns.nonzero(as_tuple=True)
    if len(panel) == 0:
        return total
    low, high, sign = x[cell], x[cell + 1], rising[panel, cell].sign()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        there = _own(slope[panel, :, 0], middle).sign() == sign
        low, high = torch.where(there, middle, low), torch.where(there, high, middle)
    turn = _own(series[panel, :, 0], (low + high) / 2)
    both = (turn - value[panel, cell]).abs() + (value[panel, cell + 1] - turn).abs()
    return total.index_add(0, panel, both)


@cache
def gauss() -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [-1, 1] (Golub and Welsch 1969)."""
    k = torch.arange(1, _DENSE, dtype=torch.float64)
    off = k / torch.sqrt(4 * k**2 - 1)
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return values, 2 * vectors[0] ** 2


def _basis(x: Tensor, degree: int) -> Tensor:
    """T_k(x): (points, degree + 1)."""
    k = torch.arange(degree + 1, dtype=x.dtype, device=x.device)
    return torch.cos(k * torch.arccos(x.clamp(-1, 1))[..., None])


def _own(series: Tensor, x: Tensor) -> Tensor:
    """Each series at its own point: (m, degrees) at (m,)."""
    return (_basis(x, series.shape[1] - 1) * series).sum(dim=1)
