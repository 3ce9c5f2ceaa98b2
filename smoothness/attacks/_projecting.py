"""The boundary beyond the input's projection onto a plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness.attacks._crossing import crossing
from smoothness.attacks._walk import Walkers

_BEYOND, _BRACKETS, _HALVINGS = 1.03, 4, 13  # of the projection: where the boundary is looked for first, and how


def beyond(group: Walkers, slope: Tensor, straight: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary on the way from the input to its projection onto a plane, or straight to where the walk is.

    Returns points, the walk's where none is found, and where one is: (m, features), (m,).
    """
    offset = group.offset

    def path(time: Tensor) -> Tensor:
        time = time.to(offset.dtype)
        across = crossing(time, slope, group.down, group.up, group.norm)
        return group.clean + torch.where(straight.unsqueeze(1), time.unsqueeze(1).clamp_max(1) * offset, across)

    below, above = torch.zeros_like(offset[:, 0]), torch.full_like(offset[:, 0], math.inf)
    for turn in range(_BRACKETS):
        farther = below * 1.4 if turn else torch.full_like(below, _BEYOND)
        time = torch.where(above.isinf(), farther, torch.where(below == 0, above * 0.87, (below + above) / 2))
        found = group.wrong(path(time))
        below, above = torch.where(found, below, time), torch.where(found, time, above)
    hit = above < math.inf
    points = path(group.first(path, below, torch.where(hit, above, below + 1), _HALVINGS))
    return torch.where(hit.unsqueeze(1), points, group.at), hit
