"""Labels alone, with points known on both sides: a normal from a few of them, and whether they tell of it at all."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from smoothness.attacks._facet import exceeds
from smoothness.attacks._projecting import beyond
from smoothness.attacks._spanned import LOGISTIC, Known, Span
from smoothness.attacks._starting import Queue
from smoothness.attacks._walk import Walkers, part_of

_ROUNDS, _PICKS = 4, 50  # queries for a piece
_MISSED, _FLOOR = 0.45, 0.02  # of a slope's length, what the ways do not hold; of the widest spread, the smallest
_TESTS, _WIDE, _MISSES = 32, 2.0, 0.25  # of coordinates, how many scales off, and the share that may be farther
_STARTS = 4  # at which a piece is measured before one is chosen


def measure(group: Walkers, where: Tensor, known: Known) -> tuple[Tensor, Tensor]:
    """Slopes of the pieces at which some of the walks are, and what is left open of each: (n, features) each."""
    part = group.only(where)
    span = Span.around(part, known)
    facet = span.facet()
    for _ in range(_ROUNDS):
        near, far = facet.between(0.25, 0.75)
        facet.ask(partial(span.asking, part), (far - near).topk(min(_PICKS, near.shape[1]), dim=1).indices)
        span.resize(facet)
    group.walk.spent[where], group.batch.spoiled[where] = part.walk.spent, part.batch.spoiled
    slope = span.slope(part, facet)
    spread = span.spread + _FLOOR * span.spread.amax(dim=1, keepdim=True)
    spread = spread / torch.linalg.vector_norm(spread, dim=1, keepdim=True).clamp_min(torch.finfo(spread.dtype).tiny)
    return slope, LOGISTIC * _MISSED * torch.linalg.vector_norm(slope, dim=1, keepdim=True) * spread


def holds(group: Walkers, slope: Tensor, scale: Tensor, draws: torch.Generator) -> Tensor:
    """Whether single coordinates' slopes are as near to those measured as believed: (m,)."""
    pick = torch.randint(0, slope.shape[1], (_TESTS,), generator=draws).to(slope.device).expand(len(slope), -1)
    up = torch.rand(_TESTS, generator=draws).to(slope.device) < 0.5
    level = slope.gather(1, pick) + torch.where(up, _WIDE, -_WIDE) * scale.gather(1, pick)
    useless = ((level >= 0) & (group.up.gather(1, pick) <= 0)) | ((level <= 0) & (group.down.gather(1, pick) >= 0))
    missed = (exceeds(group, pick, level) == up) & ~useless
    return missed.sum(dim=1) <= _MISSES * (~useless).sum(dim=1)


def sharpen(
    group: Walkers, queue: Queue, first: Tensor, known: Known, draws: torch.Generator
) -> tuple[Walkers, Queue]:
    """Project onto the pieces at `first` and at the nearest starts, which come back to the queue where that leads.

    Examples for which the known points tell of the boundary at `first` leave the group, and are returned.
    """
    served, theirs, points, reached = group, queue, first, []
    there = torch.ones_like(group.walk.spent, dtype=torch.bool)
    for turn in range(_STARTS):
        served.take(points, there)
        points, hit = beyond(served, served.clean, torch.ones_like(there))
        served.take(points, there & hit)
        slope, scale = measure(served, torch.ones_like(there), known)
        if not turn:
            good = holds(served, slope, scale, draws)
            slope, there, theirs = slope[good], there[good], part_of(queue, good.nonzero().flatten())
            served = group.leave(good, queue)
            if not len(served):
                return served, theirs
        points, hit = beyond(served, slope, torch.zeros_like(there))
        served.take(points, there & hit & (served.length(points - served.clean) < served.walk.distance))
        reached.append((served.at, served.walk.distance.masked_fill(~there, math.inf)))
        points, there = theirs.next()
    theirs.add(torch.stack([at for at, _ in reached], dim=1), torch.stack([far for _, far in reached], dim=1))
    served.take(*theirs.next())
    return served, theirs
