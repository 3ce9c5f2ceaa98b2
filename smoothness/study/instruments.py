"""Attacks and analyzers in a study: their settings, and how they are made for a network."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from smoothness._checks import check_choice
from smoothness._norms import Norm
from smoothness.activations.surrogates import SHAPES
from smoothness.analyzers import AttackSuccess, GradientKinks, JacobianNorm
from smoothness.attacks import FGSM, PGD, Attack, Noise
from smoothness.measurement import Measurement
from smoothness.models import ARCHITECTURES
from smoothness.study.fields import Count, Label, Parameters, Ratio, Settings
from smoothness.study.imports import ImportPath, load_name
from smoothness.study.levels import call_imported
from smoothness.threat import ThreatModel


class NoiseSettings(Settings):
    """Random points of the ball."""

    kind: Literal["noise"]
    draws: Count = 40
    shape: Literal["uniform", "corner"] = "corner"

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(Noise(threat, draws=self.draws, kind=self.shape, seed=seed))


class FGSMSettings(Settings):
    """One gradient step."""

    kind: Literal["fgsm"]
    loss: Literal["ce", "margin"] = "ce"

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(FGSM(threat, loss=self.loss))


class PGDSettings(Settings):
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

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(PGD(threat, seed=seed, **self.model_dump(exclude={"kind"})))


class ImportedAttack(Settings):
    """Somebody's own attack: called with the threat model and the parameters, and the seed if it takes one."""

    kind: Literal["import"]
    import_: ImportPath = Field(alias="import")
    label: Label = ""
    parameters: Parameters = Field(default={})

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        parameters = _seeded(self.import_, self.parameters, seed, allowed)
        attack: Attack = call_imported(self.import_, parameters, allowed, threat)
        return AttackSuccess(attack, name=self.label or None)


AttackSettings = Annotated[NoiseSettings | FGSMSettings | PGDSettings | ImportedAttack, Field(discriminator="kind")]


def _architectures(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        check_choice("architecture", name, ARCHITECTURES)
    return names


Architectures = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_architectures)]


class _Analyzer(Settings):
    """What all analyzers take.

    Attributes:
        label: tells two of one kind apart: quantities become "quantity:label".
        examples: how many of the sample's first examples are measured; all when None.
        architectures: which are measured; all when None.
        activations: labels of those that are measured; all when None.
    """

    label: Label = ""
    examples: Count | None = None
    architectures: Architectures | None = None
    activations: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    def covers(self, architecture: str, activation: str) -> bool:
        """Whether it measures networks of this architecture and activation."""
        right = self.architectures is None or architecture in self.architectures
        return right and (self.activations is None or activation in self.activations)


class JacobianSettings(_Analyzer):
    """Norm of the input perturbation."""

    kind: Literal["jacobian"]
    norm: Norm = "l2"

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Jacobian norms of the margin."""
        return [JacobianNorm(norm=self.norm, of="margin")(model, x, y)]


class KinkSettings(_Analyzer):
    """Segments through each example; exact for MLPs, so these alone unless told otherwise."""

    kind: Literal["kinks"]
    segments: Count = 8
    radius: Ratio = 0.5
    examples: Count | None = 50
    architectures: Architectures | None = ("mlp",)

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Density of breaks, slope jumps and value jumps."""
        return GradientKinks(segments=self.segments, radius=self.radius, seed=seed, keep_table=False)(model, x)


class ImportedAnalyzer(_Analyzer):
    """Somebody's own analyzer: made with the parameters, and the seed if it takes one; called with (model, x, y)."""

    kind: Literal["import"]
    import_: ImportPath = Field(alias="import")
    parameters: Parameters = Field(default={})

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Whatever it measures: one `Measurement` or several."""
        analyzer = call_imported(self.import_, _seeded(self.import_, self.parameters, seed, allowed), allowed)
        found = analyzer(model, x, y)
        several = [found] if isinstance(found, Measurement) else list(found)
        for one in several:
            if not isinstance(one, Measurement):
                raise ValueError(f"{self.import_} gave a {type(one).__name__}; an analyzer must give Measurements")
            strange = set(one.coords) - {"layer", "attack", "epsilon"}
            if strange:
                raise ValueError(
                    f"{self.import_} gave the coordinates {', '.join(sorted(strange))}; a study keeps layer, attack "
                    "and epsilon: put others into the quantity's name"
                )
        return several


AnalyzerSettings = Annotated[JacobianSettings | KinkSettings | ImportedAnalyzer, Field(discriminator="kind")]


def analyze(
    analyzers: Iterable[JacobianSettings | KinkSettings | ImportedAnalyzer],
    network: tuple[str, str],
    model: nn.Module,
    sample: tuple[Tensor, Tensor],
    seed: int,
    allowed: tuple[str, ...],
) -> Iterator[Measurement]:
    """What each analyzer that covers the network (architecture, activation) measures, labels after the quantity."""
    x, y = sample
    for settings in analyzers:
        if settings.covers(*network):
            for found in settings.measure(model, x[: settings.examples], y[: settings.examples], seed, allowed):
                yield replace(found, quantity=f"{found.quantity}:{settings.label}") if settings.label else found


def analyzer_problems(
    analyzers: Iterable[JacobianSettings | KinkSettings | ImportedAnalyzer], activations: Sequence[str]
) -> list[str]:
    """Analyzers whose rows could not be told apart, or of activations that are not there."""
    seen: set[tuple[str, str]] = set()
    problems = []
    for place, settings in enumerate(analyzers):
        kind = settings.import_ if isinstance(settings, ImportedAnalyzer) else settings.kind
        if (kind, settings.label) in seen:
            told = f"label {settings.label!r} again" if settings.label else "no label of its own"
            problems.append(f"analyzers[{place}]: the second {kind} has {told}; give it one, such as label = 'wide'")
        if ":" in settings.label:
            problems.append(f"analyzers[{place}].label: must not hold a colon (got {settings.label!r})")
        for name in settings.activations or ():
            if name not in activations:
                near = difflib.get_close_matches(name, activations, n=2, cutoff=0.5) or activations[:8]
                problems.append(
                    f"analyzers[{place}].activations: {name!r} is no level of this study; near: {', '.join(near)}"
                )
        seen.add((kind, settings.label))
    return problems


def _seeded(path: str, parameters: dict[str, Any], seed: int, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The parameters, with the cell's seed where the code takes one and the study gives none."""
    try:
        takes = "seed" in inspect.signature(load_name(path, allowed)).parameters
    except TypeError:  # not callable: said where it is called
        takes = False
    return {"seed": seed, **parameters} if takes else parameters
