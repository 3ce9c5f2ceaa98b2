"""One figure a family: φ, φ′ and φ″ side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from smoothness.report.catalogue.curves import Curve, ends, family_curves, joined
from smoothness.report.catalogue.entries import Entry
from smoothness.report.style import SOFT, Stroke, figure_style, to_svg

_WIDTH = 7.3  # inches: 700 px
_ROW = 5.0  # points between the rows of marks above a panel
_STEEPEST = 3.0  # slopes beyond are cut at the panel
_MARKS = {-1: ("v", 3.8, "value jump"), 0: ("D", 3.0, "kink")}  # marker, its size and name by order
_TITLES = ("φ(z)", "φ′(z)", "φ″(z)")
_TITLES_OF_SEVERAL = ("First output y₁", "Its slope ∂y₁/∂z₁")

# Eight hues that colour-blind readers tell apart (seaborn's "colorblind" with black); dashes tell them apart again.
_COLOURS = ("#0173b2", "#d55e00", "#029e73", "#1a1a1a", "#cc78bc", "#de8f05", "#56b4e9", "#7f5539")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 1.6), (1.3, 1.3), (6.0, 1.5, 1.3, 1.5), (3.0, 1.2))
_CROWD = len(_DASHES)  # curves that may share a panel


def family_svg(members: list[Entry]) -> bytes:
    """The figure of a family as SVG: the same bytes every time."""
    with figure_style():
        return to_svg(draw_family(members))


def draw_family(members: list[Entry]) -> Figure:
    """φ, φ′ and φ″ of a family; of activations of several features, one output against one input, and its slope.

    Jumps are gaps: the filled end is the value taken, open ends are limits. Marks above φ′ and φ″ say where φ
    jumps (triangles) or has a kink (diamonds): there these derivatives do not exist, however flat they look.
    A large family takes several rows, each with its own scale and legend.
    """
    rows = [_Row(*family_curves(part)) for part in _parts(members)]
    titles = _TITLES if all(entry.facts.elementwise for entry in members) else _TITLES_OF_SEVERAL
    firsts = [sum(len(row.curves) for row in rows[:i]) for i in range(len(rows))]
    handles = [_handles(row, first, len(titles)) for row, first in zip(rows, firsts, strict=True)]
    heights = [
        2.3 + _ROW / 72 * _mark_rows(row.curves, len(titles) - 3) + 0.19 * math.ceil(len(h) / _columns(h))
        for row, h in zip(rows, handles, strict=True)
    ]
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout=engine)
    strips = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)
    for strip, row, first, legend in zip(strips.flat, rows, firsts, handles, strict=True):
        _draw_row(strip, row, first, titles)
        strip.legend(handles=legend, loc="outside lower center", ncols=_columns(legend), handlelength=3.4)
    return figure


@dataclass(frozen=True)
class _Row:
    """Curves that share panels, and the stretch of z they are drawn on."""

    curves: list[Curve]
    span: tuple[float, float]


def _parts(members: list[Entry]) -> list[list[Entry]]:
    """The family in parts of about equal size, none too crowded; equal functions stay together."""
    curves, _ = family_curves(members)
    count = math.ceil(len(curves) / _CROWD)
    size = math.ceil(len(curves) / count)
    groups = [{name for curve in curves[i : i + size] for name in curve.names} for i in range(0, len(curves), size)]
    return [[entry for entry in members if entry.name in group] for group in groups]


def _handles(row: _Row, first: int, panels: int) -> list[Line2D]:
    """What the legend of a row shows: its curves, and the marks that occur in it."""
    handles = []
    for i, curve in enumerate(row.curves):
        stroke = _stroke(i, first)
        line = Line2D([], [], color=stroke.colour, linestyle=stroke.linestyle, linewidth=_thickness(i))
        line.set_label(curve.label)
        handles.append(line)
    marked = {b.order for curve in row.curves for b in curve.breaks if b.order <= panels - 3}
    for order, (marker, size, label) in _MARKS.items():
        if order in marked:
            handles.append(Line2D([], [], color=SOFT, marker=marker, linestyle="none", markersize=size, label=label))
    return handles


def _columns(handles: list[Line2D]) -> int:
    longest = max(len(str(handle.get_label())) for handle in handles)
    return min(4 if longest <= 17 else 3, len(handles))


def _draw_row(strip: SubFigure, row: _Row, first: int, titles: tuple[str, ...]) -> None:
    axes = strip.subplots(1, len(titles), sharex=True)
    rows = _mark_rows(row.curves, len(titles) - 3)
    for level, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        _draw(ax, row.curves, level, first)
        ax.set(xlim=row.span, ylim=_limits(row.curves, level, row.span))
        ax.locator_params(axis="y", nbins=6)
        ax.locator_params(axis="x", nbins=6 if row.span[1] - row.span[0] > 4 else 4)  # labels such as -1.5 are wide
        ax.set_xlabel("z" if titles is _TITLES else "first input z₁")
        ax.set_title(title, pad=6 + _ROW * rows + (2 if rows else 0))
        if level:
            _mark(ax, row.curves, level - 2, first)


def _draw(ax: Axes, curves: list[Curve], level: int, first: int) -> None:
    ax.axhline(0, color="#8c959f", linewidth=0.7)
    ax.axvline(0, color="#8c959f", linewidth=0.7)
    for i, curve in enumerate(curves):
        stroke = _stroke(i, first)
        z, y = joined(curve, level)
        ax.plot(z, y, color=stroke.colour, linestyle=stroke.linestyle, linewidth=_thickness(i), zorder=2 + i / 10)
        for position, height, closed in ends(curve, level):
            ax.plot(
                position, height, "o", markersize=3.6, markerfacecolor=stroke.colour if closed else "white",
                markeredgecolor=stroke.colour, markeredgewidth=0.9, zorder=4 + i / 10,
            )  # fmt: skip


def _mark(ax: Axes, curves: list[Curve], roughest: int, first: int) -> None:
    """Mark breakpoints up to an order above the panel, a row for each curve."""
    rows = 0
    for i, curve in enumerate(curves):
        above = ax.get_xaxis_transform() + ScaledTranslation(0, (4 + _ROW * rows) / 72, ax.figure.dpi_scale_trans)
        marked = [b for b in curve.breaks if b.order <= roughest]
        for b in marked:
            marker, size, _ = _MARKS[b.order]
            ax.plot(
                b.position, 1.0, marker=marker, markersize=size, color=_stroke(i, first).colour,
                linestyle="none", clip_on=False, transform=above,
            )  # fmt: skip
        rows += bool(marked)


def _mark_rows(curves: list[Curve], roughest: int) -> int:
    return sum(any(b.order <= roughest for b in curve.breaks) for curve in curves)


def _stroke(index: int, first: int) -> Stroke:
    """Of a row's curve: a colour that its family has once, and dashes that its row has once."""
    return Stroke(_COLOURS[(first + index) % len(_COLOURS)], "", _DASHES[index % len(_DASHES)])


def _thickness(index: int) -> float:
    """Lines drawn later are thinner and dashed: what lies below shows through."""
    return 2.4 if index == 0 else 1.7


def _limits(curves: Iterable[Curve], level: int, span: tuple[float, float]) -> tuple[float, float]:
    """Heights that show every bounded curve whole; unbounded ones are cut at the panel."""
    extremes = [
        (min(float(np.min(y)) for y in curve.levels[level]), max(float(np.max(y)) for y in curve.levels[level]))
        for curve in curves
    ]
    low, high = min(a for a, _ in extremes), max(b for _, b in extremes)
    if level == 0:
        low, high = max(low, span[0]), min(high, span[1])
    if level == 1:
        low, high = max(low, -_STEEPEST), min(high, _STEEPEST)
    if high - low < 1e-6:
        low, high = low - 1, high + 1
    pad = 0.07 * (high - low)
    return low - pad, high + pad
