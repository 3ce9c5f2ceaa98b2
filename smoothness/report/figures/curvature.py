"""Figure: curvature at a point, curvature over a finite distance, and the departure from the tangent."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from smoothness.report.figures.robustness import architectures_of
from smoothness.report.figures.rows import Column, draw_dots, row_panels
from smoothness.report.figures.variation import without_dial
from smoothness.report.style import empty_figure, order_activations
from smoothness.study.reductions import KEYS, normalised

COLUMNS = (
    Column("normalised_curvature", "Curvature at the point", "÷ slope  (1 / input l2; at least)", log=True),
    Column("finite_normalised_curvature", "Over a finite distance", "÷ slope  (1 / input l2; estimate)", log=True),
    Column("local_linearity_error", "Departure from the tangent", "÷ margin  (at least)", log=True),
)


def curvatures(frame: pd.DataFrame) -> pd.DataFrame:
    """Both curvatures divided by their slopes, all examples; the departure by the margin, correct ones.

    Args:
        frame: the valid rows.

    Returns:
        KEYS, example, quantity, value.
    """
    names = [column.quantity for column in COLUMNS[:2]]
    columns = [*KEYS, "example", "quantity", "value"]
    error = normalised(frame, COLUMNS[2].quantity).assign(quantity=COLUMNS[2].quantity)
    return pd.DataFrame(pd.concat([frame.loc[frame["quantity"].isin(names), columns], error[columns]]))


def draw_curvature(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Examples as dots, the median of each seed as a marker, on logarithmic axes; zeros are written out.

    Args:
        frame: of `curvatures`.
        narrow: lay out for a small screen.
    """
    return draw_columns(without_dial(frame), COLUMNS, "No curvature was measured.", narrow=narrow)


def draw_columns(frame: pd.DataFrame, columns: tuple[Column, ...], otherwise: str, *, narrow: bool) -> Figure:
    """Dots of several quantities beside each other: those of `columns` that the frame holds.

    Args:
        frame: activation, architecture, seed, quantity, value.
        columns: what may be drawn.
        otherwise: text of the figure where nothing is.
        narrow: lay out for a small screen.
    """
    shown = [column for column in columns if (frame["quantity"] == column.quantity).any()]
    if not shown:
        return empty_figure(otherwise, narrow=narrow)
    labels, architectures = order_activations(frame["activation"]), architectures_of(frame)
    figure, axes = row_panels(labels, architectures, [column.title for column in shown], narrow=narrow)
    for architecture, several in zip(architectures, axes, strict=True):
        for ax, column in zip(several, shown, strict=True):
            own = frame[(frame["architecture"] == architecture) & (frame["quantity"] == column.quantity)]
            draw_dots(ax, own, labels, column)
    return figure
