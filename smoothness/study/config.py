"""A study's configuration: TOML in, validated settings out, with errors that say what to do."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from smoothness._checks import check_choice
from smoothness._norms import Norm
from smoothness.activations import activation
from smoothness.activations.surrogates import SHAPES
from smoothness.data import list_datasets
from smoothness.models import ARCHITECTURES, architecture_options
from smoothness.study.problems import readable_problems

SCALES = ("quick", "full")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file, key and remedy."""


def _fraction(value: Any) -> Any:
    """Accept "8/255" beside 0.0314."""
    if isinstance(value, str) and value.count("/") < 2:
        above, _, below = value.partition("/")
        try:
            return float(Fraction(above.strip()) / Fraction(below.strip() or 1))
        except (ValueError, ZeroDivisionError, OverflowError):
            pass
    if not _is_number(value):
        raise ValueError("expected a number or a fraction such as '8/255'")
    return value


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise ValueError("expected a number")
    return value


def _gain(value: Any) -> Any:
    if not (value == "auto" or (_is_number(value) and 0 < value < math.inf)):
        raise ValueError("expected 'auto' or a positive number")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


Number = Annotated[float | int, BeforeValidator(_number)]
Ratio = Annotated[float, BeforeValidator(_fraction), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # what torch's generators accept


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActivationLevel(_Settings):
    """One level of the factor: a catalogue name with parameters, under a label."""

    name: str
    label: Annotated[str, Field(max_length=60)] = ""
    parameters: dict[str, Number] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> ActivationLevel:
        activation(self.name, **self.parameters)
        if self.label.strip() != self.label or not self.label.isprintable():
            raise ValueError(f"label {self.label!r} must be printable text without spaces at its ends")
        if not self.label:
            values = ",".join(f"{key}={value:g}" for key, value in self.parameters.items())
            object.__setattr__(self, "label", f"{self.name}({values})" if values else self.name)
        return self


class Factors(_Settings):
    """What varies: every combination is one cell."""

    activation: Annotated[tuple[ActivationLevel, ...], Field(min_length=1)]
    architecture: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: Annotated[tuple[Seed, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Factors:
        for name in self.architecture:
            check_choice("architecture", name, ARCHITECTURES)
        labels = [level.label for level in self.activation]
        for factor, levels in (("activation", labels), ("architecture", self.architecture), ("seed", self.seed)):
            repeated = sorted({str(level) for level in levels if list(levels).count(level) > 1})
            if repeated:
                raise ValueError(f"{factor} lists {', '.join(repeated)} more than once; give each level one label")
        return self


class DataSettings(_Settings):
    """Which data, and how many test examples the analyzers look at."""

    name: str
    examples: Count = 200
    options: dict[str, Number] = {}

    @model_validator(mode="after")
    def _known(self) -> DataSettings:
        check_choice("data set", self.name, list_datasets())
        return self


class ModelSettings(_Settings):
    """Sizes per architecture, and the gain on the initial weights."""

    gain: Annotated[float | Literal["auto"], BeforeValidator(_gain)] = 2**0.5
    mlp: dict[str, Count] = {}
    cnn: dict[str, Count] = {}

    @model_validator(mode="after")
    def _known(self) -> ModelSettings:
        for architecture in ARCHITECTURES:
            for option in getattr(self, architecture):
                check_choice(f"option of {architecture}", option, architecture_options(architecture))
        return self


class TrainingSettings(_Settings):
    """Fields of `smoothness.training.Recipe`; the seed is the cell's."""

    epochs: Count = 6
    batch_size: Count = 100
    learning_rates: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (0.002,)
    weight_decay: Annotated[Number, Field(ge=0, allow_inf_nan=False)] = 1e-4
    surrogate: str = "tanh"
    surrogate_width: Ratio = 0.25

    @model_validator(mode="after")
    def _known(self) -> TrainingSettings:
        check_choice("surrogate shape", self.surrogate, SHAPES)
        return self


class ThreatSettings(_Settings):
    """The norm and the radii of every attack; bounds come from the data set."""

    norm: Norm = "linf"
    epsilons: Annotated[tuple[Ratio, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> ThreatSettings:
        # Reports tell radii apart on a grid of 1e-9.
        if len({round(epsilon, 9) for epsilon in self.epsilons}) < len(self.epsilons):
            raise ValueError(f"epsilons lists a radius twice: {', '.join(f'{e:g}' for e in self.epsilons)}; drop one")
        return self


class NoiseSettings(_Settings):
    """Random points of the ball."""

    kind: Literal["noise"]
    draws: Count = 40
    shape: Literal["uniform", "corner"] = "corner"


class FGSMSettings(_Settings):
    """One gradient step."""

    kind: Literal["fgsm"]
    loss: Literal["ce", "margin"] = "ce"


class PGDSettings(_Settings):
    """Projected gradient descent, through the true or a surrogate backward pass."""

    kind: Literal["pgd"]
    loss: Literal["ce", "margin"] = "ce"
    steps: Count = 40
    restarts: Count = 1
    surrogate: str | None = None
    surrogate_width: Ratio = 0.25

    @model_validator(mode="after")
    def _known(self) -> PGDSettings:
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        return self


AttackSettings = Annotated[NoiseSettings | FGSMSettings | PGDSettings, Field(discriminator="kind")]


class KinkSettings(_Settings):
    """Segments through each example; `examples` limits the cost, architectures the reach."""

    segments: Count = 8
    radius: Ratio = 0.5
    examples: Count = 50
    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("mlp",)

    @model_validator(mode="after")
    def _known(self) -> KinkSettings:
        for name in self.architectures:
            check_choice("architecture", name, ARCHITECTURES)
        return self


class JacobianSettings(_Settings):
    """Norm of the input perturbation."""

    norm: Norm = "l2"


class StudyConfig(_Settings):
    """Everything that determines a study's result."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    question: str
    scale: Literal["quick", "full"]
    threads: Count = 1
    factors: Factors
    data: DataSettings
    models: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    threat: ThreatSettings
    attacks: Annotated[tuple[AttackSettings, ...], Field(min_length=1)]
    jacobian: JacobianSettings | None = None
    kinks: KinkSettings | None = None

    @property
    def key(self) -> str:
        """Hash of every setting."""
        return settings_key(self.model_dump(mode="json"))


def settings_key(settings: Any) -> str:
    """Hash of JSON-able settings, independent of their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path, scale: str = "quick") -> StudyConfig:
    """Read a study file at one scale: its [quick] or [full] table is laid over the rest.

    Raises:
        ConfigError: an unreadable file or any setting that is unknown, missing or out of range; all
            problems at once, each with its key and, for a misspelt key, the nearest valid one.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    overlays = {name: raw.pop(name, {}) for name in SCALES}
    for name, overlay in overlays.items():
        if not isinstance(overlay, dict):
            raise ConfigError(f"{path}: {name}: must be a table of settings, got {overlay!r}")
        if "scale" in raw or "scale" in overlay:
            raise ConfigError(f"{path}: scale: not a setting; choose it when running the study (--scale {scale})")
    merged = _laid_over(raw, overlays[scale])
    try:
        return StudyConfig.model_validate({**merged, "scale": scale})
    except ValidationError as error:
        lines = [f"  {line}" for line in readable_problems(error, StudyConfig)]
        raise ConfigError("\n".join([f"{path}: {len(lines)} problem(s) at scale {scale!r}", *lines])) from None


def _laid_over(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
