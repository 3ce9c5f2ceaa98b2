"""The figures of roughness: variation, curvature, plateaus, the probe, explanations, and all along the dial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd

from smoothness.report.answer import format_255
from smoothness.report.curves import describe_order, smoothness_order
from smoothness.report.figures.attribution import draw_attribution, stabilities
from smoothness.report.figures.cells import percent_text
from smoothness.report.figures.curvature import COLUMNS, curvatures, draw_curvature
from smoothness.report.figures.dials import dial_scale, draw_roughness_dial, roughness_dial
from smoothness.report.figures.plateaus import OUTPUT, draw_plateaus, plateau_shares
from smoothness.report.figures.probe import contradictions, draw_probe, probed_orders
from smoothness.report.figures.robustness import architectures_of
from smoothness.report.figures.variation import (
    concentration_curves,
    draw_concentration,
    draw_concentration_dial,
    draw_variation,
    variation_parts,
    without_dial,
)
from smoothness.report.plate import Plate, plate
from smoothness.report.style import on_dial, order_activations


def roughness_plates(
    frame: pd.DataFrame, headline: float | None, measured_at: Mapping[str, str] | None = None
) -> list[Plate]:
    """Of studies that measured roughness beyond kinks; what was not measured has no figure.

    Args:
        frame: valid rows of a study's frame.
        headline: ε of the robust accuracy beside the dial; None without attacks.
        measured_at: of `smoothness.report.roughness_methods.measured_at`: norms and radii, for the captions.
    """
    found = {
        "variation": _variation(frame),
        "curvature": _curvature(frame),
        "plateaus": _plateaus(frame),
        "probe": _probe(frame),
        **{f"attribution:{label}": [one] for label, one in _attribution(frame).items()},
        "dial": _dial(frame, headline),
    }
    at = {"dial": (measured_at or {}).get("variation", ""), **(measured_at or {})}
    return [replace(one, caption=one.caption + at.get(kind, "")) for kind, several in found.items() for one in several]


def _variation(frame: pd.DataFrame) -> list[Plate]:
    parts, curves = variation_parts(frame), concentration_curves(frame)
    found = []
    if len(parts):
        found.append(
            plate(
                "variation",
                "How much gradient and value vary, at once and gradually",
                "On random straight segments through each example, per unit of length (l2): mean over correctly "
                "classified examples divided by their mean margin; estimates of the mean over all directions. The "
                "gradient: total variation of the directional derivative, in kinks (full colour) and curvature "
                "(pale). The value: total variation of the margin itself, in jumps (full) and slopes (pale). Where "
                "the value jumps the gradient's variation is infinite, whatever its derivative says between the "
                "jumps.",
                f"Stacked bars. {_parts_in_words(parts)}.",
                draw_variation,
                parts,
            )
        )
    if len(curves):
        found.append(
            plate(
                "concentration",
                "On which scale the gradient turns",
                "Share of the gradient's total variation at places whose local scale is below h: 0 at a kink, "
                "elsewhere the length (l2) on which the second derivative stays above half its value. A kinked "
                "network stands at 100 % for every h; a curve that rises further right turns more gradually, and "
                "one that rises where kinks stand is as abrupt at that distance, smooth or not. Of the margin, and "
                "of what each layer hands on where that was measured. No scale of the logits enters. Estimates; "
                "lines are means over seeds, bands ± one standard deviation. Networks whose value jumps have no "
                "curve.",
                f"Line charts of shares rising with h. {_scales_in_words(without_dial(curves))}.",
                draw_concentration,
                curves,
            )
        )
    return found


def _in_words(rows: pd.DataFrame, write: Callable[[float], str], statistic: str = "mean") -> str:
    """One number for each architecture and activation: "mlp: step 100 %, relu 0 %; cnn: ..."."""
    parts = []
    for architecture in architectures_of(rows):
        own = rows[rows["architecture"] == architecture].groupby("activation")["value"].agg(statistic)
        parts.append(
            f"{architecture}: " + ", ".join(f"{name} {write(own[name])}" for name in order_activations(own.index))
        )
    return "; ".join(parts)


def _plain(value: float) -> str:
    return f"{value:.2g}"


def _parts_in_words(parts: pd.DataFrame) -> str:
    shown = without_dial(parts)
    said = []
    for of, name in (("gradient", "gradient, in kinks and curvature"), ("value", "value, in jumps and slopes")):
        rows = shown[shown["of"] == of].groupby(["architecture", "activation", "seed"], as_index=False)["value"].sum()
        said.append(f"Variation of the {name}: {_in_words(pd.DataFrame(rows), _plain) or 'infinite everywhere'}")
    return ". ".join(said)


def _scales_in_words(curves: pd.DataFrame) -> str:
    own = curves[curves["place"] == "margin"]
    tops = own.groupby("architecture")["scale"].transform("max")
    widest = own.loc[own["scale"] == tops]
    return f"At the largest h: {_in_words(widest, percent_text) or 'of layers alone'}"


def _curvature(frame: pd.DataFrame) -> list[Plate]:
    found = curvatures(frame)
    if found.empty:
        return []
    shown = without_dial(found)
    words = [
        f"{column.title}: {_in_words(shown[shown['quantity'] == column.quantity], _plain, 'median')}"
        for column in COLUMNS
        if (shown["quantity"] == column.quantity).any()
    ]
    return [
        plate(
            "curvature",
            "Curvature at a point, and over a finite distance",
            "Of the margin. At the point: largest magnitude of an eigenvalue of the Hessian at each example, "
            "divided by the slope there (l2; a lower bound with a convergence certificate). It is 0 almost "
            "everywhere on a network of kinks or steps, which says nothing of its bends. Over a finite distance: "
            "second difference divided by the slope over it, which every network has (an estimate of the largest "
            "over directions). Departure from the tangent: the largest within a ball, divided by the margin of "
            "correctly classified examples (a lower bound). Small points are examples, large ones the median of "
            "each seed; logarithmic axes, zeros written out.",
            f"Dot plots. Medians. {'. '.join(words)}.",
            draw_curvature,
            found,
        )
    ]


def _plateaus(frame: pd.DataFrame) -> list[Plate]:
    shares = plateau_shares(frame)
    if shares.empty:
        return []
    shown, words = without_dial(shares), []
    for of, place, title in (
        ("ball", "flat", "Flat share of the ball"),
        ("ball", "zero_gradient", "Gradient exactly 0"),
        ("jumps", OUTPUT, "Share of the margin's variation in jumps"),
    ):
        own = shown[(shown["of"] == of) & (shown["place"] == place)]
        if len(own):
            words.append(f"{title}: {_in_words(own, percent_text)}")
    return [
        plate(
            "plateaus",
            "Plateaus, saturation and jumps, layer by layer",
            "Means over examples, in percent. Standing still: share of a ball around each example on which the "
            "margin does not change, by its values (to the bit, at neighbouring points) and by autograd; where the "
            "two disagree the backward pass is not that of the forward. Saturated units: share of units whose "
            "activation's slope is exactly 0 there. Variation in jumps: share of the total variation of what a "
            "layer hands on (and of the margin) that stands in jumps of its value: 100 % is a step-wise "
            "representation, 0 % a continuous one, however steep. All are estimates over points or segments drawn "
            "at random.",
            f"Shaded tables. {'. '.join(words)}.",
            draw_plateaus,
            shares,
        )
    ]


def _probe(frame: pd.DataFrame) -> list[Plate]:
    orders = probed_orders(frame)
    if orders.empty:
        return []
    false = contradictions(orders)
    verdict = (
        f"Rougher than the facts allow, at the distances seen: {', '.join(false)}."
        if false
        else "Nowhere did it find a rougher break than the activation's facts allow."
    )
    shown = without_dial(orders)
    found = shown[shown["order"] < float("inf")].groupby("activation")["order"].min()
    words = [
        f"{name}: {describe_order(found[name]) if name in found.index else 'none'} found, "
        f"{describe_order(smoothness_order(name))} by its facts"
        for name in order_activations(shown["activation"])
    ]
    return [
        plate(
            "probe",
            "The order of smoothness, from values alone",
            "Share of examples by the roughest break that the probe found on random segments through them: from "
            "values alone, without derivatives, modules or facts. The frame marks what the facts of the activation "
            "say. Right of the frame: the segment met no such break, as a short one may not. Left of it: rougher "
            "than the facts; a smooth bend narrower than the distances looked at looks like a break. An estimate: "
            f"breaks off the segments, below rounding or of a higher derivative are not excluded. {verdict}",
            f"A shaded table. {'; '.join(words)}.",
            draw_probe,
            orders,
        )
    ]


def _attribution(frame: pd.DataFrame) -> dict[str, Plate]:
    stem = "attribution_sensitivity"
    labels = sorted({name.removeprefix(stem).removeprefix(":") for name in frame["quantity"] if name.startswith(stem)})
    plates: dict[str, Plate] = {}
    for label in labels:
        found = stabilities(frame, label)
        plates[label] = plate(
            f"explanations-{len(plates) + 1}" if len(labels) > 1 else "explanations",
            f"How steady explanations are{f': {label}' if label else ''}",
            "Of gradient attributions A(x) under random offsets in a ball around each example. Largest change: "
            "|A(x\u00a0+\u00a0v)\u00a0-\u00a0A(x)| / |A(x)|, the largest seen (a lower bound). Same top "
            "features and same order: mean overlap of the largest tenth and mean rank correlation by magnitude "
            "(estimates; 1 is steady). Infidelity: mean squared misfit between what the attribution predicts "
            "and what the output does, divided by the squared margin of correctly classified examples (an "
            "estimate; 0 is faithful). A network with an explanation of 0 everywhere has nothing to compare and "
            "no value. Small points are examples, large ones the median of each seed.",
            "Dot plots. Median of the largest change: "
            f"{_in_words(found[found['quantity'] == stem], _plain, 'median')}.",
            draw_attribution,
            found,
        )
    return plates


def _dial(frame: pd.DataFrame, headline: float | None) -> list[Plate]:
    curves = concentration_curves(frame)
    curves = curves[(curves["place"] == "margin")]
    plates = []
    if any(on_dial(label) for label in curves["activation"]):
        plates.append(
            plate(
                "concentration-dial",
                "On which scale the gradient turns, along the dial",
                "As in the figure of the scale on which the gradient turns, for activations smoothed by a Gaussian "
                "of width σ, paler the wider; each network was trained with its own. The sharper the activation, "
                "the further left its curve: from some distance on a smooth network is as abrupt as a kinked one. "
                "Of the margin; estimates.",
                f"Line charts of shares rising with h. {_scales_in_words(curves)}.",
                draw_concentration_dial,
                curves,
            )
        )
    found, scale = roughness_dial(frame, headline), dial_scale(frame)
    if not (found["quantity"] != "robust_accuracy").any():
        return plates
    at = "" if headline is None else f" Robust accuracy: at {format_255(headline)} (an upper bound)."
    words = []
    for quantity, name in dict.fromkeys(zip(found["quantity"], found["name"], strict=True)):
        own = found[(found["quantity"] == quantity) & (found["name"] == name)]
        ends = own.groupby("sigma")["value"].mean()
        words.append(f"{str(quantity).replace('_', ' ')} of {name}: {ends.iloc[-1]:.2g} at σ = {ends.index[-1]:g}, "
                     f"{ends.iloc[0]:.2g} at σ = {ends.index[0]:g}")  # fmt: skip
    h = "" if scale is None else f"Share of the gradient's variation within h = {scale:.3g} (input l2). "
    return [
        *plates,
        plate(
            "roughness-dial",
            "Roughness and robustness along the dial",
            "Each activation is smoothed by a Gaussian of width σ and the network trained with it; σ = 0, left of "
            f"the dotted line, is the sharp activation itself. {h}Curvature over a finite distance divided by the "
            f"slope over it: median over examples.{at} Lines are means over seeds, bands ± one standard deviation. "
            "Training may undo the dial by larger weights; a sharp step has no share within h, since its value "
            "jumps.",
            f"Line charts against σ. {'; '.join(words)}.",
            draw_roughness_dial,
            found,
        ),
    ]
