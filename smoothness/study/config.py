"""A study's configuration: TOML in, validated settings out, with errors that say what to do."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_serializer, model_validator

from smoothness._checks import check_choice
from smoothness._norms import Norm
from smoothness.activations.surrogates import SHAPES
from smoothness.data import list_datasets
from smoothness.models import ARCHITECTURES, architecture_options
from smoothness.models.classical import CLASSICAL, classical_options
from smoothness.study.attack_settings import AttackSettings, radius_problems
from smoothness.study.factors import Exclusion, Factors, Selection, label_of, selection_problems
from smoothness.study.fields import (
    ConfigError,
    Count,
    Gain,
    Number,
    Parameters,
    Ratio,
    Settings,
    SeveralProblemsError,
    Size,
    Text,
    Threads,
)
from smoothness.study.imports import ImportPath, check_allowed, load_name
from smoothness.study.instruments import AnalyzerSettings, analyzer_problems
from smoothness.study.levels import DataLevel, without_directories
from smoothness.study.problems import readable_problems
from smoothness.study.reading import SCALES, given_twice, read_study
from smoothness.threat import ThreatModel
from smoothness.training import Adversarial, Recipe

__all__ = ["SCALES", "ConfigError", "StudyConfig", "load_config", "settings_key"]


class DataSettings(Settings):
    """Which data unless they are a factor, and how many test examples the analyzers look at."""

    name: str = ""
    import_: ImportPath | None = Field(default=None, alias="import")
    options: Parameters = Field(default={})
    examples: Count = 200
    subset: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> DataSettings:
        if self.name and self.import_:
            raise ValueError("give either name, one of the data sets, or import, your own function")
        if self.options and not (self.name or self.import_):
            raise ValueError("options belong to a data set; give its name")
        if self.name:
            check_choice("data set", self.name, list_datasets())
        return self

    @field_serializer("options")
    def _written(self, options: dict[str, Any]) -> dict[str, Any]:
        return without_directories(options)

    def level(self) -> DataLevel:
        """The one level of a study whose data do not vary."""
        return DataLevel.model_validate({"name": self.name, "import": self.import_, "options": self.options})


class ModelSettings(Settings):
    """Sizes per architecture unless they are factors, and the gain on the initial weights.

    Attributes:
        classical: options of classical models, by name, as `build_classical` takes them.
        classical_share: of the training rows that a classical model is fitted on, drawn by the seed.
    """

    gain: Gain = 2**0.5
    mlp: dict[str, Size] = Field(default={})
    cnn: dict[str, Size] = Field(default={})
    resnet: dict[str, Size] = Field(default={})
    vit: dict[str, Size] = Field(default={})
    text_cnn: dict[str, Size] = Field(default={})
    transformer: dict[str, Size] = Field(default={})
    normalisation: str | None = None
    classical: dict[str, Parameters] = Field(default={})
    classical_share: Annotated[Number, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _known(self) -> ModelSettings:
        for architecture in ARCHITECTURES:
            for option in getattr(self, architecture):
                sizes = [name for name in architecture_options(architecture) if name != "normalisation"]
                check_choice(f"option of {architecture}", option, sizes)
        for name, options in self.classical.items():
            check_choice("classical model", name, CLASSICAL)
            for option in options:
                check_choice(f"option of {name}", option, classical_options(name))
        return self

    def size(self, architecture: str, option: str) -> int:
        """Width or depth of an architecture: as given here, or its own default; 0 of a classical model."""
        if architecture in CLASSICAL:
            return 0
        default = inspect.signature(ARCHITECTURES[architecture]).parameters[option].default
        return int(getattr(self, architecture).get(option, default))

    def further(self, architecture: str) -> dict[str, int]:
        """Sizes that are no factors, such as a transformer's heads, where they are given."""
        if architecture in CLASSICAL:
            return {}
        return {k: v for k, v in getattr(self, architecture).items() if k not in ("width", "depth")}

    def normalised(self, architecture: str) -> str:
        """Normalisation of an architecture: as given here, or its own default; "none" for one without."""
        if architecture in CLASSICAL:
            return "none"
        parameters = inspect.signature(ARCHITECTURES[architecture]).parameters
        if "normalisation" not in parameters:
            return "none"
        return self.normalisation or str(parameters["normalisation"].default)


