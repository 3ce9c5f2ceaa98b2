"""The figures as they stand in a report: drawn for a page and for a telephone, with caption and alt text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from smoothness.report.answer import format_255
from smoothness.report.curves import activation_curves, describe_order, smoothness_order
from smoothness.report.dimensions import slopes_in_words
from smoothness.report.distances import Family, families, listing
from smoothness.report.figures import (
    certified_curves,
    draw_activations,
    draw_certified,
    draw_dial,
    draw_jacobians,
    draw_kinks,
    draw_lipschitz,
    draw_robust_accuracy,
    draw_tradeoff,
    lipschitz_sides,
)
from smoothness.report.figures.dimensions import draw_dimensions
from smoothness.report.figures.distances import draw_distances
from smoothness.report.methods import norm_name
from smoothness.report.plate import Plate, in_words, plate
from smoothness.report.roughness import roughness_plates
from smoothness.report.style import order_activations
from smoothness.report.success import robust_curves, tested_epsilons
from smoothness.report.tables import layer_roughness
from smoothness.study.reductions import normalised
from smoothness.study.slopes import Slope


def plates(
    frame: pd.DataFrame,
    seeds: pd.DataFrame,
    headline: float | None,
    norm: str,
    measured_at: Mapping[str, str] | None = None,
) -> list[Plate]:
    """All figures of a report; what was not measured has none.

    Args:
        frame: valid rows of a study's frame.
        seeds: of `per_seed`.
        headline: ε of the trade-off.
        norm: of the ball: "linf", "l2" or "l1".
        measured_at: norms and radii of the analyzers of roughness, for the captions.
    """
    near = families(frame)
    found = [
        *activation_plates(frame),
        *robustness_plates(frame, seeds, headline, norm_name(norm)),
        *gradient_plates(frame, seeds),
        *tradeoff_plates(seeds, headline),
        *([_of_distances(near)] if near else []),
    ]
    return [
        *found,
        *certified_plates(frame, norm),
        *lipschitz_plates(frame),
        *roughness_plates(frame, headline, measured_at),
    ]


def unmeasured(frame: pd.DataFrame) -> list[str]:
    """What most reports draw and this one does not, since nothing of it is in the frame."""
    measured = set(frame["quantity"])
    subjects = {"attack_success": "attacks", "jacobian_norm": "input gradients", "kink_density": "kinks and jumps"}
    return [name for quantity, name in subjects.items() if quantity not in measured]


def activation_plates(frame: pd.DataFrame) -> list[Plate]:
    """The activations themselves, where the catalogue has them."""
    labels = order_activations(frame["activation"])
    curves = activation_curves(labels)
    if curves.empty:
        return []
    return [
        plate(
            "activations",
            "The activations and their derivatives",
            "Full lines are values, dashed lines derivatives. A jump is a gap: the filled end is the value taken, "
            "open ends are limits. Value jumps, kinks and curvature are three different scales of roughness: ReLU is "
            "continuous and only kinked, a step has derivative zero everywhere and still jumps. Exact.",
            "Small multiples of each activation with its derivative: "
            + "; ".join(f"{label}: {describe_order(smoothness_order(label))}" for label in labels)
            + ".",
            draw_activations,
            curves,
        )
    ]


def robustness_plates(frame: pd.DataFrame, seeds: pd.DataFrame, headline: float | None, norm: str) -> list[Plate]:
    """Robust accuracy, of studies with attacks."""
    if headline is None:
        return []
    return [
        plate(
            "robust-accuracy",
            "Robust accuracy against ε",
            "Share of attacked test examples that are classified correctly and that no attack fooled at this ε or a "
            "smaller one: an upper bound on the true robust accuracy. Lines are means, bands ± one standard deviation "
            f"over seeds; the ticks of ε ({norm}; for images in multiples of 1/255) are equally spaced. At "
            "ε = 0: clean accuracy on the same examples. Look for lines whose bands do not meet; rougher activations "
            "have more broken lines." + _where_stronger(frame),
            "Line chart of robust accuracy falling with ε. "
            f"At {format_255(headline)}: {in_words(seeds, 'robust_accuracy')}.",
            draw_robust_accuracy,
            robust_curves(frame).assign(norm=norm),
        )
    ]


def gradient_plates(frame: pd.DataFrame, seeds: pd.DataFrame) -> list[Plate]:
    """Jacobian norms; kinks and jumps by layer."""
    norms, layers = normalised(frame, "jacobian_norm"), layer_roughness(frame)
    found = []
    if len(norms):
        found.append(
            plate(
                "jacobian-norms",
                "Jacobian norms per margin",
                "Norm of the input gradient of the margin (l2) divided by the margin, for correctly classified "
                "examples; unit 1 / input l2; exact at each point; logarithmic axis. Violins show the examples of all "
                "seeds, points the median of each seed. The inverse is the distance at which a linear network would "
                "give way. A gradient of exactly 0 has no place on this axis and is written out: it means that the "
                "network is flat between its jumps, not that it is smooth.",
                "Violins of margin-normalised Jacobian norms. "
                f"Medians: {in_words(seeds, 'jacobian_normalised', False)}.",
                draw_jacobians,
                norms,
            )
        )
    if len(layers):
        found.append(
            plate(
                "kinks-and-jumps",
                "Kinks and jumps, layer by layer",
                "On random straight segments through each example, by the layer in which the break arises; enumerated "
                "on the segments drawn, exactly where activations are piecewise affine and by bisection where they "
                "are also curved, which estimates the mean over all directions. Left: breaks of any kind per unit of "
                "length, mean over examples. Middle and right: jumps of the slope and of the value divided by the "
                "margin, median over correctly classified examples. Three scales, three axes: heights do not compare "
                "across panels. Points are means over seeds, bars ± one standard deviation.",
                f"Point plots in three panels. Breaks per unit of length, summed over layers: "
                f"{in_words(seeds, 'kink_density', False)}.",
                draw_kinks,
                layers,
            )
        )
    return found


def tradeoff_plates(seeds: pd.DataFrame, headline: float | None) -> list[Plate]:
    """Clean beside robust accuracy, of studies with attacks."""
    if headline is None:
        return []
    return [
        plate(
            "clean-against-robust",
            f"Clean against robust accuracy at {format_255(headline)}",
            "Both on the attacked examples. Small points are seeds, large ones their means; robust accuracy is an "
            "upper bound. Points further right are more accurate, higher ones harder to fool; a difference in height "
            "between points far apart horizontally may come from clean accuracy alone. Panels share their axes.",
            f"Scatter plot. Clean accuracy: {in_words(seeds, 'clean_accuracy_attacked')}. "
            f"Robust accuracy: {in_words(seeds, 'robust_accuracy')}.",
            draw_tradeoff,
            seeds,
        )
    ]


def dimension_plates(slopes: Sequence[Slope]) -> list[Plate]:
    """Of studies that varied the number of input dimensions."""
    if not slopes:
        return []
    return [
        plate(
            "dimensions",
            "Distance to the boundary against the number of dimensions",
            "Distance to the nearest misclassified input (input units; an upper bound by attack), median over "
            "correctly classified examples: points are medians over seeds, bands run from the smallest seed to the "
            "largest. Both axes are logarithmic, so that a power of n is a straight line. Where clean accuracy falls "
            "with n (see the table), the signal is harder to learn and not only the distance shorter.",
            f"Line charts of distance against n. Slopes: {slopes_in_words(slopes)}.",
            draw_dimensions,
            slopes,
        )
    ]


def certified_plates(frame: pd.DataFrame, norm: str) -> list[Plate]:
    """Of studies that certified radii in the norm of the attacks."""
    curves = certified_curves(frame, norm)
    curves = curves[curves["epsilon"] > 0]
    if curves.empty:
        return []
    means = curves.groupby(["activation", "epsilon"], as_index=False)[["certified", "robust_accuracy"]].mean()
    words = "; ".join(
        f"{name} at {format_255(epsilon)} {low:.0%} to {high:.0%}"
        for name, epsilon, low, high in means.itertuples(index=False)
    ).replace("%", " %")
    listed = ", ".join(format_255(epsilon) for epsilon in sorted(curves["epsilon"].unique()))
    return [
        plate(
            "certified-accuracy",
            "Certified beside attacked accuracy",
            "The true robust accuracy lies on each bar: from the share of attacked examples whose certified radius "
            "reaches ε (a lower bound: no attack can do better) to the share that no attack fooled (an upper bound). "
            f"Bars of one activation from top to bottom: ε = {listed} ({norm_name(norm)}). A long bar means "
            "that certificate or attack is weak, not that the network is either.",
            f"Bars from certified to attacked accuracy. {words}.",
            draw_certified,
            curves,
        )
    ]


def lipschitz_plates(frame: pd.DataFrame) -> list[Plate]:
    """Of studies that measured the Lipschitz constant from both sides, and of those that turned the dial σ."""
    if not frame["quantity"].isin(["local_lipschitz_upper"]).any():
        return []
    sides = lipschitz_sides(frame)
    both = (
        f"of the margin ({norm_name(str(sides['norm'].iloc[0]))}), over all pairs of points in the ball, divided by "
        "the example's margin; median over correctly classified examples. The thin line is the lower side, a pair of "
        "points that is as steep; the line with markers the upper side, a certificate that no pair is steeper. "
    )
    found = [
        plate(
            "lipschitz",
            "The Lipschitz constant between its two sides",
            f"Local Lipschitz constant {both}Both axes are logarithmic. Ticks at the right edge: the certified global "
            "constant. Where a jump may be crossed there is no constant: see the oscillation instead. The inverse of "
            "the upper side bounds the distance to the decision boundary from below, up to the radius.",
            f"Bands of Lipschitz constants against the radius. {_sides_in_words(sides)}",
            draw_lipschitz,
            sides,
        )
    ]
    if sides["activation"].str.contains("@sigma=", regex=False).any():
        found.append(
            plate(
                "lipschitz-dial",
                "The Lipschitz constant along the dial",
                f"Local Lipschitz constant {both}Each activation is smoothed by a Gaussian of width σ and the network "
                "trained with it; single markers at the left edge are the sharp activation itself. Training may undo "
                "the dial by larger weights, so that a curve may also be flat.",
                f"Bands of Lipschitz constants against σ. {_sides_in_words(sides)}",
                draw_dial,
                sides,
            )
        )
    return found


def _sides_in_words(sides: pd.DataFrame) -> str:
    local = sides[sides["side"] != "global"]
    widest = local[local["radius"] == local["radius"].max()]
    table = widest.pivot_table(index="activation", columns="side", values="value", aggfunc="median", dropna=False)
    words = [f"{name} {row['lower']:.3g} to {row['upper']:.3g}" for name, row in table.iterrows()]
    return f"At radius {local['radius'].max():g}: {'; '.join(words)}."


def _of_distances(found: list[Family]) -> Plate:
    return plate(
        "distances",
        "Distance to the boundary against distance to the next class",
        "Distance to the nearest misclassified input divided by that to the nearest training example of another class "
        f"({found[0].unit}; no unit), median over correctly classified examples; ticks are seeds, markers their "
        "median, lines their range. Exact where the family has an exact method; else an upper bound by attack, whose "
        "truth lies further left. Logarithmic axis. Left of the broken line the claim holds.",
        f"Dot plot of distance ratios by family, nearest first: {listing(found)}.",
        draw_distances,
        found,
    )


def _where_stronger(frame: pd.DataFrame) -> str:
    """Attacks that did not run at every radius: between theirs and the others the bound's strength changes."""
    rows = frame[frame["quantity"] == "attack_success"]
    radii = {name: tested_epsilons(own) for name, own in rows.groupby("attack")}
    everywhere = tested_epsilons(frame)
    return "".join(
        f" {str(name).capitalize()} ran at {', '.join(map(format_255, own))} alone: elsewhere the bound is looser."
        for name, own in radii.items()
        if len(own) < len(everywhere)
    )
