"""One cell of a study: train one network, measure it, return the rows."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from smoothness._state import thread_count
from smoothness._version import __version__
from smoothness.activations import activation
from smoothness.analyzers import AttackSuccess, CleanPredictions, GradientKinks, JacobianNorm
from smoothness.attacks import FGSM, PGD, Attack, Noise
from smoothness.data import Dataset, load_dataset
from smoothness.measurement import Measurement
from smoothness.models import build_model, build_record, weights_fingerprint
from smoothness.study.config import (
    ActivationLevel,
    AttackSettings,
    ConfigError,
    KinkSettings,
    StudyConfig,
    settings_key,
)
from smoothness.threat import ThreatModel
from smoothness.training import Recipe, TrainingDivergedError, accuracy, train

COLUMNS = (
    "study", "cell", "activation", "architecture", "seed", "example", "quantity",
    "attack", "epsilon", "layer", "value", "bound", "unit", "valid",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One combination of the factors' levels."""

    activation: ActivationLevel
    architecture: str
    seed: int

    @property
    def label(self) -> str:
        """Readable and unique within the study."""
        return f"{self.architecture}/{self.activation.label}/{self.seed}"


def grid(config: StudyConfig) -> list[Cell]:
    """Every cell, in a fixed order: seed by seed, so that an unfinished run covers all levels early."""
    return [
        Cell(level, architecture, seed)
        for seed in config.factors.seed
        for architecture in config.factors.architecture
        for level in config.factors.activation
    ]


def cell_key(config: StudyConfig, cell: Cell, data: Dataset) -> str:
    """Hash of everything that determines the cell's rows; other cells' levels do not count."""
    settings = config.model_dump(mode="json", exclude={"factors", "title", "question"})
    return settings_key(
        {
            **settings,
            "cell": [cell.activation.model_dump(mode="json"), cell.architecture, cell.seed],
            "data_version": data.version,
            "versions": versions(),
        }
    )


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {
        "smoothness": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def rehearse(config: StudyConfig, source: Path) -> Dataset:
    """Load the data, and make every model, analyzer and attack once, so that no training is spent in vain.

    Raises:
        ConfigError: settings that cannot be used together, with the file they come from.
    """
    try:
        data = load_dataset(config.data.name, **config.data.options)
        attacks = [_attack(s, ThreatModel(config.threat.norm, config.threat.epsilons[0]), 0) for s in config.attacks]
        labels = [AttackSuccess(attack).label for attack in attacks]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(
                f"attacks lists {', '.join(repeated)} more than once; results are told apart by that name"
            )
        for cell in grid(config):
            if cell.seed == config.factors.seed[0]:
                model = _model(config, cell, data)
                if config.kinks is not None and cell.architecture in config.kinks.architectures:
                    _kinks(config.kinks, cell)(model, data.test.inputs[:1])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from error
    return data


def compute_cell(config: StudyConfig, cell: Cell) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train and measure; the rows and what is to be known about them."""
    with thread_count(config.threads):
        return _compute(config, cell)


def _compute(config: StudyConfig, cell: Cell) -> tuple[pd.DataFrame, dict[str, Any]]:
    data = load_dataset(config.data.name, **config.data.options)
    model = _model(config, cell, data)
    built = build_record(model)
    initial = weights_fingerprint(model, built.gain)
    recipe = Recipe(**config.training.model_dump(), seed=cell.seed, threads=config.threads)
    try:
        training = train(model, data, recipe)
    except TrainingDivergedError as error:
        raise TrainingDivergedError(f"{cell.label}: {error}") from None
    measurements = [
        Measurement("clean_accuracy", torch.tensor(accuracy(model, data.test)), unit="1", bound="exact"),
        *_measure(config, cell, model, data),
    ]
    rows = pd.concat([m.to_frame() for m in measurements], ignore_index=True)
    rows["study"], rows["cell"] = config.name, cell.label
    rows["activation"], rows["architecture"], rows["seed"] = cell.activation.label, cell.architecture, cell.seed
    rows["epsilon"] = rows.get("epsilon", pd.Series(dtype="float64")).astype("float64")
    for name in ("attack", "layer"):
        rows[name] = rows.get(name, pd.Series(dtype="str")).astype("str")
    facts = {
        "cell": cell.label,
        "activation": cell.activation.label,
        "architecture": cell.architecture,
        "seed": cell.seed,
        "module": built.activation,
        "gain": built.gain,
        "initial_weights": initial,
        "parameters": sum(p.numel() for p in model.parameters()),
        "learning_rate": training.learning_rate,
        "validation_accuracy": training.validation_accuracy,
        "losses": training.losses,
        "threads": config.threads,
        "data_version": data.version,
        "versions": versions(),
        "passes": {
            f"{m.coords['attack'][0]} at {m.coords['epsilon'][0]:.6g}": m.details["passes"]
            for m in measurements
            if m.quantity == "attack_success"
        },
    }
    return rows[list(COLUMNS)], facts


def _model(config: StudyConfig, cell: Cell, data: Dataset) -> nn.Sequential:
    return build_model(
        cell.architecture,
        lambda: activation(cell.activation.name, **cell.activation.parameters),
        seed=cell.seed,
        input_shape=data.input_shape,
        classes=len(data.classes),
        gain=config.models.gain,
        **getattr(config.models, cell.architecture),
    )


def _kinks(settings: KinkSettings, cell: Cell) -> GradientKinks:
    return GradientKinks(segments=settings.segments, radius=settings.radius, seed=cell.seed, keep_table=False)


def _measure(config: StudyConfig, cell: Cell, model: nn.Module, data: Dataset) -> Iterator[Measurement]:
    sample = data.test.balanced(min(config.data.examples, len(data.test)))
    x, y = sample.inputs, sample.labels
    yield from CleanPredictions()(model, x, y)
    if config.jacobian is not None:
        yield JacobianNorm(norm=config.jacobian.norm, of="margin")(model, x, y)
    if config.kinks is not None and cell.architecture in config.kinks.architectures:
        yield from _kinks(config.kinks, cell)(model, x[: config.kinks.examples])
    for epsilon in config.threat.epsilons:
        threat = ThreatModel(config.threat.norm, epsilon, bounds=data.bounds)
        for settings in config.attacks:
            yield AttackSuccess(_attack(settings, threat, cell.seed))(model, x, y)


def _attack(settings: AttackSettings, threat: ThreatModel, seed: int) -> Attack:
    if settings.kind == "noise":
        return Noise(threat, draws=settings.draws, kind=settings.shape, seed=seed)
    if settings.kind == "fgsm":
        return FGSM(threat, loss=settings.loss)
    return PGD(threat, seed=seed, **settings.model_dump(exclude={"kind"}))
