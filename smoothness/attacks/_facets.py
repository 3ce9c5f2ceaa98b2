"""Labels alone, where the boundary is made of flat pieces: measure one, project, go where that leads, and repeat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from smoothness.attacks._batch import Rows
from smoothness.attacks._facet import Facet, exceeds
from smoothness.attacks._neighbouring import Belief
from smoothness.attacks._planes import Planes
from smoothness.attacks._projecting import beyond
from smoothness.attacks._sharpening import measure
from smoothness.attacks._spanned import Known
from smoothness.attacks._starting import Queue
from smoothness.attacks._walk import Walkers

_ROOM, _LEAST = 4, 2000  # queries for each coordinate and in all, without which no normal is measured
_TRIAL, _TRIED = 0.4, 8  # of the queries, or queries for each coordinate, after which the rival must be beaten
_PROGRESS = 0.97  # of its distance
_SHARE, _FEWEST = 4, 32  # a turn asks for one in so many coordinates, but for some at least
_FIRST = 3  # queries for each pixel of the lattice before the others
_TESTS = 16
_CONTRADICTED = 0.13  # share of tests that make it another facet
_SURE = 0.5  # doubt of a facet's slopes, in their length, below which it counts as known
_GAIN = 0.003  # relative
_STALLED = 3  # turns
_FACES = 3  # new ones, while which the walk may be stalled
_HOPE, _FAR = 8, 1.3  # turns, after which a walk that far from the nearest point is given up
_PATIENCE = 16  # turns without gain, from whatever start
_FARTHEST = 2.0  # times as far, at most, a walk may go in search of another facet
_ON_PLANE = 0.02  # starts this near the piece known lead to where the walk was


@dataclass
class _Course(Rows):
    """How each walk goes: (m,) each.

    Attributes:
        local: least distance since the walk's start; turns since then, those without gain, and facets met.
        warm: the facet began from another; straight: the next turn goes down the line to the input.
        own: least distance of all starts, and for how many turns; rival: that of another walk before.
    """

    local: Tensor
    turns: Tensor
    stalled: Tensor
    faces: Tensor
    warm: Tensor
    straight: Tensor
    own: Tensor
    waited: Tensor
    rival: Tensor

    @classmethod
    def beginning(cls, group: Walkers) -> _Course:
        zero, distance = torch.zeros_like(group.walk.distance), group.walk.distance
        return cls(distance, zero, zero, zero, zero > 0, zero == 0, distance, zero, group.walk.least)


def worth_measuring(group: Walkers) -> bool:
    """Whether the queries suffice for a normal."""
    return len(group) > 0 and max(_ROOM * group.clean.shape[1], _LEAST) <= group.queries


def walk_facets(group: Walkers, queue: Queue, draws: torch.Generator, known: Known | None = None) -> list[Walkers]:
    """Until the queries are spent; examples not nearer by it than before, or without starts left, are given back.

    A turn: project the input onto the piece measured and go to the boundary there; see whether what is known
    of the normal holds there, or another piece begins; ask for the slopes that are open most. With points known on
    both sides each piece is measured along the ways between those first, and the input is projected onto all pieces
    met since the start.
    """
    features = group.clean.shape[1]
    facet, belief, planes = Facet.unknown(group), Belief(group), Planes.none(group.clean)
    course, asked, left = _Course.beginning(group), 0, []
    trial = min(_TRIAL * group.queries, _TRIED * features)
    while group.going_on(queue, facet, course, planes):
        sure = facet.doubt(group).clamp_min(0).square().sum(dim=1) < _SURE**2 * facet.slope.square().sum(dim=1)
        moved = _go(group, facet, course, sure, planes)
        asked_for = (facet.count > 0) & (facet.doubt(group) >= 0)
        missed = facet.contradicted(partial(exceeds, group), asked_for, draws, _TESTS)
        another = moved & ~course.straight & (missed > _CONTRADICTED)
        planes.add(another & (known is not None), facet.slope)
        planes.drop(course.straight)
        facet.renew(another)
        facet.forget(course.straight, group)
        course.warm = (course.warm | another) & ~course.straight
        new = course.straight | another
        if known is not None and bool(new.any()):
            facet.seed(new, *measure(group, new, known))
            course.warm = course.warm | new
        course.straight = torch.zeros_like(course.straight)
        count = _ask(group, facet, belief, ~course.warm, draws)
        asked += count
        out = _take_stock(group, facet, course, queue, another, sure)
        if asked >= trial > asked - count:
            out |= course.own > _PROGRESS * course.rival
        if bool(out.any()):
            left.append(group.leave(out, queue, facet, course, planes))
    return left


def _picks(features: int) -> int:
    return min(features, max(_FEWEST, features // _SHARE))


def _ask(group: Walkers, facet: Facet, belief: Belief, fresh: Tensor, draws: torch.Generator) -> int:
    """For the slopes that are open most, of fresh facets those on the lattice before the others."""
    belief.update(facet, fresh)
    count = _picks(facet.centre.shape[1])
    doubt = facet.doubt(group) * (1 + 0.01 * torch.rand(facet.centre.shape[1], generator=draws)).to(group.clean)
    early = fresh & ((facet.count * belief.lattice).sum(dim=1) < _FIRST * belief.lattice.sum())
    doubt = torch.where(early.unsqueeze(1) & (belief.lattice == 0), doubt.clamp_max(0) - 0.5, doubt)
    facet.ask(partial(exceeds, group), doubt.topk(count, dim=1).indices)
    return count


def _go(group: Walkers, facet: Facet, course: _Course, sure: Tensor, planes: Planes) -> Tensor:
    """To the boundary on the way from the input to its projection and beyond; whether it was found and taken."""
    points, hit = beyond(group, planes.with_last(facet.slope, group.down, group.up), course.straight)
    planes.refute(hit & ~course.straight, points - group.clean)
    distance = group.length(points - group.clean)
    nearer = distance < (1 - _GAIN) * group.walk.distance
    moved = hit & (course.straight | nearer | (sure & (distance < _FARTHEST * group.walk.distance)))
    group.take(points, moved)
    return moved


def _take_stock(group: Walkers, facet: Facet, course: _Course, queue: Queue, another: Tensor, sure: Tensor) -> Tensor:
    """Start again where nothing is gained any more; whether there was no start left."""
    gained = group.walk.distance < (1 - _GAIN) * course.local
    course.waited = torch.where(group.walk.distance < (1 - _GAIN) * course.own, 0, course.waited + 1)
    course.faces, course.own = course.faces + another, torch.minimum(course.own, group.walk.distance)
    busy = gained | (another & (course.faces < _FACES)) | ~sure
    course.stalled = torch.where(busy, 0, course.stalled + 1)
    course.local, course.turns = torch.minimum(course.local, group.walk.distance), course.turns + 1
    hopeless = (course.turns >= _HOPE) & (course.local > _FAR * group.walk.least)
    again = (course.stalled >= _STALLED) | hopeless
    tired = course.waited > _PATIENCE
    if not bool(again.any()):
        return tired
    offsets = queue.points - group.clean.unsqueeze(1)
    on_plane = ((offsets @ facet.slope.unsqueeze(2)).squeeze(2) - 1).abs() < _ON_PLANE
    queue.skip(again.unsqueeze(1) & on_plane)
    points, there = queue.next(again)
    begin = again & there
    group.take(points, begin)
    course.local = torch.where(begin, group.walk.distance, course.local)
    course.turns, course.stalled, course.faces = (
        torch.where(begin, 0, each) for each in (course.turns, course.stalled, course.faces)
    )
    course.warm, course.straight = course.warm & ~begin, begin
    return tired | (again & ~there)
