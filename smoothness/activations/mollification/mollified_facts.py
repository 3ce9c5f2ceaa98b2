"""Facts of a smooth function given with its derivatives: turning points, extremes and moments, numerically."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from smoothness.activations import polynomials
from smoothness.activations.facts import ActivationFacts, normal_moments


class Expectation(Protocol):
    """z -> E φ(z + σu), with its derivative of the same kind."""

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""

    @property
    def derivative(self) -> Expectation:
        """The expectation of φ', in the sense of distributions."""


_REACH = 36.0  # in σ: beyond, a Gaussian falls under the smallest normal number
CURVED = 45.0  # beyond this |z|, limits approached like exp(-|z|) are reached in float64


def mollified_facts(
    base: ActivationFacts,
    name: str,
    value: Expectation,
    positions: tuple[float, ...],
    sigma: float,
    mean: float,
    reach: float = 0.0,
    noise: float = 0.0,
) -> ActivationFacts:
    """Facts of φ_σ, given those of φ.

    Turning points are zeros of φ_σ' and φ_σ'', bracketed on a grid of σ/16 and bisected to rounding; slope
    extremes, total bending and curvature follow from them. There are no more than φ has, jumps and kinks
    counted: Gaussian kernels diminish variation (Karlin 1968, Total Positivity).

    Args:
        base: facts of φ.
        name: name of φ_σ.
        value: φ_σ with its derivatives.
        positions: where Gaussian bends of `value` are centred, ascending.
        sigma: their width.
        mean: E φ_σ(u).
        reach: up to which |z| φ bends by itself, between its breakpoints.
        noise: share of the largest value below which a derivative's sign is rounding.
    """
    slope, bend = value.derivative, value.derivative.derivative
    grid = _grid(positions, sigma, reach)
    value_turns, slope_turns = (_sign_changes(f, grid, noise) for f in (slope, bend))
    bend_turns = _sign_changes(bend.derivative, grid, noise)
    left, right, bent = _limits(base)
    path = [left, *_at(slope, slope_turns), right]
    smallest, largest = min(path), max(path)
    monotone = base.monotone or smallest >= 0
    _, second, slope_second = normal_moments(
        value, slope, [t + k * sigma / 2 for t in positions for k in range(-20, 21) if sigma < 1]
    )
    return replace(
        base,
        name=name,
        smoothness_class=math.inf,
        breakpoints=(),
        slope_min=smallest,
        slope_max=largest,
        lipschitz=max(abs(smallest), abs(largest)),
        curvature=max(bent, *map(abs, _at(bend, bend_turns)), 0.0),
        slope_variation=sum(abs(b - a) for a, b in pairwise(path)),
        monotone=monotone,
        at_zero=_at(value, (0.0,))[0],
        mean=mean,
        second_moment=second,
        slope_second_moment=slope_second,
        polynomial_pieces=None,
        value_turns=() if monotone else value_turns,
        slope_turns=slope_turns,
    )


def _limits(base: ActivationFacts) -> tuple[float, float, float]:
    """Slope at minus and plus infinity, and the largest curvature there."""
    if base.polynomial_pieces is not None:
        ends = ((base.polynomial_pieces[0], -math.inf), (base.polynomial_pieces[-1], math.inf))
        slopes = [polynomials.at(polynomials.derivative(c), z) for c, z in ends]
        return slopes[0], slopes[1], max(abs(polynomials.at(polynomials.derivative(c, 2), z)) for c, z in ends)
    assert base.derivative is not None
    far = base.derivative(torch.tensor([-1e4, 1e4], dtype=torch.float64))
    return float(far[0]), float(far[1]), 0.0


def _grid(positions: Sequence[float], sigma: float, reach: float) -> Tensor:
    """Points at σ/16 within reach of the breakpoints, coarser ones where φ bends by itself."""
    spans: list[list[float]] = []
    for t in positions:
        low, high = t - _REACH * sigma, t + _REACH * sigma
        if spans and low <= spans[-1][1]:
            spans[-1][1] = high
        else:
            spans.append([low, high])
    parts = [np.linspace(low, high, 1 + 2 * math.ceil(8 * (high - low) / sigma)) for low, high in spans]
    parts += [np.linspace(b[1], c[0], 65)[1:-1] for b, c in pairwise(spans)]
    if reach:
        reach += 9 * sigma
        parts.append(np.linspace(-reach, reach, 1 + 2 * math.ceil(32 * reach / (1 + sigma))))
    return torch.from_numpy(np.unique(np.concatenate([*parts, np.zeros(1)])))


def _sign_changes(function: Callable[[Tensor], Tensor], grid: Tensor, noise: float) -> tuple[float, ...]:
    """Where the function passes from one sign to the other; the middle of the zeros between, if there are."""
    size = function(grid)
    floor = max(1e-290, noise * float(size.abs().max()))

    def sign(z: Tensor) -> Tensor:
        value = function(z)
        return torch.where(value.abs() <= floor, 0.0, value.sign())

    signs = torch.where(size.abs() <= floor, 0.0, size.sign())
    index = signs.nonzero().flatten()
    turn = (signs[index[1:]] != signs[index[:-1]]).nonzero().flatten()
    start, stop, before = grid[index[turn]], grid[index[turn + 1]], signs[index[turn]]
    edges = []
    for side in (True, False):  # the last point with the sign before, and the first with the sign after
        low, high = start, stop
        for _ in range(64):
            middle = low + (high - low) / 2
            state = sign(middle)
            stays = (state == before) if side else (state != -before)
            low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
        edges.append(low if side else high)
    return tuple(((edges[0] + edges[1]) / 2).tolist())


def _at(function: Callable[[Tensor], Tensor], points: Sequence[float]) -> list[float]:
    return function(torch.tensor(points, dtype=torch.float64)).tolist() if points else []
