"""The report's figures: each takes a frame and gives a matplotlib figure."""

from smoothness.report.figures.certified import certified_curves, draw_certified
from smoothness.report.figures.curves import draw_activations
from smoothness.report.figures.jacobians import draw_jacobians
from smoothness.report.figures.kinks import draw_kinks
from smoothness.report.figures.lipschitz import draw_dial, draw_lipschitz, lipschitz_sides
from smoothness.report.figures.robustness import draw_robust_accuracy, draw_tradeoff

__all__ = [
    "certified_curves",
    "draw_activations",
    "draw_certified",
    "draw_dial",
    "draw_jacobians",
    "draw_kinks",
    "draw_lipschitz",
    "draw_robust_accuracy",
    "draw_tradeoff",
    "lipschitz_sides",
]
