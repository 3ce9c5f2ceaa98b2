"""Saturating and smooth: sigmoid, tanh, arctan, erf, softsign."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, Breakpoint, smooth_facts


def _sigmoid_slope(z: Tensor) -> Tensor:
    slope: Tensor = torch.ops.aten.sigmoid_backward(torch.ones_like(z), torch.sigmoid(z))
    return slope


def _tanh_slope(steepness: float, z: Tensor) -> Tensor:
    slope: Tensor = steepness * torch.ops.aten.tanh_backward(torch.ones_like(z), torch.tanh(steepness * z))
    return slope


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
            derivative=_sigmoid_slope,
        )


class Tanh(Activation):
    """φ(z) = tanh(steepness · z); steepness -> infinity is sign: one function at every scale of its input."""

    def __init__(self, steepness: float = 1.0) -> None:
        super().__init__()
        self.steepness = check_positive("steepness", steepness)

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.tanh(z if self.steepness == 1 else self.steepness * z)

    def facts(self) -> ActivationFacts:
        """Slope in (0, steepness]; curvature at most 4 / (3√3) · steepness², reached at tanh² = 1/3."""
        k = self.steepness
        return smooth_facts(
            "tanh" if k == 1 else f"tanh({self.extra_repr()})",
            self,
            slope=(0.0, k),
            curvature=4 / (3 * math.sqrt(3)) * k**2,
            slope_variation=2.0 * k,
            bounded=True,
            slope_turns=(0.0,),
            derivative=partial(_tanh_slope, k),
        )

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return "" if self.steepness == 1 else f"steepness={self.steepness:g}"


class Arctan(Activation):
    """φ(z) = arctan(z), between ±π/2; its tails approach these like 1/|z|."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.atan(z)

    def facts(self) -> ActivationFacts:
        """φ' = 1/(1 + z²); curvature at most 3√3/8, at ±1/√3."""
        return smooth_facts(
            "arctan",
            self,
            slope=(0.0, 1.0),
            curvature=3 * math.sqrt(3) / 8,
            slope_variation=2.0,
            bounded=True,
            slope_turns=(0.0,),
        )


class Erf(Activation):
    """φ(z) = 2/√π · ∫ exp(-t²) dt from 0 to z: the Gaussian's own sigmoid."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return torch.erf(z)

    def facts(self) -> ActivationFacts:
        """φ' = 2/√π · exp(-z²); curvature at most √(8/(π e)), at ±√½."""
        top = 2 / math.sqrt(math.pi)
        return smooth_facts(
            "erf",
            self,
            slope=(0.0, top),
            curvature=math.sqrt(8 / (math.pi * math.e)),
            slope_variation=2 * top,
            bounded=True,
            slope_turns=(0.0,),
        )


class Softsign(Activation):
    """φ(z) = z / (1 + |z|) (Glorot and Bengio 2010): its curvature jumps at 0."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.softsign(z)

    def facts(self) -> ActivationFacts:
        """φ' = 1/(1 + |z|)²; φ'' falls from 2 to -2 at 0."""
        return smooth_facts(
            "softsign",
            self,
            slope=(0.0, 1.0),
            curvature=2.0,
            slope_variation=2.0,
            bounded=True,
            breakpoints=(Breakpoint(0.0, 1, -4.0),),
        )
