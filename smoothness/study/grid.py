"""The cells of a study: which there are, and what each is built from."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from smoothness.data import Dataset
from smoothness.models import architecture_options, build_model
from smoothness.models.classical import CLASSICAL, build_classical
from smoothness.study.config import StudyConfig
from smoothness.study.factors import label_of
from smoothness.study.levels import ActivationLevel, DataLevel


@dataclass(frozen=True)
class Cell:
    """One combination of the factors' levels; factors that do not vary hold the study's one setting.

    Attributes:
        setting: the architecture, and every other factor but activation and seed that has several levels: what
            reports group by.
        subset: how many training examples; None for all.
    """

    activation: ActivationLevel
    setting: str
    architecture: str
    width: int
    depth: int
    normalisation: str
    gain: float | str
    data: DataLevel
    subset: int | None
    epochs: int
    seed: int

    @property
    def network(self) -> tuple[str, str]:
        """Architecture, and the activation's label."""
        return self.architecture, self.activation.label

    @property
    def label(self) -> str:
        """Readable and unique within the study."""
        return f"{self.setting}/{self.activation.label}/{self.seed}"


class Excluded(NamedTuple):
    """A cell that the study leaves out."""

    label: str
    reason: str


def grid(config: StudyConfig) -> list[Cell]:
    """Every cell, in a fixed order: seed by seed, so that an unfinished run covers all levels early."""
    return [_cell(config, levels) for levels, reason in config.combinations() if reason is None]


def excluded(config: StudyConfig) -> list[Excluded]:
    """Label and reason of every cell that the study leaves out."""
    found = [(_cell(config, levels), reason) for levels, reason in config.combinations()]
    return [Excluded(cell.label, reason) for cell, reason in found if reason is not None]


def _cell(config: StudyConfig, levels: dict[str, Any]) -> Cell:
    architecture = levels["architecture"]
    fixed = {
        "width": config.models.size(architecture, "width"),
        "depth": config.models.size(architecture, "depth"),
        "normalisation": config.models.normalised(architecture),
        "gain": config.models.gain,
        "data": config.data.level() if "data" not in levels else None,
        "subset": config.data.subset,
        "epochs": config.training.epochs,
    }
    several = config.factors.levels()
    varying = [f"{name}={label_of(levels[name])}" for name in fixed if len(several.get(name, ())) > 1]
    return Cell(**{**fixed, **levels}, setting=" ".join([architecture, *varying]))


def cell_data(config: StudyConfig, cell: Cell) -> Dataset:
    """The data set the cell trains and is measured on; of the training split the first examples, classes in turn.

    Raises:
        ValueError: a subset larger than the training split, or data that cannot be loaded.
    """
    level = {**cell.data.model_dump(mode="json"), "options": cell.data.options}  # a dump lacks a path's directories
    return _loaded(json.dumps(level), cell.subset, config.allow_import)


@functools.lru_cache(maxsize=4)
def _loaded(level: str, subset: int | None, allowed: tuple[str, ...]) -> Dataset:
    if subset is None:
        return DataLevel.model_validate_json(level).build(allowed)
    data = _loaded(level, None, allowed)
    if subset > len(data.train):
        raise ValueError(f"subset {subset} exceeds the {len(data.train)} training examples of {data.name}; lower it")
    return replace(data, train=data.train.balanced(subset))


def build_cell(config: StudyConfig, cell: Cell, data: Dataset) -> nn.Module:
    """The cell's network, untrained; a classical model fitted, which is the same each time.

    Raises:
        ValueError: sizes or a normalisation that the architecture does not have.
    """
    if cell.architecture in CLASSICAL:
        options = config.models.classical.get(cell.architecture, {})
        return build_classical(cell.architecture, data, cell.seed, share=config.models.classical_share, **options)
    further: dict[str, Any] = config.models.further(cell.architecture)
    if "normalisation" in architecture_options(cell.architecture):
        further["normalisation"] = cell.normalisation
    elif cell.normalisation != "none":
        raise ValueError(
            f"{cell.architecture} has no normalisation, and {cell.normalisation!r} is asked for; exclude the "
            "combination, or give it 'none'"
        )
    return build_model(
        cell.architecture,
        lambda: cell.activation.build(config.allow_import),
        seed=cell.seed,
        input_shape=data.input_shape,
        classes=len(data.classes),
        gain=cell.gain,
        width=cell.width,
        depth=cell.depth,
        **further,
    )
