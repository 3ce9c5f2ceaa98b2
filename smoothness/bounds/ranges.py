"""Between which values does every pre-activation stay on a ball?"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor

from smoothness.bounds.balls import Ball
from smoothness.bounds.graph import AffineSum, HiddenLayer, Network
from smoothness.bounds.products import Product
from smoothness.bounds.relaxations import Lines, line_bounds

_EPS, _MAX = sys.float_info.epsilon, sys.float_info.max


class Interval(NamedTuple):
    """Lower and upper ends, each (n, width)."""

    lower: Tensor
    upper: Tensor

    @property
    def size(self) -> Tensor:
        """Max |z| inside."""
        return torch.maximum(self.lower.abs(), self.upper.abs())


class Ranges:
    """Ranges of the layers of one network on one ball, found layer by layer and tightened from outside.

    Each new layer takes the smaller of interval propagation and of linear relaxation (lines below and above
    every activation, substituted backwards to the input: Zhang et al. 2018, arXiv 1811.00866), both for real
    arithmetic, with the float64 rounding of computing them added.

    Attributes:
        before: ranges of the pre-activations of each layer so far.
        after: ranges of the features, the input's box first.
        slopes: slope intervals of the layers, of all pairs (False) and of centre pairs (True), as far as asked for.
    """

    def __init__(self, network: Network, ball: Ball, *, relax: bool = True) -> None:
        self.network, self.ball, self.relax = network, ball, relax
        self.before: list[Interval] = []
        self.after: list[Interval] = [Interval(*ball.box)]
        self.values, self.centre_output = network.run(ball.centre)
        self.slopes: dict[bool, list[tuple[Tensor, Tensor]]] = {}
        self._lines: dict[int, Lines] = {}

    def find(self, affine: AffineSum, mix: Tensor | None = None, *, relax: bool = True) -> Interval:
        """Range of an affine sum of the layers known so far; of `mix` (n, m, width) times it when given.

        `relax` False leaves the linear relaxation out: it costs a product with every earlier matrix.
        """
        if mix is None:
            products, bias = dict(affine.products), affine.bias.expand(len(self.ball.centre), -1)
            if set(products) <= {0}:
                return self._from_input(products.get(0), bias)
            found = self._by_intervals(products, bias)
        else:
            weights, bias = {j: mix @ w for j, w in affine.sources}, mix @ affine.bias
            if set(weights) <= {0}:
                return self._from_input(weights.get(0), bias)
            found = self._by_mixed_intervals(weights, bias)
        if self.relax and relax:
            found = intersection(found, self._by_lines(dict(affine.sources) if mix is None else weights, bias))
        return found

    def push(self, layer: HiddenLayer, found: Interval) -> None:
        """Accept the range of the next layer's pre-activations."""
        self.before.append(found)
        self.after.append(Interval(*layer.facts.value_range(*found)))

    def complete(self) -> Ranges:
        """Find all the layers that are missing."""
        for layer in self.network.hidden[len(self.before) :]:
            self.push(layer, self.find(layer.affine))
        return self

    def _from_input(self, weight: Product | Tensor | None, bias: Tensor) -> Interval:
        if weight is None:
            return Interval(bias, bias)
        x = self.ball.centre
        if isinstance(weight, Product):
            moved, size = weight.apply(weight.plain, x), weight.apply(weight.size, x.abs())
        else:
            moved, size = _times(weight, x), _times(weight.abs(), x.abs())
        lower, upper = self.ball.reach(weight)
        slack = (x.shape[1] + 8) * _EPS * (size + bias.abs() + upper - lower)
        slack = slack.nan_to_num(posinf=0.0)
        return Interval(moved + bias + lower - slack, moved + bias + upper + slack)

    def _by_intervals(self, products: dict[int, Product], bias: Tensor) -> Interval:
        lower, upper, size, terms = bias, bias, bias.abs(), 8
        for j, w in products.items():
            low, high = self.after[j]
            lower = lower + w.apply(w.positive, low) + w.apply(w.negative, high)
            upper = upper + w.apply(w.positive, high) + w.apply(w.negative, low)
            size = size + w.apply(w.size, self.after[j].size)
            terms += w.weight.shape[1]
        return _safe(lower - 2 * terms * _EPS * size, upper + 2 * terms * _EPS * size)

    def _by_mixed_intervals(self, weights: dict[int, Tensor], bias: Tensor) -> Interval:
        lower, upper, size, terms = bias, bias, bias.abs(), 8
        for j, weight in weights.items():
            low, high = self.after[j]
            positive, negative = weight.clamp_min(0), weight.clamp_max(0)
            lower = lower + _times(positive, low) + _times(negative, high)
            upper = upper + _times(positive, high) + _times(negative, low)
            size = size + _times(weight.abs(), self.after[j].size)
            terms += weight.shape[-1]
        return _safe(lower - 2 * terms * _EPS * size, upper + 2 * terms * _EPS * size)

    def _by_lines(self, weights: dict[int, Tensor], bias: Tensor) -> Interval:
        bounds = []
        for side in (-1.0, 1.0):
            bound = self._substitute({j: side * w for j, w in weights.items()}, side * bias)
            bounds.append(side * bound)
        return _safe(*bounds)

    def _substitute(self, weights: dict[int, Tensor], bias: Tensor) -> Tensor:
        """Upper bound of Σ_j W_j h_j + bias over the ball, activations replaced from the last to the first."""
        n = len(self.ball.centre)
        constant, slack = bias.clone(), 8 * _EPS * bias.abs()
        pending = {j: w.expand(n, *w.shape[-2:]) for j, w in weights.items()}
        for j in range(max(pending), 0, -1):
            if j not in pending:
                continue
            row = pending.pop(j)
            layer = self.network.hidden[j - 1]
            lines = self._lines_of(j)
            positive, negative = row.clamp_min(0), row.clamp_max(0)
            passed = positive * lines.high_slope.unsqueeze(1) + negative * lines.low_slope.unsqueeze(1)
            offset = _times(positive, lines.high_offset) + _times(negative, lines.low_offset)
            weight_of_bias = passed @ layer.affine.bias
            constant = constant + offset + weight_of_bias
            steepest = torch.maximum(lines.high_slope.abs(), lines.low_slope.abs())
            shift = torch.maximum(lines.high_offset.abs(), lines.low_offset.abs())
            size = layer.affine.bias.abs().expand(n, -1)
            for k, product in layer.affine.products:
                moved = product.back(product.plain, passed)
                pending[k] = pending[k] + moved if k in pending else moved
                size = size + product.apply(product.size, self.after[k].size)
            width = row.shape[-1] + 16
            slack = slack + 4 * width * _EPS * _times(row.abs(), shift + steepest * size)
        if 0 in pending:
            row, x = pending[0], self.ball.centre
            constant = constant + _times(row, x) + self.ball.reach(row)[1]
            slack = slack + 4 * (row.shape[-1] + 16) * _EPS * _times(row.abs(), self.ball.size)
        return constant + slack

    def _lines_of(self, j: int) -> Lines:
        if j not in self._lines:
            self._lines[j] = line_bounds(self.network.hidden[j - 1].facts, *self.before[j - 1])
        return self._lines[j]


def intersection(first: Interval, second: Interval) -> Interval:
    """Both hold; where rounding made them disjoint, the first."""
    lower, upper = torch.maximum(first.lower, second.lower), torch.minimum(first.upper, second.upper)
    fine = lower <= upper
    return Interval(torch.where(fine, lower, first.lower), torch.where(fine, upper, first.upper))


def _times(weight: Tensor, values: Tensor) -> Tensor:
    """(m, d) or (n, m, d) times (n, d): (n, m)."""
    if weight.ndim == 2:
        return values @ weight.T
    return (weight @ values.unsqueeze(2)).squeeze(2)


def _safe(lower: Tensor, upper: Tensor) -> Interval:
    """Overflows and undefined bounds become infinite ones."""
    lower = lower.nan_to_num(-torch.inf, posinf=_MAX, neginf=-torch.inf)
    return Interval(lower, upper.nan_to_num(torch.inf, posinf=torch.inf, neginf=-_MAX))
