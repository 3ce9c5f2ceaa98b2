"""The base of our own activations: an nn.Module with facts."""

from __future__ import annotations

from torch import nn

from smoothness.activations.facts import ActivationFacts


class Activation(nn.Module):
    """An activation that knows its facts.

    Backward is the true almost-everywhere derivative: zero for steps. To train through a step,
    open `smoothness.surrogate_gradient`.

    Attributes:
        elementwise: whether each output depends on one input alone; else it is an activation of several features.
    """

    elementwise: bool = True

    @property
    def inputs_per_output(self) -> int:
        """Features that go in for each that comes out: 1 unless groups are pooled."""
        return 1

    def facts(self) -> ActivationFacts:
        """Smoothness, slopes, curvature and moments of this activation with its parameters."""
        raise TypeError(f"{type(self).__name__} must define facts()")
