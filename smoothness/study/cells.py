"""One cell of a study: train one network, measure it, return the rows."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from smoothness._state import thread_count
from smoothness._version import __version__
from smoothness.analyzers import CleanPredictions
from smoothness.data import Dataset
from smoothness.estimators import EstimatorModel
from smoothness.measurement import Measurement
from smoothness.models import build_record, weights_fingerprint
from smoothness.models.classical import CLASSICAL
from smoothness.study.classical import estimator_facts, estimator_settings
from smoothness.study.config import StudyConfig, settings_key
from smoothness.study.factors import label_of
from smoothness.study.gallery import attacked_examples, changed_sentences, gallery_radius
from smoothness.study.grid import Cell, Excluded, build_cell, cell_data, excluded, grid
from smoothness.study.imports import source_hash
from smoothness.study.instruments import analyze
from smoothness.study.rehearsal import rehearse
from smoothness.threat import ThreatModel
from smoothness.training import TrainingDivergedError, TrainingResult, accuracy, train

__all__ = [
    "COLUMNS",
    "FACTORS",
    "Cell",
    "CellResult",
    "Excluded",
    "build_cell",
    "cell_data",
    "cell_key",
    "excluded",
    "grid",
    "measure_cell",
    "rehearse",
    "train_cell",
    "training_key",
    "versions",
]

FACTORS = ("activation", "architecture", "width", "depth", "normalisation", "gain", "data", "subset", "epochs", "seed")
COLUMNS = (
    "study", "cell", "setting", *FACTORS, "example", "quantity",
    "attack", "epsilon", "layer", "value", "bound", "unit", "valid",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CellResult:
    """What one cell gives.

    Attributes:
        rows: tidy rows with the columns `COLUMNS`.
        facts: what is to be known of the cell beside its rows: gain, losses, versions, passes, ...; JSON-able.
        examples: tensors of a few attacked examples, for the report's gallery (`study/gallery.py`); may be empty.
    """

    rows: pd.DataFrame
    facts: dict[str, Any]
    examples: dict[str, Tensor]


def training_key(config: StudyConfig, cell: Cell, data: Dataset) -> str:
    """Hash of everything that determines the trained weights; what is measured later does not count."""
    return settings_key(_training_settings(config, cell, data))


def cell_key(config: StudyConfig, cell: Cell, data: Dataset) -> str:
    """Hash of everything that determines the cell's rows; other cells' levels do not count."""
    words = {"title", "question", "claim", "criterion"}
    others = words | {"factors", "cells", "exclude", "allow_import", "models", "training"}
    settings = config.model_dump(mode="json", exclude=others)
    labels = {"label": cell.label, "data_label": cell.data.label, "sources": _sources(config, cell)}
    return settings_key({**settings, **labels, **_training_settings(config, cell, data)})


def _training_settings(config: StudyConfig, cell: Cell, data: Dataset) -> dict[str, Any]:
    activation = cell.activation.model_dump(mode="json", exclude={"label"})
    adversary = {} if config.training.method == "standard" else {"norm": config.threat.norm}
    return {
        "activation": [activation, source_of(config, cell.activation)],
        "model": [cell.architecture, cell.width, cell.depth, cell.gain, cell.seed, *_further(config, cell)],
        "training": {**config.training.model_dump(mode="json"), **adversary, "epochs": cell.epochs},
        "data_version": data.version,
        "threads": config.threads,
        "versions": versions(),
        **(estimator_settings(config, cell) if cell.architecture in CLASSICAL else {}),
    }


def _further(config: StudyConfig, cell: Cell) -> list[Any]:
    """What else makes the network, for architectures that have more than width and depth."""
    sizes = config.models.further(cell.architecture)
    return [sizes, cell.normalisation] if sizes or cell.normalisation != "none" else []


def source_of(config: StudyConfig, settings: Any) -> str | None:
    """Hash of the imported code behind some settings; None for what is ours."""
    path = getattr(settings, "import_", None)
    return None if path is None else source_hash(path, config.allow_import)


def _sources(config: StudyConfig, cell: Cell) -> dict[str, str]:
    """Path -> hash of all imported code that the cell uses."""
    users = [cell.activation, cell.data, *config.attacks, *config.analyzers]
    paths = {path for user in users if (path := getattr(user, "import_", None)) is not None}
    return {path: source_hash(path, config.allow_import) for path in sorted(paths)}


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {
        "smoothness": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def train_cell(config: StudyConfig, cell: Cell) -> tuple[nn.Module, dict[str, Any]]:
    """The cell's trained network, and what is to be known of the training; reproducible to the bit.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
    """
    with thread_count(config.threads):
        data = cell_data(config, cell)
        model = build_cell(config, cell, data)
        if isinstance(model, EstimatorModel):
            return model, estimator_facts(model, data, cell)
        built = build_record(model)
        initial = weights_fingerprint(model, built.gain)
        threat = ThreatModel(config.threat.norm, bounds=data.bounds)
        recipe = config.training.recipe(threat, epochs=cell.epochs, seed=cell.seed, threads=config.threads)
        try:
            training = train(model, data, recipe)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(f"{cell.label}: {error}") from None
    return model, {
        "module": built.activation,
        "gain": built.gain,
        "initial_weights": initial,
        "parameters": sum(p.numel() for p in model.parameters()),
        "learning_rate": training.learning_rate,
        "validation_accuracy": training.validation_accuracy,
        "losses": training.losses,
        **({} if recipe.adversarial is None else _against_adversary(training)),
    }


def _against_adversary(training: TrainingResult) -> dict[str, Any]:
    return {name: getattr(training, name) for name in ("attacked_accuracy", "robust_accuracy", "collapsed_at")}


def measure_cell(config: StudyConfig, cell: Cell, model: nn.Module, training: dict[str, Any]) -> CellResult:
    """Every measurement of the trained network."""
    with thread_count(config.threads):
        data = cell_data(config, cell)
        sample = data.test.balanced(min(config.data.examples, len(data.test)))
        x, y = sample.inputs, sample.labels
        clean = torch.tensor(accuracy(model, data.test))
        measurements = [
            Measurement("clean_accuracy", clean, unit="1", bound="exact"),
            *CleanPredictions()(model, x, y),
            *analyze(config.analyzers, cell.network, model, (x, y), cell.seed, config.allow_import, data),
        ]
        attacked = _attacked(config, cell, model, data.bounds, x, y)
        radius = gallery_radius(config.threat.epsilons)
        examples = attacked_examples(model, data, x, y, attacked[radius], radius)
        examples = examples or changed_sentences(model, x, y, measurements)
        examples |= {name: t for found in measurements for name, t in found.details.get("slice", {}).items()}
    measurements += [found for at_radius in attacked.values() for found in at_radius]
    facts = {
        "cell": cell.label,
        "setting": cell.setting,
        **_levels(cell, data),
        "activation_settings": cell.activation.model_dump(mode="json"),
        **training,  # the gain among it: the number that "auto" stands for
        "sources": _sources(config, cell),
        "threads": config.threads,
        "classes": list(data.classes),
        "data_version": data.version,
        "versions": versions(),
        "stages": {
            f"{found.coords['attack'][0]} at {epsilon:.6g}": found.details["stages"]
            for epsilon, at_radius in attacked.items()
            for found in at_radius
            if "stages" in found.details
        },
        "passes": {
            f"{found.coords['attack'][0]} at {epsilon:.6g}": found.details["passes"]
            for epsilon, at_radius in attacked.items()
            for found in at_radius
        },
    }
    return CellResult(_rows(config, cell, data, measurements), facts, examples)


def _attacked(
    config: StudyConfig, cell: Cell, model: nn.Module, bounds: tuple[float, float] | None, x: Tensor, y: Tensor
) -> dict[float, list[Measurement]]:
    """Radius -> what each attack did, in the study's order."""
    threats = {epsilon: ThreatModel(config.threat.norm, epsilon, bounds=bounds) for epsilon in config.threat.epsilons}
    return {
        epsilon: [
            s.build(threat, cell.seed, config.allow_import)(model, x, y) for s in config.attacks if s.runs_at(epsilon)
        ]
        for epsilon, threat in threats.items()
    }


def _rows(config: StudyConfig, cell: Cell, data: Dataset, measurements: list[Measurement]) -> pd.DataFrame:
    rows = pd.concat([found.to_frame() for found in measurements], ignore_index=True)
    rows = rows.assign(study=config.name, cell=cell.label, setting=cell.setting, **_levels(cell, data))
    rows["gain"] = label_of(cell.gain)
    rows["epsilon"] = rows.get("epsilon", pd.Series(dtype="float64")).astype("float64")
    for name in ("attack", "layer"):
        rows[name] = rows.get(name, pd.Series(dtype="str")).astype("str")
    return rows[list(COLUMNS)]


def _levels(cell: Cell, data: Dataset) -> dict[str, Any]:
    """Factor -> the cell's level as it stands in the frame."""
    levels = {name: getattr(cell, name) for name in FACTORS}
    named = {"activation": cell.activation.label, "data": cell.data.label, "subset": len(data.train)}
    return {**levels, **named}
