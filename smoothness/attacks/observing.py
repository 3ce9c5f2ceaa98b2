"""What can be seen of a model's gradients around each example: zero, missing, truthful, another surrogate's?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._norms import random_in_ball, vector_norm
from smoothness.attacks._search import MissingGradientError, Search
from smoothness.attacks.losses import LOSSES

POINTS = 4  # the clean input and random points of the ball
SHORT = 1 / 16  # of epsilon: the steps over which the margin is compared with what the gradient says
TRUTHFUL = 0.5  # share of the squared change that a truthful gradient may leave unexplained
SAME = 1e-3  # relative distance below which two gradients count as one


@dataclass(frozen=True, eq=False)
class Observed:
    """Native gradients of the margin at `POINTS` points per example.

    Attributes:
        gradients: (points, n, ...); the first at the clean input. Missing ones are zero.
        flat: (n,) the outputs are the same, to the bit, at all points.
        unexplained: (n,) Σ (Δ - g·δ)² / Σ Δ², over one short random step δ from each point, with Δ the change of
            the margin and g its gradient: near 0 for a truthful gradient, 1 for a zero one, and near 1 where jumps
            make the change; NaN where nothing changes.
        missing: the error met when a gradient was asked for; "" otherwise. Then nothing is flat or truthful.
    """

    gradients: Tensor
    flat: Tensor
    unexplained: Tensor
    missing: str = ""

    @property
    def blind(self) -> Tensor:
        """(n,) the gradient is exactly zero, or missing, at every point."""
        return (self.gradients == 0).flatten(2).all(dim=2).all(dim=0)

    @property
    def truthful(self) -> Tensor:
        """(n,) the gradient explains most of how the margin changes."""
        return self.unexplained <= TRUTHFUL  # False for NaN

    def differs(self, gradients: Tensor) -> Tensor:
        """(n,) gradients through another backward pass are others than these at some point."""
        mine, theirs = self.gradients.flatten(0, 1), gradients.flatten(0, 1)
        scale = torch.maximum(vector_norm(mine, "linf"), vector_norm(theirs, "linf"))
        other = vector_norm(mine - theirs, "linf") > SAME * scale
        return other.view(len(gradients), -1).any(dim=0)


def observe(search: Search, seed: int) -> Observed:
    """Look at outputs, gradients, and short steps from each point."""
    clean, low, high = search.inputs, *search.threat.limits(search.inputs)
    draws = torch.Generator().manual_seed(seed + 1)
    steps = [random_in_ball(clean, search.threat.norm, SHORT * search.epsilon, draws) for _ in range(POINTS)]
    changed, off = (torch.zeros(len(clean), dtype=torch.float64, device=clean.device) for _ in range(2))
    flat = torch.ones_like(search.attacked)
    first: dict[int, Tensor] = {}

    def compare(at: int, rows: Tensor, points: Tensor, seen: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, losses, gradient = seen
        if at == 0:
            first[0] = logits
        flat[rows] &= (logits == first[0]).all(dim=1)
        ahead = (points + steps[at][rows]).clamp(low[rows], high[rows])
        change = (search.look(ahead, search.labels[rows].unsqueeze(1))[1] - losses).double()
        expected = (gradient.double() * (ahead - points)).flatten(1).sum(dim=1)
        changed[rows] += change.square()
        off[rows] += (change - expected).square()

    try:
        gradients = _look(search, seed, compare)
    except MissingGradientError as error:
        nothing = clean.new_zeros(POINTS, *clean.shape)
        return Observed(nothing, flat & False, changed + torch.nan, str(error.__cause__).splitlines()[0])
    return Observed(gradients, flat, off / changed)


def gradients_through(search: Search, seed: int, backward: AbstractContextManager[object]) -> Tensor:
    """(points, n, ...) gradients at the points of `observe`, with another backward pass opened."""
    with backward:
        return _look(search, seed)


Also = Callable[[int, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]], None]


def _look(search: Search, seed: int, also: Also | None = None) -> Tensor:
    clean, draws = search.inputs, torch.Generator().manual_seed(seed)
    drawn = [random_in_ball(clean, search.threat.norm, search.epsilon, draws) for _ in range(POINTS - 1)]
    starts = [torch.zeros_like(clean), *drawn]
    low, high = search.threat.limits(clean)
    found = clean.new_zeros(POINTS, *clean.shape)

    def look(rows: Tensor) -> None:
        for at, start in enumerate(starts):
            points = (clean[rows] + start[rows]).clamp(low[rows], high[rows])
            seen = search.probe(points, search.labels[rows].unsqueeze(1), LOSSES["margin"])
            found[at, rows] = seen[2].nan_to_num(0)
            if also is not None:
                also(at, rows, points, seen)

    search.in_chunks(torch.arange(len(clean), device=clean.device), look)
    return found
