"""Continuous piecewise polynomials: relu, leaky_relu, relu6, hardtanh, hardsigmoid, hardswish, tent."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, piecewise_polynomial_facts


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


class HardTanh(Activation):
    """φ(z) = z cut to [min_val, max_val] (Collobert 2004).

    >>> HardTanh()(torch.tensor([-3.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(min_val) and math.isfinite(max_val) and min_val < max_val):
            raise ValueError(f"min_val and max_val must be finite and ascend, got {min_val!r} and {max_val!r}")
        self.min_val, self.max_val = float(min_val), float(max_val)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.hardtanh(z, self.min_val, self.max_val)

    def facts(self) -> ActivationFacts:
        """Kinks of 1 and -1 at the ends of the range."""
        low, high = self.min_val, self.max_val
        return piecewise_affine_facts(f"hardtanh({self.extra_repr()})", (low, high), ((0, low), (1, 0), (0, high)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"min_val={self.min_val:g}, max_val={self.max_val:g}"


class ReLU6(Activation):
    """φ(z) = min(max(z, 0), 6) (Krizhevsky 2010; Howard et al. 2017, arXiv 1704.04861).

    >>> ReLU6()(torch.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.relu6(z)

    def facts(self) -> ActivationFacts:
        """Kinks of 1 at 0 and -1 at 6."""
        return piecewise_affine_facts("relu6", (0.0, 6.0), ((0.0, 0.0), (1.0, 0.0), (0.0, 6.0)))


class HardSigmoid(Activation):
    """φ(z) = min(max(z + 3, 0), 6) / 6 (Courbariaux et al. 2015, arXiv 1511.00363, as scaled by torch).

    >>> HardSigmoid()(torch.tensor([-4.0, 0.0, 4.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.relu6(z + 3) / 6  # as F.hardsigmoid to the bit, whose gradient is 1/6 rounded to float32

    def facts(self) -> ActivationFacts:
        """Kinks of 1/6 at -3 and -1/6 at 3."""
        return piecewise_affine_facts("hardsigmoid", (-3.0, 3.0), ((0.0, 0.0), (1 / 6, 0.5), (0.0, 1.0)))


class HardSwish(Activation):
    """φ(z) = z · min(max(z + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244).

    >>> HardSwish()(torch.tensor([-4.0, -1.5, 4.0]))
    tensor([-0.0000, -0.3750,  4.0000])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.hardswish(z)

    def facts(self) -> ActivationFacts:
        """Slope from -1/2 (right of -3) to 3/2 (left of 3), with kinks of -1/2 at both; least value at -3/2."""
        return piecewise_polynomial_facts("hardswish", (-3.0, 3.0), ((0.0,), (0.0, 0.5, 1 / 6), (0.0, 1.0)))


class Tent(Activation):
    """φ(z) = max(0, width - |z|): bounded and not monotone (Rozsa and Boult 2019, arXiv 1908.02435).

    >>> Tent()(torch.tensor([-2.0, 0.0, 0.25]))
    tensor([0.0000, 1.0000, 0.7500])
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = check_positive("width", width)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        # Not |z|: its derivative of 0 at 0 would be neither side's.
        return torch.where(z > 0, (self.width - z).clamp_min(0), (self.width + z).clamp_min(0))

    def facts(self) -> ActivationFacts:
        """Kinks of 1, -2 and 1 at -width, 0 and width."""
        w = self.width
        pieces = ((0.0, 0.0), (1.0, w), (-1.0, w), (0.0, 0.0))
        return piecewise_affine_facts(f"tent({self.extra_repr()})", (-w, 0.0, w), pieces)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"width={self.width:g}"
