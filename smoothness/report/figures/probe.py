"""Figure: the order of smoothness as seen from values alone, beside that of the activation's facts."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from smoothness.report.curves import smoothness_order
from smoothness.report.figures.cells import draw_shares
from smoothness.report.figures.robustness import architectures_of
from smoothness.report.figures.rows import row_panels
from smoothness.report.style import empty_figure, order_activations
from smoothness.study.reductions import KEYS

KINDS = {"probe_value_jumps": -1.0, "probe_kinks": 0.0, "probe_curvature_jumps": 1.0}
_NAMES = {-1.0: "value\njump", 0.0: "kink", 1.0: "curvature\njump", math.inf: "none"}


def probed_orders(frame: pd.DataFrame) -> pd.DataFrame:
    """The roughest break found around each example: KEYS, example, order (infinity without any).

    Args:
        frame: the valid rows.
    """
    rows = frame[frame["quantity"].isin([*KINDS, "probe_finds_none"])]
    wide = rows.pivot_table(index=[*KEYS, "example"], columns="quantity", values="value")
    if wide.empty:
        return pd.DataFrame(columns=[*KEYS, "example", "order"])
    order = pd.Series(math.inf, index=wide.index)
    for quantity, value in reversed(KINDS.items()):
        order = order.where(~(wide[quantity] > 0), value)
    return order.rename("order").reset_index()


def contradictions(orders: pd.DataFrame) -> list[str]:
    """Activations of the catalogue for which the probe found rougher breaks than their facts allow.

    Args:
        orders: of `probed_orders`.
    """
    roughest = orders.groupby("activation")["order"].min()
    facts = {label: smoothness_order(label) for label in roughest.index}
    return order_activations(
        label for label, fact in facts.items() if fact is not None and roughest[label] < _column(fact)
    )


def _column(order: float) -> float:
    """Where an order stands: what is smoother than a curvature jump cannot be told from smooth."""
    return float(order) if order <= 1 else math.inf


def draw_probe(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Share of examples by the roughest break found; the frame is the order that the facts say.

    Args:
        frame: of `probed_orders`.
        narrow: lay out for a small screen.
    """
    if frame.empty:
        return empty_figure("No network was probed.", narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    columns = [str(order) for order in _NAMES]
    names = {str(order): name for order, name in _NAMES.items()}
    figure, axes = row_panels(labels, architectures, ["Roughest break found"], narrow=narrow)
    for architecture, (ax,) in zip(architectures, axes, strict=True):
        own = frame[frame["architecture"] == architecture]
        counts = own.groupby(["activation", "order"]).size()
        sizes = own.groupby("activation").size()
        shares = {
            (label, str(order)): counts.get((label, order), 0) / sizes[label]
            for label in sizes.index
            for order in _NAMES
        }
        facts = {label: smoothness_order(label) for label in sizes.index}
        outlined = {label: str(_column(fact)) for label, fact in facts.items() if fact is not None}
        draw_shares(ax, shares, labels, columns, outlined, names)
    handle = Rectangle((0, 0), 1, 1, fill=False, edgecolor="#d55e00", linewidth=1.8, label="what the facts say")
    figure.legend(handles=[handle], loc="outside lower center")
    return figure
