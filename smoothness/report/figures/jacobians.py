"""Figure 3: margin-normalised Jacobian norms."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.style import INK, NARROW, SOFT, WIDE, empty_figure, order_activations, panels, strokes


def draw_jacobians(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Distribution over examples (violins) with each seed's median (points), on a logarithmic axis.

    A logarithm has no place for zero: the share of examples with a gradient of exactly 0 is written beside
    the violin, and in its place where every example has one.

    Args:
        frame: of `normalised(..., "jacobian_norm")`.
        narrow: lay out for a small screen.
    """
    if frame.empty:
        return empty_figure("No Jacobian norm was measured.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    palette = {k: s.colour for k, s in strokes(labels).items()}
    columns = 1 if narrow else len(architectures)
    height = 0.36 * len(labels) + 0.9
    figure, axes = panels(
        len(architectures) if narrow else 1,
        columns,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, len(architectures) / 2)),
        row_height=height,
        sharex=True,
        sharey=not narrow,
    )
    for ax, architecture in zip(axes, architectures, strict=True):
        rows = frame[frame["architecture"] == architecture]
        positive = rows[rows["value"] > 0]
        medians = positive.groupby(["activation", "seed"], as_index=False)["value"].median()
        ax.set_xscale("log")
        if len(positive):
            common = {"x": "value", "y": "activation", "order": labels, "hue": "activation", "hue_order": labels}
            sns.violinplot(
                data=positive, **common, palette=palette, legend=False, log_scale=(True, False), cut=0, inner=None,
                density_norm="width", width=0.85, linewidth=0.0, saturation=1.0, alpha=0.4, ax=ax,
            )  # fmt: skip
            sns.stripplot(
                data=medians, **common, palette=palette, legend=False, jitter=False, size=5, linewidth=0.8,
                edgecolor="white", zorder=4, ax=ax,
            )  # fmt: skip
        _write_zero_shares(ax, rows, labels)
        ax.set_title(architecture)
        ax.set(xlabel="Jacobian norm ÷ margin  (1 / input l2)", ylabel="", ylim=(len(labels) - 0.4, -0.6))
        ax.set_yticks(range(len(labels)), labels)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.tick_params(axis="x", labelbottom=True)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(visible=False, axis="y")
    return figure


def _write_zero_shares(ax: Axes, rows: pd.DataFrame, labels: list[str]) -> None:
    shares = (rows["value"] == 0).groupby(rows["activation"]).mean()
    for place, label in enumerate(labels):
        share = float(shares.get(label, 0.0))
        if label not in shares.index:
            text = "not measured"
        elif share == 1.0:
            text = "gradient exactly 0: no bar, not smooth"
        elif share > 0:
            text = f"{share:.0%} at 0".replace("%", " %")
        else:
            continue
        inside = label not in shares.index or share == 1.0
        ax.text(0.02, place if inside else place - 0.3, text, va="center", size=8, color=SOFT, style="italic",
                transform=ax.get_yaxis_transform())  # fmt: skip
