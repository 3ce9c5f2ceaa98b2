"""What does the smoothness of an activation function do to a network's robustness?

Names are imported on first use, so that `import smoothness` stays light.

>>> import smoothness as sm
>>> sm.activation_facts("relu").smoothness_class
0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smoothness._version import __version__

if TYPE_CHECKING:
    from smoothness.activations import (
        Activation,
        ActivationFacts,
        Breakpoint,
        Dial,
        SwapReport,
        activation,
        activation_facts,
        dial,
        find_dial,
        list_activations,
        list_dials,
        mollify,
        surrogate_gradient,
        swap_activations,
    )
    from smoothness.analyzers import (
        AttackSuccess,
        AttributionStability,
        CleanPredictions,
        CurvatureUpperBound,
        GradientKinks,
        GradientVariation,
        InputCurvature,
        JacobianNorm,
        Kinks,
        LinearRegions,
        LocalLinearityError,
        NearestBreak,
        PlateauFraction,
        SmoothnessProbe,
        kinks_by_bisection,
        kinks_on_segments,
        linear_regions,
        plane_map,
        variation_on_segments,
    )
    from smoothness.attacks import FGSM, PGD, AttackResult, Noise
    from smoothness.data import Dataset, Split, list_datasets, load_dataset
    from smoothness.measurement import Bracket, Measurement
    from smoothness.models import build_model, build_twins
    from smoothness.panel import Panel, analyze
    from smoothness.report import write_report
    from smoothness.study import Comparison, Run, compare, list_studies, load_frame, load_run, run_study
    from smoothness.threat import ThreatModel
    from smoothness.training import Recipe, TrainingResult, train
    from smoothness.wrapping import wrap

_HOMES = {
    "Activation": "activations",
    "ActivationFacts": "activations",
    "AttackResult": "attacks",
    "AttackSuccess": "analyzers",
    "AttributionStability": "analyzers",
    "Bracket": "measurement",
    "Breakpoint": "activations",
    "CleanPredictions": "analyzers",
    "Comparison": "study",
    "CurvatureUpperBound": "analyzers",
    "Dataset": "data",
    "Dial": "activations",
    "FGSM": "attacks",
    "GradientKinks": "analyzers",
    "GradientVariation": "analyzers",
    "InputCurvature": "analyzers",
    "JacobianNorm": "analyzers",
    "Kinks": "analyzers",
    "LinearRegions": "analyzers",
    "LocalLinearityError": "analyzers",
    "Measurement": "measurement",
    "NearestBreak": "analyzers",
    "Noise": "attacks",
    "PGD": "attacks",
    "Panel": "panel",
    "PlateauFraction": "analyzers",
    "Recipe": "training",
    "Run": "study",
    "SmoothnessProbe": "analyzers",
    "Split": "data",
    "SwapReport": "activations",
    "ThreatModel": "threat",
    "TrainingResult": "training",
    "activation": "activations",
    "activation_facts": "activations",
    "analyze": "panel",
    "build_model": "models",
    "build_twins": "models",
    "compare": "study",
    "dial": "activations",
    "find_dial": "activations",
    "kinks_by_bisection": "analyzers",
    "kinks_on_segments": "analyzers",
    "linear_regions": "analyzers",
    "list_activations": "activations",
    "list_datasets": "data",
    "list_dials": "activations",
    "list_studies": "study",
    "load_dataset": "data",
    "load_frame": "study",
    "load_run": "study",
    "mollify": "activations",
    "plane_map": "analyzers",
    "run_study": "study",
    "surrogate_gradient": "activations",
    "swap_activations": "activations",
    "train": "training",
    "variation_on_segments": "analyzers",
    "wrap": "wrapping",
    "write_report": "report",
}

__all__ = [
    "FGSM",
    "PGD",
    "Activation",
    "ActivationFacts",
    "AttackResult",
    "AttackSuccess",
    "AttributionStability",
    "Bracket",
    "Breakpoint",
    "CleanPredictions",
    "Comparison",
    "CurvatureUpperBound",
    "Dataset",
    "Dial",
    "GradientKinks",
    "GradientVariation",
    "InputCurvature",
    "JacobianNorm",
    "Kinks",
    "LinearRegions",
    "LocalLinearityError",
    "Measurement",
    "NearestBreak",
    "Noise",
    "Panel",
    "PlateauFraction",
    "Recipe",
    "Run",
    "SmoothnessProbe",
    "Split",
    "SwapReport",
    "ThreatModel",
    "TrainingResult",
    "__version__",
    "activation",
    "activation_facts",
    "analyze",
    "build_model",
    "build_twins",
    "compare",
    "dial",
    "find_dial",
    "kinks_by_bisection",
    "kinks_on_segments",
    "linear_regions",
    "list_activations",
    "list_datasets",
    "list_dials",
    "list_studies",
    "load_dataset",
    "load_frame",
    "load_run",
    "mollify",
    "plane_map",
    "run_study",
    "surrogate_gradient",
    "swap_activations",
    "train",
    "variation_on_segments",
    "wrap",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothness' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"smoothness.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
