"""The boundary's normal around one point, coordinate by coordinate: each label halves what one of them may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.attacks._batch import Rows
from smoothness.attacks._walk import NUMBERS, Walkers

_STEP = 0.1  # of a coordinate, in distances from the input to the boundary
_TAIL = 0.5  # of what is believed before: 0 the logistic distribution's, 1 as heavy as Cauchy's
_SURE = 1e-4  # share of the belief under which only the two ends matter
_COSINE = 0.4  # taken for that between the normal and the line to the input
_SPREAD = 0.3  # of a new facet's slopes around those of the last one, in their root mean square
_SLACK = 0.05  # of the same, by which a test of what is known may be missed


def _quantile(share: Tensor) -> Tensor:
    return torch.sinh(_TAIL * torch.logit(share)) / _TAIL


def _share(value: Tensor) -> Tensor:
    return torch.sigmoid(torch.asinh(_TAIL * value) / _TAIL)


def mean_square(values: Tensor) -> Tensor:
    """(m, features) -> (m, 1)."""
    return values.square().mean(dim=1, keepdim=True)


Asking = Callable[[Tensor, Tensor], Tensor]  # whether the slopes picked, (m, k), are at least the levels, (m, k)


@dataclass
class Facet(Rows):
    """What is known of slope_i = w_i / (w · (at - x)), w the boundary's normal around `at`: (m, features) each.

    The boundary there is slope · (x' - x) = 1. Each slope is at least `low` and less than `high`; `centre` and `scale`
    tell what is believed of it beside that, `count` how often it was asked for.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    count: Tensor

    @classmethod
    def unknown(cls, group: Walkers) -> Facet:
        """Nothing known; |w| is |at - x| and a cosine away from w · (at - x)."""
        offset = group.offset
        size = torch.linalg.vector_norm(offset, dim=1, keepdim=True).clamp_min(torch.finfo(offset.dtype).tiny)
        scale = (0.67 / (_COSINE * math.sqrt(offset.shape[1])) / size).expand_as(offset).clone()
        nothing = torch.full_like(offset, math.inf)
        return cls(torch.zeros_like(offset), scale, -nothing, nothing, torch.zeros_like(offset))

    def between(self, *shares: float) -> list[Tensor]:
        """Quantiles of what each slope may still be."""
        below, above = (_share((end - self.centre) / self.scale) for end in (self.low, self.high))
        sure = above - below < _SURE
        found = []
        for share in shares:
            value = self.centre + self.scale * _quantile(torch.lerp(below, above, share).clamp(1e-6, 1 - 1e-6))
            ends = torch.lerp(self.low, self.high, share)
            found.append(torch.where(sure & ends.isfinite(), ends, torch.clamp(value, self.low, self.high)))
        return found

    @property
    def slope(self) -> Tensor:
        """The middle of each."""
        return self.between(0.5)[0]

    def ask(self, asking: Asking, pick: Tensor) -> None:
        """Halve the slopes at `pick`: (m, k), a query for each."""
        level = self.slope.gather(1, pick)
        more = asking(pick, level)
        low, high = self.low.gather(1, pick), self.high.gather(1, pick)
        self.low.scatter_(1, pick, torch.where(more, torch.maximum(low, level), low))
        self.high.scatter_(1, pick, torch.where(more, high, torch.minimum(high, level)))
        self.count.scatter_add_(1, pick, torch.ones_like(level))

    def doubt(self, group: Walkers) -> Tensor:
        """By how much each slope is open; -1 where the input cannot move that way anyhow."""
        near, far = self.between(0.25, 0.75)
        useless = ((self.low >= 0) & (group.up <= 0)) | ((self.high <= 0) & (group.down >= 0))
        return (far - near).masked_fill(useless, -1)

    def contradicted(self, asking: Asking, asked: Tensor, draws: torch.Generator, tests: int) -> Tensor:
        """Share of a few random ends, of those asked for, that do not hold where the walk is now: (m,)."""
        order = torch.rand(asked.shape[1], generator=draws, dtype=asked.new_zeros(0).float().dtype).to(asked.device)
        chosen = (order * asked).topk(min(tests, asked.shape[1]), dim=1)
        from_below = torch.rand(chosen.indices.shape[1], generator=draws).to(asked.device) < 0.5
        low, high = self.low.gather(1, chosen.indices), self.high.gather(1, chosen.indices)
        from_below = torch.where(low.isinf(), False, torch.where(high.isinf(), True, from_below))
        slack = _SLACK * mean_square(self.slope).sqrt()
        level = torch.where(from_below, low - slack, high + slack).nan_to_num(0.0, 0.0, 0.0)
        missed = (asking(chosen.indices, level) != from_below) & (chosen.values > 0)
        return missed.sum(dim=1) / (chosen.values > 0).sum(dim=1).clamp_min(1)

    def renew(self, where: Tensor) -> None:
        """Another facet begins, not unlike the last one."""
        slope, column = self.slope, where.unsqueeze(1)
        size = _SPREAD * mean_square(slope).sqrt().clamp_min(torch.finfo(slope.dtype).tiny)
        self._begin(column, slope, size.expand_as(slope))

    def seed(self, where: Tensor, slope: Tensor, scale: Tensor) -> None:
        """Another place, of which something is known: (n, features) each, of the rows there."""
        centre, spread = self.centre.clone(), self.scale.clone()
        centre[where], spread[where] = slope, scale.clamp_min(torch.finfo(scale.dtype).tiny)
        self._begin(where.unsqueeze(1), centre, spread)

    def forget(self, where: Tensor, group: Walkers) -> None:
        """Another place altogether."""
        fresh = Facet.unknown(group)
        self._begin(where.unsqueeze(1), fresh.centre, fresh.scale)

    def _begin(self, column: Tensor, centre: Tensor, scale: Tensor) -> None:
        self.centre, self.scale = torch.where(column, centre, self.centre), torch.where(column, scale, self.scale)
        self.low, self.high = self.low.masked_fill(column, -math.inf), self.high.masked_fill(column, math.inf)
        self.count = self.count.masked_fill(column, 0)


def exceeds(group: Walkers, pick: Tensor, level: Tensor) -> Tensor:
    """Whether the slopes of the coordinates `pick` are at least `level`: (m, k), a query for each.

    A step s along coordinate i, and level · s of the way back to the input: misclassified where slope_i >= level.
    """
    at, offset = group.at, group.offset
    here = at.gather(1, pick)
    up, down = group.high.gather(1, pick) - here, here - group.low.gather(1, pick)
    size = _STEP * torch.linalg.vector_norm(offset, dim=1, keepdim=True)
    # back rather than on, where there is room, since x' between `at` and x lies inside the bounds
    forward = torch.where(level >= 0, (up >= size / 2) | (up >= down), (down < size / 2) & (down < up))
    step = torch.minimum(torch.where(forward, up, down), size) * torch.where(forward, 1.0, -1.0).to(size.dtype)
    found = torch.empty_like(forward)
    chunk = max(1, NUMBERS // at.numel())
    for start in range(0, pick.shape[1], chunk):
        part = slice(start, start + chunk)
        points = at.unsqueeze(1) - (level * step)[:, part].unsqueeze(2) * offset.unsqueeze(1)
        points.scatter_add_(2, pick[:, part].unsqueeze(2), step[:, part].unsqueeze(2))
        found[:, part] = group.wrong(group.inside(points))
    return found == forward
