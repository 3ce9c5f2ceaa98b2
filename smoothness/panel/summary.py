"""From values per example to the lines that readers see; each says its unit and what kind of number it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothness.analyzers.masking import family
from smoothness.panel import rough_rows
from smoothness.panel.lines import Row, invalid, joined, median, number, share
from smoothness.panel.reading import (
    attacks_of,
    correct_of,
    describe_threat,
    fooled_by,
    robust_accuracy,
    success_on_correct,
    zero_share,
)

if TYPE_CHECKING:
    from smoothness.panel.result import Panel


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
        Section("Variation on segments", tuple(rough_rows.variation_rows(panel.measurements))),
        Section("Plateaus", tuple(rough_rows.plateau_rows(panel.measurements))),
        Section("Curvature", tuple(rough_rows.curvature_rows(panel.measurements))),
        Section("Probe, from values alone", tuple(rough_rows.probe_rows(panel.measurements, panel.activations))),
        Section("Stability of explanations", tuple(rough_rows.explanation_rows(panel.measurements))),
        Section(_certified_title(panel), tuple(_certified(panel))),
    ]
    return [part for part in parts if part.rows]


def _predictions(panel: Panel) -> Iterator[Row]:
    if "correct" not in panel.measurements:
        return
    correct = panel.measurements["correct"]
    yield share("clean accuracy", float(correct_of(panel.measurements).double().mean()),
                 f"of {len(correct.values)} examples", "exact", invalid(correct))  # fmt: skip
    margin = panel.measurements["margin"]
    yield number("margin, median", median(margin.values[margin.valid]), margin.unit, margin.bound)


def _attacks(panel: Panel) -> Iterator[Row]:
    attacks = attacks_of(panel.measurements)
    if not attacks:
        return
    count = int(correct_of(panel.measurements).sum())
    masked = panel.masking is not None and panel.masking.masked
    for name, found in attacks.items():
        notes = [invalid(found)]
        if masked and family(name) == "native":
            notes.append("masked: no evidence of robustness")
        if family(name) == "noise":
            notes.append("chance, the control")
        rate = success_on_correct(panel.measurements, {name: found})
        yield share(f"success of {name}", rate, f"of {count} correct", found.bound, joined(notes))
    union = success_on_correct(panel.measurements, attacks)
    yield share("success of any of them", union, f"of {count} correct", "lower")
    total = len(panel.measurements["correct"].values)
    yield share("robust accuracy, all attacks", robust_accuracy(panel.measurements), f"of {total} examples", "upper",
                 "gradients are masked: see the verdict" if masked else "")  # fmt: skip


def _gradient(panel: Panel) -> Iterator[Row]:
    jacobian = panel.measurements["jacobian_norm"]
    of = jacobian.settings["of"]
    zero = zero_share(jacobian)
    note = "zero between jumps, which is not smoothness" if zero > 0.5 else ""
    yield number(f"Jacobian norm of the {of}, median", median(jacobian.values[jacobian.valid]), jacobian.unit,
                  jacobian.bound, joined([invalid(jacobian), note]))  # fmt: skip
    divided = panel.measurements.get("jacobian_norm_per_margin")
    if divided is not None:
        yield number("… ÷ margin, correct examples, median", median(divided.values[divided.valid]), divided.unit,
                      divided.bound)  # fmt: skip
    yield share("gradient exactly 0", zero, "of the examples", "exact")
    if panel.masking is not None:
        yield share("gradient contradicts the forward pass", panel.masking.contradicted, "of the examples", "estimate")


def _kinks(panel: Panel) -> Iterator[Row]:
    density = panel.measurements.get("kink_density")
    if density is None:
        return
    count = len(density.values)
    segments = density.settings["segments"]
    drawn = f"{count} examples, {segments} segment{'s' * (segments != 1)} each"
    note = joined([drawn, density.details["note"]])
    mean = float(density.values.sum(dim=1).mean())
    yield number("density, mean", mean, density.unit, density.bound, note)
    margin = panel.measurements.get("margin")
    for name, label in (("slope_jump", "slope jumps"), ("value_jump", "value jumps")):
        found = panel.measurements[name]
        sizes = found.values.sum(dim=1)
        yield number(f"{label}, median", median(sizes), found.unit, found.bound)
        if margin is None:
            continue
        margins = margin.values[:count].double()
        rows = correct_of(panel.measurements)[:count] & (margins > 0)
        unit, middle = found.unit.replace("logit", "1", 1), median(sizes[rows] / margins[rows])
        yield number("… ÷ margin, correct examples, median", middle, unit, found.bound)


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
            yield number(f"{label} ÷ margin, median", median(found.values.flatten()[found.valid]), found.unit,
                          found.bound, invalid(found))  # fmt: skip
    count = len(radii.values)
    right = correct_of(panel.measurements)[:count]
    yield number("certified radius, median", median(radii.values[radii.valid]), radii.unit, radii.bound)
    held = right & radii.valid & (radii.values >= float(panel.threat.epsilon or 0.0))
    yield share("certified accuracy", float(held.double().mean()), f"of {count} examples", "lower")
    fooled, _ = fooled_by(attacks_of(panel.measurements))
    attacked = float((right & ~fooled[:count]).double().mean())
    yield share("robust accuracy, all attacks", attacked, f"of the same {count}", "upper")
