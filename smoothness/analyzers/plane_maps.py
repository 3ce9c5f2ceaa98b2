"""Value, slope and curvature of a model over a plane, on the scale of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness.analyzers.double import double_model, in_double, output_weights
from smoothness.analyzers.input_curvature import Of

_HELD_NUMBERS = 2**23


@dataclass(frozen=True, eq=False)
class PlaneMap:
    """A function over the rectangle origin + u · first + v · second, at the centres of a grid.

    Attributes:
        u: (columns,) and v: (rows,) coordinates.
        v: see u.
        value: (rows, columns) f.
        slope: (rows, columns) length of its gradient in (u, v), by differences of neighbours: the jumps of a step
            network included, as steep as the grid is fine.
        curvature: (rows, columns) eigenvalue of largest magnitude of its matrix of second differences in (u, v), its
            size; a kink has one in proportion to 1 / pitch.
        plateau: (rows, columns) whether f equals its four neighbours to the bit.
        classes: (rows, columns) largest output; 0 and 1 by sign for a model with one output.
        pitch: distances of neighbours in u and v.
    """

    u: Tensor
    v: Tensor
    value: Tensor
    slope: Tensor
    curvature: Tensor
    plateau: Tensor
    classes: Tensor
    pitch: tuple[float, float]


def plane_map(
    model: nn.Module,
    origin: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    bounds: tuple[float, float, float, float] = (-1.0, 1.0, -1.0, 1.0),
    resolution: int = 200,
    of: Of = "margin",
) -> PlaneMap:
    """Read a model on a grid of a plane: the picture that every activation has, smooth, kinked or stepped.

    f is, for of="margin", the fixed functional of the logits (class predicted at the origin minus the best other one
    there), else the first output. Slope and curvature are central differences at the pitch of the grid: finite-scale
    quantities, "estimate"s of what a finer grid would show. Computed in float64.

    Args:
        model: any module.
        origin: (*input_shape), u = v = 0.
        first: the same shape, direction of u.
        second: the same shape, direction of v.
        bounds: (lowest u, highest u, lowest v, highest v).
        resolution: points along u, and along v.
        of: "margin" or "logits".

    Raises:
        TypeError, ValueError: as `double_model`; collinear directions, too few outputs for of="margin".

    >>> bowl = plane_map(nn.Identity(), torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), of="logits")
    >>> bowl.value.shape, round(float(bowl.slope.mean()), 6), round(float(bowl.curvature.max()), 6)
    (torch.Size([200, 200]), 1.0, 0.0)
    """
    check_count("resolution", resolution, minimum=2)
    if torch.linalg.matrix_rank(torch.stack([first.flatten(), second.flatten()]).double()) < 2:
        raise ValueError("first and second must span a plane, but they are collinear; choose another slice")
    double = double_model(model, origin[None])
    base, along, across = (in_double(double, part) for part in (origin, first, second))
    # One point more on each side, for the differences.
    count = resolution + 2
    pitch = (bounds[1] - bounds[0]) / resolution, (bounds[3] - bounds[2]) / resolution
    u = bounds[0] + pitch[0] * (torch.arange(count, dtype=torch.float64) - 0.5)
    v = bounds[2] + pitch[1] * (torch.arange(count, dtype=torch.float64) - 0.5)
    wide = (-1, *[1] * base.ndim)
    places = torch.cartesian_prod(v, u).to(base.device)
    outputs = []
    with torch.no_grad():
        weights = output_weights(double(base[None]), of)[0, 0]
        for part in torch.split(places, max(1, _HELD_NUMBERS // base.numel())):
            points = base + part[:, 1].view(wide) * along + part[:, 0].view(wide) * across
            outputs.append(double(points).cpu())
    scores = torch.cat(outputs)
    f = (scores @ weights.cpu()).view(count, count)
    classes = scores.argmax(dim=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()
    here, left, right, below, above = f[1:-1, 1:-1], f[1:-1, :-2], f[1:-1, 2:], f[:-2, 1:-1], f[2:, 1:-1]
    slope = torch.hypot((right - left) / (2 * pitch[0]), (above - below) / (2 * pitch[1]))
    uu, vv = (right - 2 * here + left) / pitch[0] ** 2, (above - 2 * here + below) / pitch[1] ** 2
    uv = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * pitch[0] * pitch[1])
    curvature = (uu + vv).abs() / 2 + torch.hypot((uu - vv) / 2, uv)
    plateau = (left == here) & (right == here) & (below == here) & (above == here)
    inner = classes.view(count, count)[1:-1, 1:-1]
    return PlaneMap(u[1:-1], v[1:-1], here, slope, curvature, plateau, inner, pitch)
