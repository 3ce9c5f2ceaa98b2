"""Labels alone, where few features decide: put back to the input's values all that the label does not need."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness.attacks._starting import Queue
from smoothness.attacks._walk import NUMBERS, Walkers

_SHARE = 25  # of the queries, a start may take one in so many
_PAYS = 0.9  # of the distance at the start
_TRADES, _FEW = 8, 0.2  # features tried, and the share of trades below which the boundary is no slanted one
_LESS, _STEP = 0.995, 0.5  # of all offsets, and of their length for one feature
_PART = 0.4  # of the queries, until which starts are reverted where that pays
_BLOCKS = 8  # of features, put back at first
_HALVINGS = 16  # of one feature's way back
_ALONE = 0.35  # of the queries at most, for the features one by one
_FEWEST = 300  # queries, without which nothing is tried


def revert(group: Walkers, draws: torch.Generator) -> Tensor:
    """Put back what the label does not need; for which examples that pays: (m,).

    By turns: put a block of features back where the label stays, else halve the block; then draw each feature that
    is left towards the input. Exact for boxes with the start inside: a decision tree's leaf.
    """
    if group.queries < _FEWEST:
        return torch.zeros_like(group.walk.spent, dtype=torch.bool)
    before, at = group.walk.least, group.at
    done = _put_back(group, at, draws)
    return done & (group.walk.least < _PAYS * before) & ~_trades(group, draws)


def revert_on(group: Walkers, queue: Queue, draws: torch.Generator) -> list[Walkers]:
    """The same from one start after the other, and the first one again, for part of the queries."""
    left = []
    _one_alone(group, draws)
    while group.going_on(queue):
        points, there = queue.next()
        points = torch.where(there.unsqueeze(1), points, queue.points[:, 0])  # in another order it ends elsewhere
        done = group.walk.spent >= int(_PART * group.queries)
        left.append(group.leave(done, queue))
        if len(group):
            _put_back(group, points[~done], draws)
    return left


def _one_alone(group: Walkers, draws: torch.Generator) -> None:
    """Each feature of the inputs by itself as far as the nearest point so far, and back: as many as queries allow.

    The nearest leaf of a tree often differs in one feature from the input's.
    """
    if not len(group):
        return
    count = int(_ALONE * group.queries) // 2
    order = torch.randperm(group.clean.shape[1], generator=draws)[:count].to(group.clean.device)
    reach = group.walk.least.to(group.clean.dtype).unsqueeze(1)
    for end in (torch.maximum(-reach, group.down), torch.minimum(reach, group.up)):
        for part in torch.split(order, max(1, NUMBERS // group.clean.numel())):
            trial = group.clean.unsqueeze(1).repeat(1, len(part), 1)
            index = part.view(1, -1, 1).expand(len(group), -1, 1)
            trial.scatter_add_(2, index, end[:, part].unsqueeze(2))
            rows, place = group.wrong(group.inside(trial)).nonzero().unbind(dim=1)
            _back(group, rows, part[place], end)


def _back(group: Walkers, rows: Tensor, features: Tensor, end: Tensor) -> None:
    """From changes in one feature that lead across the boundary, in order of the rows, back to it."""
    while len(rows):
        turn = torch.ones_like(rows, dtype=torch.bool)
        turn[1:] = rows[1:] != rows[:-1]
        some, theirs = rows[turn], features[turn]
        points, there = group.clean.clone(), torch.zeros_like(group.walk.spent, dtype=torch.bool)
        points[some, theirs] += end[some, theirs]
        points, there[some] = group.inside(points.unsqueeze(1)).squeeze(1), True
        _draw_in(group, points, some, theirs)
        group.take(points, there & (group.length(points - group.clean) < group.walk.least))
        rows, features = rows[~turn], features[~turn]


def _trades(group: Walkers, draws: torch.Generator) -> Tensor:
    """Whether a step in one feature makes up for a little less in all: so at a slanted boundary, not in a corner."""
    offset, found = _LESS * group.offset, torch.zeros_like(group.walk.distance)
    size = _STEP * torch.linalg.vector_norm(offset, dim=1)
    for feature in torch.randint(0, offset.shape[1], (_TRADES,), generator=draws).tolist():
        for sign in (1, -1):
            trial = group.clean + offset
            trial[:, feature] += sign * size
            found += group.wrong(torch.minimum(torch.maximum(trial, group.low), group.high))
    return found > _FEW * 2 * _TRADES


def _put_back(group: Walkers, points: Tensor, draws: torch.Generator) -> Tensor:
    """Blocks of a random order of the features, halved where the label needs them; then single features.

    Returns where that came to an end.
    """
    count, budget = points.shape[1], group.queries // _SHARE
    order = torch.randperm(count, generator=draws)
    size = max(1, math.ceil(count / _BLOCKS))
    waiting = [[(start, min(size, count - start)) for start in range(0, count, size)] for _ in points]
    needed: list[list[int]] = [[] for _ in points]
    points = points.clone()
    for _ in range(budget):
        rows = torch.tensor([row for row, mine in enumerate(waiting) if mine], device=points.device)
        if not len(rows):
            break
        blocks = [waiting[row].pop(0) for row in rows.tolist()]
        trial = points[rows]
        for place, (row, (start, length)) in enumerate(zip(rows.tolist(), blocks, strict=True)):
            index = order[start : start + length].to(points.device)
            trial[place, index] = group.clean[row, index]
        found = group.wrong(trial, rows)
        points[rows[found]] = trial[found]
        for row, (start, length), gone in zip(rows.tolist(), blocks, found.tolist(), strict=True):
            half = length // 2
            if not gone and half:
                waiting[row] += [(start, half), (start + half, length - half)]
            elif not gone:
                needed[row].append(int(order[start]))
    most = max(1, budget // _HALVINGS)
    for place in range(min(max(map(len, needed), default=0), most)):
        some = [(row, mine[place]) for row, mine in enumerate(needed) if place < len(mine)]
        rows, features = torch.tensor(some, device=points.device).unbind(dim=1)
        _draw_in(group, points, rows, features)
    group.take(points, group.wrong(points))
    ended = [not mine and len(all_) <= most for mine, all_ in zip(waiting, needed, strict=True)]
    return torch.tensor(ended, dtype=torch.bool, device=points.device)


def _draw_in(group: Walkers, points: Tensor, rows: Tensor, features: Tensor) -> None:
    """One feature of some examples towards the input's value, by bisection; in place."""
    far, near = points[rows, features].clone(), group.clean[rows, features]
    below, above = torch.zeros_like(far), torch.ones_like(far)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        trial = points[rows]
        trial[torch.arange(len(rows), device=rows.device), features] = torch.lerp(near, far, middle)
        found = group.wrong(trial, rows)
        below, above = torch.where(found, below, middle), torch.where(found, middle, above)
    points[rows, features] = torch.lerp(near, far, above)
