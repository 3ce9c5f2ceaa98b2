"""Analyzers: each answers one question about a model at its inputs."""

from smoothness.analyzers.attack_success import AttackSuccess
from smoothness.analyzers.certified_radius import CertifiedRadius
from smoothness.analyzers.clever import Clever
from smoothness.analyzers.gradient_kinks import GradientKinks, KinkMeasurements
from smoothness.analyzers.jacobian import JacobianNorm
from smoothness.analyzers.kinks import Kinks, kinks_on_segments
from smoothness.analyzers.lipschitz_global import GlobalLipschitz
from smoothness.analyzers.lipschitz_local import LocalLipschitz
from smoothness.analyzers.lipschitz_lower import LipschitzLowerBound
from smoothness.analyzers.lipschitz_upper import LipschitzUpperBound
from smoothness.analyzers.oscillation import LocalOscillation
from smoothness.analyzers.predictions import CleanPredictions, PredictionMeasurements

__all__ = [
    "AttackSuccess",
    "CertifiedRadius",
    "CleanPredictions",
    "Clever",
    "GlobalLipschitz",
    "GradientKinks",
    "JacobianNorm",
    "KinkMeasurements",
    "Kinks",
    "LipschitzLowerBound",
    "LipschitzUpperBound",
    "LocalLipschitz",
    "LocalOscillation",
    "PredictionMeasurements",
    "kinks_on_segments",
]
