"""Figures: how much value and gradient vary on segments, and on which scale the gradient turns."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from smoothness.report.figures.robustness import MOST_COLUMNS, architectures_of
from smoothness.report.figures.rows import plain_log, row_panels, write_in_row
from smoothness.report.style import (
    NARROW,
    SOFT,
    WIDE,
    empty_figure,
    legend_below,
    on_dial,
    order_activations,
    panels,
    strokes,
)
from smoothness.study.reductions import KEYS

_TITLES = {"gradient": "Variation of the gradient", "value": "Variation of the value"}
_AXES = {"gradient": "÷ margin, per length  (1 / input l2²)", "value": "÷ margin, per length  (1 / input l2)"}
_PER_EXAMPLE = [*KEYS, "example", "value"]


def without_dial(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of activations that are no level of the mollifying dial; all of them where there are no others."""
    sharp = frame[[on_dial(label) is None for label in frame["activation"]]]
    return frame if sharp.empty else sharp


def variation_parts(frame: pd.DataFrame) -> pd.DataFrame:
    """Variation per unit of length of value and gradient, in what comes at once and what comes gradually.

    Mean over correctly classified examples, divided by the mean of their margins: parts add up. Where the value
    jumps on some segment of a network, its gradient has no variation and no row.

    Args:
        frame: the valid rows.

    Returns:
        KEYS, of ("gradient" or "value"), part ("sudden": kinks or jumps; "gradual": curvature or slopes), value.
    """
    margin = frame.loc[frame["quantity"] == "margin", _PER_EXAMPLE].rename(columns={"value": "margin"})
    margin = margin[margin["margin"] > 0]
    jumps, whole = (_of(frame, name) for name in ("value_jump_part", "value_variation"))
    slopes = whole.merge(jumps, on=[*KEYS, "example"], suffixes=("", "_jumps"))
    slopes = slopes.assign(value=slopes["value"] - slopes.pop("value_jumps"))
    found = {("value", "sudden"): jumps, ("value", "gradual"): slopes}
    for part, name in (("sudden", "gradient_kink_part"), ("gradual", "gradient_curvature_part")):
        found["gradient", part] = _without_jumping(_of(frame, name), jumps)
    parts = []
    for (of, part), rows in found.items():
        means = rows.merge(margin, on=[*KEYS, "example"]).groupby(KEYS)[["value", "margin"]].mean()
        parts.append((means["value"] / means["margin"]).rename("value").reset_index().assign(of=of, part=part))
    return pd.DataFrame(pd.concat(parts, ignore_index=True)[[*KEYS, "of", "part", "value"]])


