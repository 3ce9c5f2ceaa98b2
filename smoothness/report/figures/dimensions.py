"""Figure: distance to the boundary against the number of input dimensions, way by way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from smoothness.report.style import NARROW, WIDE, legend_below, order_activations, panels, strokes
from smoothness.study.slopes import Slope


def draw_dimensions(slopes: Sequence[Slope], *, narrow: bool = False) -> Figure:
    """One row of panels per norm, one panel per way: medians over seeds, bands from the least to the largest seed."""
    norms = list(dict.fromkeys(slope.norm for slope in slopes))
    ways = list(dict.fromkeys(slope.way for slope in slopes))
    labels = order_activations(slope.activation for slope in slopes)
    style = strokes(labels)
    grid = [(norm, way) for norm in norms for way in ways]
    rows, columns = (len(grid), 1) if narrow else (len(norms), len(ways))
    width, shared = (NARROW, False) if narrow else (WIDE, "row")
    figure, axes = panels(rows, columns, width=width, row_height=2.5, sharey=shared)
    for ax, (norm, way) in zip(axes, grid, strict=True):
        for slope in (s for s in slopes if (s.norm, s.way) == (norm, way)):
            stroke, values = style[slope.activation], np.array(slope.distances)
            ax.plot(
                slope.dimensions, np.median(values, axis=0), color=stroke.colour, marker=stroke.marker,
                linestyle=stroke.linestyle,
            )  # fmt: skip
            ax.fill_between(
                slope.dimensions, values.min(axis=0), values.max(axis=0), color=stroke.colour, alpha=0.15, linewidth=0
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        shown = sorted({n for s in slopes if s.way == way for n in s.dimensions})
        ax.xaxis.set_major_locator(FixedLocator([float(n) for n in shown]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title(f"{way}, {norm}")
        ax.set_xlabel("input dimensions n")
        ax.set_ylabel("median distance" if narrow or way == ways[0] else "")
    legend_below(figure, labels, narrow=narrow)
    return figure
