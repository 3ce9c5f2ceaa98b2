"""What is known about an activation function: the numbers that attacks, bounds and reports rely on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Breakpoint:
    """A point where some derivative of φ jumps.

    Attributes:
        position: where.
        order: -1 for a jump of the value, 0 of the slope (kink), 1 of the curvature, and so on.
        jump: size with sign: right limit minus left limit of the derivative number order + 1
            (the value itself for order -1).
    """

    position: float
    order: int
    jump: float


@dataclass(frozen=True)
class ActivationFacts:
    """Facts of one elementwise activation φ.

    Attributes:
        name: catalogue name with its parameters.
        smoothness_class: order of the roughest breakpoint: -1 value jump, 0 kink, 1 curvature jump, ...,
            infinity for a smooth function.
        breakpoints: every point where a derivative jumps, in ascending order.
        slope_min, slope_max: infimum and supremum of φ' where it exists.
        lipschitz: Lipschitz constant of φ; infinite at a value jump.
        curvature: Lipschitz constant of φ'; infinite at a kink or a value jump.
        slope_variation: total variation of the almost-everywhere derivative (ReLU 1, a step 0).
        bounded, monotone: whether φ is bounded, and non-decreasing.
        at_zero: φ(0).
        mean, second_moment, slope_second_moment: E φ(u), E φ(u)², E φ'(u)² for a standard normal u.
        polynomial_pieces: coefficients (c0, c1, c2, ...) of each piece between breakpoints when φ is a
            piecewise polynomial; None otherwise. At a jump φ takes the value of the piece to its left.
        value_turns: points other than breakpoints where φ' changes sign.
        slope_turns: points other than breakpoints where φ'' changes sign.
        function: φ itself, for float64 tensors.
        derivative: φ' almost everywhere, for float64 tensors.
    """

    name: str
    smoothness_class: float
    breakpoints: tuple[Breakpoint, ...]
    slope_min: float
    slope_max: float
    lipschitz: float
    curvature: float
    slope_variation: float
    bounded: bool
    monotone: bool
    at_zero: float
    mean: float
    second_moment: float
    slope_second_moment: float
    polynomial_pieces: tuple[tuple[float, ...], ...] | None = None
    value_turns: tuple[float, ...] = ()
    slope_turns: tuple[float, ...] = ()
    function: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)
    derivative: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)

    @property
    def affine_pieces(self) -> tuple[tuple[float, float], ...] | None:
        """(slope, intercept) of each piece between breakpoints when φ is piecewise affine; None otherwise."""
        pieces = self.polynomial_pieces
        if pieces is None or any(any(c != 0 for c in piece[2:]) for piece in pieces):
            return None
        padded = [(*piece, 0.0, 0.0) for piece in pieces]
        return tuple((piece[1], piece[0]) for piece in padded)


def smooth_facts(
    name: str,
    function: Callable[[Tensor], Tensor],
    *,
    slope: tuple[float, float],
    curvature: float,
    slope_variation: float,
    bounded: bool,
    breakpoints: tuple[Breakpoint, ...] = (),
    value_turns: tuple[float, ...] = (),
    slope_turns: tuple[float, ...] = (),
) -> ActivationFacts:
    """Facts of a continuous φ from its closed-form extremes; moments by quadrature to about 1e-13."""
    function = getattr(function, "forward", function)  # past the hooks of an open surrogate gradient
    mean, second, slope_second = _normal_moments(function, [b.position for b in breakpoints])
    return ActivationFacts(
        name=name,
        smoothness_class=min((b.order for b in breakpoints), default=math.inf),
        breakpoints=breakpoints,
        slope_min=slope[0],
        slope_max=slope[1],
        lipschitz=max(abs(slope[0]), abs(slope[1])),
        curvature=curvature,
        slope_variation=slope_variation,
        bounded=bounded,
        monotone=slope[0] >= 0,
        at_zero=float(function(torch.zeros((), dtype=torch.float64))),
        mean=mean,
        second_moment=second,
        slope_second_moment=slope_second,
        value_turns=value_turns,
        slope_turns=slope_turns,
        function=function,
        derivative=partial(autograd_slope, function),
    )


def piecewise_affine_facts(
    name: str, positions: tuple[float, ...], pieces: tuple[tuple[float, float], ...]
) -> ActivationFacts:
    """Facts of a piecewise affine φ, all in closed form.

    `pieces[i]` is (slope, intercept) between `positions[i - 1]` and `positions[i]`.

    >>> piecewise_affine_facts("relu", (0.0,), ((0.0, 0.0), (1.0, 0.0))).breakpoints
    (Breakpoint(position=0.0, order=0, jump=1.0),)
    """
    if len(pieces) != len(positions) + 1:
        raise ValueError(f"{len(positions)} breakpoints need {len(positions) + 1} pieces, got {len(pieces)}")
    breakpoints = []
    for position, (a, b), (c, d) in zip(positions, pieces[:-1], pieces[1:], strict=True):
        value_jump = (c * position + d) - (a * position + b)
        if value_jump != 0:
            breakpoints.append(Breakpoint(position, -1, value_jump))
        else:
            breakpoints.append(Breakpoint(position, 0, c - a))
    slopes = [slope for slope, _ in pieces]
    order = min((b.order for b in breakpoints), default=math.inf)
    edges = (-math.inf, *positions, math.inf)
    mean = second = slope_second = 0.0
    for (slope, intercept), low, high in zip(pieces, edges[:-1], edges[1:], strict=True):
        m0, m1, m2 = _normal_interval_moments(low, high)
        mean += slope * m1 + intercept * m0
        second += slope**2 * m2 + 2 * slope * intercept * m1 + intercept**2 * m0
        slope_second += slope**2 * m0
    zero_piece = sum(position < 0 for position in positions)
    return ActivationFacts(
        name=name,
        smoothness_class=order,
        breakpoints=tuple(breakpoints),
        slope_min=min(slopes),
        slope_max=max(slopes),
        lipschitz=math.inf if order == -1 else max(map(abs, slopes)),
        curvature=0.0 if order == math.inf else math.inf,
        slope_variation=sum(abs(b - a) for a, b in pairwise(slopes)),
        bounded=slopes[0] == 0 == slopes[-1],
        monotone=min(slopes) >= 0 and all(b.jump > 0 for b in breakpoints if b.order == -1),
        at_zero=pieces[zero_piece][1],
        mean=mean,
        second_moment=second,
        slope_second_moment=slope_second,
        polynomial_pieces=tuple((intercept, slope) for slope, intercept in pieces),
        function=partial(_affine_value, positions, pieces),
        derivative=partial(_affine_slope, positions, pieces),
    )


def autograd_slope(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """φ' by automatic differentiation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(z).sum(), z)
    return slope


