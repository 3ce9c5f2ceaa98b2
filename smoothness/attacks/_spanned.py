"""The boundary's normal where points are known on both sides: along the ways in which those nearby differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.attacks._batch import Rows
from smoothness.attacks._facet import Facet
from smoothness.attacks._search import Search
from smoothness.attacks._walk import NUMBERS, Walkers

_FEWEST = 32  # points known, without which nothing is measured along them
_LOOKED_AT = 1024  # points together
_NEAR, _UNIT, _FALL = 150, 3, 0.5  # points around, and how their weight falls off, in distances to the fourth of them
_OWN = 3  # of them the mean of which stands for the own side
_ALONG = 0.1  # cosine between the first guess and the line to the input, below which that line is the guess
_WAYS, _STEP = 100, 0.03  # ways, and steps along them in distances from the input to the boundary
_TOWARDS = 1.5  # a step is worth so much more where the guess expects a smaller slope behind it
_ERROR = 0.8  # of the first guess, in its length
LOGISTIC = 0.6  # of a spread's scale to its root mean square, about
_TWICE, _ENOUGH = 2, 20  # queries after which a way's slope is known; and ways known, before their size is believed


@dataclass(frozen=True)
class Known:
    """Inputs, labels given to them, and what they differ by from the means of their classes: (n, features), (n,)."""

    points: Tensor
    labels: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, points: Tensor | None, search: Search) -> Known | None:
        """With the labels that the model gives; None without enough of them."""
        if points is None or len(points) < _FEWEST:
            return None
        with torch.no_grad():
            labels = torch.cat([search.run(part).argmax(dim=1) for part in torch.split(points, _LOOKED_AT)])
        flat = points.flatten(1)
        residuals = flat.clone()
        for label in torch.unique(labels):
            residuals[labels == label] -= flat[labels == label].mean(dim=0)
        return cls(flat, labels, residuals)


@dataclass
class Span(Rows):
    """Ways around a boundary point in which its normal may lie.

    The slope (see `Facet`) is believed to be `guess` plus Σ z_k directions_k, z_k of variance shares_k times a common
    one: (m, features), (m, k, features), (m, k). Ways are steps along the directions as far as the bounds allow, as
    unit vectors and lengths. `spread`, (m, features), is that of the points around.
    """

    guess: Tensor
    directions: Tensor
    shares: Tensor
    ways: Tensor
    steps: Tensor
    spread: Tensor

    @classmethod
    def around(cls, group: Walkers, known: Known) -> Span:
        """Spread of the points around; the guess goes from the nearest of the own side to the nearest beyond."""
        far = torch.cdist(group.at, known.points)
        close = far.topk(min(_NEAR, far.shape[1]), dim=1, largest=False)
        unit = close.values[:, _UNIT : _UNIT + 1].clamp_min(_tiny(far))
        weight = torch.exp((1 - close.values / unit).clamp_max(0) / _FALL).unsqueeze(2)
        around = weight * known.residuals[close.indices]
        directions, sizes = _principal(around)
        spread = torch.linalg.vector_norm(around, dim=1) / torch.linalg.vector_norm(weight, dim=1)
        guess = _guess(group, known, far)
        shares = sizes / sizes.sum(dim=1, keepdim=True).clamp_min(_tiny(sizes))
        return cls(guess, directions, shares, *_ways(group, directions, guess), spread)

    def facet(self) -> Facet:
        """Nothing known yet."""
        size = _ERROR * torch.linalg.vector_norm(self.guess, dim=1, keepdim=True)
        nothing = torch.full_like(self.steps, math.inf)
        centre = (self.ways @ self.guess.unsqueeze(2)).squeeze(2)
        return Facet(centre, LOGISTIC * size * self.own, -nothing, nothing, torch.zeros_like(nothing))

    @property
    def own(self) -> Tensor:
        """Spread believed of each way's slope, for a common size of 1: (m, k)."""
        inner = self.ways @ self.directions.mT
        own = (inner.square() * self.shares.unsqueeze(1)).sum(dim=2).sqrt()
        return own.clamp_min(1e-6 * own.amax(dim=1, keepdim=True)).clamp_min(_tiny(own))

    def asking(self, group: Walkers, pick: Tensor, level: Tensor) -> Tensor:
        """Whether the slopes along the ways picked are at least the levels: (m, k), a query for each.

        A step along the way, and level · step of the way back to the input: misclassified where the slope is as large.
        """
        at, offset = group.at, group.offset
        found = torch.empty_like(level, dtype=torch.bool)
        chunk = max(1, NUMBERS // at.numel())
        for start in range(0, pick.shape[1], chunk):
            part = slice(start, start + chunk)
            step = self.steps.gather(1, pick[:, part]).unsqueeze(2)
            way = self.ways.gather(1, pick[:, part].unsqueeze(2).expand(-1, -1, at.shape[1]))
            points = at.unsqueeze(1) + step * (way - level[:, part].unsqueeze(2) * offset.unsqueeze(1))
            found[:, part] = group.wrong(group.inside(points))
        return found

    def resize(self, facet: Facet) -> None:
        """Fit the common size to the slopes known."""
        known = (facet.count >= _TWICE).to(self.steps.dtype)
        missed = (known * (facet.slope - facet.centre).square()).sum(dim=1, keepdim=True)
        believed = (known * self.own.square()).sum(dim=1, keepdim=True).clamp_min(_tiny(missed))
        scale = LOGISTIC * (missed / believed).sqrt() * self.own
        enough = known.sum(dim=1, keepdim=True) >= _ENOUGH
        facet.scale = torch.where(enough, scale.clamp_min(1e-3 * facet.scale), facet.scale)

    def slope(self, group: Walkers, facet: Facet) -> Tensor:
        """What is believed of all coordinates' slopes: (m, features).

        guess + C Uᵀ (U C Uᵀ + R)⁻¹ (y - U guess): C the directions' covariance, U the ways, y their slopes, R the
        squares of how open these are. One way more is the offset, along which the slope is 1.
        """
        near, far = facet.between(0.25, 0.75)
        size = facet.scale / self.own / LOGISTIC
        noise = ((far - near) / size / 1.35).square().masked_fill(facet.count == 0, 1e6)  # quartiles of a normal
        ways = torch.cat([self.ways, group.offset.unsqueeze(1)], dim=1)
        ones = torch.ones_like(noise[:, :1])
        missed = torch.cat([facet.slope, ones], dim=1) - (ways @ self.guess.unsqueeze(2)).squeeze(2)
        inner = (ways @ self.directions.mT).double()
        held = inner * self.shares.unsqueeze(1).double()
        gram = held @ inner.mT
        least = 1e-8 * gram.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True) + _tiny(noise)
        noise = torch.maximum(torch.cat([noise, 0 * ones], dim=1).double(), least)
        weights = torch.linalg.solve(gram + torch.diag_embed(noise), missed.double().unsqueeze(2))
        more: Tensor = (held.mT @ weights).mT.to(self.guess) @ self.directions
        return self.guess + more.squeeze(1)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def _guess(group: Walkers, known: Known, far: Tensor) -> Tensor:
    """Slope of a plane through the boundary point, across the way between the two sides' nearest points."""
    own = (known.labels == group.batch.column) != group.search.targeted
    beyond = known.points[far.masked_fill(own, math.inf).argmin(dim=1)]
    near = far.masked_fill(~own, math.inf).topk(_OWN, dim=1, largest=False)
    there = (near.values < math.inf).to(far.dtype).unsqueeze(2)
    ours = (there * known.points[near.indices]).sum(dim=1) / there.sum(dim=1).clamp_min(1)
    across = beyond - torch.where(there[:, 0] > 0, ours, group.clean)
    along = (across * group.offset).sum(dim=1, keepdim=True)
    squares = group.offset.square().sum(dim=1, keepdim=True).clamp_min(_tiny(far))
    good = along > _ALONG * torch.linalg.vector_norm(across, dim=1, keepdim=True) * squares.sqrt()
    return torch.where(good, across / along, group.offset / squares)


