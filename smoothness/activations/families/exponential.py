"""Exponential below zero: elu, celu, selu."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, Breakpoint, smooth_facts


class ELU(Activation):
    """φ(z) = z for z > 0, else alpha · (exp(z) - 1) (Clevert et al. 2016, arXiv 1511.07289).

    alpha = 1 has a continuous slope and a curvature jump at 0; any other alpha has a kink there.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_positive("alpha", alpha)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.elu(z, self.alpha)

    def facts(self) -> ActivationFacts:
        """Slope in (0, max(1, alpha)]; φ'' jumps by -alpha at 0, φ' by 1 - alpha."""
        kinked = self.alpha != 1
        return smooth_facts(
            f"elu(alpha={self.alpha:g})",
            self,
            slope=(0.0, max(1.0, self.alpha)),
            curvature=math.inf if kinked else 1.0,
            slope_variation=self.alpha + abs(1 - self.alpha),
            bounded=False,
            breakpoints=(Breakpoint(0.0, 0, 1 - self.alpha) if kinked else Breakpoint(0.0, 1, -1.0),),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"alpha={self.alpha:g}"


class CELU(Activation):
    """φ(z) = z for z > 0, else alpha · (exp(z/alpha) - 1) (Barron 2017, arXiv 1704.07483).

    φ(z) = alpha · elu(z/alpha): one function at every scale, with a curvature jump at 0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_positive("alpha", alpha)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        value: Tensor = torch.ops.aten.elu(z, self.alpha, 1.0, 1 / self.alpha)
        return value  # F.celu to the bit, whose gradient has 1/alpha rounded to float32

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1]; φ'' rises to 1/alpha and falls to 0 at 0."""
        return smooth_facts(
            f"celu(alpha={self.alpha:g})",
            self,
            slope=(0.0, 1.0),
            curvature=1 / self.alpha,
            slope_variation=1.0,
            bounded=False,
            breakpoints=(Breakpoint(0.0, 1, -1 / self.alpha),),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"alpha={self.alpha:g}"


class SELU(Activation):
    """φ(z) = scale · elu(z; alpha) with mean 0 and variance 1 as fixed point (Klambauer et al. 2017).

    arXiv 1706.02515. alpha > 1, so there is a kink at 0: the slope falls from scale · alpha to scale.
    """

    ALPHA = 1.6732632423543772848170429916717
    SCALE = 1.0507009873554804934193349852946

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.selu(z)

    def facts(self) -> ActivationFacts:
        """Slope up to scale · alpha, left of the kink."""
        steepest = self.SCALE * self.ALPHA
        return smooth_facts(
            "selu",
            self,
            slope=(0.0, steepest),
            curvature=math.inf,
            slope_variation=2 * steepest - self.SCALE,
            bounded=False,
            breakpoints=(Breakpoint(0.0, 0, self.SCALE - steepest),),
        )
