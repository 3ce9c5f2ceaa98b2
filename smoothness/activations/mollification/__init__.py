"""The universal dial: activations convolved with a Gaussian."""

from smoothness.activations.mollification.mollify import Mollified, mollify

__all__ = ["Mollified", "mollify"]
