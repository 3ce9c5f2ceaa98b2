"""Figure 4: kinks and jumps per layer, three scales in three panels."""

from __future__ import annotations

import re

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.style import (
    NARROW,
    WIDE,
    empty_figure,
    legend_below,
    order_activations,
    panels,
    strokes,
)

_PANELS = {
    "kink_density": "Density of breaks",
    "slope_jump": "Slope jumps ÷ margin",
    "value_jump": "Value jumps ÷ margin",
}


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Sorting key by which "layer 10" follows "layer 9"."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


def draw_kinks(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Breaks, slope jumps and value jumps by layer: mean and standard deviation over seeds.

    Activations that are exactly 0 everywhere are named under the panels instead of drawn on the axis.

    Args:
        frame: of `layer_roughness`.
        narrow: lay out for a small screen.
    """
    if frame.empty:
        return empty_figure("Kinks and jumps were not measured in this run.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    style = strokes(labels)
    biggest = frame["value"].abs().groupby(frame["activation"]).max()
    drawn = [label for label in labels if biggest[label] > 0]
    quiet = [label for label in labels if label not in drawn]
    cases = [(architecture, quantity) for architecture in architectures for quantity in _PANELS]
    figure, axes = panels(
        len(cases) if narrow else len(architectures),
        1 if narrow else len(_PANELS),
        width=NARROW if narrow else WIDE,
        row_height=2.2 if narrow else 2.9,
    )
    for ax, (architecture, quantity) in zip(axes, cases, strict=True):
        rows = frame[(frame["architecture"] == architecture) & (frame["quantity"] == quantity)]
        rows = rows[rows["activation"].isin(drawn)]
        title = _PANELS[quantity]
        unit = str(rows["unit"].iloc[0]) if len(rows) else ""
        unit = unit if quantity == "kink_density" else f"({unit}) ÷ logit"
        if len(rows):
            layers = sorted(rows["layer"].unique(), key=natural_key)
            sns.pointplot(
                data=rows, x="layer", y="value", order=layers, hue="activation", hue_order=drawn, errorbar="sd",
                palette=[style[k].colour for k in drawn], markers=[style[k].marker for k in drawn], linestyle="none",
                dodge=0.12 * (len(drawn) - 1) or False, err_kws={"linewidth": 1.2}, markersize=5, legend=False, ax=ax,
            )  # fmt: skip
            top = max(ax.get_ylim()[1], 1e-12)
            ax.set_ylim(-0.04 * top, top * 1.05)
        ax.set_title(title if len(architectures) == 1 else f"{title} ({architecture})")
        ax.set(xlabel="", ylabel=unit)
        ax.grid(visible=False, axis="x")
    note = f"exactly 0 in every layer: {', '.join(quiet)}" if quiet else ""
    legend_below(figure, drawn, narrow=narrow, lines=False, note=note)
    return figure