class TrainingSettings(Settings):
    """Fields of `smoothness.training.Recipe` and, against an adversary, of `smoothness.training.Adversarial`.

    The seed is the cell's, and so are epochs that are a factor. An adversary's norm is that of the threat, its bounds
    are the data set's; it leaves steps and beta at their defaults unless given.
    """

    epochs: Count = 6
    batch_size: Count = 100
    learning_rates: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (0.002,)
    weight_decay: Annotated[Number, Field(ge=0, allow_inf_nan=False)] = 1e-4
    surrogate: str = "tanh"
    surrogate_width: Ratio = 0.25
    method: Literal["standard", "pgd-at", "trades"] = "standard"
    epsilon: Ratio | None = None
    steps: Count | None = None
    beta: Ratio | None = None

    @model_validator(mode="after")
    def _known(self) -> TrainingSettings:
        check_choice("surrogate shape", self.surrogate, SHAPES)
        if self.method == "standard":
            for name in ("epsilon", "steps", "beta"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is an adversary's; give method = 'pgd-at' or 'trades', or drop it")
        elif self.epsilon is None:
            raise ValueError(f"method {self.method!r} needs a radius; give epsilon, such as '8/255'")
        elif self.method == "pgd-at" and self.beta is not None:
            raise ValueError("beta weighs the divergence of method 'trades'; drop it for 'pgd-at'")
        return self

    def recipe(self, threat: ThreatModel, *, epochs: int, seed: int, threads: int) -> Recipe:
        """The recipe of one cell; of the threat, the adversary takes norm and bounds."""
        adversary = None
        if self.method != "standard":
            given = {name: value for name in ("steps", "beta") if (value := getattr(self, name)) is not None}
            threat = ThreatModel(threat.norm, self.epsilon, bounds=threat.bounds)
            adversary = Adversarial(threat, self.method, **given)
        settings = self.model_dump(exclude={"epochs", "method", "epsilon", "steps", "beta"})
        return Recipe(**settings, epochs=epochs, seed=seed, threads=threads, adversarial=adversary)


class ThreatSettings(Settings):
    """The norm and the radii of every attack; bounds come from the data set."""

    norm: Norm = "linf"
    epsilons: Annotated[tuple[Ratio, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> ThreatSettings:
        # Reports tell radii apart on a grid of 1e-9.
        if len({round(epsilon, 9) for epsilon in self.epsilons}) < len(self.epsilons):
            raise ValueError(f"epsilons lists a radius twice: {', '.join(f'{e:g}' for e in self.epsilons)}; drop one")
        return self


class Criterion(Settings):
    """A line fixed before the run: at ε, attacks flip at least this share of the correctly classified examples."""

    epsilon: Ratio
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class StudyConfig(Settings):
    """Everything that determines a study's result."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)]
    title: Text
    question: Text
    claim: Text | None = None
    criterion: Criterion | None = None
    scale: Literal["quick", "full"]
    allow_import: tuple[str, ...] = ()
    threads: Threads = 1
    factors: Factors
    cells: tuple[Selection, ...] = ()
    exclude: tuple[Exclusion, ...] = ()
    data: DataSettings = DataSettings()
    models: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    threat: ThreatSettings
    attacks: Annotated[tuple[AttackSettings, ...], Field(min_length=1)]
    analyzers: tuple[AnalyzerSettings, ...] = ()

    @property
    def key(self) -> str:
        """Hash of every setting; what may be imported is no setting of the study."""
        return settings_key(self.model_dump(mode="json", exclude={"allow_import"}))

    @property
    def data_labels(self) -> list[str]:
        """What the data sets are called."""
        return [level.label for level in self.factors.data or (self.data.level(),)]

    def combinations(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Every combination of the factors' levels that the study names, and why it is left out, if it is."""
        for levels in self.factors.combinations():
            labels = {name: label_of(level) for name, level in levels.items()}
            if not self.cells or any(selection.takes(labels) for selection in self.cells):
                yield levels, next((e.reason for e in self.exclude if e.takes(labels)), None)

    def imports(self) -> list[tuple[str, str]]:
        """(key, path) of everything that is imported: activations, data sets, attacks, analyzers."""
        tables: dict[str, tuple[Settings, ...]] = {
            "factors.activation": self.factors.activation,
            "factors.data": self.factors.data or (),
            "attacks": self.attacks,
            "analyzers": self.analyzers,
            "data": (self.data,),
        }
        return [
            (f"{key}.import", path)
            for key, entries in tables.items()
            for entry in entries
            if (path := getattr(entry, "import_", None)) is not None
        ]

    @model_validator(mode="after")
    def _fits_together(self) -> StudyConfig:
        lines = analyzer_problems(self.analyzers, self.factors.labels()["activation"])
        if self.factors.data is None and not (self.data.name or self.data.import_):
            lines.append("data.name: missing; add it, or list data sets under [factors]")
        if self.training.method != "standard" and self.threat.norm == "l1":
            lines.append("training.method: adversarial training is for norm 'linf' or 'l2', and threat.norm is 'l1'")
        lines += radius_problems(self.attacks, self.threat.epsilons)
        line = None if self.criterion is None else self.criterion.epsilon
        if line is not None and not any(math.isclose(line, epsilon, abs_tol=1e-9) for epsilon in self.threat.epsilons):
            lines.append(f"criterion.epsilon: {line:g} is not one of threat.epsilons; add it there, or choose one")
        grid = [{name: label_of(v) for name, v in levels.items()} for levels in self.factors.combinations()]
        lines += selection_problems("cells", self.cells, self.factors, grid)
        if self.cells and not lines:
            grid = [labels for labels in grid if any(selection.takes(labels) for selection in self.cells)]
        lines += selection_problems("exclude", self.exclude, self.factors, grid)
        if not lines and all(reason is not None for _, reason in self.combinations()):
            lines.append("exclude: leaves no cell; exclude fewer combinations")
        if lines:
            raise SeveralProblemsError(lines)
        return self


def settings_key(settings: Any) -> str:
    """Hash of JSON-able settings, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path, scale: str = "quick", *, allow_import: tuple[str, ...] = ()) -> StudyConfig:
    """Read a study file at one scale: its [quick] or [full] table is laid over the rest.

    Args:
        path: of the TOML file.
        scale: "quick" or "full".
        allow_import: packages whose code the study may import, such as ("mypackage",). Nothing is imported unless
            all that the file names is allowed.

    Raises:
        ConfigError: an unreadable file or any setting that is unknown, missing or out of range; all
            problems at once, each with its key and, for a misspelt key, the nearest valid one.
    """
    settings = read_study(path, scale)
    lines = given_twice(settings)
    try:
        config = StudyConfig.model_validate({**settings, "scale": scale, "allow_import": tuple(allow_import)})
    except ValidationError as error:
        lines += readable_problems(error, StudyConfig)
    except RecursionError:
        lines.append("study: nested too deeply; tables hold at most a few levels")
    else:
        lines += _import_problems(config)
        if not lines:
            return config
    raise ConfigError("\n".join([f"{path}: {len(lines)} problem(s) at scale {scale!r}", *(f"  {x}" for x in lines)]))


def _import_problems(config: StudyConfig) -> list[str]:
    """What cannot be imported; nothing is, unless all of it is allowed."""
    for check in (check_allowed, load_name):
        lines = []
        for key, path in config.imports():
            try:
                check(path, config.allow_import)
            except ValueError as error:
                lines.append(f"{key}: {error}")
        if lines:
            return lines
    return []
