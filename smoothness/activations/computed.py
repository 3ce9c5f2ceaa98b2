"""Facts of a smooth function without closed forms: turning points bracketed and bisected, extremes from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from scipy.optimize import brentq
from torch import Tensor

from smoothness.activations.facts import ActivationFacts, smooth_facts

Function = Callable[[Tensor], Tensor]

_REACH = 45.0  # in widths: beyond, exponential tails are constant in float64


def computed_facts(
    name: str,
    module: torch.nn.Module,
    formula: Function,
    *,
    limits: tuple[float, float],
    width: float,
    bounded: bool,
    monotone: bool = False,
    centres: Sequence[float] = (0.0,),
) -> ActivationFacts:
    """Facts of a smooth φ that bends only near some centres.

    Zeros of the first three derivatives are bracketed on a grid of width/16 around the centres and bisected to
    rounding.

    Args:
        name: as printed.
        module: computes φ.
        formula: φ in plain operations, differentiable three times in float64.
        limits: slopes at minus and plus infinity.
        width: length over which φ' changes near a centre.
        bounded: what is known of φ.
        monotone: what is known of φ.
        centres: where it bends, ascending.
    """
    grid = local_grid(centres, width / 16, _REACH * width)
    slope, bend, third = (_nth(formula, n) for n in (1, 2, 3))
    slope_turns, bend_turns = (sign_changes(f, grid, 1e-14) for f in (bend, third))
    path = [limits[0], *values_at(slope, slope_turns), limits[1]]
    if monotone:
        path = [max(0.0, s) for s in path]
    return smooth_facts(
        name,
        module.forward,
        slope=(min(path), max(path)),
        curvature=max(map(abs, values_at(bend, bend_turns))),
        slope_variation=sum(abs(b - a) for a, b in pairwise(path)),
        bounded=bounded,
        value_turns=() if monotone else sign_changes(slope, grid, 1e-14),
        slope_turns=slope_turns,
        width=width,
    )


def local_grid(centres: Sequence[float], spacing: float, reach: float) -> Tensor:
    """Points at a spacing within reach of the centres, and 64 between where two reaches do not meet."""
    spans: list[list[float]] = []
    for t in centres:
        if spans and t - reach <= spans[-1][1]:
            spans[-1][1] = t + reach
        else:
            spans.append([t - reach, t + reach])
    parts = [torch.linspace(a, b, 2 + math.ceil((b - a) / spacing), dtype=torch.float64) for a, b in spans]
    parts += [torch.linspace(a[1], b[0], 65, dtype=torch.float64) for a, b in pairwise(spans)]
    return torch.cat(parts).sort().values


def sign_changes(function: Function, grid: Tensor, noise: float) -> tuple[float, ...]:
    """Where the function passes from one sign to the other; the middle of the zeros between, if there are.

    Values up to `noise` times the largest on the grid count as zero.
    """
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


def values_at(function: Function, points: Sequence[float]) -> list[float]:
    """The function at numbers."""
    return function(torch.tensor(points, dtype=torch.float64)).tolist() if points else []


def zero_crossing(function: Callable[[float], float], low: float, high: float) -> float | None:
    """The zero between two numbers where the signs differ; None where they do not."""
    if function(low) * function(high) >= 0:
        return None
    return float(brentq(function, low, high, xtol=1e-15, rtol=8.9e-16))


def _nth(formula: Function, order: int) -> Function:
    def derivative(z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = formula(z)
            for _ in range(order):
                (value,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        return value.detach()

    return derivative
