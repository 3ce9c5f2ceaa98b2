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
        CleanPredictions,
        GradientKinks,
        JacobianNorm,
        Kinks,
        MaskingAudit,
        MaskingVerdicts,
        MinimalPerturbation,
        RobustAccuracyCurve,
        TransferMatrix,
        kinks_on_segments,
    )
    from smoothness.attacks import (
        APGD,
        DDN,
        FGSM,
        FMN,
        PGD,
        AttackResult,
        Cascade,
        CascadeResult,
        Continuation,
        DecisionBoundary,
        DeepFool,
        EvolutionGradient,
        Noise,
        Square,
        Transfer,
    )
    from smoothness.data import Dataset, Split, list_datasets, load_dataset
    from smoothness.measurement import Bracket, Measurement
    from smoothness.models import build_model, build_twins
    from smoothness.panel import Panel, analyze
    from smoothness.report import write_report
    from smoothness.study import Comparison, Run, compare, list_studies, load_frame, load_run, run_study
    from smoothness.threat import ThreatModel
    from smoothness.training import Adversarial, Recipe, TrainingResult, train
    from smoothness.wrapping import wrap

_HOMES = {
    "APGD": "attacks",
    "Activation": "activations",
    "ActivationFacts": "activations",
    "Adversarial": "training",
    "AttackResult": "attacks",
    "AttackSuccess": "analyzers",
    "Bracket": "measurement",
    "Breakpoint": "activations",
    "Cascade": "attacks",
    "CascadeResult": "attacks",
    "CleanPredictions": "analyzers",
    "Comparison": "study",
    "Continuation": "attacks",
    "DDN": "attacks",
    "Dataset": "data",
    "DecisionBoundary": "attacks",
    "DeepFool": "attacks",
    "Dial": "activations",
    "EvolutionGradient": "attacks",
    "FGSM": "attacks",
    "FMN": "attacks",
    "GradientKinks": "analyzers",
    "JacobianNorm": "analyzers",
    "Kinks": "analyzers",
    "MaskingAudit": "analyzers",
    "MaskingVerdicts": "analyzers",
    "Measurement": "measurement",
    "MinimalPerturbation": "analyzers",
    "Noise": "attacks",
    "PGD": "attacks",
    "Panel": "panel",
    "Recipe": "training",
    "RobustAccuracyCurve": "analyzers",
    "Run": "study",
    "Split": "data",
    "Square": "attacks",
    "SwapReport": "activations",
    "ThreatModel": "threat",
    "TrainingResult": "training",
    "Transfer": "attacks",
    "TransferMatrix": "analyzers",
    "activation": "activations",
    "activation_facts": "activations",
    "analyze": "panel",
    "build_model": "models",
    "build_twins": "models",
    "compare": "study",
    "dial": "activations",
    "find_dial": "activations",
    "kinks_on_segments": "analyzers",
    "list_activations": "activations",
    "list_datasets": "data",
    "list_dials": "activations",
    "list_studies": "study",
    "load_dataset": "data",
    "load_frame": "study",
    "load_run": "study",
    "mollify": "activations",
    "run_study": "study",
    "surrogate_gradient": "activations",
    "swap_activations": "activations",
    "train": "training",
    "wrap": "wrapping",
    "write_report": "report",
}

__all__ = [
    "APGD",
    "DDN",
    "FGSM",
    "FMN",
    "PGD",
    "Activation",
    "ActivationFacts",
    "Adversarial",
    "AttackResult",
    "AttackSuccess",
    "Bracket",
    "Breakpoint",
    "Cascade",
    "CascadeResult",
    "CleanPredictions",
    "Comparison",
    "Continuation",
    "Dataset",
    "DecisionBoundary",
    "DeepFool",
    "Dial",
    "EvolutionGradient",
    "GradientKinks",
    "JacobianNorm",
    "Kinks",
    "MaskingAudit",
    "MaskingVerdicts",
    "Measurement",
    "MinimalPerturbation",
    "Noise",
    "Panel",
    "Recipe",
    "RobustAccuracyCurve",
    "Run",
    "Split",
    "Square",
    "SwapReport",
    "ThreatModel",
    "TrainingResult",
    "Transfer",
    "TransferMatrix",
    "__version__",
    "activation",
    "activation_facts",
    "analyze",
    "build_model",
    "build_twins",
    "compare",
    "dial",
    "find_dial",
    "kinks_on_segments",
    "list_activations",
    "list_datasets",
    "list_dials",
    "list_studies",
    "load_dataset",
    "load_frame",
    "load_run",
    "mollify",
    "run_study",
    "surrogate_gradient",
    "swap_activations",
    "train",
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
