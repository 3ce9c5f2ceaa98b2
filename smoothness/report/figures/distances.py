"""Figure: how far the boundary is, in distances to the next class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from smoothness.report.distances import LINE, Family
from smoothness.report.style import INK, NARROW, SOFT, WIDE, panels

_KINDS = {"exact": ("#0173b2", "o", "exact"), "upper": ("#d55e00", "v", "upper bound by attack")}


def draw_distances(found: list[Family], *, narrow: bool = False) -> Figure:
    """Median and seeds of each family, nearest first, with the claim's line."""
    width = NARROW if narrow else WIDE
    figure, (ax,) = panels(1, 1, width=width, row_height=0.6 + 0.3 * len(found))
    for place, family in enumerate(reversed(found)):
        colour, marker, _ = _KINDS[family.bound]
        values = np.array(family.medians)
        ax.plot([values.min(), values.max()], [place, place], color=colour, linewidth=1.2, alpha=0.7)
        ax.plot(values, np.full(len(values), place), linestyle="none", marker="|", markersize=7, color=colour)
        ax.plot([np.median(values)], [place], linestyle="none", marker=marker, markersize=6.5, color=colour)
    ax.set_yticks(range(len(found)), [family.name for family in reversed(found)])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axvline(LINE, color=SOFT, linestyle=(0, (4, 2)), linewidth=1.2)
    long = "median distance to the nearest misclassified input / to the nearest example of another class"
    ax.set_xlabel("distance to the boundary / to the next class" if narrow else long)
    shown = [kind for kind in _KINDS if any(family.bound == kind for family in found)]
    handles = [
        Line2D([], [], linestyle="none", marker=_KINDS[k][1], color=_KINDS[k][0], label=_KINDS[k][2]) for k in shown
    ]
    handles.append(Line2D([], [], color=SOFT, linestyle=(0, (4, 2)), linewidth=1.2, label="a tenth: the claim's line"))
    figure.legend(handles=handles, loc="outside lower center", ncols=1 if narrow else 3)
    return figure
