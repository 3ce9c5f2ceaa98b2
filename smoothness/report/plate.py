"""One figure of a report, drawn for a page and for a telephone, and statistics in words for its caption."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from smoothness.report.style import WIDE, figure_style, to_svg
from smoothness.report.tables import Spread, spreads


@dataclass(frozen=True)
class Plate:
    """One figure of a report.

    Attributes:
        slug: file name without ending, and anchor.
        title, caption: what it is; what to see, units and bound kind.
        alt: what a reader who cannot see it needs.
        wide, narrow: SVG for a page and for a small screen.
    """

    slug: str
    title: str
    caption: str
    alt: str
    wide: bytes
    narrow: bytes

    @property
    def share(self) -> int:
        """Width of the figure in percent of the widest one: a small figure is not blown up."""
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', self.wide)
        return 100 if found is None else min(100, round(100 * float(found[1]) / (72 * WIDE)))


def plate(slug: str, title: str, caption: str, alt: str, draw: Callable[..., Figure], frame: object) -> Plate:
    """The figure that `draw(frame, narrow=...)` gives, for both widths."""
    with figure_style():
        wide, narrow = (to_svg(draw(frame, narrow=small)) for small in (False, True))
    return Plate(slug, title, caption.replace(" %", "\u00a0%"), alt, wide, narrow)


def in_words(seeds: pd.DataFrame, statistic: str, percent: bool = True) -> str:
    """A statistic of `per_seed` for each architecture and activation in words."""

    def text(spread: Spread) -> str:
        return f"{100 * spread.mean:.0f} %" if percent else f"{spread.mean:.2g}"

    by_architecture: dict[str, list[str]] = {}
    for (architecture, activation), values in spreads(seeds).items():
        if values[statistic].seeds:
            by_architecture.setdefault(architecture, []).append(f"{activation} {text(values[statistic])}")
    parts = [f"{architecture}: {', '.join(items)}" for architecture, items in by_architecture.items()]
    return "; ".join(parts) or "not measured"
