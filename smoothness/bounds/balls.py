"""The inputs a bound holds for: norm balls, clipped or not, and how far affine functions reach on them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._norms import DUAL, Norm

_EPS = sys.float_info.epsilon
_ORDER: dict[Norm, float] = {"l2": 2.0, "l1": 1.0, "linf": math.inf}


@dataclass(frozen=True, eq=False)
class Ball:
    """All x' with |x' - x|_p <= radius, and low <= x' <= high where `low` and `high` are given.

    Attributes:
        centre: (n, d), float64.
        norm: p.
        radius: (n, 1), float64; infinite for the whole space.
        low, high: (n, d) or None.
    """

    centre: Tensor
    norm: Norm
    radius: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """The smallest box around it: lower and upper ends, each (n, d)."""
        lower, upper = self.centre - self.radius, self.centre + self.radius
        if self.low is not None and self.high is not None:
            lower, upper = torch.maximum(lower, self.low), torch.minimum(upper, self.high)
        # One rounding in the difference; the centre itself always counts.
        slack = 2 * _EPS * (self.centre.abs() + self.radius).nan_to_num(posinf=0.0)
        return torch.minimum(lower - slack, self.centre), torch.maximum(upper + slack, self.centre)

    @property
    def size(self) -> Tensor:
        """Max |x'_i| for each coordinate: (n, d)."""
        lower, upper = self.box
        return torch.maximum(lower.abs(), upper.abs())

    def reach(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of g · (x' - x) over the ball, for rows g: (m, d) or (n, m, d) -> two tensors (n, m).

        Without clipping exact (the dual norm of g times the radius) up to rounding, for which it is widened.
        Clipped, the smaller of the ball's and of the box's; exact in the max-norm.
        """
        batched = rows if rows.ndim == 3 else rows.expand(len(self.centre), *rows.shape)
        dual = torch.linalg.vector_norm(batched, ord=_ORDER[DUAL[self.norm]], dim=2)
        span = torch.where(dual == 0, 0.0, dual * self.radius)
        lower, upper = -span, span
        if self.low is not None and self.high is not None:
            box_lower, box_upper = self.box
            below, above = (self.centre - box_lower).unsqueeze(2), (box_upper - self.centre).unsqueeze(2)
            positive, negative = batched.clamp_min(0), (-batched).clamp_min(0)
            upper = torch.minimum(upper, (positive @ above + negative @ below).squeeze(2))
            lower = torch.maximum(lower, -(positive @ below + negative @ above).squeeze(2))
        slack = (rows.shape[-1] + 8) * _EPS
        return lower * (1 + slack), upper * (1 + slack)
