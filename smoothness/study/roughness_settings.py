"""Roughness in a study: variation, plateaus, curvature, breaks seen from values, slices, explanations."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from smoothness._norms import Norm
from smoothness.activations.recognition import is_any_activation
from smoothness.analyzers import (
    AttributionStability,
    GradientVariation,
    InputCurvature,
    LocalLinearityError,
    PlateauFraction,
    SmoothnessProbe,
)
from smoothness.analyzers.double import LAYER
from smoothness.analyzers.frame_rows import finite_curvature_rows, probe_rows, variation_rows
from smoothness.measurement import Measurement
from smoothness.study.analyzer_base import AnalyzerBase
from smoothness.study.fields import Count, Ratio
from smoothness.study.slices import slice_of


def _of(value: str) -> str:
    if value not in ("margin", "logits", "layers") and not (value.startswith(LAYER) and value != LAYER):
        raise ValueError(
            f"must be 'margin', 'logits', 'layers' (each activation's output) or 'layer:NAME', got {value!r}"
        )
    return value


class VariationSettings(AnalyzerBase):
    """Total variation of value and gradient on segments through each example, and what makes it.

    Attributes:
        segments, radius: number of segments through each example, and half the length of each (input l2).
        of: "margin", "logits", "layer:NAME", or "layers" for the output of every activation module. Of a layer,
            quantities are called "layer_..." and carry its name.
        scales: each h of the concentration, in input units (l2); radius · (2^-10, 2^-8, ..., 1) when None. In the
            frame they stand under "epsilon", as radii do.
    """

    kind: Literal["variation"]
    segments: Count = 4
    radius: Ratio = 0.5
    of: Annotated[str, AfterValidator(_of)] = "margin"
    scales: Annotated[tuple[Ratio, ...], Field(min_length=1)] | None = None
    examples: Count | None = 20

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Kinks, curvature, their concentration; value variation, its jumps and their share."""
        places = [self.of]
        if self.of == "layers":
            places = [f"{LAYER}{name}" for name, module in model.named_modules() if is_any_activation(module) and name]
            if not places:
                raise ValueError("of='layers' needs activation modules, and the network has none that are known")
        for of in places:
            yield from self._of_one(of, model, x, seed)

    def _of_one(self, of: str, model: nn.Module, x: Tensor, seed: int) -> Iterator[Measurement]:
        found = GradientVariation(self.segments, self.radius, of, self.scales, seed=seed)(model, x)
        for one in variation_rows(found):
            if not of.startswith(LAYER):
                yield one
                continue
            layer = {"layer": (of.removeprefix(LAYER),)}
            yield replace(
                one, quantity=f"layer_{one.quantity}", values=one.values[:, None], coords={**layer, **one.coords}
            )


class PlateauSettings(AnalyzerBase):
    """Share of a ball on which the network stands still: norm and radius of the ball, points drawn."""

    kind: Literal["plateaus"]
    norm: Norm = "l2"
    radius: Ratio = 0.1
    points: Count = 32
    examples: Count | None = 20

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Flat by values, flat by gradients, saturated units by layer where activations are modules."""
        found = PlateauFraction(self.norm, self.radius, "margin", self.points, seed=seed)(model, x)
        return [one for one in found if one.coords.get("layer") != ("none",)]


class CurvatureSettings(AnalyzerBase):
    """Curvature at the point and at a finite distance, and the departure from the tangent.

    Attributes:
        scale: the finite distance (input l2).
        norm, radius: of the ball of the local linearity.
    """

    kind: Literal["curvature"]
    scale: Ratio = 0.25
    norm: Norm = "l2"
    radius: Ratio = 0.25
    examples: Count | None = 20

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Of the margin; what is read at the finite distance is called "finite_..."."""
        yield from InputCurvature(seed=seed)(model, x, y)
        yield from finite_curvature_rows(InputCurvature(scale=self.scale, seed=seed)(model, x, y))
        yield LocalLinearityError(self.norm, self.radius, seed=seed)(model, x, y)


class ProbeSettings(AnalyzerBase):
    """Breaks found from values alone, no derivatives and no facts: segments, half their length, evaluations."""

    kind: Literal["probe"]
    segments: Count = 1
    radius: Ratio = 0.5
    budget: Annotated[int, Field(ge=300, strict=True)] = 1000
    examples: Count | None = 8

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Density of each kind of break, and whether none was found."""
        return probe_rows(SmoothnessProbe(self.segments, self.radius, self.budget, seed=seed)(model, x))


class RegionSettings(AnalyzerBase):
    """A slice of the plane through the sample's first three examples, the same for every network: its pictures.

    Attributes:
        resolution: points along each side.
    """

    kind: Literal["regions"]
    resolution: Annotated[int, Field(ge=8, le=512, strict=True)] = 160

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Flat share and, where the plane can be cut exactly, regions and boundary; see `slice_of`."""
        return slice_of(model, x, y, self.resolution)

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """The quantities alone: a slice needs three examples."""
        return {"slice_flat", "slice_regions", "slice_boundary"}


class AttributionSettings(AnalyzerBase):
    """Steadiness of gradient explanations in a ball; needs captum.

    Attributes:
        method: "saliency", "integrated_gradients" or "smooth_grad".
        norm, radius: of the ball.
        samples: offsets of each example.
    """

    kind: Literal["attribution"]
    method: Literal["saliency", "integrated_gradients", "smooth_grad"] = "integrated_gradients"
    norm: Norm = "linf"
    radius: Ratio = 8 / 255
    samples: Count = 4
    examples: Count | None = 10

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """See `AttributionStability`; completeness of integrated gradients alone."""
        found: Any = AttributionStability(self.method, self.norm, self.radius, self.samples, seed=seed)(model, x, y)
        return [one for one in found if self.method == "integrated_gradients" or one is not found.completeness_error]

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """Refuses before any training where captum is not installed."""
        if importlib.util.find_spec("captum") is None:
            raise ValueError('kind "attribution" needs captum: pip install "smoothness[attribution]"')
        return super().rehearse(model, x, y, seed, allowed)


RoughnessSettings = (
    VariationSettings | PlateauSettings | CurvatureSettings | ProbeSettings | RegionSettings | AttributionSettings
)
