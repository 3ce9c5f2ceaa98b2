"""The base of our own activations: an nn.Module with facts."""

from __future__ import annotations

from torch import nn

from smoothness.activations.facts import ActivationFacts


class Activation(nn.Module):
    """An elementwise activation that knows its facts.

    Backward is the true almost-everywhere derivative: zero for steps. To train through a step,
    open `smoothness.surrogate_gradient`.
    """

    def facts(self) -> ActivationFacts:
        """Smoothness, slopes, curvature and moments of this activation with its parameters."""
        raise TypeError(f"{type(self).__name__} must define facts()")
