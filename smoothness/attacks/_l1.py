"""Steps and projections in the l1 ball inside a box."""

from __future__ import annotations

import torch
from torch import Tensor


def sparse_direction(gradient: Tensor, count: Tensor) -> Tensor:
    """Equal steps of total size 1 along the `count` largest coordinates: (m, ...), (m,) -> (m, ...).

    Zero coordinates are left out; a zero gradient gives zero.

    >>> sparse_direction(torch.tensor([[3.0, -2.0, 1.0, 0.0]]), torch.tensor([2]))
    tensor([[ 0.5000, -0.5000,  0.0000,  0.0000]])
    """
    flat = gradient.flatten(1)
    order = flat.abs().argsort(dim=1, descending=True)
    chosen = torch.arange(flat.shape[1], device=flat.device).expand_as(order) < count.unsqueeze(1)
    signs = torch.zeros_like(flat).scatter_(1, order, chosen.to(flat.dtype)).mul_(flat.sign())
    total = signs.abs().sum(dim=1, keepdim=True).clamp_min(1)
    return (signs / total).view_as(gradient)


def project_to_l1_box(offsets: Tensor, lowest: Tensor, highest: Tensor, radius: float) -> Tensor:
    """Nearest point (Euclidean) with |offset|_1 <= radius and lowest <= offset <= highest, which hold 0.

    The answer is sign(u) · clip(|u| - λ, 0, room): the size shrinks linearly between the values of λ where a
    coordinate leaves its limit or reaches 0, which are sorted (Croce and Hein 2021, arXiv 2103.01208).

    >>> project_to_l1_box(torch.tensor([[3.0, 1.0]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([[1.0, 1.0]]), 1.5)
    tensor([[1.0000, 0.5000]])
    """
    flat = offsets.flatten(1)
    size = flat.abs()
    room = torch.where(offsets > 0, highest, -lowest).flatten(1)
    knots, order = torch.cat([size, size - room], dim=1).clamp_min(0).sort(dim=1, descending=True)
    slope = torch.where(order < flat.shape[1], 1.0, -1.0).to(flat.dtype).cumsum(dim=1)
    gains = slope[:, :-1] * (knots[:, :-1] - knots[:, 1:])
    total = torch.cat([gains.new_zeros(len(gains), 1), gains.cumsum(dim=1)], dim=1)  # |offset| at λ = each knot
    last = (total <= radius).sum(dim=1, keepdim=True) - 1
    excess = (radius - total.gather(1, last)) / slope.gather(1, last).clamp_min(1)
    threshold = (knots.gather(1, last) - excess).clamp_min(0)
    threshold = torch.where(torch.minimum(size, room).sum(dim=1, keepdim=True) <= radius, 0, threshold)
    return (flat.sign() * torch.minimum((size - threshold).clamp_min(0), room)).view_as(offsets)
