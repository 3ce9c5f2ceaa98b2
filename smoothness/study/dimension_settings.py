"""Distances to the boundary beside the number of input dimensions: what a slope over dimensions needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from smoothness._norms import Norm
from smoothness.data import Dataset
from smoothness.measurement import Measurement
from smoothness.study.analyzer_base import AnalyzerBase
from smoothness.study.distances import to_boundary
from smoothness.study.fields import Count
from smoothness.study.slopes import DIMENSIONS, DISTANCE


class DimensionSettings(AnalyzerBase):
    """Number of input dimensions, and distances to the boundary: exact, or upper bounds by attack.

    Data levels are named as "upsampled n=256": those that share their first word are one way of adding dimensions.

    Attributes:
        norms: of the distances; the first one's slopes carry the verdict.
        queries: of the attack by labels alone, on classifiers without gradient and without exact method.
    """

    kind: Literal["dimension"]
    norms: Annotated[tuple[Norm, ...], Field(min_length=1)] = ("linf", "l2")
    queries: Count = 2000

    @model_validator(mode="after")
    def _plain(self) -> DimensionSettings:
        if self.label:
            raise ValueError("kind 'dimension' takes no label: its slopes are found by their quantity; drop it")
        if len(set(self.norms)) < len(self.norms):
            raise ValueError(f"norms lists one twice: {', '.join(self.norms)}; drop it")
        return self

    def measure_near(self, data: Dataset, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterable[Measurement]:
        """The number of dimensions, and the distances in each norm, inside the data's bounds."""
        n = torch.tensor(float(x[0].numel()))
        yield Measurement(DIMENSIONS, n, unit="1", bound="exact")
        for norm in self.norms:
            found = to_boundary(data, model, x, y, norm, self.queries, seed)
            yield replace(found, quantity=f"{DISTANCE}_{norm}")

    def rehearse(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]) -> set[str]:
        """The quantities alone: searches take their time."""
        return {DIMENSIONS, *(f"{DISTANCE}_{norm}" for norm in self.norms)}
