"""Results with coordinates of their own, as they stand in a frame that knows layers, attacks and radii alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from smoothness.analyzers.gradient_variation import VariationMeasurements
from smoothness.analyzers.input_curvature import CurvatureMeasurements
from smoothness.analyzers.smoothness_probe import KINDS, ProbeMeasurements
from smoothness.measurement import Measurement


def variation_rows(found: VariationMeasurements) -> tuple[Measurement, ...]:
    """All of `GradientVariation`; the concentration's scales under "epsilon", as radii; and "value_jump_share"."""
    near = replace(found.concentration, coords={"epsilon": found.concentration.coords["scale"]})
    share = jump_share(found.value_jump_part, found.value_variation)
    return (found.kink_part, found.curvature_part, near, found.value_variation, found.value_jump_part, share)


def jump_share(jumps: Measurement, whole: Measurement) -> Measurement:
    """Share of the value's variation that stands in jumps: 1 for a piecewise constant function, 0 for a continuous."""
    valid = whole.valid & (whole.values > 0)
    reasons = whole.details["reason"]
    why = tuple("" if ok else reason or "the value does not vary" for ok, reason in zip(valid, reasons, strict=True))
    values = torch.where(valid, jumps.values / whole.values, torch.nan)
    return replace(whole, quantity="value_jump_share", values=values, unit="1", valid=valid, details={"reason": why})


def finite_curvature_rows(found: CurvatureMeasurements) -> tuple[Measurement, ...]:
    """`InputCurvature` over a finite distance: "finite_..." beside the same at a point."""
    return tuple(replace(one, quantity=f"finite_{one.quantity.removeprefix('input_')}") for one in found)


def probe_rows(found: ProbeMeasurements) -> tuple[Measurement, ...]:
    """Density of each kind of break, and 1 where none was found."""
    kinds = tuple(
        replace(
            found.breaks,
            quantity=f"probe_{kind.replace(' ', '_')}s",
            values=found.breaks.values[:, place],
            coords={},
        )
        for place, kind in enumerate(KINDS)
    )
    none = torch.where(found.order.valid, found.order.values.isposinf().to(torch.float64), torch.nan)
    return (*kinds, replace(found.order, quantity="probe_finds_none", values=none))
