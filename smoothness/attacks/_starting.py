"""Where walks along the decision boundary start: misclassified points, drawn near the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothness._norms import vector_norm
from smoothness.attacks._batch import Rows
from smoothness.attacks._walk import Walkers

_DRAWS = 100  # random points at most (Chen et al. 2020, section 4.1)
_MOST = 32  # starts kept for each example
_SHARE = 150  # queries for each of them
_HALVINGS = 7
_LOOKED_AT = 1024  # starts together


@dataclass
class Queue(Rows):
    """Points near the boundary from which to go: (m, q, features), and distances: (m, q), infinite where used up."""

    points: Tensor
    distances: Tensor

    def next(self, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest, and whether there is one; used up, for the rows there or all: (m, features), (m,)."""
        distance, place = self.distances.min(dim=1, keepdim=True)
        used = torch.full_like(distance, math.inf)
        if where is not None:
            used = torch.where(where.unsqueeze(1), used, distance)
        self.distances = self.distances.scatter(1, place, used)
        points = self.points.gather(1, place.unsqueeze(2).expand(-1, -1, self.points.shape[2]))
        return points.squeeze(1), distance.squeeze(1) < math.inf

    def add(self, points: Tensor, distances: Tensor) -> None:
        """More: (m, k, features), (m, k)."""
        self.points = torch.cat([points, self.points], dim=1)
        self.distances = torch.cat([distances, self.distances], dim=1)

    def skip(self, where: Tensor) -> None:
        """Do without some: (m, q)."""
        self.distances = self.distances.masked_fill(where, math.inf)


def queue_of(group: Walkers, starts: Tensor | None, draws: torch.Generator, count: int | None = None) -> Queue:
    """Misclassified starts, or random points where none is, drawn towards the inputs until near the boundary."""
    count = count or max(1, min(_MOST, group.queries // _SHARE))
    points = group.clean.unsqueeze(1).repeat(1, count, 1)
    distances = torch.full_like(group.walk.distance, math.inf).unsqueeze(1).repeat(1, count)
    if starts is not None:
        _put_nearest(group, starts, points, distances)
    _put_random(group, points, distances, draws)
    return _drawn_in(group, points, distances)


def _put_nearest(group: Walkers, starts: Tensor, points: Tensor, distances: Tensor) -> None:
    """Starts that are what the attack wants: the nearest of each class predicted there, then the second ones, ...

    The mean of each class counts as one more: noise aside, it lies more directly beyond that class's boundary.
    """
    search, column = group.search, group.batch.column
    with torch.no_grad():
        labels = torch.cat([search.run(part).argmax(dim=1) for part in torch.split(starts, _LOOKED_AT)])
        middles = torch.stack([starts[labels == label].mean(dim=0) for label in torch.unique(labels)])
        starts, labels = torch.cat([starts, middles]), torch.cat([labels, search.run(middles).argmax(dim=1)])
    fits = (labels == column) if search.targeted else (labels != column)
    flat = starts.flatten(1)
    for row in fits.any(dim=1).nonzero().flatten().tolist():
        good, classes = flat[fits[row]], labels[fits[row]]
        far = vector_norm(good - group.clean[row], group.norm)
        order = far.argsort(stable=True)
        turn = nn.functional.one_hot(classes[order]).cumsum(dim=0).gather(1, classes[order].unsqueeze(1)).squeeze(1)
        chosen = order[turn.argsort(stable=True)][: points.shape[1]]
        points[row, : len(chosen)] = good[chosen]
        distances[row, : len(chosen)] = far[chosen].to(distances.dtype)


def _put_random(group: Walkers, points: Tensor, distances: Tensor, draws: torch.Generator) -> None:
    """Uniform in the bounds, or normal and wider and wider around the inputs, where nothing was found yet."""
    clean, shape = group.clean, group.batch.clean.shape[1:]
    bare, found = distances.isinf().all(dim=1), torch.zeros_like(group.batch.rows)
    spread = clean.abs().amax(dim=1, keepdim=True).clamp_min(1e-3)
    for turn in range(min(_DRAWS, group.queries)):
        looking = bare & ((found == 0) | ((found < points.shape[1]) & (turn < points.shape[1])))
        if not bool(looking.any()):
            return
        if group.search.threat.bounds is None:
            noise = torch.randn(shape, generator=draws, dtype=clean.dtype).to(clean.device).flatten()
            some = clean + spread * 2.0 ** (turn / 8 - 3) * noise
        else:
            noise = torch.rand(shape, generator=draws, dtype=clean.dtype).to(clean.device).flatten()
            some = group.low + noise * (group.high - group.low)
        hit = group.wrong(some) & looking
        group.walk.spent -= (~looking).to(group.walk.spent.dtype)
        rows = hit.nonzero().flatten()
        points[rows, found[rows]] = some[rows]
        distances[rows, found[rows]] = group.length(some - clean)[rows]
        found[rows] += 1


def _drawn_in(group: Walkers, points: Tensor, distances: Tensor) -> Queue:
    """By a few halvings of each line to the input."""
    offsets = points - group.clean.unsqueeze(1)
    below, above = torch.zeros_like(distances), torch.ones_like(distances)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        found = group.wrong(group.clean.unsqueeze(1) + middle.unsqueeze(2).to(offsets.dtype) * offsets)
        below, above = torch.where(found, below, middle), torch.where(found, middle, above)
    points = group.clean.unsqueeze(1) + above.unsqueeze(2).to(offsets.dtype) * offsets
    return Queue(points, group.length(points - group.clean.unsqueeze(1)).masked_fill(distances.isinf(), math.inf))
