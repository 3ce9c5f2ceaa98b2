"""The smallest perturbation that crosses a linear boundary without leaving a box."""

from __future__ import annotations

import torch
from torch import Tensor

from smoothness._norms import DUAL, Norm, vector_norm

TURNS = 20  # of Newton's method at most; three to six are usual
CLOSE = 1e-5  # relative step at which it ends


def to_size_1(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients over their largest coordinate, NaN as 0, and that coordinate: (m, ...) -> (m, ...), (m,).

    The squares of float32 gradients below 1e-19 or above 1e19 leave its range.

    >>> to_size_1(torch.tensor([[3e30, -6e30]]))[0]
    tensor([[ 0.5000, -1.0000]])
    """
    gradient = gradient.nan_to_num(0)
    largest = vector_norm(gradient, "linf").clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / largest.view(-1, *[1] * (gradient.ndim - 1)), largest


def linear_distance(gap: Tensor, gradient: Tensor, norm: Norm) -> Tensor:
    """Gap / |gradient|_dual per example, as if there were no box: infinite for a zero gradient.

    >>> linear_distance(torch.tensor([1.0]), torch.tensor([[3.0, 4.0]]), "l2")
    tensor([0.2000])
    """
    gradient, largest = to_size_1(gradient)
    size = vector_norm(gradient, DUAL[norm])
    return torch.where(size > 0, gap / largest / size, torch.inf)


def crossing(gap: Tensor, gradient: Tensor, lowest: Tensor, highest: Tensor, norm: Norm) -> Tensor:
    """Smallest offset with gradient · offset = gap and lowest <= offset <= highest: (m,), (m, ...) -> (m, ...).

    The box holds 0 and its sides may be infinite. For linf every coordinate goes equally far, for l2 as far as
    its gradient says, each until its limit; for l1 the steepest coordinates are used up one after the other.
    Where the whole box does not reach the gap the answer is its best corner; a gap below 0 gives 0.

    >>> gradient, wide = torch.tensor([[3.0, 4.0]]), torch.full((1, 2), torch.inf)
    >>> crossing(torch.tensor([1.0]), gradient, -wide, wide, "l2")
    tensor([[0.1200, 0.1600]])
    >>> crossing(torch.tensor([1.0]), gradient, -wide, torch.tensor([[1.0, 0.1]]), "l1")
    tensor([[0.2000, 0.1000]])
    """
    flat, largest = to_size_1(gradient.flatten(1))
    gap = (gap / largest).clamp_min(0).nan_to_num(0, posinf=0).unsqueeze(1)
    slope = flat.abs()
    room = torch.where(flat > 0, highest.flatten(1), -lowest.flatten(1))
    room = room.masked_fill(slope == 0, 0)
    if norm == "l1":
        order = slope.argsort(dim=1, descending=True)
        gain = (slope * room).gather(1, order)
        before = torch.cat([torch.zeros_like(gap), gain.cumsum(dim=1)[:, :-1]], dim=1)
        share = (gap - before).clamp_min(0) / slope.gather(1, order).clamp_min(torch.finfo(flat.dtype).tiny)
        moves = torch.minimum(share, room.gather(1, order))
        size = torch.zeros_like(flat).scatter_(1, order, moves)
        return (size * flat.sign()).view_as(gradient)
    # How much of the gap is gained at time t is concave and piecewise linear: Newton's steps come from below and
    # end at the root after a few turns, in far less time than sorting the coordinates takes.
    pace = torch.ones_like(slope) if norm == "linf" else slope
    rates, time = slope * pace, torch.zeros_like(gap)
    for _ in range(TURNS):
        way = time * pace
        rate = torch.where(way < room, rates, 0).sum(dim=1, keepdim=True)
        missing = gap - (slope * torch.minimum(way, room)).sum(dim=1, keepdim=True)
        more = torch.where(rate > 0, missing / rate, 0).clamp_min(0)
        time = time + more
        if not bool((more > CLOSE * time).any()):
            break
    return (torch.minimum(time * pace, room) * flat.sign()).view_as(gradient)
