"""Certified Lipschitz constants, oscillation and radii in a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from smoothness._norms import Norm
from smoothness.analyzers import CertifiedRadius, Clever, GlobalLipschitz, LocalLipschitz, LocalOscillation
from smoothness.measurement import Measurement
from smoothness.study.analyzer_base import AnalyzerBase
from smoothness.study.fields import Count, Flag, Ratio

Effort = Literal["fast", "standard", "tight"]


def _ascending(radii: tuple[float, ...]) -> tuple[float, ...]:
    if list(radii) != sorted(set(radii)):
        raise ValueError(f"must be given in ascending order, got {list(radii)}")
    return radii


Radii = Annotated[tuple[Ratio, ...], Field(min_length=1), AfterValidator(_ascending)]


class BracketSettings(AnalyzerBase):
    """The margin's local Lipschitz constant from both sides, at every radius; and the global one.

    Quantities "local_lipschitz_lower", "local_lipschitz_upper" (column epsilon: the radius) and "global_lipschitz";
    over pairs with the centre, "centred_lipschitz_lower" and "centred_lipschitz_upper".
    """

    kind: Literal["lipschitz"]
    norm: Norm = "l2"
    radii: Radii = (0.01, 0.1, 1.0)
    pairs: Literal["ball", "centre"] = "ball"
    effort: Effort = "standard"
    examples: Count | None = 4

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Both sides and the global constant."""
        found = [
            LocalLipschitz(self.norm, radius, "margin", self.pairs, self.effort, seed=seed)(model, x, y)
            for radius in self.radii
        ]
        what = "local_lipschitz" if self.pairs == "ball" else "centred_lipschitz"
        yield _at_radii(f"{what}_lower", [one.lower for one in found], self.radii)
        yield _at_radii(f"{what}_upper", [one.upper for one in found], self.radii)
        yield GlobalLipschitz(self.norm, "margin", "fast")(model, x)


class OscillationSettings(AnalyzerBase):
    """How far the margin can move within each radius, from both sides: finite for every activation.

    Quantities "local_oscillation_lower" and "local_oscillation_upper" (column epsilon: the radius).
    """

    kind: Literal["oscillation"]
    norm: Norm = "linf"
    radii: Radii = (1 / 255, 8 / 255)
    effort: Effort = "fast"
    bounded: Flag = True
    examples: Count | None = 20

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Both sides."""
        bounds = (0.0, 1.0) if self.bounded else None
        found = LocalOscillation(self.norm, self.radii, "margin", self.effort, bounds, seed=seed)(model, x, y)
        for side, one in (("lower", found.lower), ("upper", found.upper)):
            yield replace(one, quantity=f"local_oscillation_{side}", coords={"epsilon": self.radii})


class CertifiedSettings(AnalyzerBase):
    """The radius within which no adversarial example exists: "certified_radius", of every example."""

    kind: Literal["certified"]
    norm: Norm = "linf"
    effort: Effort = "fast"
    bounded: Flag = True
    evaluations: Count = 12

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """A lower bound on the distance of every adversarial example."""
        bounds = (0.0, 1.0) if self.bounded else None
        yield CertifiedRadius(self.norm, self.effort, bounds, evaluations=self.evaluations)(model, x, y)


class CleverSettings(AnalyzerBase):
    """The score of Weng et al. 2018: an estimate that nothing certifies."""

    kind: Literal["clever"]
    norm: Norm = "l2"
    radius: Ratio = 0.5
    examples: Count | None = 5

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """The score."""
        yield Clever(norm=self.norm, radius=self.radius, seed=seed)(model, x, y)


LipschitzSettings = BracketSettings | OscillationSettings | CertifiedSettings | CleverSettings


def _at_radii(quantity: str, found: list[Measurement], radii: tuple[float, ...]) -> Measurement:
    valid = torch.stack([one.valid for one in found]).all(dim=0)
    reasons = [
        [reason for reason in row if reason] for row in zip(*(one.details["reason"] for one in found), strict=True)
    ]
    return replace(
        found[0],
        quantity=quantity,
        values=torch.stack([one.values for one in found], dim=1),
        coords={"epsilon": radii},
        valid=valid,
        details={"reason": tuple(row[0] if row else "" for row in reasons)},
    )
