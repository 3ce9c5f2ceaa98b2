"""Analyzers in a study: their settings, and how they are made for a network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from smoothness._norms import Norm
from smoothness.analyzers import GradientKinks, JacobianNorm, MaskingAudit
from smoothness.attacks import Cascade
from smoothness.data import Dataset
from smoothness.measurement import Measurement
from smoothness.study.analyzer_base import AnalyzerBase, Architectures
from smoothness.study.attack_settings import AttackSettings, seeded
from smoothness.study.dimension_settings import DimensionSettings
from smoothness.study.distances import QUANTITIES, distances
from smoothness.study.fields import Count, Flag, Parameters, Ratio
from smoothness.study.imports import ImportPath
from smoothness.study.levels import call_imported
from smoothness.study.lipschitz_settings import LipschitzSettings
from smoothness.study.roughness_settings import RoughnessSettings
from smoothness.study.word_attacks import GoodWordSettings, WordSettings
from smoothness.threat import ThreatModel

__all__ = [
    "AnalyzerSettings",
    "AttackSettings",
    "AuditSettings",
    "JacobianSettings",
    "KinkSettings",
    "analyze",
    "analyzer_problems",
]


class JacobianSettings(AnalyzerBase):
    """Norm of the input perturbation."""

    kind: Literal["jacobian"]
    norm: Norm = "l2"

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Jacobian norms of the margin."""
        return [JacobianNorm(norm=self.norm, of="margin")(model, x, y)]


class KinkSettings(AnalyzerBase):
    """Segments through each example; MLPs alone unless told otherwise: others take longer."""

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


class AuditSettings(AnalyzerBase):
    """Can gradients be believed, and the figure of the cascade?

    Attributes:
        norm, epsilon: of the ball, in input units.
        bounded: whether inputs stay inside [0, 1]; false for inputs without a valid range.
        effort: of the cascade whose figure is judged.
    """

    kind: Literal["audit"]
    norm: Norm = "linf"
    epsilon: Ratio = 8 / 255
    bounded: Flag = True
    effort: Literal["standard", "full"] = "full"
    examples: Count | None = 200

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Both verdicts: 0 or 1 for the network."""
        return self._audit(len(x), seed)(model, x, y)

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """The quantities alone: an audit takes its time, even of one example."""
        self._audit(1, seed)
        return {"gradient_masked", "figure_trustworthy"}

    def _audit(self, examples: int, seed: int) -> MaskingAudit:
        threat = ThreatModel(self.norm, self.epsilon, bounds=(0.0, 1.0) if self.bounded else None)
        return MaskingAudit(threat, examples, seed, Cascade(threat, self.effort, seed=seed))


class DistanceSettings(AnalyzerBase):
    """Distance to the boundary, exact where there is a fast exact method, beside that to the next class.

    Attributes:
        norm: of both distances.
        queries: of the attack by labels alone, on classifiers without gradient and without exact method.
    """

    kind: Literal["distance"]
    norm: Norm = "l2"
    queries: Count = 2000

    def measure_near(self, data: Dataset, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterable[Measurement]:
        """Both distances of each example; those to examples are to the data's training split."""
        return distances(data, model, x, y, self.norm, self.queries, seed)

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """The quantities alone: searches take their time."""
        return set(QUANTITIES)


class ImportedAnalyzer(AnalyzerBase):
    """Somebody's own analyzer: made with the parameters, and the seed if it takes one; called with (model, x, y)."""

    kind: Literal["import"]
    import_: ImportPath = Field(alias="import")
    parameters: Parameters = Field(default={})

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Whatever it measures: one `Measurement` or several."""
        analyzer = call_imported(self.import_, seeded(self.import_, self.parameters, seed, allowed), allowed)
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


AnySettings = (
    JacobianSettings
    | KinkSettings
    | AuditSettings
    | LipschitzSettings
    | RoughnessSettings
    | DistanceSettings
    | DimensionSettings
    | WordSettings
    | GoodWordSettings
    | ImportedAnalyzer
)
AnalyzerSettings = Annotated[AnySettings, Field(discriminator="kind")]


def analyze(
    analyzers: Iterable[AnySettings],
    network: tuple[str, str],
    model: nn.Module,
    sample: tuple[Tensor, Tensor],
    seed: int,
    allowed: tuple[str, ...],
    data: Dataset,
) -> Iterator[Measurement]:
    """What each analyzer that covers the network (architecture, activation) measures, labels after the quantity."""
    x, y = sample
    for settings in analyzers:
        if settings.covers(*network, seed):
            sample = x[: settings.examples], y[: settings.examples]
            if isinstance(settings, (DistanceSettings, DimensionSettings)):
                several = settings.measure_near(data, model, *sample, seed)
            else:
                several = settings.measure(model, *sample, seed, allowed)
            for found in several:
                yield replace(found, quantity=f"{found.quantity}:{settings.label}") if settings.label else found


def analyzer_problems(analyzers: Iterable[AnySettings], activations: Sequence[str]) -> list[str]:
    """Analyzers whose rows could not be told apart, or of activations that are not there."""
    seen: dict[tuple[str, str, str], list[tuple[str, ...] | None]] = {}
    problems = []
    for place, settings in enumerate(analyzers):
        kind = settings.import_ if isinstance(settings, ImportedAnalyzer) else settings.kind
        key = (kind, getattr(settings, "of", ""), settings.label)  # of another place: other quantities
        if any(_overlap(settings.architectures, other) for other in seen.get(key, [])):
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
        seen.setdefault(key, []).append(settings.architectures)
    return problems


def _overlap(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    """Whether some architecture is measured by both; None is all."""
    return one is None or other is None or not set(one).isdisjoint(other)
