"""What the settings of all analyzers in a study have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from smoothness._checks import check_choice
from smoothness.measurement import Measurement
from smoothness.models import ARCHITECTURES
from smoothness.models.classical import CLASSICAL
from smoothness.study.fields import Count, Label, Seed, Settings


def _architectures(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        check_choice("architecture", name, [*ARCHITECTURES, *CLASSICAL])
    return names


Architectures = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_architectures)]


class AnalyzerBase(Settings):
    """What all analyzers take.

    Attributes:
        label: tells two of one kind apart: quantities become "quantity:label".
        examples: how many of the sample's first examples are measured; all when None.
        architectures: which are measured; all when None.
        activations: labels of those that are measured; all when None.
        seeds: whose networks are measured; all when None.
    """

    label: Label = ""
    examples: Count | None = None
    architectures: Architectures | None = None
    activations: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None

    def covers(self, architecture: str, activation: str, seed: int) -> bool:
        """Whether it measures the network of this architecture, activation and seed."""
        pairs = ((self.architectures, architecture), (self.activations, activation), (self.seeds, seed))
        return all(chosen is None or level in chosen for chosen, level in pairs)

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """What is measured on the examples."""
        raise NotImplementedError

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """The quantities that it measures, tried on one example."""
        return {found.quantity for found in self.measure(model, x[:1], y[:1], seed, allowed)}
