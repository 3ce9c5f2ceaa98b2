"""Attacks in a study: their settings, and how they are made for a threat model and a seed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from smoothness._checks import check_choice
from smoothness.activations.surrogates import SHAPES
from smoothness.analyzers import AttackSuccess
from smoothness.attacks import (
    APGD,
    DDN,
    FGSM,
    FMN,
    PGD,
    Attack,
    Cascade,
    Continuation,
    DeepFool,
    EvolutionGradient,
    Noise,
    Square,
)
from smoothness.study.fields import Count, Label, Parameters, Ratio, Settings
from smoothness.study.imports import ImportPath, load_name
from smoothness.study.levels import call_imported
from smoothness.threat import ThreatModel

SAME_RADIUS = 1e-9  # radii closer than this are one


class _Attack(Settings):
    """What all attacks take.

    Attributes:
        epsilons: the radii at which it runs, some of the study's; all of them when None.
    """

    epsilons: Annotated[tuple[Ratio, ...], Field(min_length=1)] | None = None

    def runs_at(self, epsilon: float) -> bool:
        """Whether it runs at this radius."""
        return self.epsilons is None or any(abs(epsilon - own) < SAME_RADIUS for own in self.epsilons)

    def options(self) -> dict[str, Any]:
        """The settings that are the attack's own."""
        return self.model_dump(exclude={"kind", "epsilons"})


class NoiseSettings(_Attack):
    """Random points of the ball."""

    kind: Literal["noise"]
    draws: Count = 40
    shape: Literal["uniform", "corner"] = "corner"

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(Noise(threat, draws=self.draws, kind=self.shape, seed=seed))


class FGSMSettings(_Attack):
    """One gradient step."""

    kind: Literal["fgsm"]
    loss: Literal["ce", "margin"] = "ce"

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(FGSM(threat, loss=self.loss))


class PGDSettings(_Attack):
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
        return AttackSuccess(PGD(threat, seed=seed, **self.options()))


class _Surrogate(_Attack):
    """Attacks through the true or a surrogate backward pass.

    Attributes:
        steps: of gradient.
        surrogate, surrogate_width: as `smoothness.surrogate_gradient` has them; the true backward pass by default.
    """

    steps: Count = 100
    surrogate: str | None = None
    surrogate_width: Ratio = 0.25

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        return self


class APGDSettings(_Surrogate):
    """Projected gradient descent that sets its own step size."""

    kind: Literal["apgd"]
    loss: Literal["ce", "margin", "dlr", "dlr-targeted"] = "ce"
    restarts: Count = 1
    target_classes: Count = 9

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(APGD(threat, seed=seed, **self.options()))


class DDNSettings(_Surrogate):
    """The nearest misclassified input in l2, a success where it lies within the radius."""

    kind: Literal["ddn"]

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(DDN(threat, **self.options()))


class FMNSettings(_Surrogate):
    """The nearest misclassified input in any norm, a success where it lies within the radius."""

    kind: Literal["fmn"]

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(FMN(threat, **self.options()))


class DeepFoolSettings(_Surrogate):
    """Steps to the nearest linearised boundary, a success where it ends within the radius."""

    kind: Literal["deepfool"]
    steps: Count = 50

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(DeepFool(threat, **self.options()))


class SquareSettings(_Attack):
    """Random search over square windows, from scores alone."""

    kind: Literal["square"]
    queries: Count = 5_000

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(Square(threat, self.queries, seed=seed))


class EvolutionSettings(_Attack):
    """Gradients estimated from scores alone."""

    kind: Literal["evolution"]
    steps: Count = 40
    population: Count = 50

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(EvolutionGradient(threat, self.steps, self.population, seed=seed))


class ContinuationSettings(_Attack):
    """The network with its activations mollified, sharpened step by step."""

    kind: Literal["continuation"]
    restarts: Count = 1

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(Continuation(threat, restarts=self.restarts, seed=seed))


class CascadeSettings(_Attack):
    """Attacks of every kind, cheapest first, each on what the others left."""

    kind: Literal["cascade"]
    effort: Literal["standard", "full"] = "standard"

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        return AttackSuccess(Cascade(threat, self.effort, seed=seed))


class ImportedAttack(_Attack):
    """Somebody's own attack: called with the threat model and the parameters, and the seed if it takes one."""

    kind: Literal["import"]
    import_: ImportPath = Field(alias="import")
    label: Label = ""
    parameters: Parameters = Field(default={})

    def build(self, threat: ThreatModel, seed: int, allowed: tuple[str, ...] = ()) -> AttackSuccess:
        """The analyzer that runs this attack."""
        parameters = seeded(self.import_, self.parameters, seed, allowed)
        attack: Attack = call_imported(self.import_, parameters, allowed, threat)
        return AttackSuccess(attack, name=self.label or None)


AttackSettings = Annotated[
    NoiseSettings
    | FGSMSettings
    | PGDSettings
    | APGDSettings
    | DDNSettings
    | FMNSettings
    | DeepFoolSettings
    | SquareSettings
    | EvolutionSettings
    | ContinuationSettings
    | CascadeSettings
    | ImportedAttack,
    Field(discriminator="kind"),
]


def seeded(path: str, parameters: dict[str, Any], seed: int, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The parameters, with the cell's seed where the code takes one and the study gives none."""
    try:
        takes = "seed" in inspect.signature(load_name(path, allowed)).parameters
    except TypeError:  # not callable: said where it is called
        takes = False
    return {"seed": seed, **parameters} if takes else parameters


def radius_problems(attacks: Sequence[_Attack], epsilons: Sequence[float]) -> list[str]:
    """Radii that the study does not have, and radii at which no attack runs."""
    problems = []
    for place, attack in enumerate(attacks):
        for epsilon in attack.epsilons or ():
            if not any(abs(epsilon - known) < SAME_RADIUS for known in epsilons):
                problems.append(
                    f"attacks[{place}].epsilons: {epsilon:g} is none of the study's radii; add it to threat.epsilons"
                )
    bare = [f"{epsilon:g}" for epsilon in epsilons if not any(attack.runs_at(epsilon) for attack in attacks)]
    if bare:
        problems.append(f"threat.epsilons: no attack runs at {', '.join(bare)}; drop it, or let one run there")
    return problems
