"""A panel on a terminal of 80 columns and more."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from smoothness.panel.lines import order_in_words
from smoothness.panel.summary import Section, sections
from smoothness.panel.uses import ActivationUse

if TYPE_CHECKING:
    from smoothness.panel.result import Panel

_SHOWN = 4  # places named per activation


def as_text(panel: Panel, width: int = 80) -> str:
    """Plain text, without colours."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(renderable(panel))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def renderable(panel: Panel) -> RenderableType:
    """For rich: nothing from the model is read as markup."""
    masked = panel.masking is not None and panel.masking.masked
    parts: list[RenderableType] = [
        Text(f"{plain(panel.about['model'])}, {panel.about['parameters']} parameters", style="bold"),
        Text(plain(panel.about["inputs"])),
        Padding(Text(panel.verdict, style="yellow" if masked else ""), (1, 0, 0, 0)),
        *(_table(part) for part in sections(panel)),
        _activations(panel.activations),
        *_left_out(panel),
        _checks(panel),
        Text(f"\nseed {panel.about['seed']}; {panel.about['versions']}", style="dim"),
    ]
    return Group(*parts)


def plain(text: str) -> str:
    r"""Text on one line, without anything that moves a terminal's cursor or changes its colours.

    >>> plain("a\x1b[31mb\nc")
    'a�[31mb c'
    """
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def _grid(title: str, *columns: tuple[str, int, bool]) -> Table:
    """A table under its title; columns are (heading, width, whether numbers)."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=Text(f"\n{plain(title)}", style="bold"),
                  title_justify="left", header_style="dim")  # fmt: skip
    for heading, width, right in columns:
        table.add_column(heading, width=width, justify="right" if right else "left", overflow="fold")
    return table


def _table(part: Section) -> Table:
    table = _grid(part.title, ("", 37, False), ("value", 8, True), ("unit", 20, False), ("kind", 11, False))
    for row in part.rows:
        table.add_row(*(Text(plain(cell)) for cell in (row.name, row.value, row.unit, row.kind)))
        if row.note:
            table.add_row(Text(f"  {plain(row.note)}", style="dim"))
    return table


def _activations(uses: tuple[ActivationUse, ...]) -> RenderableType:
    if not uses:
        return Text("\nActivations\nnone was recognised in this model")
    table = _grid(
        "Activations", ("name", 28, False), ("smoothness", 18, False), ("slope", 15, False), ("curvature", 14, False)
    )
    for use in uses:
        slope = "–" if use.slope is None else f"{use.slope[0]:.3g} to {use.slope[1]:.3g}"
        curvature = "–" if use.curvature is None else f"{use.curvature:.3g}"
        name = use.name if use.known else f"{use.name} (unknown)"
        table.add_row(*(Text(plain(cell)) for cell in (name, order_in_words(use.order), slope, curvature)))
        for line in (places(use), use.note):
            if line:
                table.add_row(Text(f"  {plain(line)}", style="dim"))
    return table


def places(use: ActivationUse) -> str:
    """Where it stands: all places, or the first few and how many more."""
    more = len(use.places) - _SHOWN
    return f"at {', '.join(use.places[:_SHOWN])}" + (f" and {more} more" if more > 0 else "")


def _left_out(panel: Panel) -> list[RenderableType]:
    if not panel.left_out:
        return []
    table = _grid("Not available", ("what", 20, False), ("reason", 57, False))
    for what, why in panel.left_out:
        table.add_row(Text(plain(what)), Text(plain(why)))
    return [table]


def _checks(panel: Panel) -> Table:
    table = _grid("Hard invariants", ("invariant", 52, False), ("outcome", 8, False), ("detail", 16, False))
    for check in panel.checks:
        style = "" if check.passed else "bold red"
        table.add_row(check.name, Text("holds" if check.passed else "VIOLATED", style=style), check.detail)
    return table
