"""One visual language for every figure: colours, markers and dashes by activation, fonts, sizes, SVG export."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from smoothness.report.curves import smoothness_order, spec_of

WIDE, NARROW = 9.4, 4.1  # inches: a page of 960 px, and a telephone of 390 px
INK, SOFT, RULE = "#1f2328", "#57606a", "#d0d7de"

# Colour and marker of each catalogue name, the same in every report: seaborn's "colorblind" hues, greys for steps.
_FIXED: dict[str, tuple[str, str]] = {
    "step": ("#7a7a7a", "D"),
    "staircase": ("#1a1a1a", "s"),
    "relu": ("#0173b2", "o"),
    "leaky_relu": ("#56b4e9", "v"),
    "elu": ("#ca9161", "<"),
    "gelu": ("#d55e00", "^"),
    "silu": ("#de8f05", "P"),
    "softplus": ("#029e73", "X"),
    "tanh": ("#cc78bc", "d"),
    "sigmoid": ("#7b3f8c", ">"),
}
_SPARE = [("#005f73", "h"), ("#a3a000", "p"), ("#7f3b08", "8"), ("#e377a2", "H"), ("#4c566a", "*")]


@dataclass(frozen=True)
class Stroke:
    """How one activation is drawn everywhere: rougher activations have more broken lines."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def linestyle(self) -> Any:
        """Matplotlib's form of the dashes."""
        return (0, self.dashes) if self.dashes else "-"


def order_activations(labels: Iterable[str]) -> list[str]:
    """Labels from the roughest to the smoothest activation, then by name and σ of the dial; unknown ones last.

    >>> order_activations(["tanh", "relu@sigma=10", "relu@sigma=2", "relu", "staircase"])
    ['staircase', 'relu', 'relu@sigma=2', 'relu@sigma=10', 'tanh']
    """

    def key(label: str) -> tuple[bool, float, str, float, str]:
        order, turned = smoothness_order(label), on_dial(label)
        name, sigma = turned or (label, 0.0)
        return order is None, 0.0 if order is None else order, name, sigma, label

    return sorted(set(labels), key=key)


def on_dial(label: str) -> tuple[str, float] | None:
    """(activation, σ) of a label on the mollifying dial; None for others.

    >>> on_dial("relu@sigma=0.1"), on_dial("softened [step@sigma=2]"), on_dial("relu")
    (('relu', 0.1), ('step', 2.0), None)
    """
    name, mark, sigma = spec_of(label).rpartition("@sigma=")
    try:
        return (name, float(sigma)) if mark else None
    except ValueError:
        return None


def strokes(labels: Iterable[str]) -> dict[str, Stroke]:
    """The stroke of each label; a catalogue name always has the same one, and levels of a dial paler ones.

    >>> strokes(["relu"])["relu"].colour
    '#0173b2'
    """
    ordered = order_activations(labels)
    spare = iter(_SPARE * (len(ordered) // len(_SPARE) + 1))
    sigmas: dict[str, list[float]] = {}
    for name, sigma in filter(None, map(on_dial, ordered)):
        sigmas.setdefault(name, []).append(sigma)
    taken: set[str] = set()
    chosen = {}
    for label in ordered:
        turned = on_dial(label)
        name = re.split(r"\W", spec_of(label), maxsplit=1)[0]
        if turned and turned[0] in _FIXED:
            name, sigma = turned
            place = sorted(set(sigmas[name])).index(sigma) + 1
            colour, marker = _paler(_FIXED[name][0], 0.55 * place / len(set(sigmas[name]))), _FIXED[name][1]
        elif name in _FIXED and name not in taken:
            taken.add(name)
            colour, marker = _FIXED[name]
        else:
            colour, marker = next(spare)
        order = smoothness_order(label)
        dashes = {-1.0: (1.0, 1.2), 0.0: (4.0, 1.5)}.get(1.0 if order is None else float(order), ())
        chosen[label] = Stroke(colour, marker, dashes)
    return chosen


def _paler(colour: str, share: float) -> str:
    """The colour with a share of white."""
    return to_hex(tuple(1 - (1 - part) * (1 - share) for part in to_rgb(colour)))  # type: ignore[arg-type]


@contextmanager
def figure_style() -> Iterator[None]:
    """The settings under which figures are drawn and saved; matplotlib's own are restored afterwards."""
    # Start from the defaults: a reader's matplotlibrc must not change a report.
    with mpl.rc_context(rc={k: v for k, v in mpl.rcParamsDefault.items() if k not in _LEAVE_ALONE}):
        mpl.rcParams.update(_SETTINGS)
        yield


_LEAVE_ALONE = frozenset({"backend", "backend_fallback", "date.epoch", "toolbar", "webagg.port"})
_SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 8.5,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": "#8c959f",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": "#8c959f",
    "ytick.color": "#8c959f",
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "smoothness",
}


def panels(rows: int, columns: int, *, width: float, row_height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row, without pyplot's global state."""
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=(width, row_height * rows + 0.5), layout=engine)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def empty_figure(message: str, *, narrow: bool) -> Figure:
    """A figure that says why it shows nothing."""
    figure, (ax,) = panels(1, 1, width=NARROW if narrow else WIDE, row_height=1.0)
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, ha="center", va="center", color=SOFT, wrap=True, transform=ax.transAxes)
    return figure


def legend_below(figure: Figure, labels: list[str], *, narrow: bool, lines: bool = True, note: str = "") -> None:
    """One legend under all panels, from the roughest to the smoothest activation, with a note above it."""
    style = strokes(labels)
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.linestyle if lines else "none", label=label)
        for label, s in ((label, style[label]) for label in labels)
    ]
    handle = 3.0 if lines else 1.6
    # As many columns as the longest label leaves room for: about 0.072 inches a character, and its handle and gap.
    room = int(figure.get_figwidth() / (0.072 * max(map(len, labels), default=1) + 0.12 * handle + 0.35))
    columns = max(1, min(3 if narrow else 7, room, len(labels)))
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, -(-len(labels) // columns) - 3))  # not the panels' room
    note = "\n".join(textwrap.wrap(note, int(figure.get_figwidth() / 0.072)))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, handlelength=handle,
        title=note or None, title_fontproperties={"size": 8.5, "style": "italic"},
    )  # fmt: skip
    legend.get_title().set_color(SOFT)


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG: the same bytes every time, text as outlines, no date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
