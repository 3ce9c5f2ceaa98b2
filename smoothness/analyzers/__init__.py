"""Analyzers: each answers one question about a model at its inputs."""

from smoothness.analyzers.attack_success import AttackSuccess
from smoothness.analyzers.gradient_kinks import GradientKinks, KinkMeasurements
from smoothness.analyzers.jacobian import JacobianNorm
from smoothness.analyzers.kinks import Kinks, kinks_on_segments
from smoothness.analyzers.predictions import CleanPredictions, PredictionMeasurements

__all__ = [
    "AttackSuccess",
    "CleanPredictions",
    "GradientKinks",
    "JacobianNorm",
    "KinkMeasurements",
    "Kinks",
    "PredictionMeasurements",
    "kinks_on_segments",
]
