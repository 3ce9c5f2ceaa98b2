"""From values per example to the lines that readers see; each says its unit and what kind of number it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smoothness.analyzers.masking import family
from smoothness.measurement import Measurement
from smoothness.panel.reading import (
    attacks_of,
    correct_of,
    describe_threat,
    fooled_by,
    percent,
    robust_accuracy,
    success_on_correct,
    zero_share,
)

if TYPE_CHECKING:
    from smoothness.panel.result import Panel

KINDS = {"exact": "exact", "lower": "lower bound", "upper": "upper bound", "estimate": "estimate"}


@dataclass(frozen=True)
class Row:
    """One line: `value` is `number` as readers see it; `share` is set for shares, which can be drawn."""

    name: str
    value: str
    unit: str
    kind: str
    number: float = math.nan
    note: str = ""
    share: bool = False


@dataclass(frozen=True)
class Section:
    """Lines that belong together."""

    title: str
    rows: tuple[Row, ...]


def sections(panel: Panel) -> list[Section]:
    """The lines of a panel, section by section; sections without any are left out."""
    parts = [
        Section("Clean predictions", tuple(_predictions(panel))),
        Section(f"Attacks, {describe_threat(panel.threat)}" if panel.threat else "", tuple(_attacks(panel))),
        Section("Input gradient", tuple(_gradient(panel))),
        Section("Kinks and jumps of the gradient", tuple(_kinks(panel))),
        Section(_certified_title(panel), tuple(_certified(panel))),
    ]
    return [part for part in parts if part.rows]


def order_in_words(order: float | None) -> str:
    """The order of smoothness.

    >>> order_in_words(-1), order_in_words(math.inf), order_in_words(None)
    ('-1: value jumps', 'inf: smooth', 'unknown')
    """
    if order is None:
        return "unknown"
    words = {-1.0: "value jumps", 0.0: "kinks", 1.0: "curvature jumps", math.inf: "smooth"}.get(float(order), "")
    return f"{order:g}: {words}" if words else f"{order:g}"


def _predictions(panel: Panel) -> Iterator[Row]:
    if "correct" not in panel.measurements:
        return
    correct = panel.measurements["correct"]
    yield _share("clean accuracy", float(correct_of(panel.measurements).double().mean()),
                 f"of {len(correct.values)} examples", "exact", _invalid(correct))  # fmt: skip
    margin = panel.measurements["margin"]
    yield _number("margin, median", _median(margin.values[margin.valid]), margin.unit, margin.bound)


def _attacks(panel: Panel) -> Iterator[Row]:
    attacks = attacks_of(panel.measurements)
    if not attacks:
        return
    count = int(correct_of(panel.measurements).sum())
    masked = panel.masking is not None and panel.masking.masked
    for name, found in attacks.items():
        notes = [_invalid(found)]
        if masked and family(name) == "native":
            notes.append("masked: no evidence of robustness")
        if family(name) == "noise":
            notes.append("chance, the control")
        rate = success_on_correct(panel.measurements, {name: found})
        yield _share(f"success of {name}", rate, f"of {count} correct", found.bound, _join(notes))
    union = success_on_correct(panel.measurements, attacks)
    yield _share("success of any of them", union, f"of {count} correct", "lower")
    total = len(panel.measurements["correct"].values)
    yield _share("robust accuracy, all attacks", robust_accuracy(panel.measurements), f"of {total} examples", "upper",
                 "gradients are masked: see the verdict" if masked else "")  # fmt: skip


def _gradient(panel: Panel) -> Iterator[Row]:
    jacobian = panel.measurements["jacobian_norm"]
    of = jacobian.settings["of"]
    zero = zero_share(jacobian)
    note = "zero between jumps, which is not smoothness" if zero > 0.5 else ""
    yield _number(f"Jacobian norm of the {of}, median", _median(jacobian.values[jacobian.valid]), jacobian.unit,
                  jacobian.bound, _join([_invalid(jacobian), note]))  # fmt: skip
    divided = panel.measurements.get("jacobian_norm_per_margin")
    if divided is not None:
        yield _number("… ÷ margin, correct examples, median", _median(divided.values[divided.valid]), divided.unit,
                      divided.bound)  # fmt: skip
    yield _share("gradient exactly 0", zero, "of the examples", "exact")
    if panel.masking is not None:
        yield _share(
            "gradient contradicts the forward pass", panel.masking.contradicted, "of the examples", "estimate"
        )


def _kinks(panel: Panel) -> Iterator[Row]:
    density = panel.measurements.get("kink_density")
    if density is None:
        return
    count = len(density.values)
    note = f"{count} examples, {density.settings['segments']} segments each; {density.details['note']}".rstrip("; ")
    mean = float(density.values.sum(dim=1).mean())
    yield _number("density, mean", mean, density.unit, density.bound, note)
    margin = panel.measurements.get("margin")
    for name, label in (("slope_jump", "slope jumps"), ("value_jump", "value jumps")):
        found = panel.measurements[name]
        sizes = found.values.sum(dim=1)
        yield _number(f"{label}, median", _median(sizes), found.unit, found.bound)
        if margin is None:
            continue
        margins = margin.values[:count].double()
        rows = correct_of(panel.measurements)[:count] & (margins > 0)
        unit, middle = found.unit.replace("logit", "1", 1), _median(sizes[rows] / margins[rows])
        yield _number("… ÷ margin, correct examples, median", middle, unit, found.bound)


def _certified_title(panel: Panel) -> str:
    radii = panel.measurements.get("certified_radius")
    at = "" if panel.threat is None else f", {describe_threat(panel.threat)}"
    return "" if radii is None else f"Proved around the first {len(radii.values)} examples{at}"


def _certified(panel: Panel) -> Iterator[Row]:
    """Both sides of each, of correct examples per margin; the radius; accuracy proved beside accuracy attacked."""
    radii = panel.measurements.get("certified_radius")
    if radii is None or panel.threat is None:
        return
    for name, label in (("local_lipschitz", "Lipschitz constant"), ("local_oscillation", "oscillation")):
        for side in ("upper", "lower"):
            found = panel.measurements[f"{name}_{side}_per_margin"]
            yield _number(f"{label} ÷ margin, median", _median(found.values.flatten()[found.valid]), found.unit,
                          found.bound, _invalid(found))  # fmt: skip
    count = len(radii.values)
    right = correct_of(panel.measurements)[:count]
    yield _number("certified radius, median", _median(radii.values[radii.valid]), radii.unit, radii.bound)
    held = right & radii.valid & (radii.values >= float(panel.threat.epsilon or 0.0))
    yield _share("certified accuracy", float(held.double().mean()), f"of {count} examples", "lower")
    fooled, _ = fooled_by(attacks_of(panel.measurements))
    attacked = float((right & ~fooled[:count]).double().mean())
    yield _share("robust accuracy, all attacks", attacked, f"of the same {count}", "upper")


def _share(name: str, share: float, unit: str, kind: str, note: str = "") -> Row:
    return Row(name, percent(share), unit, KINDS[kind], share, note, True)


def _number(name: str, value: float, unit: str, kind: str, note: str = "") -> Row:
    return Row(name, "–" if math.isnan(value) else f"{value:.3g}", unit, KINDS[kind], value, note)


def _median(values: Tensor) -> float:
    """The middle value, the mean of both middle ones for an even number; NaN without any."""
    return float(torch.quantile(values.double(), 0.5)) if len(values) else math.nan


def _invalid(found: Measurement) -> str:
    """How many examples have no valid value, and the reasons."""
    count = int((~found.valid).sum())
    if count == 0:
        return ""
    reasons = dict.fromkeys(reason for reason in found.details.get("reason", ()) if reason)
    return f"{count} of {len(found.valid)} without a value{': ' if reasons else ''}{'; '.join(reasons)}"


def _join(notes: list[str]) -> str:
    return "; ".join(note for note in notes if note)
