"""Figure: where the network stands still, which units do, and how much of a layer's variation stands in jumps."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from smoothness.report.figures.cells import draw_shares
from smoothness.report.figures.kinks import natural_key
from smoothness.report.figures.robustness import architectures_of
from smoothness.report.figures.rows import row_panels
from smoothness.report.figures.variation import without_dial
from smoothness.report.style import empty_figure, order_activations
from smoothness.study.reductions import KEYS

OUTPUT = "margin"  # what stands beside the layers for the whole network
_BALL = {"flat": "by values", "zero_gradient": "by gradient"}
_TITLES = {"ball": "Standing still", "saturation": "Saturated units", "jumps": "Variation in jumps"}


def plateau_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over examples of all shares: KEYS, of, place, value.

    of "ball": place "flat" or "zero_gradient". of "saturation": place is the layer. of "jumps" (the share of the
    value's variation that stands in jumps): place is the layer, or `OUTPUT`.

    Args:
        frame: the valid rows.
    """
    names = {
        "flat_fraction": ("ball", "flat"),
        "zero_gradient_fraction": ("ball", "zero_gradient"),
        "saturation": ("saturation", ""),
        "value_jump_share": ("jumps", OUTPUT),
        "layer_value_jump_share": ("jumps", ""),
    }
    rows = frame.loc[frame["quantity"].isin(list(names)), [*KEYS, "quantity", "layer", "value"]]
    of = rows["quantity"].map({name: what for name, (what, _) in names.items()})
    place = rows["quantity"].map({name: where for name, (_, where) in names.items()})
    rows = rows.assign(of=of, place=place.where(place != "", rows["layer"]))
    return pd.DataFrame(rows.groupby([*KEYS, "of", "place"], as_index=False)["value"].mean())


def draw_plateaus(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Shares of the ball and of each layer as shaded cells; what was not measured has no panel.

    Args:
        frame: of `plateau_shares`.
        narrow: lay out for a small screen.
    """
    frame = without_dial(frame)
    shown = [of for of in _TITLES if (frame["of"] == of).any()]
    if not shown:
        return empty_figure("Plateaus were not measured.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    figure, axes = row_panels(labels, architectures, [_TITLES[of] for of in shown], narrow=narrow)
    for architecture, several in zip(architectures, axes, strict=True):
        for ax, of in zip(several, shown, strict=True):
            own = frame[(frame["architecture"] == architecture) & (frame["of"] == of)]
            means = own.groupby(["activation", "place"], as_index=False)["value"].mean()
            shares = {(a, b): share for a, b, share in means.itertuples(index=False)}
            places = sorted(own["place"].unique(), key=lambda name: (name == OUTPUT, natural_key(name)))
            draw_shares(ax, shares, labels, places, names={name: _short(name) for name in places})
    return figure


def _short(layer: str) -> str:
    """A layer's name in a narrow column.

    >>> _short("activation2"), _short("stages.0.blocks.1.first_activation")
    ('act. 2', '….first_act.')
    """
    if layer in _BALL:
        return _BALL[layer]
    name = layer.replace("activation", "act.")
    name = name.replace("act.", "act. ", 1) if name[4:5].isdigit() and name.startswith("act.") else name
    return name if len(name) <= 12 else f"…{name[-11:]}"
