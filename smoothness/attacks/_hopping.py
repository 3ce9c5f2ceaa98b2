"""HopSkipJump's turns: the boundary's normal from a cloud of labels, a step along it, and back to the boundary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness._norms import Norm, steepest_direction, vector_norm
from smoothness.attacks._reverting import has_idle, put_back_idle
from smoothness.attacks._walk import NUMBERS, Walkers

_FIRST, _MOST = 100, 2000  # points of the first cloud (Chen et al. 2020, section 4.1), and of a later one
# The cloud's radius: this over √features, in distances from the input to the boundary. The paper's 1/features is too
# small to see past the cells of step networks (median linf distance 0.162 on a digits MLP; 0.087 with this), and no
# better for relu.
_WIDTH = 4.0
_WIDEST = 0.5
_HALVINGS = 12  # of a search along a line
_STEPS = 8  # sizes tried for a step
_AHEAD, _LARGE, _SMALL = 4, 0.3, 0.1  # queries ahead for each feature; if more than a large share of all, a small one
_REVERTED = 0.25  # of the queries, for turns ahead while features are put back


def hop(group: Walkers, draws: torch.Generator, turn: int = 0, *, reverting: bool = False) -> None:
    """From the nearest points, until the queries are spent; after `turn` turns before.

    `reverting`: now and then, see whether the label needs all the features; the walk itself goes on as it was.
    """
    group.walk.at, group.walk.distance = group.walk.nearest, group.walk.least
    while group.going_on():
        _turn(group, draws, turn, reverting)
        turn += 1


def hop_ahead(group: Walkers, draws: torch.Generator, *, reverting: bool = False) -> tuple[int, Tensor]:
    """A few turns from where the walks are, which stay there; more of them when `reverting`.

    Returns how many, and where the label does not need all the features: (m,).
    """
    features = group.clean.shape[1]
    ahead, turn, asked = group.only(group.walk.spent >= 0), 0, 0
    wanted = _AHEAD * features if _AHEAD * features <= _LARGE * group.queries else _SMALL * group.queries
    wanted = _REVERTED * group.queries if reverting else wanted
    while asked < wanted:
        asked += _turn(ahead, draws, turn, reverting)
        turn += 1
    idle = has_idle(ahead, draws)
    group.walk.spent, group.batch.spoiled = ahead.walk.spent, ahead.batch.spoiled
    group.walk.nearest, group.walk.least = ahead.walk.nearest, ahead.walk.least
    return turn, idle


def _turn(group: Walkers, draws: torch.Generator, turn: int, reverting: bool) -> int:
    """The first only goes to the boundary; queries an example, but for the steps' sizes and what is put back."""
    count = min(_MOST, int(_FIRST * math.sqrt(turn)))
    if turn:
        cloud = _cloud(group.norm, count, group.search.inputs[0], draws)
        _step(group, _normal(group, cloud), turn)
    _bisect(group)
    if reverting and turn % 2 == 0:
        put_back_idle(group, draws)
    return count + _HALVINGS


def _bisect(group: Walkers) -> None:
    """Nearer to the input along a line, down to the boundary: the scaled-down offset, or for linf the cut one."""
    offset, distance = group.offset, group.walk.distance

    def path(share: Tensor) -> Tensor:
        return group.clean + _scaled(offset, share, distance, group.norm)

    above = group.first(path, torch.zeros_like(distance), torch.ones_like(distance), _HALVINGS)
    group.take(path(above), above < 1)


def _scaled(offset: Tensor, share: Tensor, distance: Tensor, norm: Norm) -> Tensor:
    share, distance = share.to(offset.dtype).unsqueeze(1), distance.to(offset.dtype).unsqueeze(1)
    return offset * share if norm != "linf" else torch.clamp(offset, -share * distance, share * distance)


def _cloud(norm: Norm, count: int, like: Tensor, draws: torch.Generator) -> Tensor:
    """Directions of unit l2 length: (count, features)."""
    cloud = torch.randn(count, like.numel(), generator=draws, dtype=like.dtype)
    if norm == "linf":
        cloud = torch.rand(count, like.numel(), generator=draws, dtype=like.dtype) * 2 - 1
    return cloud.div_(torch.linalg.vector_norm(cloud, dim=1, keepdim=True)).to(like.device)


def _normal(group: Walkers, cloud: Tensor) -> Tensor:
    """Direction in which points are misclassified: Σ (wrong - share of wrong) · offset over a cloud around each."""
    at, features = group.at, group.clean.shape[1]
    width = vector_norm(group.offset, "l2") * min(_WIDEST, _WIDTH / math.sqrt(features))
    total, found, count = torch.zeros_like(at), torch.zeros_like(at), torch.zeros_like(at[:, :1])
    for some in torch.split(cloud, max(1, NUMBERS // at.numel())):
        points = group.inside(at.unsqueeze(1) + width.view(-1, 1, 1) * some)
        wrong = group.wrong(points).to(points.dtype).unsqueeze(1)
        offsets = points - at.unsqueeze(1)
        total += offsets.sum(dim=1)
        found += (wrong @ offsets).squeeze(1)
        count += wrong.sum(dim=2)
    share = count / len(cloud)
    return torch.where((share > 0) & (share < 1), found - share * total, 2 * found - total)


def _step(group: Walkers, direction: Tensor, turn: int) -> None:
    """Along the direction, half as far until the point is still misclassified."""
    heading = steepest_direction(direction, "linf" if group.norm == "linf" else "l2")
    at = group.at
    length = group.walk.distance if group.norm == "linf" else vector_norm(group.offset, "l2")
    size = (length / math.sqrt(turn)).to(at.dtype).unsqueeze(1)
    waiting = torch.ones_like(size[:, 0], dtype=torch.bool)
    for _ in range(_STEPS):
        points = torch.minimum(torch.maximum(at + size * heading, group.low), group.high)
        found = group.wrong(points) & waiting
        group.walk.spent -= (~waiting).to(group.walk.spent.dtype)
        group.take(points, found)
        waiting = waiting & ~found
        if not bool(waiting.any()):
            return
        size = size / 2
