"""Activations without kinks: elu (for alpha = 1), gelu, silu, softplus, tanh, sigmoid."""

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


class GELU(Activation):
    """φ(z) = z · cdf(z) of the standard normal (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    _TURN = -0.7517915246935645  # cdf(z) + z pdf(z) = 0

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.gelu(z)

    def facts(self) -> ActivationFacts:
        """φ'' = pdf(z)(2 - z²) vanishes at ±√2, where φ' = 1/2 ± (erf(1)/2 + √2 pdf(√2)) is extreme."""
        swing = math.erf(1) / 2 + math.exp(-1) / math.sqrt(math.pi)
        return smooth_facts(
            "gelu",
            self,
            slope=(0.5 - swing, 0.5 + swing),
            curvature=2 / math.sqrt(2 * math.pi),
            slope_variation=4 * swing - 1,
            bounded=False,
            value_turns=(self._TURN,),
            slope_turns=(-math.sqrt(2), math.sqrt(2)),
        )


class SiLU(Activation):
    """φ(z) = z · sigmoid(z), also called swish (Elfwing et al. 2018; Ramachandran et al. 2017)."""

    # φ'' = s(1 - s)(2 - z tanh(z/2)) vanishes where z tanh(z/2) = 2.
    _INFLECTION = 2.3993572805154095
    _TURN = -1.2784645427610738  # 1 + z (1 - sigmoid(z)) = 0

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.silu(z)

    def facts(self) -> ActivationFacts:
        """φ' is extreme at the inflection points; φ'' is largest at 0: 1/2."""
        z = self._INFLECTION
        s = 1 / (1 + math.exp(-z))
        swing = s * (1 + z * (1 - s)) - 0.5
        return smooth_facts(
            "silu",
            self,
            slope=(0.5 - swing, 0.5 + swing),
            curvature=0.5,
            slope_variation=4 * swing - 1,
            bounded=False,
            value_turns=(self._TURN,),
            slope_turns=(-z, z),
        )


class Softplus(Activation):
    """φ(z) = log(1 + exp(beta z)) / beta, through logaddexp.

    torch's own Softplus switches to the identity at a threshold and has a small jump there; this one
    is smooth.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = check_positive("beta", beta)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.logaddexp(self.beta * z, z.new_zeros(())) / self.beta

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1), curvature at most beta / 4, total bending 1 for every beta."""
        return smooth_facts(
            f"softplus(beta={self.beta:g})",
            self,
            slope=(0.0, 1.0),
            curvature=self.beta / 4,
            slope_variation=1.0,
            bounded=False,
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"beta={self.beta:g}"


class Tanh(Activation):
    """φ(z) = tanh(z)."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.tanh(z)

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1]; curvature at most 4 / (3√3), reached at tanh² = 1/3."""
        return smooth_facts(
            "tanh",
            self,
            slope=(0.0, 1.0),
            curvature=4 / (3 * math.sqrt(3)),
            slope_variation=2.0,
            bounded=True,
            slope_turns=(0.0,),
        )


class Sigmoid(Activation):
    """φ(z) = 1 / (1 + exp(-z))."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.sigmoid(z)

    def facts(self) -> ActivationFacts:
        """Slope in (0, 1/4]; curvature at most 1 / (6√3)."""
        return smooth_facts(
            "sigmoid",
            self,
            slope=(0.0, 0.25),
            curvature=1 / (6 * math.sqrt(3)),
            slope_variation=0.5,
            bounded=True,
            slope_turns=(0.0,),
        )
