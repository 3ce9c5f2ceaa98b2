"""A random walk from misclassified points outside the ball into it: finds the corners that gradients do not show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._norms import Norm, project_to_ball, vector_norm
from smoothness.attacks._search import Search, searching
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

_NEVER = 1e9  # radii: no misclassified point seen yet
_START = 0.3  # first size of a proposal, in units of the distance
_GROW, _SHRINK = 1.3, 0.93  # of the size after a success and a failure: steady at a fifth of successes
_INSIDE = 0.999  # of epsilon: no proposal need go further in
_INWARD = 0.5  # of a proposal's size, by which the distance must fall


@dataclass(frozen=True)
class InwardWalk:
    """Several walkers an example, each kept misclassified and drawn towards the input.

    The boundary attack of Brendel et al. 2018 (arXiv 1712.04248), with proposals cut back to a ball that shrinks:
    δ <- P_ρ(δ + s |δ| u), u uniform, ρ = (1 - s/2) |δ|, where that is misclassified; s adapts. Walkers start at
    random points of balls of 1 to 8 epsilon. Labels alone count. Success is a lower bound on vulnerability; in more
    than a few features progress is slow.
    """

    threat: ThreatModel
    steps: int = 400
    walkers: int = 16
    seed: int = 0
    batch_size: int | None = None

    @property
    def label(self) -> str:
        """Readable name."""
        return "inward-walk"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        with searching(model, x, y, self.threat, self.batch_size) as search:
            search.look_at_clean()
            search.in_chunks(search.targets(dropping=True), partial(self._walk, search))
            return search.close(x.device)

    def _walk(self, search: Search, rows: Tensor) -> None:
        draws = torch.Generator().manual_seed(self.seed)
        clean = search.inputs[rows].unsqueeze(1)
        shape = (1, self.walkers, *search.inputs.shape[1:])
        column = search.labels[rows].repeat_interleave(self.walkers).unsqueeze(1)
        low, high = (-torch.inf, torch.inf) if self.threat.bounds is None else self.threat.bounds
        offset = torch.zeros(len(rows), *shape[1:], dtype=clean.dtype, device=clean.device)
        reach = torch.full(offset.shape[:2], _NEVER, dtype=clean.dtype, device=clean.device)
        size = torch.full_like(reach, _START)
        for step in range(self.steps):
            noise = (torch.rand(shape, generator=draws, dtype=clean.dtype) * 2 - 1).to(clean.device)
            lost = reach == _NEVER
            wide = search.epsilon * 2.0 ** (step % 4)
            scale = torch.where(lost, wide, size * reach)
            limit = torch.where(lost, wide, (1 - _INWARD * size) * reach).clamp_min(_INSIDE * search.epsilon)
            proposal = _cut(offset + _wide(scale, offset) * noise, limit, self.threat.norm)
            point = (clean + proposal).clamp(torch.as_tensor(low).to(clean), torch.as_tensor(high).to(clean))
            loss = search.look(point.flatten(0, 1), column)[1].view_as(reach)
            wrong = loss > 0
            offset = torch.where(_wide(wrong, offset), point - clean, offset)
            reach = torch.where(wrong, _lengths(point - clean, self.threat.norm), reach)
            size = torch.where(lost, size, torch.where(wrong, size * _GROW, size * _SHRINK)).clamp(1e-4, 1)
            self._settle(search, rows, clean + offset, reach)
            if bool((search.worst[rows] > 0).all()):
                return

    def _settle(self, search: Search, rows: Tensor, points: Tensor, reach: Tensor) -> None:
        """Keep the nearest point of every example that is inside the ball."""
        nearest = reach.argmin(dim=1)
        inside = (reach.amin(dim=1) <= search.epsilon) & (search.worst[rows] <= 0)
        search.best[rows[inside]] = points[inside, nearest[inside]]
        search.worst[rows[inside]] = torch.inf


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (like.ndim - 2))


def _lengths(offset: Tensor, norm: Norm) -> Tensor:
    return vector_norm(offset.flatten(0, 1), norm).view(offset.shape[:2])


def _cut(offset: Tensor, limit: Tensor, norm: Norm) -> Tensor:
    """Nearest offsets within the limits."""
    flat = project_to_ball(offset.flatten(0, 1).flatten(1), norm, limit.reshape(-1, 1))
    return flat.view_as(offset)
