"""relu rounded off: softplus, centred_softplus, squareplus, smooth_relu, logsigmoid."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, Breakpoint, smooth_facts

# exp(-40) is nothing beside 1 in float64: from there softplus(z) = z to rounding.
_EXACT = 40.0


def _softplus_slope(beta: float, z: Tensor) -> Tensor:
    return torch.sigmoid(beta * z)


class Softplus(Activation):
    """φ(z) = log(1 + exp(beta z)) / beta, the identity where beta z > threshold.

    The default threshold is beyond rounding: φ is smooth in float64. torch's own Softplus has 20, which leaves
    a value jump of -2.1e-9 and as large a kink: the facts then say so.
    """

    def __init__(self, beta: float = 1.0, threshold: float = _EXACT) -> None:
        super().__init__()
        self.beta, self.threshold = check_positive("beta", beta), check_positive("threshold", threshold)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.softplus(z, self.beta, min(self.threshold, _EXACT))

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1), curvature at most beta / 4, total bending 1 for every beta; a jump at a low threshold."""
        gap = 0.0 if self.threshold >= _EXACT else math.log1p(math.exp(-self.threshold)) / self.beta
        jump = (Breakpoint(self.threshold / self.beta, -1, -gap),) if gap else ()
        return smooth_facts(
            f"softplus({self.extra_repr()})",
            self,
            slope=(0.0, 1.0),
            curvature=math.inf if gap else self.beta / 4,
            slope_variation=1.0,
            bounded=False,
            breakpoints=jump,
            width=4 / self.beta,
            derivative=None if gap else partial(_softplus_slope, self.beta),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"beta={self.beta:g}" + ("" if self.threshold >= _EXACT else f", threshold={self.threshold:g}")


class CentredSoftplus(Activation):
    """φ(z) = (log(1 + exp(beta z)) - log 2) / beta: softplus through the origin."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = check_positive("beta", beta)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.softplus(z, self.beta, _EXACT) - math.log(2) / self.beta

    def facts(self) -> ActivationFacts:
        """As softplus, but for values and their moments."""
        return smooth_facts(
            f"centred_softplus({self.extra_repr()})",
            self,
            slope=(0.0, 1.0),
            curvature=self.beta / 4,
            slope_variation=1.0,
            bounded=False,
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"beta={self.beta:g}"


class Squareplus(Activation):
    """φ(z) = (z + √(z² + b)) / 2 (Barron 2021, arXiv 2112.11687): softplus with tails b/(4|z|).

    b -> 0 is relu; one function at every scale. b = 4 log² 2 takes the value of softplus at 0.
    """

    def __init__(self, b: float = 4.0) -> None:
        super().__init__()
        self.b = check_positive("b", b)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise; left of 0 by a formula in which nothing cancels."""
        root = z.new_tensor(math.sqrt(self.b))
        right, left = z.clamp_min(0), z.clamp_max(0)
        return torch.where(
            z > 0, right / 2 + torch.hypot(right, root) / 2, self.b / 2 / (torch.hypot(left, root) - left)
        )

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1); φ'' = b / (2 (z² + b)^1.5), largest at 0: 1/(2√b)."""
        return smooth_facts(
            f"squareplus({self.extra_repr()})",
            self,
            slope=(0.0, 1.0),
            curvature=0.5 / math.sqrt(self.b),
            slope_variation=1.0,
            bounded=False,
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"b={self.b:g}"


class SmoothReLU(Activation):
    """φ(z) = z - log(1 + alpha z)/alpha for z > 0, else 0 (Xie et al. 2020, arXiv 2006.14536).

    The slope alpha z / (1 + alpha z) is continuous, the curvature jumps by alpha at 0. alpha -> infinity is relu;
    one function at every scale.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_positive("alpha", alpha)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        right = torch.relu(z)
        return right - torch.log1p(self.alpha * right) / self.alpha

    def facts(self) -> ActivationFacts:
        """Slope in [0, 1); φ'' = alpha / (1 + alpha z)² right of 0."""
        return smooth_facts(
            f"smooth_relu({self.extra_repr()})",
            self,
            slope=(0.0, 1.0),
            curvature=self.alpha,
            slope_variation=1.0,
            bounded=False,
            breakpoints=(Breakpoint(0.0, 1, self.alpha),),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"alpha={self.alpha:g}"


class LogSigmoid(Activation):
    """φ(z) = log(sigmoid(z)) = -softplus(-z)."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.logsigmoid(z)

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1), curvature at most 1/4."""
        return smooth_facts("logsigmoid", self, slope=(0.0, 1.0), curvature=0.25, slope_variation=1.0, bounded=False)
