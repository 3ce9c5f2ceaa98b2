"""Where walks along the decision boundary stand, and the questions that they ask of the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from smoothness._norms import Norm, vector_norm
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks._search import Search

NUMBERS = 2**22  # held at once in a cloud of points
_SHRINK_AT = 0.9
_Rows = TypeVar("_Rows", bound=Rows)


@dataclass
class Walk(Rows):
    """Where each example's walk stands.

    Attributes:
        at: a misclassified point; distance: from the input to it, infinite while there is none.
        nearest, least: the nearest point so far, and its distance.
        spent: queries.
        low, high: the bounds.
    """

    at: Tensor
    distance: Tensor
    nearest: Tensor
    least: Tensor
    spent: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def beginning(cls, search: Search, batch: Batch) -> Walk:
        """At the inputs, with no misclassified point yet."""
        low, high = replace(search.threat, epsilon=None).limits(batch.clean)
        nowhere = torch.full_like(batch.worst, math.inf)
        return cls(
            batch.clean.clone(), nowhere, batch.clean.clone(), nowhere.clone(), torch.zeros_like(batch.rows), low, high
        )

    def take(self, batch: Batch, points: Tensor, where: Tensor, norm: Norm) -> None:
        """Move to the points there."""
        self.at = torch.where(where.view(batch.column_shape), points, self.at)
        moved = vector_norm(self.at - batch.clean, norm).to(self.distance.dtype)
        self.distance = torch.where(where, moved, self.distance)
        nearer = self.distance < self.least
        self.nearest = torch.where(nearer.view(batch.column_shape), self.at, self.nearest)
        self.least = torch.where(nearer, self.distance, self.least)


def part_of(rows: _Rows, index: Tensor) -> _Rows:
    """Some of the rows, with the others left as they are."""
    part = replace(rows)
    part.keep(index)
    return part


def joined(parts: list[_Rows]) -> _Rows:
    """One after the other."""
    names = [field.name for field in fields(parts[0])]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


class Walkers:
    """Some of the examples with their walks, inputs as rows of features, and what may be asked: `queries` each.

    Attributes:
        clean, low, high: (m, features); down, up: the bounds as offsets from the inputs.
    """

    def __init__(self, search: Search, batch: Batch, walk: Walk, queries: int) -> None:
        self.search, self.batch, self.walk, self.queries = search, batch, walk, queries
        self.norm: Norm = search.threat.norm
        self._flatten()

    def _flatten(self) -> None:
        self.clean = self.batch.clean.flatten(1)
        sides = (side.expand_as(self.batch.clean).flatten(1) for side in (self.walk.low, self.walk.high))
        self.low, self.high = sides
        self.down, self.up = self.low - self.clean, self.high - self.clean

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def at(self) -> Tensor:
        """(m, features)."""
        return self.walk.at.flatten(1)

    @property
    def offset(self) -> Tensor:
        """Of `at` from the inputs."""
        return self.at - self.clean

    def length(self, offsets: Tensor) -> Tensor:
        """In the threat's norm: (m, ..., features) -> (m, ...)."""
        return vector_norm(offsets.flatten(0, -2), self.norm).view(offsets.shape[:-1]).to(self.walk.distance.dtype)

    def inside(self, points: Tensor) -> Tensor:
        """Points cut back to the bounds: (m, k, features)."""
        return torch.minimum(torch.maximum(points, self.low.unsqueeze(1)), self.high.unsqueeze(1))

    def wrong(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each is what the attack wants: (m, features) -> (m,), or (m, k, features) -> (m, k); or rows of m.

        Failures are noted, and queries counted.
        """
        each = 1 if points.ndim == 2 else points.shape[1]
        rows = torch.arange(len(points), device=points.device) if rows is None else rows
        self.walk.spent[rows] += each
        rows = rows.repeat_interleave(each)
        found = []
        shaped = points.reshape(-1, *self.batch.clean.shape[1:])
        size = max(1, NUMBERS // points.shape[-1])
        for some, theirs in zip(torch.split(shaped, size), torch.split(rows, size), strict=True):
            loss = self.search.look(some, self.batch.column[theirs])[1].to(self.batch.spoiled.dtype)
            self.batch.spoiled.index_add_(0, theirs, 0 * loss)  # NaN once a loss was not finite
            found.append(loss > 0)
        return torch.cat(found).view(points.shape[:-1])

    def first(self, path: Callable[[Tensor], Tensor], below: Tensor, above: Tensor, halvings: int) -> Tensor:
        """By bisection, a time at which the path is misclassified, just after one at which it is not: (m,)."""
        for _ in range(halvings):
            middle = (below + above) / 2
            found = self.wrong(path(middle))
            below, above = torch.where(found, below, middle), torch.where(found, middle, above)
        return above

    def take(self, points: Tensor, where: Tensor) -> None:
        """Move there."""
        self.walk.take(self.batch, points.view_as(self.batch.clean), where, self.norm)

    def only(self, where: Tensor) -> Walkers:
        """Some of them, on their own from here on."""
        index = where.nonzero().flatten()
        return Walkers(self.search, part_of(self.batch, index), part_of(self.walk, index), self.queries)

    def leave(self, where: Tensor, *followers: Rows) -> Walkers:
        """Take some out."""
        gone, index = self.only(where), (~where).nonzero().flatten()
        for each in (self.batch, self.walk, *followers):
            each.keep(index)
        self._flatten()
        return gone

    def finish(self) -> None:
        """Offer the nearest points, and store them."""
        self._settle()
        self.search.store(self.batch)

    def going_on(self, *followers: Rows) -> bool:
        """Let those go whose queries are spent, or, given a radius, that lie inside the ball; whether any are left."""
        done = self.walk.spent >= self.queries
        if bool(done.any()):
            self.leave(done, *followers).finish()
        if len(self) and math.isfinite(self.search.epsilon):
            self._settle()
            if self.search.retire_fooled(self.batch, _SHRINK_AT, self.walk, *followers):
                self._flatten()
        return len(self) > 0

    def _settle(self) -> None:
        self.batch.point = self.walk.nearest.clone()
        inside = (self.walk.least <= self.search.epsilon) & (self.walk.least < math.inf)
        loss = torch.where(inside, 1.0, -1.0)
        self.batch.offer(loss.to(self.batch.worst.dtype))


def gathered(parts: list[Walkers]) -> Walkers | None:
    """Of several groups, one; None without any."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    batch, walk = joined([part.batch for part in parts]), joined([part.walk for part in parts])
    return Walkers(parts[0].search, batch, walk, parts[0].queries)
