"""Expectations of a sinusoid on a line under Gaussian noise: sin, snake."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts, sinusoid_facts


@dataclass(frozen=True)
class GaussianSinusoid:
    """z -> c0 + c1 z + amplitude · sin(frequency · z + phase), line = (c0, c1).

    Noise leaves lines as they are and damps a wave: E sin(f (z + σu) + p) = exp(-f²σ²/2) sin(f z + p), the
    characteristic function of the normal distribution.
    """

    amplitude: float
    frequency: float
    phase: float = 0.0
    line: tuple[float, float] = (0.0, 0.0)

    @staticmethod
    def sin(sigma: float, frequency: float) -> GaussianSinusoid:
        """Mollified sin: one wave, damped."""
        return GaussianSinusoid(math.exp(-((frequency * sigma) ** 2) / 2), frequency)

    @staticmethod
    def snake(sigma: float, frequency: float) -> GaussianSinusoid:
        """Z + sin²(frequency · z) / frequency = z + (1 - cos(2 frequency · z)) / (2 frequency), mollified."""
        half = 0.5 / frequency
        damping = math.exp(-2 * (frequency * sigma) ** 2)
        return GaussianSinusoid(-half * damping, 2 * frequency, math.pi / 2, (half, 1.0))

    @cached_property
    def derivative(self) -> GaussianSinusoid:
        """The expectation of the derivative."""
        f = self.frequency
        return GaussianSinusoid(self.amplitude * f, f, self.phase + math.pi / 2, (self.line[1], 0.0))

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate elementwise."""
        wave = self.amplitude * torch.sin(self.frequency * z + self.phase) + self.line[0]
        return wave + self.line[1] * z if self.line[1] else wave

    def facts(self, name: str) -> ActivationFacts:
        """All in closed form, with turning points within one period."""
        return sinusoid_facts(name, self.amplitude, self.frequency, phase=self.phase, line=self.line)
