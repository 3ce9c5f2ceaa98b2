"""Piecewise affine activations: kinked (relu, leaky_relu) and stepped (step, staircase)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_count
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts


class ReLU(Activation):
    """φ(z) = max(z, 0): continuous, 1-Lipschitz, one kink at 0.

    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.relu(z)

    def facts(self) -> ActivationFacts:
        """Kink of 1 at 0."""
        return piecewise_affine_facts("relu", (0.0,), ((0.0, 0.0), (1.0, 0.0)))


class LeakyReLU(Activation):
    """φ(z) = max(z, 0) + negative_slope · min(z, 0) (Maas et al. 2013).

    >>> LeakyReLU(0.1)(torch.tensor([-1.0, 2.0]))
    tensor([-0.1000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        if not math.isfinite(negative_slope) or negative_slope == 1:
            raise ValueError(f"negative_slope must be finite and not 1 (the identity), got {negative_slope!r}")
        self.negative_slope = float(negative_slope)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.leaky_relu(z, self.negative_slope)

    def facts(self) -> ActivationFacts:
        """Kink of 1 - negative_slope at 0."""
        name = f"leaky_relu(negative_slope={self.negative_slope:g})"
        return piecewise_affine_facts(name, (0.0,), ((self.negative_slope, 0.0), (1.0, 0.0)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"negative_slope={self.negative_slope:g}"


class Step(Activation):
    """Heaviside step: φ(z) = 1 for z > 0, else 0. Its gradient is 0 everywhere.

    >>> Step()(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        return torch.ceil(z.clamp(0, 1))

    def facts(self) -> ActivationFacts:
        """Value jump of 1 at 0."""
        return piecewise_affine_facts("step", (0.0,), ((0.0, 0.0), (0.0, 1.0)))


class Staircase(Activation):
    """Nearest of `levels` values equally spaced in [-1, 1]: a quantised hardtanh.

    Values v_k = -1 + 2k/(levels - 1); jumps of 2/(levels - 1) half-way between them. Two levels are
    the sign function, three a ternary one. Its gradient is 0 everywhere.

    >>> Staircase(3)(torch.tensor([-3.0, 0.2, 0.6]))
    tensor([-1.,  0.,  1.])
    """

    def __init__(self, levels: int = 5) -> None:
        super().__init__()
        self.levels = check_count("levels", levels, minimum=2)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Positions of the jumps."""
        return tuple(-1 + (2 * k + 1) / (self.levels - 1) for k in range(self.levels - 1))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        intervals = self.levels - 1
        rank = torch.ceil(((z + 1) * (intervals / 2) - 0.5).clamp(0, intervals))
        return rank * (2 / intervals) - 1

    def facts(self) -> ActivationFacts:
        """Equal value jumps at the thresholds."""
        values = [-1 + 2 * k / (self.levels - 1) for k in range(self.levels)]
        pieces = tuple((0.0, value) for value in values)
        return piecewise_affine_facts(f"staircase(levels={self.levels})", self.thresholds, pieces)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"levels={self.levels}"
