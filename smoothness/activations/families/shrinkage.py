"""Shrinkage: softshrink, hardshrink, tanhshrink take small values to 0."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, smooth_facts


class SoftShrink(Activation):
    """φ(z) = z - lambd for z > lambd, z + lambd for z < -lambd, else 0 (Donoho 1995, soft thresholding).

    >>> import torch
    >>> SoftShrink()(torch.tensor([-2.0, 0.3, 1.0]))
    tensor([-1.5000,  0.0000,  0.5000])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = check_positive("lambd", lambd)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.softshrink(z, self.lambd)

    def facts(self) -> ActivationFacts:
        """Kinks of -1 at -lambd and 1 at lambd."""
        t = self.lambd
        return piecewise_affine_facts(f"softshrink({self.extra_repr()})", (-t, t), ((1.0, t), (0.0, 0.0), (1.0, -t)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"lambd={self.lambd:g}"


class HardShrink(Activation):
    """φ(z) = z for |z| > lambd, else 0 (Donoho and Johnstone 1994, hard thresholding), as torch's Hardshrink.

    φ(-lambd) is 0, so among floating-point numbers the left jump comes right after the float64 below -lambd: there
    the facts have it.

    >>> import torch
    >>> HardShrink()(torch.tensor([-2.0, -0.5, 0.3, 1.0]))
    tensor([-2.,  0.,  0.,  1.])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = check_positive("lambd", lambd)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; NaN stays NaN."""
        return F.hardshrink(z, self.lambd)

    def facts(self) -> ActivationFacts:
        """Value jumps of lambd at ±lambd."""
        positions = (math.nextafter(-self.lambd, -math.inf), self.lambd)
        return piecewise_affine_facts(
            f"hardshrink({self.extra_repr()})", positions, ((1.0, 0.0), (0.0, 0.0), (1.0, 0.0))
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"lambd={self.lambd:g}"


class TanhShrink(Activation):
    """φ(z) = z - tanh(z).

    >>> import torch
    >>> TanhShrink()(torch.tensor([0.0, 2.0]))
    tensor([0.0000, 1.0360])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.tanhshrink(z)

    def facts(self) -> ActivationFacts:
        """φ' = tanh² in [0, 1); curvature at most 4 / (3√3), as tanh."""
        return smooth_facts(
            "tanhshrink",
            self,
            slope=(0.0, 1.0),
            curvature=4 / (3 * math.sqrt(3)),
            slope_variation=2.0,
            bounded=False,
            slope_turns=(0.0,),
        )
