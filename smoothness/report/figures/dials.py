"""Figure: roughness and robust accuracy along the dial σ, from smooth to sharp."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.figures.variation import concentration_curves
from smoothness.report.style import (
    NARROW,
    SOFT,
    WIDE,
    empty_figure,
    legend_below,
    on_dial,
    order_activations,
    panels,
    strokes,
)
from smoothness.study.reductions import KEYS, robust_curves, round_epsilon

_PANELS = {
    "concentration": ("Gradient turned within h", "share (estimate)"),
    "finite_normalised_curvature": ("Curvature over a distance", "÷ slope, 1 / input l2 (estimate)"),
    "robust_accuracy": ("Robust accuracy", "upper bound"),
}


def dial_scale(frame: pd.DataFrame) -> float | None:
    """The h at which the dial is drawn: the largest that networks on it were measured at; None without any."""
    turned = frame["activation"].map(lambda label: on_dial(label) is not None)
    scales = frame.loc[turned & (frame["quantity"] == "gradient_concentration"), "epsilon"].dropna()
    return float(scales.max()) if len(scales) else None


def roughness_dial(frame: pd.DataFrame, headline: float | None) -> pd.DataFrame:
    """Each quantity of the figure for every network on a dial, and for the sharp activations at its end.

    Args:
        frame: the valid rows.
        headline: ε of the robust accuracy; None without attacks.

    Returns:
        KEYS, name (of the sharp activation), sigma (0 at the sharp end), quantity, scale (the h of the share), value:
        empty without a dial.
    """
    scale, parts = dial_scale(frame), []
    if scale is not None:
        curves = concentration_curves(frame)
        here = curves[(curves["place"] == "margin") & (curves["scale"] == scale)]
        parts.append(here[[*KEYS, "scale", "value"]].assign(quantity="concentration"))
    bends = frame[frame["quantity"] == "finite_normalised_curvature"].groupby(KEYS, as_index=False)["value"].median()
    parts.append(bends.assign(quantity="finite_normalised_curvature"))
    if headline is not None:
        robust = robust_curves(frame)
        robust = robust[round_epsilon(robust["epsilon"]) == round(headline, 9)]
        parts.append(robust.rename(columns={"robust_accuracy": "value"}).assign(quantity="robust_accuracy"))
    found = pd.concat(parts, ignore_index=True)
    turned = {label: on_dial(label) or (label, 0.0) for label in found["activation"].unique()}
    found = found.assign(name=found["activation"].map(lambda label: turned[label][0]),
                         sigma=found["activation"].map(lambda label: turned[label][1]))  # fmt: skip
    dials = set(found.loc[found["sigma"] > 0, "name"])
    found = found[found["architecture"].isin(set(found.loc[found["sigma"] > 0, "architecture"]))]
    columns = [*KEYS, "name", "sigma", "quantity", "scale", "value"]
    return pd.DataFrame(found.reindex(columns=columns)[found["name"].isin(dials)])


def draw_roughness_dial(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Means over seeds against σ, with ± one standard deviation; the sharp activation stands at the left edge.

    Args:
        frame: of `roughness_dial`.
        narrow: lay out for a small screen.
    """
    if frame.empty:
        return empty_figure("No dial was turned.", narrow=narrow)
    names, architectures = order_activations(frame["name"]), architectures_of(frame)
    shown = [quantity for quantity in _PANELS if (frame["quantity"] == quantity).any()]
    columns = 1 if narrow else len(shown)
    figure, axes = panels(
        len(architectures) * len(shown) // columns,
        columns,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, columns / 2)),
        row_height=2.3 if narrow else 3.0,
    )
    least = float(frame.loc[frame["sigma"] > 0, "sigma"].min())
    cases = [(architecture, quantity) for architecture in architectures for quantity in shown]
    for ax, (architecture, quantity) in zip(axes, cases, strict=True):
        own = frame[(frame["architecture"] == architecture) & (frame["quantity"] == quantity)]
        _draw_panel(ax, own, names, least)
        title, axis = _PANELS[quantity]
        if quantity == "concentration":
            title += f" = {own['scale'].iloc[0]:g}"
        ax.set_title(title if len(architectures) == 1 else f"{title} ({architecture})")
        ax.set(xlabel="σ  (0: the sharp activation)", ylabel=axis)
        if quantity == "finite_normalised_curvature":
            ax.set_ylim(bottom=-0.04 * ax.get_ylim()[1])
        else:
            ax.set_ylim(-0.03, 1.03)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    legend_below(figure, names, narrow=narrow, lines=False)
    return figure


def _draw_panel(ax: Axes, frame: pd.DataFrame, names: list[str], least: float) -> None:
    sharp = least / 2.5
    ax.set_xscale("log")
    for name in names:
        seeds = frame[frame["name"] == name].groupby("sigma")["value"]
        mean, deviation = seeds.mean(), seeds.std(ddof=1).fillna(0.0)
        stroke = strokes(names)[name]
        x = [sigma or sharp for sigma in mean.index]
        smooth = [place for place, sigma in enumerate(mean.index) if sigma > 0]
        ax.plot([x[k] for k in smooth], mean.iloc[smooth], color=stroke.colour, marker=stroke.marker)
        ax.fill_between([x[k] for k in smooth], (mean - deviation).iloc[smooth], (mean + deviation).iloc[smooth],
                        color=stroke.colour, alpha=0.15, linewidth=0)  # fmt: skip
        if 0.0 in mean.index:
            style: Any = {"color": stroke.colour, "marker": stroke.marker, "markeredgecolor": "white"}
            ax.errorbar([sharp], [mean[0.0]], [deviation[0.0]], markersize=7, zorder=4, **style)
    ticks = sorted({float(sigma) for sigma in frame["sigma"] if sigma > 0})
    ax.axvline(sharp * 1.58, color=SOFT, linewidth=0.7, linestyle=(0, (1, 2)))
    ax.set_xticks([sharp, *ticks], ["0", *(f"{sigma:g}" for sigma in ticks)])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(sharp / 1.25, max(ticks) * 1.25)
