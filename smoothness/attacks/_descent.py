"""The loop of DDN and FMN: away from the clean input while it fails, towards it while it succeeds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from smoothness._norms import DUAL, Norm, steepest_direction, vector_norm
from smoothness.attacks._crossing import crossing, to_size_1
from smoothness.attacks._nearest import BEYOND, Nearest, draw_in, nearest_batch, nearest_boundaries, polish, room
from smoothness.attacks._search import Search
from smoothness.attacks.losses import OBJECTIVES, Aim, logit_scale

ROUND: dict[Norm, int] = {"linf": 12, "l2": 10, "l1": 16}  # steps after which it is asked who has settled
POLISHING = 3  # every so many of them, at the round's end
LAST = 0.01  # share of the first step size and of gamma that is left at the end of a round's cosine
NEAR = 1.3  # no start at a boundary so many times as far as the nearest one, both linearised

# Brings offsets (m, ...) to a radius (m, 1, ...) each.
Settle = Callable[[Tensor, Tensor], Tensor]


def descend(search: Search, settle: Settle, steps: int, starts: int, gamma: float, rows: Tensor) -> None:
    """Find, draw in, polish and store the closest points of the examples at `rows`.

    The starts of an example slide abreast, as rows of one batch; the one that comes closest goes on alone.
    """
    whole = ROUND[search.threat.norm]
    batch = nearest_batch(search, rows)
    aim = Aim(logit_scale(search.logits_of(rows)), batch.column)
    owner, abreast = _spread(search, batch, aim, min(starts, max(steps // whole, 1)))
    while steps > 0 and len(batch):
        length = min(whole, steps)
        polishing = length // POLISHING
        steps -= (length - polishing) * abreast + polishing
        _slide(search, batch, settle, length - polishing, gamma, aim)
        draw_in(search, batch, passes=2)
        if abreast > 1:
            _keep_closest(batch, aim, owner, len(rows))
            abreast = 1
        settled = polish(search, batch, polishing)
        draw_in(search, batch)
        search.store(batch)
        left = (~settled).nonzero().flatten()
        for part in (batch, aim):
            part.keep(left)
        found = batch.distance.isfinite().to(batch.point.dtype).view(batch.column_shape)
        batch.point = batch.point.lerp(batch.best, found)


def _spread(search: Search, batch: Nearest, aim: Aim, starts: int) -> tuple[Tensor, int]:
    """Set examples just past each of their nearest linearised boundaries: the batch gets a row for each start.

    Returns which example each row is of, the first rows being one of each, and how many rows an example can have.
    """
    lengths, gaps, gradients = nearest_boundaries(search, batch, starts)
    near = lengths < NEAR * lengths[0]
    near[0] = True
    owner = near.nonzero()[:, 1]
    for part in (batch, aim):
        part.keep(owner)
    offset = crossing(gaps[near], gradients[near], *room(batch, batch.clean), search.threat.norm)
    batch.point = (batch.clean + (1 + BEYOND) * offset).clamp_(batch.lowest, batch.highest)
    return owner, len(lengths)  # not as many as there are: steps must not depend on who else is in the batch


def _keep_closest(batch: Nearest, aim: Aim, owner: Tensor, count: int) -> None:
    """Of the rows of each of `count` examples keep the one of smallest distance, the first where equal."""
    spoiled = batch.spoiled.new_zeros(count).index_add(0, owner, batch.spoiled)
    least = batch.distance.new_full((count,), torch.inf).scatter_reduce(0, owner, batch.distance, "amin")
    place = torch.arange(len(owner), device=owner.device).masked_fill(batch.distance > least[owner], len(owner))
    closest = place.new_full((count,), len(owner)).scatter_reduce(0, owner, place, "amin")
    for part in (batch, aim):
        part.keep(closest)
    batch.spoiled = spoiled


def _slide(search: Search, batch: Nearest, settle: Settle, steps: int, gamma: float, aim: Aim) -> None:
    norm = search.threat.norm
    radius = vector_norm(batch.point - batch.clean, norm)
    for step in range(steps):
        share = LAST + (1 - LAST) * (1 + math.cos(math.pi * step / steps)) / 2
        leaf, outputs = search.record(batch.point)
        logits = outputs.detach()
        loss = batch.note(search, logits)
        _, ascent = OBJECTIVES["ce"](logits, batch.column, aim)
        gradient = search.pull_back(leaf, outputs, search.signed(ascent))
        weight = ascent.gather(1, batch.column).abs().squeeze(1).to(radius.dtype)
        gradient, largest = to_size_1(gradient)
        slope = vector_norm(gradient, DUAL[norm]) * largest / weight  # of the margin, averaged over the rivals
        offset = batch.point - batch.clean
        jump = vector_norm(offset, norm) - loss / slope  # to where the margin vanishes if it is linear
        grown = radius * (1 + share * gamma)
        unfound = torch.where(slope > 0, torch.fmin(torch.fmax(jump, grown), 4 * radius), grown)
        radius = torch.where(
            loss > 0,
            torch.minimum(radius, batch.distance) * (1 - share * gamma),
            torch.where(batch.distance.isfinite(), grown, unfound),
        )
        column = radius.view(batch.column_shape)
        heading = steepest_direction(gradient, "linf" if norm == "linf" else "l2")
        if norm == "l1":
            heading = heading / vector_norm(heading, "l1").clamp_min(1).view(batch.column_shape)
        offset = settle(offset.addcmul(heading, share * column), column)
        batch.point = offset.add_(batch.clean).clamp_(batch.lowest, batch.highest)
    batch.note(search, search.look(batch.point, batch.column)[0])
