"""Classical models in a study: what determines them, and how a refit is known to be the same."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from smoothness._state import probing
from smoothness.data import Dataset
from smoothness.estimators import EstimatorModel
from smoothness.study.config import StudyConfig
from smoothness.study.grid import Cell


def estimator_settings(config: StudyConfig, cell: Cell) -> dict[str, Any]:
    """What determines the fit beside the data and the seed, scikit-learn's version among it."""
    import scipy
    import sklearn

    return {
        "estimator": [config.models.classical.get(cell.architecture, {}), config.models.classical_share],
        "estimator_versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__},
    }


def estimator_facts(model: EstimatorModel, data: Dataset, cell: Cell) -> dict[str, Any]:
    """What is to be known of a fit. No weights are stored: a cell is fitted again, and held against `fit`."""
    with probing(model), torch.no_grad():
        right = model(data.validation.inputs).argmax(dim=1) == data.validation.labels
    return {
        "module": repr(model.estimator),
        "gain": cell.gain,
        "initial_weights": (),
        "parameters": 0,
        "learning_rate": 0.0,
        "validation_accuracy": (float(right.double().mean()),),
        "losses": (),
        "fit": _fingerprint(model, data),
    }


def check_same_fit(model: nn.Module, data: Dataset, facts: dict[str, Any]) -> None:
    """Raise where a classical model fitted again is not the one that was recorded.

    Raises:
        RuntimeError: it predicts otherwise.
    """
    if isinstance(model, EstimatorModel) and _fingerprint(model, data) != facts.get("fit"):
        raise RuntimeError(
            f"{model.name} fitted again predicts otherwise than the one recorded; its fit is not deterministic, so "
            "that its cells cannot be told apart: give it one thread and a fixed random state"
        )


def _fingerprint(model: EstimatorModel, data: Dataset) -> str:
    with probing(model), torch.no_grad():
        labels = model(data.validation.inputs).argmax(dim=1)
    return hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16]
