"""Waves and bumps: sin, snake, gaussian, tent."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, sinusoid_facts, smooth_facts


class Sin(Activation):
    """φ(z) = sin(frequency · z) (Sitzmann et al. 2020, arXiv 2006.09661).

    >>> Sin(frequency=2.0)(torch.tensor([0.0, math.pi / 4]))
    tensor([0., 1.])
    """

    def __init__(self, frequency: float = 1.0) -> None:
        super().__init__()
        self.frequency = check_positive("frequency", frequency)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.sin(z if self.frequency == 1 else self.frequency * z)

    def facts(self) -> ActivationFacts:
        """Slope up to ±frequency, curvature up to frequency²; the total bending is infinite."""
        return sinusoid_facts(f"sin({self.extra_repr()})", 1.0, self.frequency)

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"frequency={self.frequency:g}"


class Snake(Activation):
    """φ(z) = z + sin²(frequency · z) / frequency (Ziyin et al. 2020, arXiv 2006.08195): monotone waves on a line.

    The frequency is fixed here; it may also be trained.

    >>> Snake()(torch.tensor([0.0, math.pi / 2]))
    tensor([0.0000, 2.5708])
    """

    def __init__(self, frequency: float = 1.0) -> None:
        super().__init__()
        self.frequency = check_positive("frequency", frequency)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return z + torch.sin(z if self.frequency == 1 else self.frequency * z).square() / self.frequency

    def facts(self) -> ActivationFacts:
        """φ' = 1 + sin(2 · frequency · z): slope from 0 to 2, curvature up to 2 · frequency."""
        a = self.frequency
        name = f"snake({self.extra_repr()})"
        return sinusoid_facts(name, -0.5 / a, 2 * a, phase=math.pi / 2, line=(0.5 / a, 1.0))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"frequency={self.frequency:g}"


class Gaussian(Activation):
    """φ(z) = exp(-z²): bounded, smooth and not monotone.

    >>> Gaussian()(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.3679])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.exp(-z * z)

    def facts(self) -> ActivationFacts:
        """φ'' = (4z² - 2) exp(-z²) vanishes at ±√½, where φ' = ∓√(2/e), and is largest at 0: 2."""
        top = math.sqrt(2 / math.e)
        return smooth_facts(
            "gaussian",
            self,
            slope=(-top, top),
            curvature=2.0,
            slope_variation=4 * top,
            bounded=True,
            value_turns=(0.0,),
            slope_turns=(-math.sqrt(0.5), math.sqrt(0.5)),
        )


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
