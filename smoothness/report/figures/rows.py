"""Figures with a row for each activation: dots of examples with the median of each seed, and what has no place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from smoothness.report.style import INK, NARROW, SOFT, WIDE, panels, strokes

_ROUNDING = 1e-9  # of the largest value: what a logarithmic axis counts as 0


@dataclass(frozen=True)
class Column:
    """One quantity: its name in the frame, a title, the axis with its unit, and what an absence means.

    Attributes:
        quantity, title, axis: as said.
        log: a logarithmic axis, on which zeros, to rounding, are written out.
        missing: text in the row of an activation without a value.
        limits: of a linear axis; those of the data when None.
    """

    quantity: str
    title: str
    axis: str
    log: bool = False
    missing: str = "not measured"
    limits: tuple[float, float] | None = None


def row_panels(
    labels: Sequence[str], architectures: Sequence[str], titles: Sequence[str], *, narrow: bool
) -> tuple[Figure, list[list[Axes]]]:
    """A panel for each architecture and title, rows of activations; one below the other where narrow.

    Returns the figure, and its axes by architecture.
    """
    count = len(architectures) * len(titles)
    per_row = 1 if narrow else min(len(architectures), 2) if len(titles) == 1 else len(titles)
    figure, axes = panels(
        -(-count // per_row),
        per_row,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, per_row / 2)),
        row_height=0.3 * len(labels) + 0.95,
        sharey=not narrow,
    )
    for ax in axes[count:]:
        ax.set_visible(False)
    rows = [axes[len(titles) * k : len(titles) * (k + 1)] for k in range(len(architectures))]
    for architecture, several in zip(architectures, rows, strict=True):
        for ax, title in zip(several, titles, strict=True):
            ax.set_title(title if len(architectures) == 1 else f"{title} ({architecture})")
            ax.set_yticks(range(len(labels)), labels)
            ax.set_ylim(len(labels) - 0.4, -0.6)
            ax.tick_params(axis="y", length=0, labelcolor=INK)
            ax.grid(visible=False, axis="y")
    return figure, rows


def draw_dots(ax: Axes, rows: pd.DataFrame, labels: Sequence[str], column: Column) -> None:
    """Small dots are examples of all seeds, markers the median of each seed.

    Args:
        ax: of `row_panels`.
        rows: activation, seed, value of one quantity and architecture.
        labels: the rows, from the top.
        column: what is drawn.
    """
    style, spread = strokes(labels), np.random.default_rng(0)
    if column.log:
        ax.set_xscale("log")
    least = _ROUNDING * float(rows["value"].max()) if column.log and len(rows) else -np.inf
    for place, label in enumerate(labels):
        own = rows[rows["activation"] == label]
        shown = own[own["value"] > least]
        if shown.empty:
            write_in_row(ax, place, column.missing if own.empty else "0 for all examples")
            continue
        if len(shown) < len(own):
            middle = ", the median too" if float(own["value"].median()) <= least else ""
            write_in_row(ax, place - 0.32, f"0 for {100 * (1 - len(shown) / len(own)):.0f} %{middle}")
        heights = place + spread.uniform(-0.24, 0.24, len(shown))
        ax.plot(shown["value"], heights, linestyle="none", marker=".", markersize=6, alpha=0.45, markeredgewidth=0,
                color=style[label].colour)  # fmt: skip
        medians = own.groupby("seed")["value"].median()
        medians = medians[medians > least]
        ax.plot(medians, np.full(len(medians), place), linestyle="none", marker=style[label].marker, markersize=8,
                color=style[label].colour, markeredgecolor="white", markeredgewidth=0.8, zorder=4)  # fmt: skip
    ax.set_xlabel(column.axis)
    if column.limits is not None:
        ax.set_xlim(*column.limits)
    if column.log:
        plain_log(ax)


def plain_log(ax: Axes) -> None:
    """Ticks of the logarithmic x axis as plain numbers, more of them on a short axis."""
    low, high = ax.get_xlim()
    if high < 300 * low:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def write_in_row(ax: Axes, place: float, text: str, at: float = 0.02) -> None:
    """What a row has instead of a value, at a share of the panel's width."""
    ax.text(at, place, text, va="center", ha="left" if at < 0.5 else "right", size=8, color=SOFT, style="italic",
            transform=ax.get_yaxis_transform())  # fmt: skip
