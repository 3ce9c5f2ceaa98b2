"""The report's figures: each takes a frame and gives a matplotlib figure."""

from smoothness.report.figures.curves import draw_activations
from smoothness.report.figures.jacobians import draw_jacobians
from smoothness.report.figures.kinks import draw_kinks
from smoothness.report.figures.robustness import draw_robust_accuracy, draw_tradeoff

__all__ = ["draw_activations", "draw_jacobians", "draw_kinks", "draw_robust_accuracy", "draw_tradeoff"]
