"""The catalogue as a table for terminals of 80 columns and more."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from rich.table import Table
from rich.text import Text

from smoothness.report.catalogue.entries import Entry, entries

_NOTE = "order: -1 value jump, 0 kink, 1 curvature jump, inf smooth; curvature: Lipschitz constant of the slope"
_WIDE = 112  # columns: from here on names stand on one line with their parameters
_NAME = 28  # columns for names in a narrow table

# Headings in a narrow and in a wide table.
_HEADINGS = (
    ("order", "order"),
    ("slope\nfrom", "slope\nfrom"),
    ("slope\nto", "slope\nto"),
    ("curva-\nture", "curvature"),
    ("value\njumps", "value\njumps"),
    ("kinks", "kinks"),
    ("bound-\ned", "bounded"),
    ("mono-\ntone", "monotone"),
)


def listing(width: int) -> Table:
    """Order, slopes, curvature, breakpoints, bounds and monotony of every entry, family by family.

    Args:
        width: columns of the terminal; below 112 long parameters stand under their activation's name.
    """
    wide = width >= _WIDE
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False, caption=_NOTE, caption_justify="left")
    table.add_column("activation", no_wrap=True, min_width=_NAME, vertical="top")
    for narrow_heading, wide_heading in _HEADINGS:
        table.add_column(wide_heading if wide else narrow_heading, no_wrap=True, justify="right")
    for family, members in groupby(entries(), key=lambda entry: entry.family):
        table.add_row()
        table.add_row(Text(family, style="bold"))
        for entry in members:
            table.add_row(_name(entry, wide), *_cells(entry))
    return table


def _name(entry: Entry, wide: bool) -> str:
    label = entry.facts.name
    if wide or len(label) <= _NAME:
        return label
    return f"{entry.name}\n {label.removeprefix(entry.name).strip('()')}"


def _cells(entry: Entry) -> Iterable[str]:
    facts = entry.facts
    for name in ("smoothness_class", "slope_min", "slope_max", "curvature"):
        yield f"{getattr(facts, name):.3g}" if name in facts.applicable else "-"
    for order in (-1, 0):
        breaks = entry.breaks(order)
        yield "-" if breaks is None else str(len(breaks)) + ("/period" if breaks and facts.period else "")
    for name in ("bounded", "monotone"):
        yield ("yes" if getattr(facts, name) else "no") if name in facts.applicable else "-"
