"""Flat pieces of the decision boundary seen so far, and the input's projection onto all of them together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.attacks._batch import Rows

_MOST = 8  # planes kept for each example, the last ones
_CYCLES = 30  # over the planes, of the ascent in their multipliers
_REFUTED = 0.05  # share by which a misclassified point may lie short of a plane that was measured


@dataclass
class Planes(Rows):
    """Half-spaces slope · (x' - x) >= 1 outside of which nothing misclassified was met.

    Attributes:
        slopes: (m, k, features); used: (m, k); place: of the next, (m,).
    """

    slopes: Tensor
    used: Tensor
    place: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Planes:
        """For inputs (m, features)."""
        slopes = like.new_zeros(len(like), _MOST, like.shape[1])
        used = torch.zeros(len(like), _MOST, dtype=torch.bool, device=like.device)
        return cls(slopes, used, torch.zeros(len(like), dtype=torch.long, device=like.device))

    def add(self, where: Tensor, slope: Tensor) -> None:
        """One more, of the rows there."""
        rows = where.nonzero().flatten()
        self.slopes[rows, self.place[rows]] = slope[rows]
        self.used[rows, self.place[rows]] = True
        self.place[rows] = (self.place[rows] + 1) % _MOST

    def drop(self, where: Tensor) -> None:
        """All of them, of the rows there."""
        self.used = self.used & ~where.unsqueeze(1)

    def refute(self, where: Tensor, offset: Tensor) -> None:
        """Drop those which a misclassified point lies short of: (m, features)."""
        short = (self.slopes @ offset.unsqueeze(2)).squeeze(2) < 1 - _REFUTED
        self.used = self.used & ~(where.unsqueeze(1) & short)

    def with_last(self, last: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Σ λ_k slope_k / Σ λ_k, over the planes and the last: the one plane that stands for all in the projection.

        λ >= 0 maximises the dual of min |δ|² over slope_k · δ >= 1 and down <= δ <= up, one multiplier after the other
        (Hildreth 1957). The smallest δ beyond the weighted plane is then the projection in l2; in other norms the
        weighted plane is implied by all of them.
        """
        columns = self.used.any(dim=0).nonzero().flatten()
        if not len(columns):
            return last
        slopes = torch.cat([self.slopes[:, columns], last.unsqueeze(1)], dim=1)
        used = torch.cat([self.used[:, columns], torch.ones_like(self.used[:, :1])], dim=1)
        weights = torch.zeros_like(slopes[:, :, 0])
        size = slopes.square().sum(dim=2).clamp_min(torch.finfo(slopes.dtype).tiny)
        for _ in range(_CYCLES):
            for place in range(slopes.shape[1]):
                pull = (weights.unsqueeze(1) @ slopes).squeeze(1)
                free = ((pull > down) & (pull < up)).to(pull.dtype)
                slope = slopes[:, place]
                lacking = 1 - (slope * torch.clamp(pull, down, up)).sum(dim=1)
                rate = torch.maximum((slope.square() * free).sum(dim=1), 1e-6 * size[:, place])
                moved = (weights[:, place] + lacking / rate).clamp_min(0)
                weights[:, place] = torch.where(used[:, place], moved, 0)
        total = weights.sum(dim=1, keepdim=True)
        together = (weights.unsqueeze(1) @ slopes).squeeze(1) / total.clamp_min(torch.finfo(total.dtype).tiny)
        usable = (total > 0) & together.isfinite().all(dim=1, keepdim=True)
        return torch.where(usable, together, last)
