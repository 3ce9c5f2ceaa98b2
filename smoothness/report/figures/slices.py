"""Pictures of one plane through the input space, network by network: slope, bends, decision boundary."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from smoothness.report.figures.planes import direction_colours
from smoothness.report.style import INK, NARROW, SOFT, WIDE, empty_figure, panels

Floats = NDArray[np.floating]
_LEAST_NAMED = 0.02  # of the square: smaller regions of a class have no room for its name
_DECADES = 3  # of the bends
_MARK = 0.06  # of the square's side: no name nearer to an example
_SMOOTH = 0.7  # pitches of the grid, of the drawn boundary


@dataclass(frozen=True, eq=False)
class Slice:
    """What one network makes of the plane.

    Attributes:
        label: of the activation.
        classes: (rows, columns) predicted class at each point.
        slope: (2, rows, columns) derivatives of the followed difference of logits along both directions, divided by
            the network's median margin; unit 1 / input l2.
        corners: (3, 2) the three examples.
        bounds: (lowest u, highest u, lowest v, highest v), in input units (l2).
        names: of the classes.
        regions: number of affine pieces of the square, where they were counted.
    """

    label: str
    classes: NDArray[np.integer]
    slope: Floats
    corners: Floats
    bounds: tuple[float, float, float, float]
    names: Sequence[str] = ()
    regions: int | None = None

    @property
    def size(self) -> Floats:
        """(rows, columns) length of the slope."""
        size: Floats = np.linalg.norm(self.slope, axis=0)
        return size

    @property
    def bend(self) -> Floats:
        """(rows, columns) change of the slope over the grid's pitch: Frobenius norm of differences, 1 / input l2²."""
        pitch = (self.bounds[1] - self.bounds[0]) / self.classes.shape[1]
        (uv, uu), (vv, vu) = (np.gradient(part, pitch) for part in self.slope)
        bend: Floats = np.sqrt(uu**2 + uv**2 + vu**2 + vv**2)
        return bend

    @property
    def flat(self) -> float:
        """Share of points at which the slope is exactly 0."""
        return float((self.size == 0).mean())


@dataclass(frozen=True)
class Scales:
    """Colour scales common to several slices.

    Attributes:
        full: size of slope at which colours are full; larger ones look the same.
        bend: (smallest, largest) bend that is told apart; None where nothing bends.
    """

    full: float
    bend: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Planes:
    """What is drawn together: slices, and the scales that they share."""

    slices: Sequence[Slice]
    scales: Scales


def common_scales(slices: Sequence[Slice]) -> Scales:
    """Full colour at the median over networks of the 90th percentile of their slopes; bends over three decades."""
    steep = [float(np.quantile(size[size > 0], 0.9)) for s in slices if ((size := s.size) > 0).any()]
    tops = [float(np.quantile(bend[bend > 0], 0.98)) for s in slices if ((bend := s.bend) > 0).any()]
    top = max(tops, default=0.0)
    return Scales(float(np.median(steep)) if steep else 1.0, (top * 10.0**-_DECADES, top) if top > 0 else None)


def draw_slices(planes: Planes, *, narrow: bool = False) -> Figure:
    """The slope of each network on one plane: hue is its direction, strength its size; plateaus are white.

    Args:
        planes: the slices in the order in which they stand, and their scales.
        narrow: lay out for a small screen.
    """
    slices, scales = planes.slices, planes.scales
    figure, axes = _grid(slices, narrow)
    for ax, one in zip(axes, slices, strict=False):
        show_slope(ax, one, scales)
        ax.set_title(one.label)
    if slices:
        _wheel(axes[len(slices)], scales)
    return figure


def draw_bends(planes: Planes, *, narrow: bool = False) -> Figure:
    """How much the slope changes over the pitch of the grid: kinks and jumps are lines, curvature is a haze.

    Args:
        planes: the slices in the order in which they stand, and their scales.
        narrow: lay out for a small screen.
    """
    slices, scales = planes.slices, planes.scales
    figure, axes = _grid(slices, narrow)
    for ax, one in zip(axes, slices, strict=False):
        show_bends(ax, one, scales)
        ax.set_title(one.label)
    if slices and scales.bend is not None:
        ax = axes[len(slices)]
        bar = figure.colorbar(_shades(scales), cax=ax.inset_axes((0.1, 0.5, 0.8, 0.08)), orientation="horizontal")
        bar.ax.xaxis.set_major_formatter("{x:g}")
        bar.ax.minorticks_off()
        bar.set_label("change of the slope ÷ margin\n(1 / input l2²)", size=8)
    return figure


