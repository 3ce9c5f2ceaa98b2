"""Lines of a panel on roughness beyond kinks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from smoothness.analyzers.smoothness_probe import KINDS
from smoothness.measurement import Measurement
from smoothness.panel.lines import Row, invalid, joined, median, number, order_in_words, share
from smoothness.panel.uses import ActivationUse

_LAYERS = 6  # named one by one; of more, the mean alone


def variation_rows(found: Mapping[str, Measurement]) -> Iterator[Row]:
    """How much gradient and value vary, in what, and on which scale."""
    if "value_variation" not in found:
        return
    whole, kinks, bends = (found[name] for name in _VARIATION)
    settings = whole.settings
    drawn = f"{len(whole.values)} examples, {settings['segments']} segments each"
    yield number("value variation, mean", _mean(whole), whole.unit, whole.bound, joined([drawn, invalid(whole)]))
    jumps = found["value_jump_share"]
    yield share("… in jumps", _mean(jumps), "of it", jumps.bound)
    missing = invalid(kinks)
    yield number("gradient variation in kinks, mean", _mean(kinks), kinks.unit, kinks.bound, missing)
    yield number("… in curvature, mean", _mean(bends), bends.unit, bends.bound)
    near = found["gradient_concentration"]
    scales = near.coords["epsilon"]
    h = len(scales) // 2
    turned = near.values[near.valid][:, h]
    yield share(f"… turned within {scales[h]:.3g} (l2)", _middle(turned), "of it", near.bound)


_VARIATION = ("value_variation", "gradient_kink_part", "gradient_curvature_part")


def plateau_rows(found: Mapping[str, Measurement]) -> Iterator[Row]:
    """Where nothing changes."""
    flat = found.get("flat_fraction")
    if flat is None:
        return
    ball = f"of l2 balls of {flat.settings['radius']:g}"
    note = joined([f"{len(flat.values)} examples", invalid(flat)])
    yield share("flat by its values", _mean(flat), ball, flat.bound, note)
    zero = found["zero_gradient_fraction"]
    disagree = flat.valid & ((flat.values - zero.values).abs() > 0.05)
    why = "values and gradients disagree: the backward pass is not the forward's" if disagree.any() else ""
    yield share("gradient exactly 0 in the ball", _mean(zero), ball, zero.bound, why)
    units = found.get("saturation")
    if units is None:
        return
    names, means = units.coords["layer"], units.values[units.valid].mean(dim=0)
    if len(names) > _LAYERS:
        yield share(f"saturated units, mean of {len(names)} layers", _middle(means), "of the units", units.bound)
        return
    for name, value in zip(names, means.tolist(), strict=True):
        yield share(f"saturated units of {name or 'the model'}", value, "of the units", units.bound)


def curvature_rows(found: Mapping[str, Measurement]) -> Iterator[Row]:
    """Curvature by slope, at the point and over a distance."""
    point, finite = found.get("normalised_curvature"), found.get("finite_normalised_curvature")
    if point is not None:
        values = point.values[point.valid]
        flat = len(values) > 0 and bool((values == 0).all())
        note = "0 almost everywhere on kinks and steps, which is not smoothness" if flat else ""
        yield number("at the point ÷ slope, median", median(values), point.unit, point.bound,
                     joined([f"{len(point.values)} examples", _briefly(point), note]))  # fmt: skip
    if finite is not None:
        yield number(f"over {finite.settings['scale']:g} ÷ slope, median", median(finite.values[finite.valid]),
                     finite.unit, finite.bound, _briefly(finite))  # fmt: skip


def probe_rows(found: Mapping[str, Measurement], uses: tuple[ActivationUse, ...]) -> Iterator[Row]:
    """The roughest break seen from values alone, beside what the activations' facts say."""
    order = found.get("smoothness_order")
    if order is None:
        return
    values = order.values[order.valid]
    seen = float(values.min()) if len(values) else math.nan
    text = "–" if math.isnan(seen) else "none" if math.isinf(seen) else order_in_words(seen)
    facts = [use.order for use in uses]
    said = ""
    if facts and not math.isnan(seen) and None not in facts:
        least = min(fact for fact in facts if fact is not None)
        said = f"by the activations' facts: {order_in_words(least)}"
    where = f"{len(order.values)} examples, a segment of length {2 * order.settings['radius']:g} each"
    spent = order.details["exhausted"]
    ended = "a budget ended the search: there may be more" if bool(spent.any()) else ""
    yield Row(
        "roughest break found",
        text,
        "order of smoothness",
        "estimate",
        seen,
        joined([where, said, ended, invalid(order)]),
    )
    for kind in KINDS:
        one = found[f"probe_{kind.replace(' ', '_')}s"]
        if float(one.values[one.valid].sum()) > 0:
            yield number(f"… {kind}s, density, mean", _mean(one), one.unit, one.bound)


def explanation_rows(found: Mapping[str, Measurement]) -> Iterator[Row]:
    """How steady integrated gradients are."""
    change = found.get("attribution_sensitivity")
    if change is None:
        return
    note = joined([f"integrated gradients, {len(change.values)} examples", invalid(change)])
    largest = median(change.values[change.valid])
    yield number("largest change in the ball, median", largest, "of its size", change.bound, note)
    overlap, order = found["attribution_top_overlap"], found["attribution_rank_correlation"]
    yield share("same top features, mean", _mean(overlap), "of the top tenth", overlap.bound)
    yield number("rank correlation, mean", _mean(order), order.unit, order.bound)
    error = found["attribution_completeness_error"]
    yield number("completeness error, median", median(error.values[error.valid]), error.unit, error.bound)


def _briefly(found: Measurement) -> str:
    """How many examples have no valid value, and why, without the remedies."""
    return invalid(found).partition(" (")[0]


def _mean(found: Measurement) -> float:
    return _middle(found.values[found.valid])


def _middle(values: Tensor) -> float:
    return float(torch.mean(values.double())) if values.numel() else math.nan
