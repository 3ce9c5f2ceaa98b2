"""Analyzers: each answers one question about a model at its inputs."""

from smoothness.analyzers.attack_success import AttackSuccess
from smoothness.analyzers.attribution_stability import AttributionStability, StabilityMeasurements
from smoothness.analyzers.certified_radius import CertifiedRadius
from smoothness.analyzers.clever import Clever
from smoothness.analyzers.curvature_bound import CurvatureUpperBound
from smoothness.analyzers.exact_distance import ExactDistance
from smoothness.analyzers.gradient_kinks import GradientKinks, KinkMeasurements
from smoothness.analyzers.gradient_variation import GradientVariation, VariationMeasurements
from smoothness.analyzers.input_curvature import CurvatureMeasurements, InputCurvature
from smoothness.analyzers.jacobian import JacobianNorm
from smoothness.analyzers.kink_bisection import kinks_by_bisection
from smoothness.analyzers.kinks import Kinks, kinks_on_segments
from smoothness.analyzers.linear_regions import LinearRegions, RegionMeasurements, Regions, linear_regions
from smoothness.analyzers.lipschitz_global import GlobalLipschitz
from smoothness.analyzers.lipschitz_local import LocalLipschitz
from smoothness.analyzers.lipschitz_lower import LipschitzLowerBound
from smoothness.analyzers.lipschitz_upper import LipschitzUpperBound
from smoothness.analyzers.local_linearity import LocalLinearityError
from smoothness.analyzers.masking_audit import MaskingAudit, MaskingVerdicts
from smoothness.analyzers.minimal_perturbation import MinimalPerturbation
from smoothness.analyzers.nearest_break import BreakDistances, NearestBreak
from smoothness.analyzers.oscillation import LocalOscillation
from smoothness.analyzers.paths import Segments, attack_path, segments_along, segments_between
from smoothness.analyzers.plane_maps import PlaneMap, plane_map
from smoothness.analyzers.plateau_fraction import PlateauFraction, PlateauMeasurements
from smoothness.analyzers.predictions import CleanPredictions, PredictionMeasurements
from smoothness.analyzers.robust_accuracy_curve import RobustAccuracyCurve
from smoothness.analyzers.segment_variation import SegmentVariation, variation_on_segments
from smoothness.analyzers.smoothness_probe import ProbeMeasurements, SmoothnessProbe
from smoothness.analyzers.transfer_matrix import TransferMatrix, TransferMeasurements

__all__ = [
    "AttackSuccess",
    "AttributionStability",
    "BreakDistances",
    "CertifiedRadius",
    "CleanPredictions",
    "Clever",
    "CurvatureMeasurements",
    "CurvatureUpperBound",
    "ExactDistance",
    "GlobalLipschitz",
    "GradientKinks",
    "GradientVariation",
    "InputCurvature",
    "JacobianNorm",
    "KinkMeasurements",
    "Kinks",
    "LinearRegions",
    "LipschitzLowerBound",
    "LipschitzUpperBound",
    "LocalLinearityError",
    "LocalLipschitz",
    "LocalOscillation",
    "MaskingAudit",
    "MaskingVerdicts",
    "MinimalPerturbation",
    "NearestBreak",
    "PlaneMap",
    "PlateauFraction",
    "PlateauMeasurements",
    "PredictionMeasurements",
    "ProbeMeasurements",
    "RegionMeasurements",
    "Regions",
    "RobustAccuracyCurve",
    "SegmentVariation",
    "Segments",
    "SmoothnessProbe",
    "StabilityMeasurements",
    "TransferMatrix",
    "TransferMeasurements",
    "VariationMeasurements",
    "attack_path",
    "kinks_by_bisection",
    "kinks_on_segments",
    "linear_regions",
    "plane_map",
    "segments_along",
    "segments_between",
    "variation_on_segments",
]
