"""Figures 6 and 7: the Lipschitz constant between its two sides, against the radius and along the dial σ."""

from __future__ import annotations

import re

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.style import NARROW, SOFT, WIDE, empty_figure, legend_below, order_activations, panels, strokes
from smoothness.study.reductions import KEYS

_SIGMA = re.compile(r"^(?P<name>.+)@sigma=(?P<sigma>[^@]+)$")
_LABEL = "Lipschitz constant ÷ margin  (1 / input {norm})"


def lipschitz_sides(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians over examples of both sides divided by the margin, per network and radius, and of the global constant.

    Over all pairs in the ball; constants over pairs with its centre have names of their own.

    Returns KEYS, radius (missing for the global constant), side ("lower", "upper" or "global"), value, norm.
    """
    margin = frame.loc[frame["quantity"] == "margin", [*KEYS, "example", "value"]].rename(columns={"value": "margin"})
    margin = margin[margin["margin"] > 0]
    sides = {"local_lipschitz_lower": "lower", "local_lipschitz_upper": "upper"}
    local = frame[frame["quantity"].isin(list(sides))].merge(margin, on=[*KEYS, "example"])
    local = local.assign(value=local["value"] / local["margin"], side=local["quantity"].map(sides))
    local = local.rename(columns={"epsilon": "radius"})
    medians = local.groupby([*KEYS, "side", "radius"])["value"].median().reset_index()
    measured = frame.loc[frame["quantity"] == "local_lipschitz_upper", [*KEYS, "example"]].drop_duplicates()
    typical = measured.merge(margin, on=[*KEYS, "example"]).groupby(KEYS, as_index=False)["margin"].median()
    whole = frame.loc[frame["quantity"] == "global_lipschitz", [*KEYS, "value"]].merge(typical, on=KEYS)
    whole = whole.assign(value=whole["value"] / whole.pop("margin"), side="global")
    norms = local["unit"].str.rsplit(" ", n=1).str[-1].unique()
    return pd.concat([medians, whole], ignore_index=True).assign(norm=norms[0] if len(norms) else "")


def draw_lipschitz(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Bands from the lower to the upper side against the radius, and the global constant as a tick at the right.

    Args:
        frame: of `lipschitz_sides`; levels of a dial belong to `draw_dial`.
        narrow: lay out for a small screen.
    """
    frame = frame[[_SIGMA.match(label) is None for label in frame["activation"]]]
    if frame.empty:
        return empty_figure("No Lipschitz constant was measured.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    figure, axes = _axes(len(architectures), narrow)
    for ax, architecture in zip(axes, architectures, strict=True):
        own = frame[frame["architecture"] == architecture]
        ax.set(xscale="log", yscale="log")
        for label in labels:
            _band(ax, own[own["activation"] == label], "radius", label, labels)
        ax.set_title(architecture)
        norm = str(frame["norm"].iloc[0])
        ax.set(xlabel=f"radius (input {norm})", ylabel=_LABEL.format(norm=norm))
        _write_infinite(ax, own)
        _plain(ax)
    legend_below(figure, labels, narrow=narrow, note="Bands: from a witnessed lower to a certified upper side")
    return figure


def draw_dial(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """The same against σ of the mollifying dial, at one radius; the sharp end at the left edge.

    Args:
        frame: of `lipschitz_sides`.
        narrow: lay out for a small screen.
    """
    parts = frame["activation"].str.extract(_SIGMA)
    turned = frame.assign(name=parts["name"], sigma=parts["sigma"].astype(float)).dropna(subset="name")
    if turned.empty:
        return empty_figure("No dial was turned.", narrow=narrow)
    radii = sorted(turned["radius"].dropna().unique())
    radius = radii[len(radii) // 2]
    turned = turned[(turned["radius"] == radius) | (turned["side"] == "global")]
    names, architectures = order_activations(turned["name"]), architectures_of(turned)
    figure, axes = _axes(len(architectures), narrow)
    for ax, architecture in zip(axes, architectures, strict=True):
        ax.set(xscale="log", yscale="log")
        for name in names:
            own = turned[(turned["architecture"] == architecture) & (turned["name"] == name)]
            _band(ax, own.assign(activation=name), "sigma", name, names)
            whole = own[own["side"] == "global"].groupby("sigma")["value"].median()
            ax.plot(whole.index, whole, color=strokes(names)[name].colour, linewidth=1.0, linestyle=":")
            _sharp_end(ax, frame, architecture, name, radius, names, float(turned["sigma"].min()))
        ax.set_title(architecture)
        ax.set(xlabel="σ of the mollified activation (sharp at the left edge)")
        ax.set_ylabel(_LABEL.format(norm=str(frame["norm"].iloc[0])))
        _plain(ax)
    note = f"Bands: both sides at radius {radius:g}; dotted: the global constant"
    legend_below(figure, names, narrow=narrow, note=note)
    return figure


def _axes(count: int, narrow: bool) -> tuple[Figure, list[Axes]]:
    rows, columns = (count, 1) if narrow else (1, count)
    width = NARROW if narrow else WIDE * max(0.62, min(1.0, count / 2))
    return panels(rows, columns, width=width, row_height=3.2, sharey=not narrow)


def _band(ax: Axes, rows: pd.DataFrame, x: str, label: str, labels: list[str]) -> None:
    stroke = strokes(labels)[label]
    sides = {side: own.groupby(x)["value"].median() for side, own in rows.groupby("side")}
    lower, upper = (sides.get(side, pd.Series(dtype=float)) for side in ("lower", "upper"))
    both = pd.concat({"lower": lower, "upper": upper}, axis=1)
    both = both[(both["lower"] > 0) & (both["upper"] < float("inf"))].dropna()
    if both.empty:
        return
    ax.fill_between(both.index, both["lower"], both["upper"], color=stroke.colour, alpha=0.18, linewidth=0)
    style = {"color": stroke.colour, "linestyle": stroke.linestyle}
    ax.plot(both.index, both["upper"], marker=stroke.marker, **style)
    ax.plot(both.index, both["lower"], linewidth=0.9, **style)
    if x == "radius" and len(whole := rows.loc[rows["side"] == "global", "value"]):
        ax.plot([1.0], [whole.median()], marker=0, markersize=9, color=stroke.colour, clip_on=False,
                transform=ax.get_yaxis_transform())  # fmt: skip


def _sharp_end(
    ax: Axes, frame: pd.DataFrame, architecture: str, name: str, radius: float, names: list[str], least: float
) -> None:
    sharp = frame[
        (frame["architecture"] == architecture) & (frame["activation"] == name) & (frame["radius"] == radius)
    ]
    colour, marker = strokes(names)[name].colour, strokes(names)[name].marker
    for side, own in sharp.groupby("side"):
        value = float(own["value"].median())
        if 0 < value < float("inf"):
            ax.plot([least / 2], [value], marker=marker, color=colour, fillstyle="full" if side == "upper" else "none")
        elif side == "upper":
            ax.annotate("infinite", (0.02, 0.97), xycoords="axes fraction", va="top", color=colour, size=8)


def _write_infinite(ax: Axes, rows: pd.DataFrame) -> None:
    upper = rows[rows["side"] == "upper"].groupby("activation")["value"].median()
    names = order_activations(upper.index[upper == float("inf")])
    if names:
        text = f"{', '.join(names)}: no constant, a jump may be crossed"
        ax.text(0.02, 0.98, text, transform=ax.transAxes, va="top", size=8, color=SOFT, style="italic")


def _plain(ax: Axes) -> None:
    low, high = ax.get_ylim()
    if high < 30 * low:  # less than a decade and a half: more than powers of ten are written
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
