"""Training recipes."""

from smoothness.training.adversarial import Adversarial, CatastrophicOverfittingWarning
from smoothness.training.standard import Recipe, TrainingDivergedError, TrainingResult, accuracy, train

__all__ = [
    "Adversarial",
    "CatastrophicOverfittingWarning",
    "Recipe",
    "TrainingDivergedError",
    "TrainingResult",
    "accuracy",
    "train",
]