def _principal(around: Tensor) -> tuple[Tensor, Tensor]:
    """Principal directions and their sizes: (m, n, features) -> (m, k, features), (m, k)."""
    values, vectors = torch.linalg.eigh((around @ around.mT).double())
    count = min(_WAYS, around.shape[2])
    sizes = values[:, -count:].clamp_min(0).sqrt().to(around)
    real = (sizes > 1e-3 * sizes[:, -1:]).to(around)
    directions = vectors[:, :, -count:].mT.to(around) @ around
    length = torch.linalg.vector_norm(directions, dim=2).clamp_min(_tiny(around))
    return directions * (real / length).unsqueeze(2), sizes * real


def _ways(group: Walkers, directions: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of the directions' lengths cut to the bounds, to the side where more is left; unit vectors and lengths."""
    low = (group.low - torch.minimum(group.at, group.clean)).unsqueeze(1)
    high = (group.high - torch.maximum(group.at, group.clean)).unsqueeze(1)
    step = _STEP * torch.linalg.vector_norm(group.offset, dim=1).view(-1, 1, 1) * directions
    there, back = torch.clamp(step, low, high), torch.clamp(-step, low, high)
    sizes = [torch.linalg.vector_norm(way, dim=2, keepdim=True) for way in (there, back)]
    tends = ((there - back) @ guess.unsqueeze(2)) >= 0
    ways = torch.where(torch.where(tends, _TOWARDS, 1 / _TOWARDS) * sizes[0] > sizes[1], there, back)
    steps = torch.linalg.vector_norm(ways, dim=2)
    return ways / steps.unsqueeze(2).clamp_min(_tiny(steps)), steps
