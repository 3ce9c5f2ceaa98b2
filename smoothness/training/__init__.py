"""Training recipes."""

from smoothness.training.standard import Recipe, TrainingDivergedError, TrainingResult, accuracy, train

__all__ = ["Recipe", "TrainingDivergedError", "TrainingResult", "accuracy", "train"]
