"""Make everything that a study needs once, before any training is spent."""

from __future__ import annotations

import functools
from pathlib import Path

from torch import nn

from smoothness.data import Dataset
from smoothness.models.initial import features_pooled
from smoothness.study.config import ConfigError, StudyConfig
from smoothness.study.fields import tried
from smoothness.study.grid import Cell, build_cell, cell_data, grid
from smoothness.threat import ThreatModel

_SHOWN = 10  # problems at most


def rehearse(config: StudyConfig, source: Path) -> None:
    """Load the data, and make every model, analyzer and attack once.

    Raises:
        ConfigError: settings that cannot be used together, all of them, with the file they come from.
    """
    problems = list(dict.fromkeys(_attack_problems(config) or _activation_problems(config) or _cell_problems(config)))
    if not problems:
        return
    if len(problems) == 1:
        raise ConfigError(f"{source}: {problems[0]}")
    lines = [f"{source}: {len(problems)} problem(s)", *problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    raise ConfigError("\n  ".join(lines))


def _attack_problems(config: StudyConfig) -> list[str]:
    problems, labels = [], []
    threat = ThreatModel(config.threat.norm, config.threat.epsilons[0])
    for place, settings in enumerate(config.attacks):
        try:
            labels.append(tried(functools.partial(settings.build, threat, 0, config.allow_import)).label)
        except ValueError as error:
            problems.append(f"attacks[{place}]: {error}")
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        problems.append(f"attacks lists {', '.join(repeated)} more than once; results are told apart by that name")
    return problems


def _activation_problems(config: StudyConfig) -> list[str]:
    problems, pooled = [], set()
    for level in config.factors.activation:
        try:
            pooled.add(features_pooled(tried(functools.partial(level.build, config.allow_import))))
        except ValueError as error:
            problems.append(f"factors.activation {level.label!r}: {error}")
    if len(pooled) > 1:
        problems.append(
            "factors.activation: some pool features and some do not, so that their networks differ in size; "
            "study those that pool (such as maxout) by themselves"
        )
    return problems


def _cell_problems(config: StudyConfig) -> list[str]:
    problems = []
    for cell in grid(config):
        if cell.seed == config.factors.seed[0]:
            where = f"{cell.setting} with {cell.activation.label}"
            try:
                data, model = tried(functools.partial(_built, config, cell))
            except ValueError as error:
                problems.append(f"{where}: {error}")
            else:
                problems += [f"{where}: {problem}" for problem in _analyzer_problems(config, cell, data, model)]
    return problems


def _built(config: StudyConfig, cell: Cell) -> tuple[Dataset, nn.Module]:
    data = cell_data(config, cell)
    return data, build_cell(config, cell, data)


def _analyzer_problems(config: StudyConfig, cell: Cell, data: Dataset, model: nn.Module) -> list[str]:
    problems = []
    sample = data.test.inputs[:1], data.test.labels[:1]
    measured = {"clean_accuracy", "correct", "margin", "attack_success"}
    for place, settings in enumerate(config.analyzers):
        seed = settings.seeds[0] if settings.seeds else cell.seed
        if not settings.covers(*cell.network, seed):
            continue
        run = functools.partial(settings.rehearse, model, *sample, seed, config.allow_import)
        try:
            names = {f"{name}:{settings.label}" if settings.label else name for name in tried(run)}
        except ValueError as error:
            problems.append(f"analyzers[{place}]: {error}; or limit it by its architectures or activations")
            continue
        problems += [
            f"analyzers[{place}]: {name!r} is measured already; give it a label, such as label = 'mine'"
            for name in sorted(names & measured)
        ]
        measured |= names
    return problems
