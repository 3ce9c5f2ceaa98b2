"""Pictures of a plane through the input space: linear regions, and value, slope and curvature of any model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from smoothness.analyzers.linear_regions import Regions
from smoothness.analyzers.plane_maps import PlaneMap
from smoothness.report.style import INK, NARROW, SOFT, WIDE, figure_style, panels


def draw_regions(regions: Regions, *, title: str = "", narrow: bool = False) -> Figure:
    """Every affine piece, coloured by the direction and shaded by the size of its slope; the boundary in ink.

    Args:
        regions: of `linear_regions`.
        title: above the picture.
        narrow: lay out for a small screen.
    """
    with figure_style():
        figure, (ax,) = panels(1, 1, width=NARROW if narrow else WIDE * 0.6, row_height=NARROW if narrow else 5.2)
        corners = regions.polygons.corners.numpy()
        slope = regions.slopes[:, 0].numpy()
        if regions.slopes.shape[1] > 1:
            slope = (regions.slopes[:, 0] - regions.slopes[:, 1]).numpy()
        size = np.linalg.norm(slope, axis=1)
        angle = (np.arctan2(slope[:, 1], slope[:, 0]) / (2 * np.pi)) % 1
        shade = 0.25 + 0.75 * size / max(float(size.max()), 1e-300)
        colours = direction_colours(angle, shade)
        cells = [polygon[:count] for polygon, count in zip(corners, regions.polygons.count.tolist(), strict=True)]
        ax.add_collection(PolyCollection(cells, facecolors=colours, edgecolors="white", linewidths=0.25))
        ax.add_collection(LineCollection(list(regions.boundary.numpy()), colors=INK, linewidths=2.0, capstyle="round"))
        low, high = corners.reshape(-1, 2).min(axis=0), corners.reshape(-1, 2).max(axis=0)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="u", ylabel="v", aspect="equal")
        ax.grid(visible=False)
        ax.set_title(title or f"{len(regions):,} linear regions")
        note = "hue: direction of the slope; strength: its size"
        if len(regions.boundary):
            note += "; dark line: where the class changes"
        figure.supxlabel(note, fontsize=8, color=SOFT)
    return figure


def draw_plane_maps(maps: dict[str, PlaneMap], *, narrow: bool = False) -> Figure:
    """A row for each model: its value with the class boundary, its slope, its curvature, on common colour scales.

    Plateaus, where the value does not change at all, are left white in the slope and curvature.

    Args:
        maps: title -> `plane_map`, with one grid for all.
        narrow: lay out for a small screen: models below each other, quantities too.
    """
    with figure_style():
        titles = ("value", "slope", "curvature on the grid's scale")
        rows = len(maps) * (3 if narrow else 1)
        figure, axes = panels(
            rows, 1 if narrow else 3, width=NARROW if narrow else WIDE, row_height=3.4 if narrow else 2.7
        )
        scales = [_linear([m.value for m in maps.values()]), _positive([m.slope for m in maps.values()]),
                  _positive([m.curvature for m in maps.values()])]  # fmt: skip
        for k, (title, found) in enumerate(maps.items()):
            extent = (float(found.u[0]), float(found.u[-1]), float(found.v[0]), float(found.v[-1]))
            flat = found.plateau.numpy()
            layers = (found.value.numpy(), np.where(flat, np.nan, found.slope.numpy()),
                      np.where(flat, np.nan, found.curvature.numpy()))  # fmt: skip
            for j, (values, name) in enumerate(zip(layers, titles, strict=True)):
                ax: Axes = axes[3 * k + j]
                shown = values if j == 0 else np.maximum(values, scales[j].vmin or 0.0)
                image = ax.imshow(
                    shown, origin="lower", extent=extent, norm=scales[j], cmap="RdBu_r" if j == 0 else "magma_r",
                    interpolation="nearest", aspect="equal",
                )  # fmt: skip
                if found.classes.min() != found.classes.max():
                    colour = INK if j == 0 else "#56b4e9"
                    levels = np.arange(found.classes.max().item()) + 0.5
                    ax.contour(found.u, found.v, found.classes.numpy(), levels, colors=colour, linewidths=1.2)
                ax.grid(visible=False)
                ax.set_xticks([])
                ax.set_yticks([])
                ax.set_title(f"{title}: {name}" if narrow or j == 0 else name)
                figure.colorbar(image, ax=ax, shrink=0.85)
    return figure


def direction_colours(angle: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """Colours of one lightness by angle, pale where the shade is small."""
    turns = 2 * np.pi * (angle[:, None] - np.array([0.0, 1 / 3, 2 / 3]))
    pure = 0.58 + 0.32 * np.cos(turns)
    colours: np.ndarray = 1 - shade[:, None] * (1 - pure)
    return colours


def _linear(parts: list[Tensor]) -> Normalize:
    top = max(float(part.abs().max()) for part in parts) or 1.0
    return Normalize(-top, top)


def _positive(parts: list[Tensor]) -> Normalize:
    """Logarithmic over at most four decades, from the largest value down."""
    top = max(float(part.max()) for part in parts)
    least = min((float(part[part > 0].min()) for part in parts if (part > 0).any()), default=0.0)
    return LogNorm(max(least, top * 1e-4), top) if top > 0 and least < top else Normalize(0.0, top or 1.0)