def _grid(slices: Sequence[Slice], narrow: bool) -> tuple[Figure, list[Axes]]:
    """A square for each slice, and one for the legend."""
    if not slices:
        figure = empty_figure("No plane was looked at.", narrow=narrow)
        return figure, list(figure.axes)
    count = len(slices) + 1
    columns = 2 if narrow else min(count, 3 if count <= 6 else 4)
    width = NARROW if narrow else WIDE
    side = (width - 0.3) / columns
    figure, axes = panels(-(-count // columns), columns, width=width, row_height=side + 0.12)
    for ax in axes[len(slices) :]:
        ax.set_axis_off()
    return figure, axes


def show_slope(ax: Axes, one: Slice, scales: Scales) -> None:
    """The slope as colour, with boundary, class names and examples."""
    angle = (np.arctan2(one.slope[1], one.slope[0]) / (2 * np.pi)) % 1
    shade = np.clip(one.size / scales.full, 0, 1)
    _picture(ax, one, direction_colours(angle.ravel(), shade.ravel()).reshape(*angle.shape, 3), INK)


def show_bends(ax: Axes, one: Slice, scales: Scales) -> None:
    """The bend as darkness, with boundary, class names and examples; white where nothing bends."""
    colours = np.ones((*one.classes.shape, 3))
    if scales.bend is not None:
        bend = one.bend
        colours = np.where(
            bend[..., None] > 0, _shades(scales).to_rgba(np.maximum(bend, scales.bend[0]))[..., :3], 1.0
        )
    _picture(ax, one, colours, "#d55e00")


def _shades(scales: Scales) -> mpl.cm.ScalarMappable:
    assert scales.bend is not None
    return mpl.cm.ScalarMappable(LogNorm(*scales.bend), "bone_r")


def _picture(ax: Axes, one: Slice, colours: Floats, line: str) -> None:
    """Colours, decision boundary, names of the larger regions, and the three examples."""
    ax.imshow(np.clip(colours, 0, 1), origin="lower", extent=one.bounds, interpolation="none", aspect="equal")
    rows, columns = one.classes.shape
    low_u, high_u, low_v, high_v = one.bounds
    u = low_u + (np.arange(columns) + 0.5) * (high_u - low_u) / columns
    v = low_v + (np.arange(rows) + 0.5) * (high_v - low_v) / rows
    marks = np.hypot(
        *(axis[..., None] - corner for axis, corner in zip(np.meshgrid(u, v), one.corners.T, strict=True))
    )
    free = marks.min(axis=-1) > _MARK * (high_u - low_u)
    present = np.unique(one.classes)
    halo = [withStroke(linewidth=2.2, foreground="white")]
    for number in present:
        mask = one.classes == number
        if len(present) > 1:
            ax.contour(u, v, ndimage.gaussian_filter(mask.astype(float), _SMOOTH), [0.5], colors=line, linewidths=1.3)
        place = _middle(mask, free)
        if place is not None and int(number) < len(one.names):
            ax.text(u[place[1]], v[place[0]], one.names[int(number)], size=7.5, ha="center", va="center", color=INK,
                    path_effects=halo, clip_on=True)  # fmt: skip
    ax.plot(one.corners[:, 0], one.corners[:, 1], linestyle="none", marker="o", markersize=5, color="white",
            markeredgecolor=INK, markeredgewidth=1.2)  # fmt: skip
    ax.set(xlim=(low_u, high_u), ylim=(low_v, high_v), xticks=[], yticks=[])
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(True)
        side.set_color("#d0d7de")


def _middle(mask: NDArray[np.bool_], free: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The free point of the largest connected part that is furthest from its edge; None where all parts are small."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < _LEAST_NAMED * mask.size:
        return None
    inside = np.pad((parts == 1 + int(sizes.argmax())) & free, 1)
    depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)


def _wheel(ax: Axes, scales: Scales) -> None:
    """The legend of `draw_slices`: a disc with every direction and size."""
    grid = np.linspace(-1.0, 1.0, 241)
    x, y = np.meshgrid(grid, grid)
    radius = np.hypot(x, y)
    colours = direction_colours(((np.arctan2(y, x) / (2 * np.pi)) % 1).ravel(), np.clip(radius, 0, 1).ravel())
    disc = np.dstack([np.clip(colours, 0, 1).reshape(*x.shape, 3), np.clip((1 - radius) * 80, 0, 1)])
    ax.imshow(disc, origin="lower", extent=(-1, 1, -1, 1), aspect="equal")
    ax.annotate("", (1.0, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.9})
    ax.text(0, 1.12, "direction: where it rises", ha="center", va="bottom", size=8, color=SOFT)
    size = f"size: 0 at the centre,\n{scales.full:.2g} and more at the rim\nslope ÷ margin  (1 / input l2)"
    ax.text(0, -1.12, size, ha="center", va="top", size=8, color=SOFT)
    ax.set(xlim=(-1.75, 1.75), ylim=(-1.9, 1.6))


def picture_png(one: Slice, scales: Scales, show: Callable[[Axes, Slice, Scales], None]) -> bytes:
    """One square of a film as PNG: the same bytes every time.

    Args:
        one: the slice.
        scales: those of all pictures of the film.
        show: `show_slope` or `show_bends`.
    """
    figure = Figure(figsize=(3.7, 3.7), dpi=120)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.003, 0.003, 0.994, 0.994))
    show(ax, one, scales)
    for image in ax.images:
        image.set_interpolation("bilinear")
    drawn, kept = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    palette = Image.open(drawn).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)  # half the bytes
    palette.save(kept, format="PNG", optimize=True)
    return kept.getvalue()
