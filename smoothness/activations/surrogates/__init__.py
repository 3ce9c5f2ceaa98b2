"""Surrogate gradients: another derivative on the way back."""

from smoothness.activations.surrogates.surrogate import KERNELS, SHAPES, surrogate_gradient, surrogate_slope

__all__ = ["KERNELS", "SHAPES", "surrogate_gradient", "surrogate_slope"]
