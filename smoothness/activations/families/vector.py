"""Activations of several features at once: k_winners, maxout, group_sort."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from smoothness._checks import check_count
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, vector_facts


class KWinners(Activation):
    """Keeps the k largest features of each example and sets the others to 0 (Xiao et al. 2020, arXiv 1905.10510).

    The value jumps wherever the k-th and the next feature change places. All features of an example compete,
    from axis `start_dim` on; those equal to the k-th largest all stay. Its gradient is 1 for winners, 0 for losers:
    blind to the change of winners, so train and attack through a surrogate.

    Args:
        k: how many win; give this or the fraction.
        fraction: share of the features that win, rounded, at least one; 0.25 when neither is given.
        start_dim: first axis of the features.

    Raises:
        ValueError: both k and fraction, a fraction outside (0, 1]; on use, k larger than the layer.

    >>> import torch
    >>> KWinners(k=2)(torch.tensor([[3.0, -1.0, 2.0, 1.0]]))
    tensor([[3., 0., 2., 0.]])
    """

    elementwise = False

    def __init__(self, k: int | None = None, fraction: float | None = None, start_dim: int = 1) -> None:
        super().__init__()
        if k is not None and fraction is not None:
            raise ValueError(f"give k or fraction, not both, got k = {k!r} and fraction = {fraction!r}")
        if k is None and fraction is None:
            fraction = 0.25
        if fraction is not None and not (isinstance(fraction, (int, float)) and 0 < fraction <= 1):
            raise ValueError(f"fraction must lie in (0, 1], got {fraction!r}")
        self.k = None if k is None else check_count("k", k)
        self.fraction = None if fraction is None else float(fraction)
        self.start_dim = check_count("start_dim", start_dim, minimum=0)

    def forward(self, z: Tensor) -> Tensor:
        """Keep the winners; NaN stays NaN."""
        return z.masked_fill(z < self.threshold(z), 0.0)

    def threshold(self, z: Tensor) -> Tensor:
        """The k-th largest feature of each example, detached, of a shape that broadcasts with z."""
        first = min(self.start_dim, z.ndim - 1)
        features = z.detach().flatten(first)
        least = features.topk(self.winners(features.shape[-1]), dim=-1).values[..., -1]
        return least.reshape(*least.shape, *[1] * (z.ndim - first))

    def winners(self, count: int) -> int:
        """How many of `count` features win."""
        k = max(1, round(self.fraction * count)) if self.fraction is not None else self.k
        assert k is not None
        if k > count:
            raise ValueError(f"k must lie between 1 and the layer's {count} features, got {k}")
        return k

    def facts(self) -> ActivationFacts:
        """Discontinuous; moments depend on the layer's width, so they are not given."""
        return vector_facts(f"k_winners({self.extra_repr()})", smoothness_class=-1, lipschitz=math.inf, monotone=False)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"k={self.k}" if self.k is not None else f"fraction={self.fraction:g}"


class MaxOut(Activation):
    """The largest of each group of `pool` neighbouring features: fewer come out (Goodfellow et al. 2013).

    arXiv 1302.4389.

    Args:
        pool: features in a group.
        dim: axis of the features.

    Raises:
        ValueError: a pool below 2; on use, an axis that is not there, or features that do not divide into groups.

    >>> import torch
    >>> MaxOut()(torch.tensor([[3.0, -1.0, 2.0, 1.0]]))
    tensor([[3., 2.]])
    """

    elementwise = False

    def __init__(self, pool: int = 2, dim: int = 1) -> None:
        super().__init__()
        self.pool, self.dim = check_count("pool", pool, minimum=2), _check_axis(dim)

    @property
    def inputs_per_output(self) -> int:
        """Features that go in for each that comes out."""
        return self.pool

    def forward(self, z: Tensor) -> Tensor:
        """The largest of each group; of equals, the gradient goes to one."""
        groups, dim = _grouped("pool", z, self.pool, self.dim)
        return groups.max(dim + 1).values

    def facts(self) -> ActivationFacts:
        """1-Lipschitz in l2 and l-infinity; one input has slope 1, the rest 0. Moments in closed form up to pool 5."""
        mean, second = _MAXIMA.get(self.pool, (math.nan, math.nan))
        return vector_facts(
            f"maxout({self.extra_repr()})",
            smoothness_class=0,
            lipschitz=1.0,
            monotone=True,
            moments=(mean, second, 1.0),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"pool={self.pool}"


# Mean and second moment of the largest of n standard normals (David and Nagaraja 2003, Order Statistics).
_MAXIMA = {
    2: (1 / math.sqrt(math.pi), 1.0),
    3: (1.5 / math.sqrt(math.pi), 1 + math.sqrt(3) / (2 * math.pi)),
    4: (6 / math.pi**1.5 * math.atan(math.sqrt(2)), 1 + math.sqrt(3) / math.pi),
    5: (
        5 / (4 * math.sqrt(math.pi)) + 15 / (2 * math.pi**1.5) * math.asin(1 / 3),
        1 + 5 * math.sqrt(3) / (4 * math.pi) + 5 * math.sqrt(3) / (2 * math.pi**2) * math.asin(0.25),
    ),
}


class GroupSort(Activation):
    """Sorts each group of neighbouring features, upward (Anil et al. 2019, arXiv 1811.05381); groups of 2: MaxMin.

    A permutation almost everywhere, so it keeps the norm of values and gradients: 1-Lipschitz in every norm.

    Args:
        size: features in a group.
        dim: axis of the features.

    Raises:
        ValueError: a size below 2; on use, an axis that is not there, or features that do not divide into groups.

    >>> import torch
    >>> GroupSort()(torch.tensor([[3.0, -1.0, 2.0, 1.0]]))
    tensor([[-1.,  3.,  1.,  2.]])
    """

    elementwise = False

    def __init__(self, size: int = 2, dim: int = 1) -> None:
        super().__init__()
        self.size, self.dim = check_count("size", size, minimum=2), _check_axis(dim)

    def forward(self, z: Tensor) -> Tensor:
        """Sort the groups."""
        groups, dim = _grouped("size", z, self.size, self.dim)
        return groups.sort(dim + 1).values.reshape(z.shape)

    def facts(self) -> ActivationFacts:
        """1-Lipschitz; over the outputs of a group, moments are those of the inputs."""
        return vector_facts(
            f"group_sort({self.extra_repr()})",
            smoothness_class=0,
            lipschitz=1.0,
            monotone=True,
            moments=(0.0, 1.0, 1.0),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"size={self.size}"


def _check_axis(dim: Any) -> int:
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise ValueError(f"dim must be a whole number, the axis of the features, got {dim!r}")
    return dim


def _grouped(argument: str, z: Tensor, size: int, axis: int) -> tuple[Tensor, int]:
    """Z with an axis split into groups, and that axis counted from the front; of one axis, that one."""
    dim = (axis if axis >= 0 else z.ndim + axis) if z.ndim > 1 else 0
    if not 0 <= dim < z.ndim:
        raise ValueError(f"dim must name an axis of the input, got {axis} for shape {tuple(z.shape)}")
    if z.shape[dim] % size:
        raise ValueError(f"{argument} must divide the {z.shape[dim]} features, got {size}")
    return z.reshape(*z.shape[:dim], z.shape[dim] // size, size, *z.shape[dim + 1 :]), dim
