"""z times a soft gate: gelu, gelu_tanh, silu, swish, mish, psilu, pssilu."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.computed import computed_facts, zero_crossing
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, smooth_facts


def _gelu_slope(z: Tensor) -> Tensor:
    slope: Tensor = torch.ops.aten.gelu_backward(torch.ones_like(z), z)
    return slope


def _silu_slope(z: Tensor) -> Tensor:
    slope: Tensor = torch.ops.aten.silu_backward(torch.ones_like(z), z)
    return slope


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
            derivative=_gelu_slope,
        )


class GELUTanh(Activation):
    """gelu with tanh for the distribution function: z/2 · (1 + tanh(√(2/π) (z + 0.044715 z³))).

    Hendrycks and Gimpel 2016, arXiv 1606.08415; torch's GELU(approximate="tanh").
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        # Far out torch's backward is NaN; there φ is z or -0 to the bit (and NaN at -inf, as gelu and silu).
        far = z * (z > 0).to(z.dtype)
        return torch.where(z.abs() > 100, far, F.gelu(z.clamp(-100, 100), approximate="tanh"))

    def facts(self) -> ActivationFacts:
        """Turning points, and with them slopes and curvature, to rounding."""
        return _gelu_tanh_facts()


@lru_cache(maxsize=1)
def _gelu_tanh_facts() -> ActivationFacts:
    def formula(z: Tensor) -> Tensor:
        return z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    return computed_facts("gelu_tanh", GELUTanh(), formula, limits=(0.0, 1.0), width=1.0, bounded=False)


class SiLU(Activation):
    """φ(z) = z · sigmoid(z), also called swish (Elfwing et al. 2018; Ramachandran et al. 2017)."""

    # φ'' = s(1 - s)(2 - z tanh(z/2)) vanishes where z tanh(z/2) = 2.
    INFLECTION = 2.3993572805154095
    TURN = -1.2784645427610738  # 1 + z (1 - sigmoid(z)) = 0

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.silu(z)

    def facts(self) -> ActivationFacts:
        """φ' is extreme at the inflection points; φ'' is largest at 0: 1/2."""
        swing = self.swing()
        return smooth_facts(
            "silu",
            self,
            slope=(0.5 - swing, 0.5 + swing),
            curvature=0.5,
            slope_variation=4 * swing - 1,
            bounded=False,
            value_turns=(self.TURN,),
            slope_turns=(-self.INFLECTION, self.INFLECTION),
            derivative=_silu_slope,
        )

    @staticmethod
    def slope(z: float) -> float:
        """φ'(z) = s (1 + z (1 - s)), s = sigmoid(z)."""
        tail = math.exp(-abs(z)) / (1 + math.exp(-abs(z)))
        s, rest = (1 - tail, tail) if z > 0 else (tail, 1 - tail)
        return s * (1 + z * rest)

    @classmethod
    def swing(cls) -> float:
        """By how much φ' exceeds 1/2 at most."""
        return cls.slope(cls.INFLECTION) - 0.5


class Swish(Activation):
    """φ(z) = z · sigmoid(beta z) = silu(beta z) / beta (Ramachandran et al. 2017, arXiv 1710.05941).

    beta -> infinity is relu, beta -> 0 the line z/2; one function at every scale. beta is fixed, as a dial must be;
    psilu is the same with a learnable one.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = check_positive("beta", beta)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.silu(self.beta * z) / self.beta

    def facts(self) -> ActivationFacts:
        """Slopes of silu; curvature beta/2, at 0."""
        return _gated_facts(f"swish(beta={self.beta:g})", self, self.beta, 0.0)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"beta={self.beta:g}"


class Mish(Activation):
    """φ(z) = z · tanh(softplus(z)) (Misra 2019, arXiv 1908.08681)."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.mish(z)

    def facts(self) -> ActivationFacts:
        """Turning points, and with them slopes and curvature, to rounding."""
        return _mish_facts()


@lru_cache(maxsize=1)
def _mish_facts() -> ActivationFacts:
    def formula(z: Tensor) -> Tensor:
        return z * torch.tanh(torch.logaddexp(z, torch.zeros_like(z)))

    return computed_facts("mish", Mish(), formula, limits=(0.0, 1.0), width=1.0, bounded=False)


class PSiLU(Activation):
    """φ(z) = z · sigmoid(alpha z) with a learnable alpha (Dai et al. 2021, arXiv 2110.05626).

    The facts are those of the present alpha.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(check_positive("alpha", alpha)))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return z * torch.sigmoid(self.alpha * z)

    def facts(self) -> ActivationFacts:
        """Slopes of silu; curvature |alpha|/2, at 0."""
        return _gated_facts(f"psilu({self.extra_repr()})", self, self.alpha.item(), 0.0)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"alpha={self.alpha.item():g}"


class PSSiLU(Activation):
    """φ(z) = z · (sigmoid(alpha z) - beta) / (1 - beta), both learnable (Dai et al. 2021, arXiv 2110.05626).

    beta, from 0 to below 1, turns the left side up: outputs for negative inputs are positive where
    sigmoid(alpha z) < beta. The facts are those of the present parameters.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 0.1) -> None:
        super().__init__()
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta < 1:
            raise ValueError(f"beta must lie in [0, 1), got {beta!r}")
        self.alpha = nn.Parameter(torch.tensor(check_positive("alpha", alpha)))
        self.beta = nn.Parameter(torch.tensor(float(beta)))

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        beta = self.beta.to(z.dtype)
        return z * ((torch.sigmoid(self.alpha * z) - beta) / (1 - beta))

    def facts(self) -> ActivationFacts:
        """Slopes are those of silu, less beta, over 1 - beta.

        Raises:
            ValueError: training took beta to 1 or beyond, where φ is not defined.
        """
        return _gated_facts(f"pssilu({self.extra_repr()})", self, self.alpha.item(), self.beta.item())

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"alpha={self.alpha.item():g}, beta={self.beta.item():g}"


def _gated_facts(name: str, module: Activation, alpha: float, beta: float) -> ActivationFacts:
    """Facts of z (sigmoid(alpha z) - beta) / (1 - beta): those of silu at another scale, on a line."""
    if not beta < 1:
        raise ValueError(f"beta must lie below 1, got {beta!r}; it may have been trained beyond")
    share = 1 / (1 - beta)
    if alpha == 0:
        return piecewise_affine_facts(name, (), (((0.5 - beta) * share, 0.0),))
    silu = SiLU()
    swing = silu.swing()
    low, high = (0.5 - swing - beta) * share, (0.5 + swing - beta) * share
    # silu' falls from 0 to its least value at -2.4, rises to the largest at 2.4 and falls to 1.
    brackets = ((-800.0, -SiLU.INFLECTION), (-SiLU.INFLECTION, SiLU.INFLECTION), (SiLU.INFLECTION, 800.0))
    found = [zero_crossing(lambda z: silu.slope(z) - beta, *bracket) for bracket in brackets]
    turns = sorted(z / alpha for z in found if z is not None)
    return smooth_facts(
        name,
        module,
        slope=(low, high),
        curvature=abs(alpha) / 2 * share,
        slope_variation=(4 * swing - 1) * share,
        bounded=False,
        value_turns=tuple(turns),
        slope_turns=tuple(sorted((-SiLU.INFLECTION / alpha, SiLU.INFLECTION / alpha))),
    )
