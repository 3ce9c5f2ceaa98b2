"""Many convex polygons at once: cutting them by lines, their areas and centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A corner nearer to a line than this share of the largest distance lies on it.
_ON_LINE = 1e-11


@dataclass(frozen=True, eq=False)
class Polygons:
    """Convex polygons with corners in order; rows are padded with copies of their last corner.

    Attributes:
        corners: (p, most, 2).
        count: (p,) corners of each.
    """

    corners: Tensor
    count: Tensor

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: Tensor) -> Polygons:
        return Polygons(self.corners[rows], self.count[rows])

    @property
    def areas(self) -> Tensor:
        """(p,) areas, by the shoelace formula.

        >>> square(0.0, 2.0, 0.0, 1.0).areas
        tensor([2.], dtype=torch.float64)
        """
        away = self.corners - self.corners[:, :1]  # small numbers: no cancellation
        x, y = away.unbind(dim=2)
        return (x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1]).sum(dim=1).abs() / 2

    @property
    def centres(self) -> Tensor:
        """(p, 2) means of the corners: a point inside."""
        real = torch.arange(self.corners.shape[1], device=self.count.device) < self.count[:, None]
        return (self.corners * real[..., None]).sum(dim=1) / self.count[:, None]


def square(left: float, right: float, bottom: float, top: float) -> Polygons:
    """One rectangle."""
    corners = [[left, bottom], [right, bottom], [right, top], [left, top]]
    return Polygons(torch.tensor([corners], dtype=torch.float64), torch.tensor([4]))


def crossed(heights: Tensor) -> Tensor:
    """(p, ...) whether an affine function changes its sign inside, given its values (p, most, ...) at the corners."""
    tolerance = _ON_LINE * heights.abs().amax(dim=1)
    return (heights.amax(dim=1) > tolerance) & (heights.amin(dim=1) < -tolerance)


def cut(polygons: Polygons, heights: Tensor, rows: Tensor | None = None) -> tuple[Polygons, Tensor]:
    """Cut polygons where an affine function is 0, given its values at the corners.

    Args:
        polygons: p of them.
        heights: (r, most) values at the corners; padding may hold anything that copies do.
        rows: (r,) which polygons they are of; None for all. The others stay whole.

    Returns:
        The pieces, whole polygons first and in their order, and the old polygon of each.

    >>> pieces, parent = cut(square(0.0, 1.0, 0.0, 1.0), torch.tensor([[-1.0, 3.0, 3.0, -1.0]]).double())
    >>> pieces.areas, parent
    (tensor([0.2500, 0.7500], dtype=torch.float64), tensor([0, 0]))
    """
    tolerance = _ON_LINE * heights.abs().amax(dim=1, keepdim=True)
    side = (heights > tolerance).to(torch.int8) - (heights < -tolerance).to(torch.int8)
    mixed = ((side > 0).any(dim=1) & (side < 0).any(dim=1)).nonzero().flatten()
    every = torch.arange(len(polygons), device=mixed.device)
    if len(mixed) == 0:
        return polygons, every
    split = mixed if rows is None else rows[mixed]
    side, both = side[mixed], torch.cat([mixed, mixed])
    halves = _clip(polygons[split.repeat(2)], heights[both], torch.cat([-side, side]))
    most = max(polygons.corners.shape[1], halves.corners.shape[1])
    clipped = _padded(halves.corners, most)
    corners = torch.cat([_padded(polygons.corners, most), clipped[len(split) :]])
    count = torch.cat([polygons.count, halves.count[len(split) :]])
    corners[split], count[split] = clipped[: len(split)], halves.count[: len(split)]
    return Polygons(corners, count), torch.cat([every, split])


def _clip(polygons: Polygons, heights: Tensor, side: Tensor) -> Polygons:
    """The part with side >= 0 (Sutherland and Hodgman 1974), every polygon having corners on both sides."""
    corners, count = polygons.corners, polygons.count
    size = corners.shape[1]
    index = torch.arange(size, device=count.device)
    following = torch.where(index + 1 < count[:, None], index + 1, 0)
    there = corners.gather(1, following[..., None].expand(-1, -1, 2))
    height, side_there = heights.gather(1, following), side.gather(1, following)
    real = index < count[:, None]
    share = heights / (heights - height)
    crossing = corners + torch.where((side * side_there < 0), share, 0.0)[..., None] * (there - corners)
    points = torch.stack([corners, crossing], dim=2).flatten(1, 2)
    keep = torch.stack([(side >= 0) & real, (side * side_there < 0) & real], dim=2).flatten(1, 2)
    kept = keep.sum(dim=1)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, : int(kept.max())]
    last = torch.minimum(torch.arange(order.shape[1], device=count.device), kept[:, None] - 1)
    order = order.gather(1, last)
    return Polygons(points.gather(1, order[..., None].expand(-1, -1, 2)), kept)


def _padded(corners: Tensor, most: int) -> Tensor:
    missing = most - corners.shape[1]
    return torch.cat([corners, corners[:, -1:].expand(-1, missing, -1)], dim=1) if missing else corners
