"""Bounds from the Jacobian with every slope in its interval: entry by entry, and layer by layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from smoothness._norms import DUAL, Norm, operator_norm
from smoothness.bounds.forms import Sectors
from smoothness.bounds.graph import Network

_EPS = sys.float_info.epsilon
_ORDER = {"l2": 2.0, "l1": 1.0, "linf": torch.inf}
# On computed spectral norms: far above the error of the singular values of any matrix that fits in memory.
_UP = 1 + 1e-10


def interval_jacobian(network: Network, found: Sectors, mix: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Midpoint and radius, each (n, outputs, inputs), of every product of the layers with slopes in the sectors.

    In midpoint-radius arithmetic from the outputs back to the input, rounded outward. `mix` (n, m, outputs) takes
    combinations of the outputs. The Jacobian lies inside wherever it exists; and so does the increment Δo / Δx.
    """
    n = len(found.centre[0]) if found.centre else (1 if mix is None else len(mix))
    pending: dict[int, tuple[Tensor, Tensor]] = {}
    for j, weight in network.output.sources:
        first = weight.expand(n, *weight.shape) if mix is None else mix @ weight
        rounding = 2 * _EPS * (first.abs() if mix is None else (mix.shape[-1] + 8) * (mix.abs() @ weight.abs()))
        pending[j] = first, rounding.expand_as(first)
    for k in range(len(network.hidden), 0, -1):
        if k not in pending:
            continue
        middle, radius = pending.pop(k)
        centre, spread = found.centre[k - 1].unsqueeze(1), found.radius[k - 1].unsqueeze(1)
        radius = radius * (centre.abs() + spread) + middle.abs() * spread
        middle = middle * centre
        radius = radius + 4 * _EPS * (middle.abs() + radius)
        for j, product in network.hidden[k - 1].affine.products:
            moved = product.back(product.plain, middle)
            spread = radius + 2 * (product.weight.shape[0] + 8) * _EPS * (middle.abs() + radius)
            reach = product.back(product.size, spread)
            if j in pending:
                moved, reach = moved + pending[j][0], reach + pending[j][1]
                reach = reach + 4 * _EPS * (moved.abs() + reach)
            pending[j] = moved, reach
    empty = torch.zeros(
        n, network.output.width, network.inputs, dtype=torch.float64, device=network.output.bias.device
    )
    if mix is not None:
        empty = mix @ empty
    return pending.get(0, (empty, empty))


def jacobian_constant(
    network: Network, found: Sectors, norm: Norm, mix: Tensor | None = None, separate: bool = False
) -> Tensor:
    """(n,) Lipschitz constants from the interval Jacobian."""
    middle, radius = interval_jacobian(network, found, mix)
    largest = (middle.abs() + radius) * _UP
    if separate:
        return _dual_rows(largest, norm) * _UP
    if norm == "l2":
        both = operator_norm(middle, "l2") + operator_norm(radius, "l2")
        return torch.minimum(both, torch.linalg.matrix_norm(largest)) * _UP
    return operator_norm(largest, norm) * _UP


def row_steepness(network: Network, found: Sectors, norm: Norm, mix: Tensor) -> Tensor:
    """(n, m) constants p -> |·| of every combination of the outputs, from the interval Jacobian; infinite at jumps."""
    middle, radius = interval_jacobian(network, found, mix)
    sizes: Tensor = torch.linalg.vector_norm((middle.abs() + radius) * _UP, ord=_ORDER[DUAL[norm]], dim=2)
    return (sizes * _UP).nan_to_num(torch.inf, posinf=torch.inf)


def product_constant(
    network: Network,
    steepest: Sequence[Tensor],
    norm: Norm,
    mix: Tensor | None = None,
    separate: bool = False,
    norms: dict[int, Tensor] | None = None,
) -> Tensor:
    """(n,) products of layer norms with the steepest slope of every unit, (n, width) each; branches add up.

    `norms` keeps the spectral norms of the weights (by their id) from one call to the next.
    """
    norms = {} if norms is None else norms
    n = len(steepest[0]) if steepest else (1 if mix is None else len(mix))
    like = network.output.bias
    size: list[Tensor] = [like.new_ones(n)]
    for layer, slope in zip(network.hidden, steepest, strict=True):
        total = like.new_zeros(n)
        for j, weight in layer.affine.sources:
            total = total + _scaled_norm(weight, slope, norm, norms) * size[j]
        size.append(total)
    total = like.new_zeros(n)
    for j, weight in network.output.sources:
        matrices = weight.expand(n, *weight.shape) if mix is None else mix @ weight
        if separate:
            own = _dual_rows(matrices, norm)
        else:
            own = operator_norm(weight.unsqueeze(0) if mix is None else matrices, norm).expand(n)
        total = total + own * size[j]
    return total * _UP


def _dual_rows(matrices: Tensor, norm: Norm) -> Tensor:
    """The largest dual norm of a row: (n, m, d) -> (n,)."""
    sizes: Tensor = torch.linalg.vector_norm(matrices, ord=_ORDER[DUAL[norm]], dim=2)
    return sizes.amax(dim=1)


def _scaled_norm(weight: Tensor, slope: Tensor, norm: Norm, norms: dict[int, Tensor]) -> Tensor:
    """‖diag(slope) W‖ for each example."""
    if norm == "linf":
        return (slope * weight.abs().sum(dim=1)).amax(dim=1) * _UP
    if norm == "l1":
        return (slope @ weight.abs()).amax(dim=1) * _UP
    if id(weight) not in norms:
        norms[id(weight)] = operator_norm(weight.unsqueeze(0), "l2")
    whole = slope.amax(dim=1) * norms[id(weight)]
    return torch.minimum(whole, torch.linalg.vector_norm(slope * torch.linalg.vector_norm(weight, dim=1), dim=1)) * _UP
