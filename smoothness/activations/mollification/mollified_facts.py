"""Facts of a smooth function given with its derivatives: turning points, extremes and moments, numerically."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from smoothness.activations import polynomials
from smoothness.activations.computed import local_grid, sign_changes, values_at
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.moments import normal_moments


class Expectation(Protocol):
    """z -> E φ(z + σu), with its derivative of the same kind."""

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""

    @property
    def derivative(self) -> Expectation:
        """The expectation of φ', in the sense of distributions."""


@dataclass(frozen=True)
class Bends:
    """Where φ_σ bends, and over which length.

    Attributes:
        sigma: width of the Gaussian bends.
        positions: their centres, ascending: jumps and kinks of φ.
        centres: where φ bends by itself, ascending.
        width: over which length; its tails are those of exp(-|z|/width), or algebraic.
    """

    sigma: float
    positions: tuple[float, ...] = ()
    centres: tuple[float, ...] = ()
    width: float = 0.0


_REACH = 36.0  # in σ: beyond, a Gaussian falls under the smallest normal number
_CURVED = 45.0  # in widths: beyond, limits approached like exp(-|z|/width) are reached in float64
_NOISE = 1e-13  # share of the largest value below which the sign of a quadrature is rounding
_FAR = 1e30  # where slopes are those at infinity, also of algebraic tails: 1/(1 + z²)


def mollified_facts(
    base: ActivationFacts, name: str, value: Expectation, bends: Bends, mean: float
) -> ActivationFacts:
    """Facts of φ_σ, given those of φ.

    Turning points are zeros of φ_σ' and φ_σ'', bracketed on a grid of 1/16 of the bends' widths and bisected to
    rounding; slope extremes, total bending and curvature follow from them. There are no more than φ has, jumps
    and kinks counted: Gaussian kernels diminish variation (Karlin 1968, Total Positivity).

    Args:
        base: facts of φ.
        name: name of φ_σ.
        value: φ_σ with its derivatives.
        bends: where to look.
        mean: E φ_σ(u).
    """
    slope, bend = value.derivative, value.derivative.derivative
    grid, noise = _grid(bends), _NOISE if bends.centres else 0.0
    value_turns, slope_turns = (sign_changes(f, grid, noise) for f in (slope, bend))
    bend_turns = sign_changes(bend.derivative, grid, noise)
    left, right, bent = _limits(base)
    path = [left, *values_at(slope, slope_turns), right]
    smallest, largest = min(path), max(path)
    monotone = base.monotone or smallest >= 0
    _, second, slope_second = normal_moments(value, slope, _cuts(bends))
    return replace(
        base,
        name=name,
        smoothness_class=math.inf,
        breakpoints=(),
        slope_min=smallest,
        slope_max=largest,
        lipschitz=max(abs(smallest), abs(largest)),
        curvature=max(bent, *map(abs, values_at(bend, bend_turns)), 0.0),
        slope_variation=sum(abs(b - a) for a, b in pairwise(path)),
        monotone=monotone,
        at_zero=values_at(value, (0.0,))[0],
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
    far = base.derivative(torch.tensor([-_FAR, _FAR], dtype=torch.float64)).tolist()
    left, right = (0.0 if abs(slope) < 1 / _FAR else slope for slope in far)
    return left, right, 0.0


def _grid(bends: Bends) -> Tensor:
    """Points at σ/16 within reach of Gaussian bends; where φ bends by itself, as fine as it is after smoothing."""
    parts = [torch.zeros(1, dtype=torch.float64)]
    if bends.positions:
        parts.append(local_grid(bends.positions, bends.sigma / 16, _REACH * bends.sigma))
    if bends.centres:
        blurred = math.hypot(bends.sigma, bends.width)
        parts.append(local_grid(bends.centres, blurred / 16, _CURVED * bends.width + 9 * bends.sigma))
    return torch.from_numpy(np.unique(torch.cat(parts)))


def _cuts(bends: Bends) -> list[float]:
    """Points at doubling distances from every bend, from half its width to 28: for the moments' quadrature."""
    places = [(t, bends.sigma) for t in bends.positions]
    places += [(t, math.hypot(bends.sigma, bends.width)) for t in bends.centres]
    return [
        t + side * width * 2.0**k
        for t, width in places
        for k in range(-1, max(0, math.ceil(math.log2(28 / width))))
        for side in (-1, 0, 1)
    ]
