"""Kinks and jumps along segments of any network of modules, curved activations included, by bisection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness.analyzers.crossings import Crossings, along, find_crossings, point
from smoothness.analyzers.double import double_model, in_double
from smoothness.analyzers.kinks import EFFECTIVE_SHARE, Kinks, no_kinks
from smoothness.analyzers.segments import check_segments

# Share of the largest slope, or value, on a segment below which a change is rounding.
_ROUNDING = 1e-11
_HELD_NUMBERS = 2**22
_NONE = "no kinks: no watched activation or pooling has a kink or a jump"


def kinks_by_bisection(model: nn.Module, starts: Tensor, ends: Tensor, *, grid: int = 256) -> Kinks:
    """Kinks and jumps of any network of modules along segments, with unit and size; those between grid points found.

    Unlike `kinks_on_segments` it needs no piecewise affine network: activations with kinks and curvature (selu,
    hardswish), mixtures of smooth and kinked ones, k_winners and products of features are welcome. The state of
    every unit (on which side of each breakpoint it is, which member of a pooling window wins) is compared at the
    ends of `grid` cells, and every cell with a difference is halved down to 2^-46. A unit that crosses and returns
    within one cell is missed. Jumps are differences of f and of its forward-mode derivative on both sides of the
    last cell.

    Args:
        model: any module; activation modules with known facts and max pooling are watched, functions are not.
        starts: (s, *input_shape).
        ends: the same shape.
        grid: cells of each segment at first.

    Returns:
        `Kinks`, its layers those with kinks or value jumps. Positions are right to about 1e-13, jumps to about
        1e-12 times |f''| and 1e-15 times |f'|.

    Raises:
        TypeError: a model that cannot be copied to float64, or an operation without a forward-mode derivative.
        ValueError: bad segments, outputs that are NaN or infinite.

    >>> table = kinks_by_bisection(nn.SELU(), torch.tensor([[-1.0]]), torch.tensor([[3.0]]))
    >>> table.position.round(decimals=9), table.jump.round(decimals=3)
    (tensor([0.2500], dtype=torch.float64), tensor([[-2.8300]], dtype=torch.float64))
    """
    check_count("grid", grid)
    check_segments(starts, ends)
    double = double_model(model, starts)
    first = in_double(double, starts)
    steps = in_double(double, ends) - first
    with torch.no_grad():
        crossings = _rough(find_crossings(double, first, steps, grid=grid))
        if len(crossings.segment) == 0:
            note = "" if any(order <= 0 for order in crossings.orders) else _NONE
            return no_kinks(double(first[:1]), _names(crossings), len(starts), note)
        reach = crossings.right - crossings.left
        sides = (crossings.left - reach).clamp_min(0), (crossings.right + reach).clamp_max(1)
        found = []
        size = max(1, _HELD_NUMBERS // first[0].numel())
        for rows in torch.split(torch.arange(len(reach), device=reach.device), size):
            segment = crossings.segment[rows]
            at = [along(double, point(first, steps, segment, t[rows]), steps[segment]) for t in sides]
            found.append(torch.stack([torch.stack(pair) for pair in zip(*at, strict=True)]))
        (value_left, value_right), (slope_left, slope_right) = torch.cat(found, dim=2)
    if not all(part.isfinite().all() for part in (value_left, value_right, slope_left, slope_right)):
        raise ValueError("the model's outputs or derivatives are NaN or infinite on a segment; repair the model")
    segment = crossings.segment
    stepping = torch.tensor([order < 0 for order in crossings.orders], device=segment.device)
    stepped = torch.zeros_like(segment, dtype=torch.bool)
    stepped[crossings.cell[stepping[crossings.layer]]] = True
    value_jump = torch.where(stepped[:, None], value_right - value_left, 0.0)
    jump = slope_right - slope_left
    effective = torch.zeros_like(stepped)
    for change, sides_of in ((value_jump, (value_left, value_right)), (jump, (slope_left, slope_right))):
        level = torch.stack([_largest(segment, side, len(starts)) for side in sides_of]).amax(dim=0)
        floor = torch.maximum(EFFECTIVE_SHARE * _largest(segment, change, len(starts)), _ROUNDING * level)
        change[change.abs().amax(dim=1) <= (_ROUNDING * level)[segment]] = 0.0
        effective |= change.abs().amax(dim=1) > floor[segment]
    kept = torch.tensor([order <= 0 for order in crossings.orders], device=segment.device).cumsum(0) - 1
    cell = crossings.cell
    return Kinks(
        segment=segment[cell].cpu(),
        position=((crossings.left + crossings.right) / 2)[cell].cpu(),
        layer=kept[crossings.layer].cpu(),
        unit=crossings.unit.cpu(),
        value_jump=value_jump[cell].cpu(),
        jump=jump[cell].cpu(),
        effective=effective[cell].cpu(),
        layers=_names(crossings),
        segments=len(starts),
    )


def _rough(crossings: Crossings) -> Crossings:
    """Without the rows of curvature jumps, and the cells that hold nothing else."""
    rough = torch.tensor([order <= 0 for order in crossings.orders], dtype=torch.bool, device=crossings.cell.device)
    rows = rough[crossings.layer] if len(rough) else crossings.cell > 0
    cells, cell = torch.unique(crossings.cell[rows], return_inverse=True)
    return Crossings(
        crossings.segment[cells],
        crossings.left[cells],
        crossings.right[cells],
        cell,
        crossings.layer[rows],
        crossings.unit[rows],
        crossings.layers,
        crossings.orders,
    )


def _names(crossings: Crossings) -> tuple[str, ...]:
    return tuple(name for name, order in zip(crossings.layers, crossings.orders, strict=True) if order <= 0)


def _largest(segment: Tensor, sizes: Tensor, count: int) -> Tensor:
    zeros = torch.zeros(count, dtype=torch.float64, device=segment.device)
    return zeros.scatter_reduce(0, segment, sizes.abs().amax(dim=1), "amax")
