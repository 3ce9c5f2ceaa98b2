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
_PART = 0.85  # of the queries, until which starts are reverted where that pays
_BLOCKS = 8  # of features, put back at first
_HALVINGS = 16  # of one feature's way back
_TOGETHER, _BLOCKS_HIT = 8, 20  # features tried together at first; how many such blocks are looked into
_IDLE = 2  # blocks of _BLOCKS that may be put back each alone, from which on it is worth a try
_FEWEST = 300  # queries, without which nothing is tried


def revert(group: Walkers, draws: torch.Generator) -> Tensor:
    """Put back what the label does not need; for which examples that pays: (m,).

    By turns: put a block of features back where the label stays, else halve the block; then draw each feature that
    is left towards the input. Exact for boxes with the start inside: a decision tree's leaf.
    """
    if group.queries < _FEWEST:
        return torch.zeros_like(group.walk.spent, dtype=torch.bool)
    before, at = group.walk.least, group.at
    done = _put_back(group, at, torch.randperm(at.shape[1], generator=draws))
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
            _put_back(group, points[~done], torch.randperm(points.shape[1], generator=draws))
    return left


def put_back_idle(group: Walkers, draws: torch.Generator) -> None:
    """From where the walks are, which stay there, if some blocks alone can be put back: others have none to spare."""
    order, idle = _idle(group, draws)
    if bool(idle.any()):
        part = group.only(idle)
        _put_back(part, part.at, order)
        for name in ("nearest", "least", "spent"):
            getattr(group.walk, name)[idle] = getattr(part.walk, name)
        group.batch.spoiled[idle] = part.batch.spoiled


def has_idle(group: Walkers, draws: torch.Generator) -> Tensor:
    """Where it does not take all features to be across the boundary: (m,)."""
    return _idle(group, draws)[1]


def _idle(group: Walkers, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random order of the features, and where several blocks of it can be put back, each alone."""
    order = torch.randperm(group.clean.shape[1], generator=draws).to(group.clean.device)
    trial = group.at.unsqueeze(1).repeat(1, _BLOCKS, 1)
    for k, block in enumerate(torch.tensor_split(order, _BLOCKS)):
        trial[:, k, block] = group.clean[:, block]
    changed = (trial != group.at.unsqueeze(1)).any(dim=2)
    return order, (group.wrong(trial) & changed).sum(dim=1) >= _IDLE


def _one_alone(group: Walkers, draws: torch.Generator) -> None:
    """Single features of the inputs as far as the nearest point so far, and back: first a few of them together.

    The nearest leaf of a tree often differs in one feature from the input's.
    """
    if not len(group):
        return
    order = torch.randperm(group.clean.shape[1], generator=draws).to(group.clean.device)
    for side in (-1, 1):
        blocks = torch.split(order, _TOGETHER)
        ends = _ends(group, side)
        found = []
        for some in torch.split(torch.arange(len(blocks)), max(1, NUMBERS // group.clean.numel())):
            trial = group.clean.unsqueeze(1).repeat(1, len(some), 1)
            for j, k in enumerate(some.tolist()):
                trial[:, j, blocks[k]] += ends[:, blocks[k]]
            found.append(group.wrong(group.inside(trial)))
        rows, hit = torch.cat(found, dim=1).nonzero().unbind(dim=1)
        few = _turns(rows) < _BLOCKS_HIT
        parts = [blocks[k] for k in hit[few].tolist()]
        features = torch.cat([order[:0], *parts])
        rows = rows[few].repeat_interleave(torch.tensor([len(part) for part in parts], dtype=torch.long).to(rows))
        for turn in range(int(_turns(rows).max()) + 1 if len(rows) else 0):
            now = _turns(rows) == turn
            _back(group, rows[now], features[now], side)


def _ends(group: Walkers, side: int) -> Tensor:
    """Offsets of every feature: as far as the nearest point so far is, within the bounds."""
    reach = group.walk.least.to(group.clean.dtype).unsqueeze(1)
    return torch.maximum(-reach, group.down) if side < 0 else torch.minimum(reach, group.up)


def _turns(rows: Tensor) -> Tensor:
    """How many entries before each have its row, for sorted rows."""
    return torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)


def _back(group: Walkers, rows: Tensor, features: Tensor, side: int) -> None:
    """From changes in one feature, if they lead across the boundary nearer than before, back to it."""
    points = group.clean.clone()
    points[rows, features] += _ends(group, side)[rows, features]
    points = group.inside(points.unsqueeze(1)).squeeze(1)
    across = group.wrong(points[rows], rows)
    rows, features = rows[across], features[across]
    if len(rows):
        _draw_in(group, points, rows, features)
        there = torch.zeros_like(group.walk.spent, dtype=torch.bool)
        there[rows] = True
        group.take(points, there & (group.length(points - group.clean) < group.walk.least))


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


def _put_back(group: Walkers, points: Tensor, order: Tensor) -> Tensor:
    """Blocks of a random order of the features, halved where the label needs them; then single features.

    Returns where that came to an end.
    """
    count, budget = points.shape[1], group.queries // _SHARE
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
