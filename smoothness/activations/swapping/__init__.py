"""Exchange the activations of any model."""

from smoothness.activations.swapping.report import SwapReport
from smoothness.activations.swapping.swap import swap_activations

__all__ = ["SwapReport", "swap_activations"]
