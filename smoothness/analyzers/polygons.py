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


def cut(polygons: Polygons, heights: Tensor) -> tuple[Polygons, Tensor]:
    """Cut every polygon where an affine function is 0, given its values at the corners.

    Args:
        polygons: p of them.
        heights: (p, most) values at the corners; padding may hold anything that copies do.

    Returns:
        The pieces, whole polygons first and in their order, and the old polygon of each.

    >>> pieces, parent = cut(square(0.0, 1.0, 0.0, 1.0), torch.tensor([[-1.0, 3.0, 3.0, -1.0]]).double())
    >>> pieces.areas, parent
    (tensor([0.2500, 0.7500], dtype=torch.float64), tensor([0, 0]))
    """
    tolerance = _ON_LINE * heights.abs().amax(dim=1, keepdim=True)
    side = (heights > tolerance).to(torch.int8) - (heights < -tolerance).to(torch.int8)
    split = ((side > 0).any(dim=1) & (side < 0).any(dim=1)).nonzero().flatten()
    every = torch.arange(len(polygons), device=split.device)
    if len(split) == 0:
        return polygons, every
    below = _clip(polygons[split], heights[split], -side[split])
    above = _clip(polygons[split], heights[split], side[split])
    most = max(polygons.corners.shape[1], below.corners.shape[1], above.corners.shape[1])
    corners = _padded(polygons.corners, most).clone()
    count = polygons.count.clone()
    corners[split], count[split] = _padded(below.corners, most), below.count
    pieces = Polygons(torch.cat([corners, _padded(above.corners, most)]), torch.cat([count, above.count]))
    return pieces, torch.cat([every, split])


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
