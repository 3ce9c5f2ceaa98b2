"""The figures as they stand in a report: drawn for a page and for a telephone, with caption and alt text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

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
from smoothness.report.style import figure_style, order_activations, to_svg
from smoothness.report.success import robust_curves, tested_epsilons
from smoothness.report.tables import Spread, layer_roughness, spreads
from smoothness.study.reductions import normalised
from smoothness.study.slopes import Slope


@dataclass(frozen=True)
class Plate:
    """One figure of a report.

    Attributes:
        slug: file name without ending, and anchor.
        title, caption: what it is; what to see, units and bound kind.
        alt: what a reader who cannot see it needs.
        wide, narrow: SVG for a page and for a small screen.
    """

    slug: str
    title: str
    caption: str
    alt: str
    wide: bytes
    narrow: bytes


def plates(frame: pd.DataFrame, seeds: pd.DataFrame, headline: float | None, norm: str) -> list[Plate]:
    """All figures of a report.

    Args:
        frame: valid rows of a study's frame.
        seeds: of `per_seed`.
        headline: ε of figure 5.
        norm: of the ball: "linf", "l2" or "l1".
    """
    ball, norm = norm, norm_name(norm)
    labels, near = order_activations(frame["activation"]), families(frame)
    at = format_255(headline) if headline is not None else "the headline ε"
    found = [
        _plate(
            "activations",
            "The activations and their derivatives",
            "Full lines are values, dashed lines derivatives. A jump is a gap: the filled end is the value taken, "
            "open ends are limits. Value jumps, kinks and curvature are three different scales of roughness: ReLU is "
            "continuous and only kinked, a step has derivative zero everywhere and still jumps. Exact.",
            "Small multiples of each activation with its derivative: "
            + "; ".join(f"{label}: {describe_order(smoothness_order(label))}" for label in labels)
            + ".",
            draw_activations,
            activation_curves(labels),
        ),
        _plate(
            "robust-accuracy",
            "Robust accuracy against ε",
            "Share of attacked test examples that are classified correctly and that no attack fooled at this ε or a "
            "smaller one: an upper bound on the true robust accuracy. Lines are means, bands ± one standard deviation "
            f"over seeds; the ticks of ε ({norm}; for images in multiples of 1/255) are equally spaced. At "
            "ε = 0: clean accuracy on the same examples. Look for lines whose bands do not meet; rougher activations "
            "have more broken lines." + _where_stronger(frame),
            f"Line chart of robust accuracy falling with ε. At {at}: {_listing(seeds, 'robust_accuracy')}.",
            draw_robust_accuracy,
            robust_curves(frame).assign(norm=norm),
        ),
        _plate(
            "jacobian-norms",
            "Jacobian norms per margin",
            "Norm of the input gradient of the margin (l2) divided by the margin, for correctly classified examples; "
            "unit 1 / input l2; exact at each point; logarithmic axis. Violins show the examples of all seeds, points "
            "the median of each seed. The inverse is the distance at which a linear network would give way. A "
            "gradient of exactly 0 has no place on this axis and is written out: it means that the network is flat "
            "between its jumps, not that it is smooth.",
            f"Violins of margin-normalised Jacobian norms. Medians: {_listing(seeds, 'jacobian_normalised', False)}.",
            draw_jacobians,
            normalised(frame, "jacobian_norm"),
        ),
        _plate(
            "kinks-and-jumps",
            "Kinks and jumps, layer by layer",
            "On random straight segments through each example, by the layer in which the break arises; enumerated "
            "exactly on the segments drawn, which estimates the mean over all directions; only for MLPs, where the "
            "exact method applies. Left: breaks of any kind per unit of length, mean over examples. "
            "Middle and right: jumps of the slope and of the value divided by the margin, median over correctly "
            "classified examples. Three scales, three axes: heights do not compare across panels. Points are means "
            "over seeds, bars ± one standard deviation.",
            f"Point plots in three panels. Breaks per unit of length, summed over layers: "
            f"{_listing(seeds, 'kink_density', False)}.",
            draw_kinks,
            layer_roughness(frame),
        ),
        _plate(
            "clean-against-robust",
            f"Clean against robust accuracy at {at}",
            "Both on the attacked examples. Small points are seeds, large ones their means; robust accuracy is an "
            "upper bound. Points further right are more accurate, higher ones harder to fool; a difference in height "
            "between points far apart horizontally may come from clean accuracy alone. Panels share their axes.",
            f"Scatter plot. Clean accuracy: {_listing(seeds, 'clean_accuracy_attacked')}. "
            f"Robust accuracy: {_listing(seeds, 'robust_accuracy')}.",
            draw_tradeoff,
            seeds,
        ),
        *([_of_distances(near)] if near else []),
    ]
    return [*found, *certified_plates(frame, ball), *lipschitz_plates(frame)]


def dimension_plates(slopes: Sequence[Slope]) -> list[Plate]:
    """Of studies that varied the number of input dimensions."""
    if not slopes:
        return []
    return [
        _plate(
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
        _plate(
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
        _plate(
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
            _plate(
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
    return _plate(
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


def _plate(slug: str, title: str, caption: str, alt: str, draw: Callable[..., Figure], frame: object) -> Plate:
    with figure_style():
        wide, narrow = (to_svg(draw(frame, narrow=small)) for small in (False, True))
    return Plate(slug, title, caption, alt, wide, narrow)


def _listing(seeds: pd.DataFrame, statistic: str, percent: bool = True) -> str:
    """The statistic of each architecture and activation in words."""

    def text(spread: Spread) -> str:
        return f"{100 * spread.mean:.0f} %" if percent else f"{spread.mean:.2g}"

    by_architecture: dict[str, list[str]] = {}
    for (architecture, activation), values in spreads(seeds).items():
        if values[statistic].seeds:
            by_architecture.setdefault(architecture, []).append(f"{activation} {text(values[statistic])}")
    parts = [f"{architecture}: {', '.join(items)}" for architecture, items in by_architecture.items()]
    return "; ".join(parts) or "not measured"
