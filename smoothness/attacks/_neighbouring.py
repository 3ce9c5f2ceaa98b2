"""What neighbouring pixels tell of one another's slopes: a belief that spares queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness.attacks._facet import Facet, mean_square
from smoothness.attacks._walk import Walkers

_REACH = 2  # pixels
_KNOWN = 2  # queries, after which a slope tells of its neighbours
_PRIOR = 0.5  # neighbours' weight that the average over the image has, in a spread
_FLOOR = 0.02  # of the root mean square: no spread is smaller
_MEDIAN = 0.6  # of a spread's scale to its root mean square, about
_ENOUGH = 0.5  # of the coordinates known before their own size is believed


class Belief:
    """Centres and scales of slopes, from those known so far. Images: neighbours; other inputs: their common size.

    A pixel is believed to be ρ times the mean of its neighbours, ρ fitted by least squares to those known, give or
    take what that misses nearby. Then smooth normals need few queries, empty regions hardly any, and rough ones as
    many as without neighbours.
    """

    def __init__(self, group: Walkers) -> None:
        clean = group.batch.clean
        self.image = clean.ndim == 4 and min(clean.shape[2:]) > 2 * _REACH
        self.shape = clean.shape[1:]
        self.lattice = torch.ones(group.clean.shape[1], device=clean.device, dtype=clean.dtype)
        if self.image:  # every fourth pixel comes first
            lattice = clean.new_zeros(self.shape)
            lattice[:, 1::2, ::2] = 1
            self.lattice = lattice.flatten()
            bell = torch.exp(-torch.arange(-_REACH, _REACH + 1, device=clean.device, dtype=clean.dtype).square() / 2)
            self.around = (bell[:, None] * bell).expand(self.shape[0], 1, -1, -1).contiguous()
            self.ring = self.around.clone()
            self.ring[:, :, _REACH, _REACH] = 0

    def update(self, facet: Facet, where: Tensor) -> None:
        """Of the rows there."""
        slope, known = facet.slope, (facet.count >= _KNOWN).to(facet.centre.dtype)
        share = (known * self.lattice).sum(dim=1) / self.lattice.sum()
        centre, scale = self._from_neighbours(slope, known) if self.image else self._alike(slope, known, facet.centre)
        column = (where & (share >= _ENOUGH)).unsqueeze(1)
        facet.centre = torch.where(column, centre, facet.centre)
        facet.scale = torch.where(column, scale.clamp_min(torch.finfo(scale.dtype).tiny), facet.scale)

    def _alike(self, slope: Tensor, known: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        missed = (known * (slope - centre).square()).sum(dim=1, keepdim=True)
        usual = missed / known.sum(dim=1, keepdim=True).clamp_min(1)
        return centre, (_MEDIAN * usual.sqrt()).expand_as(slope)

    def _from_neighbours(self, slope: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        weight = self._sum(known, self.ring)
        mean = self._sum(known * slope, self.ring) / weight.clamp_min(1e-6)
        near = (weight > 0.2).to(slope.dtype)
        both = known * near
        power = (both * mean.square()).sum(dim=1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        rho = ((both * slope * mean).sum(dim=1, keepdim=True) / power).clamp(0, 1)
        missed = both * (slope - rho * mean).square()
        usual = missed.sum(dim=1, keepdim=True) / both.sum(dim=1, keepdim=True).clamp_min(1)
        spread = (self._sum(missed, self.around) + _PRIOR * usual) / (self._sum(both, self.around) + _PRIOR)
        size = mean_square(known * slope) * slope.shape[1] / known.sum(dim=1, keepdim=True).clamp_min(1)
        return near * rho * mean, torch.maximum(_MEDIAN * spread.sqrt(), _FLOOR * size.sqrt())

    def _sum(self, values: Tensor, kernel: Tensor) -> Tensor:
        """Over the pixels around each."""
        found = F.conv2d(values.view(-1, *self.shape), kernel, padding=_REACH, groups=self.shape[0])
        return found.flatten(1)
