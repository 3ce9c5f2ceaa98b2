"""Figure 1: each activation with its derivative."""

from __future__ import annotations

import math

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smoothness.report.curves import SPAN, describe_order
from smoothness.report.style import NARROW, SOFT, WIDE, Stroke, empty_figure, order_activations, panels, strokes


def draw_activations(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Small multiples of φ (full) and φ' (dashed); jumps are gaps with open and closed ends.

    Args:
        frame: of `activation_curves`.
        narrow: lay out for a small screen.
    """
    labels = order_activations(frame["activation"])
    if not labels:
        return empty_figure("No activation of this run is in the catalogue.", narrow=narrow)
    columns = 2 if narrow else min(4, len(labels))
    rows = math.ceil(len(labels) / columns)
    width = NARROW if narrow else WIDE * max(columns, 2) / 4
    figure, axes = panels(rows, columns, width=width, row_height=1.75 if narrow else 1.9, sharex=True, sharey=True)
    style = strokes(labels)
    for ax, label in zip(axes, labels, strict=False):
        mine = frame[frame["activation"] == label]
        _draw_one(ax, mine, style[label])
        ax.set_title(label)
        ax.text(
            0.03, 0.97, describe_order(mine["order"].iloc[0]), transform=ax.transAxes, va="top", size=8, color=SOFT
        )
        ax.set(xlabel="", ylabel="")
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(labels) - columns) : len(labels)]:
        ax.set_xlabel("z")
        ax.tick_params(labelbottom=True)
    handles = [
        Line2D([], [], color=SOFT, label="value φ(z)"),
        Line2D([], [], color=SOFT, linestyle=(0, (3, 1.5)), linewidth=1.2, label="derivative φ′(z)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=3.0)
    return figure


def _draw_one(ax: Axes, frame: pd.DataFrame, stroke: Stroke) -> None:
    ax.axhline(0, color="#8c959f", linewidth=0.7)
    ax.axvline(0, color="#8c959f", linewidth=0.7)
    for curve, options in (
        ("slope", {"linestyle": (0, (3, 1.5)), "linewidth": 1.2}),
        ("value", {"linewidth": 2.0}),
    ):
        rows = frame[frame["curve"] == curve]
        # `units` draws each piece by itself: nothing connects the two sides of a jump.
        sns.lineplot(
            data=rows, x="z", y="y", units="piece", estimator=None, color=stroke.colour, legend=False, ax=ax, **options
        )
        size = 4.0 if curve == "value" else 2.8
        for _, end in rows[rows["end"] != ""].iterrows():
            face = stroke.colour if end["end"] == "closed" else "white"
            ax.plot(
                end["z"], end["y"], "o", markersize=size, markerfacecolor=face, markeredgecolor=stroke.colour,
                markeredgewidth=0.9, zorder=5 if curve == "value" else 4,
            )  # fmt: skip
    ax.set(xlim=(-SPAN, SPAN), ylim=(-1.35, 2.6), xticks=[-2, 0, 2], yticks=[-1, 0, 1, 2])
