"""Tables drawn as shaded cells: a row for each activation, numbers in every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from smoothness.report.figures.rows import write_in_row
from smoothness.report.style import INK, SOFT

_CELL = (0.96, 0.88)  # width and height


def draw_shares(
    ax: Axes,
    shares: Mapping[tuple[str, str], float],
    labels: Sequence[str],
    columns: Sequence[str],
    outlined: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Shares in percent, darker the larger; a dash where there is none.

    Args:
        ax: of `row_panels`.
        shares: (row label, column) -> share in [0, 1].
        labels: the rows, from the top.
        columns: from the left.
        outlined: row label -> the column whose cell gets a frame.
        names: column -> what stands under it; the column itself by default.
    """
    shade = mpl.colormaps["Blues"]
    for y, label in enumerate(labels):
        if not any((label, column) in shares for column in columns):
            write_in_row(ax, y, "not measured", at=0.04)
            continue
        for x, column in enumerate(columns):
            share = shares.get((label, column), np.nan)
            known = bool(np.isfinite(share))
            face = shade(0.85 * share) if known else (1.0, 1.0, 1.0, 1.0)
            ax.add_patch(Rectangle((x - 0.48, y - 0.44), *_CELL, facecolor=face, edgecolor="#e6e9ed", linewidth=0.6))
            colour = "white" if known and share > 0.55 else INK if known and share > 0 else SOFT
            ax.text(x, y, percent_text(share) if known else "–", ha="center", va="center", size=8, color=colour)
    for label, column in (outlined or {}).items():
        place = columns.index(column) - 0.48, labels.index(label) - 0.44
        ax.add_patch(Rectangle(place, *_CELL, fill=False, edgecolor="#d55e00", linewidth=1.8, zorder=5))
    ax.set_xlim(-0.55, len(columns) - 0.45)
    ax.set_xticks(range(len(columns)), [(names or {}).get(column, column) for column in columns])
    ax.tick_params(axis="x", length=0, labelcolor=INK)
    ax.grid(visible=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def percent_text(share: float) -> str:
    """A share in a cell: never 0 or 100 where it is not.

    >>> [percent_text(share) for share in (0.0, 0.001, 0.25, 0.999, 1.0)]
    ['0 %', '<1 %', '25 %', '>99 %', '100 %']
    """
    rounded = round(100 * share)
    if rounded == 0 and share > 0:
        return "<1 %"
    return ">99 %" if rounded == 100 and share < 1 else f"{rounded} %"