def _of(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return pd.DataFrame(frame.loc[frame["quantity"] == quantity, _PER_EXAMPLE])


def _without_jumping(rows: pd.DataFrame, jumps: pd.DataFrame, by: list[str] = KEYS) -> pd.DataFrame:
    """Without networks (and layers) whose value jumps around any example: the others would speak for them."""
    jumping = jumps.loc[jumps["value"] > 0, by].drop_duplicates().assign(jumps=True)
    told = rows.merge(jumping, on=by, how="left")
    return pd.DataFrame(told[told["jumps"].isna()].drop(columns="jumps"))


def draw_variation(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Bars: full colour is what comes at once (kinks, jumps), pale what comes gradually (curvature, slopes).

    Args:
        frame: of `variation_parts`; levels of a dial are left to `draw_roughness_dial`.
        narrow: lay out for a small screen.
    """
    frame = without_dial(frame)
    if frame.empty:
        return empty_figure("No variation was measured.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    figure, axes = row_panels(labels, architectures, list(_TITLES.values()), narrow=narrow)
    for architecture, several in zip(architectures, axes, strict=True):
        for ax, of in zip(several, _TITLES, strict=True):
            own = frame[(frame["architecture"] == architecture) & (frame["of"] == of)]
            _bars(ax, own, labels, "infinite: the value jumps" if of == "gradient" else "not measured")
            ax.set_xlabel(_AXES[of])
            ax.set_xlim(0, 1.14 * ax.get_xlim()[1])
    handles: list[Patch | Line2D] = [
        Patch(color=SOFT, label="at once: kinks of the gradient, jumps of the value"),
        Patch(color=SOFT, alpha=0.35, linewidth=0, label="gradually: curvature, slopes"),
    ]
    if len(set(frame["seed"])) > 1:
        handles.append(Line2D([], [], color=SOFT, linestyle="none", marker="|", markersize=8, label="single seeds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=1 if narrow else 3)
    return figure


def _bars(ax: Axes, rows: pd.DataFrame, labels: list[str], missing: str) -> None:
    style = strokes(labels)
    for place, label in enumerate(labels):
        seeds = rows[rows["activation"] == label].pivot_table(index="seed", columns="part", values="value")
        if seeds.empty:
            write_in_row(ax, place, missing)
            continue
        sudden, gradual = float(seeds["sudden"].mean()), float(seeds["gradual"].mean())
        ax.barh(place, sudden, height=0.62, color=style[label].colour)
        ax.barh(place, gradual, height=0.62, left=sudden, color=style[label].colour, alpha=0.35, linewidth=0)
        if len(seeds) > 1:
            totals = seeds.sum(axis=1)
            ax.plot(totals, [place] * len(totals), linestyle="none", marker="|", markersize=8, color=SOFT)
        total = sudden + gradual
        beside = float(max(total, seeds.sum(axis=1).max()))
        ax.annotate(f"{total:.2g}" if total else "0", (beside, place), (4, 0), textcoords="offset points", va="center",
                    size=8, color=SOFT)  # fmt: skip


def concentration_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of the gradient's variation at places of a local scale below h: KEYS, place, scale, value.

    Means over examples. place is "margin", or the layer whose output varies.

    Args:
        frame: the valid rows.
    """
    parts = []
    for prefix in ("", "layer_"):
        by = [*KEYS, "layer"] if prefix else KEYS
        rows = frame[frame["quantity"] == f"{prefix}gradient_concentration"]
        jumps = frame[frame["quantity"] == f"{prefix}value_jump_part"]
        means = _without_jumping(rows, jumps, by).groupby([*by, "epsilon"], as_index=False)["value"].mean()
        parts.append(means.assign(place=means.pop("layer") if prefix else "margin"))
    found = pd.concat(parts, ignore_index=True).rename(columns={"epsilon": "scale"})
    return pd.DataFrame(found[[*KEYS, "place", "scale", "value"]])


def draw_concentration(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Share of the gradient's variation against the scale h, a panel for each architecture and place.

    Args:
        frame: of `concentration_curves`.
        narrow: lay out for a small screen.
    """
    frame = without_dial(frame)
    if frame.empty:
        return empty_figure("The gradient's variation was not resolved by scale.", narrow=narrow)
    cases = list(frame[["architecture", "place"]].drop_duplicates().itertuples(index=False))
    cases.sort(key=lambda case: (case[0] != "mlp", case[0], case[1] != "margin", case[1]))
    titled = {
        f"{architecture}: {place if place == 'margin' else f'output of {place}'}": frame[
            (frame["architecture"] == architecture) & (frame["place"] == place)
        ]
        for architecture, place in cases
    }
    return _curves(titled, order_activations(frame["activation"]), narrow)


def draw_concentration_dial(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """The same along the mollifying dial, a panel for each sharp activation; paler is smoother.

    Args:
        frame: of `concentration_curves`.
        narrow: lay out for a small screen.
    """
    frame = frame[frame["place"] == "margin"]
    names = order_activations(turned[0] for label in set(frame["activation"]) if (turned := on_dial(label)))
    titled = {}
    for architecture in architectures_of(frame):
        own = frame[frame["architecture"] == architecture]
        for name in names:
            rows = own[[label == name or (on_dial(label) or ("",))[0] == name for label in own["activation"]]]
            if any(on_dial(label) for label in rows["activation"]):
                titled[f"{architecture}: {name}, smoothed"] = rows
    if not titled:
        return empty_figure("No dial was turned.", narrow=narrow)
    return _curves(titled, order_activations(pd.concat(titled.values())["activation"]), narrow)


def _curves(titled: dict[str, pd.DataFrame], labels: list[str], narrow: bool) -> Figure:
    """Shares against h, a panel for each title."""
    style = strokes(labels)
    cases = list(titled)
    columns = 1 if narrow else min(len(cases), MOST_COLUMNS)
    figure, axes = panels(
        -(-len(cases) // columns),
        columns,
        width=NARROW if narrow else WIDE * max(0.62, min(1.0, columns / 2)),
        row_height=2.4 if narrow or len(cases) > columns else 3.0,
        sharey=True,
    )
    for ax, (title, own) in zip(axes, titled.items(), strict=False):
        for label in labels:
            seeds = own[own["activation"] == label].groupby("scale")["value"]
            mean, deviation = seeds.mean(), seeds.std(ddof=1).fillna(0.0)
            stroke = style[label]
            ax.plot(mean.index, mean, color=stroke.colour, marker=stroke.marker, linestyle=stroke.linestyle)
            ax.fill_between(mean.index, mean - deviation, mean + deviation, color=stroke.colour, alpha=0.15,
                            linewidth=0)  # fmt: skip
        ax.set(xscale="log", ylim=(-0.03, 1.04), xlabel="scale h (input l2)")
        ax.set_title(title)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        plain_log(ax)
    for ax in axes[:: columns or 1]:
        ax.set_ylabel("turned within h")
    for ax in axes[len(cases) :]:
        ax.set_visible(False)
    legend_below(figure, labels, narrow=narrow)
    return figure
