"""The inputs a bound holds for: norm balls, clipped or not, and how far affine functions reach on them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._norms import DUAL, Norm
from smoothness.bounds.products import Product

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

    def reach(self, rows: Tensor | Product) -> tuple[Tensor, Tensor]:
        """Bounds of g · (x' - x) over the ball, for rows g: (m, d) or (n, m, d) -> two tensors (n, m).

        Without clipping exact (the dual norm of g times the radius) up to rounding, for which it is widened.
        Clipped, the smaller of the ball's and of the box's; exact in the max-norm.
        """
        one_for_all = isinstance(rows, Product) or rows.ndim == 2
        product = Product(rows) if isinstance(rows, Tensor) and one_for_all else rows
        weight = product.weight if isinstance(product, Product) else product
        dual = torch.linalg.vector_norm(weight, ord=_ORDER[DUAL[self.norm]], dim=-1)
        span = torch.where(dual == 0, 0.0, dual * self.radius)
        lower, upper = -span, span
        if self.low is not None and self.high is not None:
            box_lower, box_upper = self.box
            below, above = self.centre - box_lower, box_upper - self.centre
            if isinstance(product, Product):
                by_box = [
                    product.apply(product.positive, ahead) - product.apply(product.negative, behind)
                    for ahead, behind in ((above, below), (below, above))
                ]
            else:
                positive, negative = weight.clamp_min(0), (-weight).clamp_min(0)
                by_box = [
                    (positive @ ahead.unsqueeze(2) + negative @ behind.unsqueeze(2)).squeeze(2)
                    for ahead, behind in ((above, below), (below, above))
                ]
            upper, lower = torch.minimum(upper, by_box[0]), torch.maximum(lower, -by_box[1])
        slack = (weight.shape[-1] + 8) * _EPS
        return lower * (1 + slack), upper * (1 + slack)
