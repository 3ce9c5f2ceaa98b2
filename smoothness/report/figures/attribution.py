"""Figure: how steady and how faithful explanations are."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from smoothness.report.figures.curvature import draw_columns
from smoothness.report.figures.rows import Column
from smoothness.study.reductions import KEYS

_BLANK = "no value"
COLUMNS = (
    Column("attribution_sensitivity", "Largest change", "÷ its size  (at least)", log=True, missing=_BLANK),
    Column("attribution_top_overlap", "Same top features", "share  (estimate)", missing=_BLANK, limits=(-0.03, 1.03)),
    Column("attribution_rank_correlation", "Same order", "rank correlation  (estimate)", missing=_BLANK,
           limits=(-0.23, 1.03)),
    Column("attribution_infidelity", "Infidelity", "÷ margin²  (estimate)", log=True, missing=_BLANK),
)  # fmt: skip


def stabilities(frame: pd.DataFrame, label: str = "") -> pd.DataFrame:
    """Measures of one attribution analyzer; infidelity divided by the squared margin, of correct examples.

    Args:
        frame: the valid rows.
        label: of the analyzer; quantities end in ":label".

    Returns:
        KEYS, example, quantity (without the label), value; a row without a value for networks that have none.
    """
    margin = frame.loc[frame["quantity"] == "margin", [*KEYS, "example", "value"]].rename(columns={"value": "margin"})
    names = {column.quantity + (f":{label}" if label else ""): column.quantity for column in COLUMNS}
    rows = frame.loc[frame["quantity"].isin(list(names)), [*KEYS, "example", "quantity", "value"]]
    rows = rows.assign(quantity=rows["quantity"].map(names)).merge(margin, on=[*KEYS, "example"], how="left")
    scaled = rows["quantity"] == "attribution_infidelity"
    rows = rows[~scaled | (rows["margin"] > 0)]
    divisor = rows.pop("margin").where(rows["quantity"] == "attribution_infidelity", 1.0) ** 2
    rows = rows.assign(value=rows["value"] / divisor)
    return frame[KEYS].drop_duplicates().merge(rows, on=KEYS, how="left") if len(rows) else rows


def draw_attribution(frame: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Examples as dots, the median of each seed as a marker.

    Args:
        frame: of `stabilities`.
        narrow: lay out for a small screen.
    """
    return draw_columns(frame, COLUMNS, "The stability of explanations was not measured.", narrow=narrow)
