"""Analyzers: each answers one question about a model at its inputs."""

from smoothness.analyzers.attack_success import AttackSuccess
from smoothness.analyzers.gradient_kinks import GradientKinks, KinkMeasurements
from smoothness.analyzers.jacobian import JacobianNorm
from smoothness.analyzers.kinks import Kinks, kinks_on_segments
from smoothness.analyzers.masking_audit import MaskingAudit, MaskingVerdicts
from smoothness.analyzers.minimal_perturbation import MinimalPerturbation
from smoothness.analyzers.predictions import CleanPredictions, PredictionMeasurements
from smoothness.analyzers.robust_accuracy_curve import RobustAccuracyCurve
from smoothness.analyzers.transfer_matrix import TransferMatrix, TransferMeasurements

__all__ = [
    "AttackSuccess",
    "CleanPredictions",
    "GradientKinks",
    "JacobianNorm",
    "KinkMeasurements",
    "Kinks",
    "MaskingAudit",
    "MaskingVerdicts",
    "MinimalPerturbation",
    "PredictionMeasurements",
    "RobustAccuracyCurve",
    "TransferMatrix",
    "TransferMeasurements",
    "kinks_on_segments",
]