def _affine_value(positions: tuple[float, ...], pieces: tuple[tuple[float, float], ...], z: Tensor) -> Tensor:
    piece = torch.bucketize(z, z.new_tensor(positions))
    slopes, intercepts = z.new_tensor(pieces).unbind(dim=1)
    return torch.where(slopes[piece] == 0, intercepts[piece], slopes[piece] * z + intercepts[piece])


def _affine_slope(positions: tuple[float, ...], pieces: tuple[tuple[float, float], ...], z: Tensor) -> Tensor:
    return z.new_tensor(pieces)[torch.bucketize(z, z.new_tensor(positions)), 0]


def _normal_interval_moments(low: float, high: float) -> tuple[float, float, float]:
    """∫ u^k pdf(u) du over [low, high] for k = 0, 1, 2."""

    def density(u: float) -> float:
        return math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    def times_density(u: float) -> float:
        return 0.0 if math.isinf(u) else u * density(u)

    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    return mass, density(low) - density(high), mass + times_density(low) - times_density(high)


def _normal_moments(function: Callable[[Tensor], Tensor], breaks: list[float]) -> tuple[float, float, float]:
    """E φ(u), E φ(u)², E φ'(u)² by 24-point Gauss-Legendre on panels of 1/4, split at the breakpoints."""
    edges = np.unique(np.concatenate([np.linspace(-14, 14, 113), [b for b in breaks if abs(b) < 14]]))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    half, middle = np.diff(edges)[:, None] / 2, ((edges[1:] + edges[:-1]) / 2)[:, None]
    u = torch.from_numpy((middle + half * nodes).ravel()).requires_grad_()
    mass = torch.from_numpy((half * weights).ravel()) * torch.exp(-(u.detach() ** 2) / 2) / math.sqrt(2 * math.pi)
    with torch.enable_grad():
        value = function(u)
        (slope,) = torch.autograd.grad(value.sum(), u)
    value = value.detach()
    return float((mass * value).sum()), float((mass * value**2).sum()), float((mass * slope**2).sum())
