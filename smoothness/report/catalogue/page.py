"""The page of the catalogue: a section a family, and the dials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

import jinja2

from smoothness.activations import find_dial, list_dials
from smoothness.activations.dials import SCALES
from smoothness.report.catalogue.curves import OTHERS
from smoothness.report.catalogue.entries import Entry, entries
from smoothness.report.catalogue.facts_table import facts_table, number
from smoothness.report.catalogue.figure import family_svg
from smoothness.report.displays import Cell, Table
from smoothness.report.render import Literal, escape_markdown, table_block

MARK = "<!-- Written by `smoothness activations --plot`. -->"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        slug: file name of the figure without ending.
        alt: what a reader who cannot see the figure needs.
        note: a sentence under the figure, or "".
        definitions: name, and formula with source, of each activation.
        table: the facts.
    """

    title: str
    slug: str
    alt: str
    note: str
    definitions: list[tuple[str, str]]
    table: Table


def families() -> dict[str, list[Entry]]:
    """The entries of each family, in the catalogue's order."""
    return {family: list(members) for family, members in groupby(entries(), key=lambda entry: entry.family)}


def dials_table() -> Table:
    """Every dial: its range, its limit and its place on the three scales at both ends."""
    rows = []
    for name in list_dials():
        d = find_dial(name)
        smooth, sharp = d.scales(d.smooth), d.scales(d.sharp)
        ends = [_span(getattr(smooth, s), getattr(sharp, s)) for s in SCALES]
        rows.append([name, d.parameter, _span(d.smooth, d.sharp), d.limit, *ends, "yes" if d.rescales else "no"])
    columns = ["dial", "parameter", "smooth to sharp", "reference", "value jump", "slope jump", "curvature"]
    columns.append("change of scale")
    return Table("", columns, [[Cell(text) for text in row] for row in rows], heads=4)


def _span(start: float, stop: float) -> str:
    """Two ends, or the one number that they are."""
    return number(start) if start == stop else f"{number(start)} to {number(stop)}"


def render_page(grouped: dict[str, list[Entry]]) -> str:
    """The page in Markdown, with its figures in files beside it."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"catalogue.md.j2": _template()}),
        autoescape=False,  # every value goes through `finalize` instead
        finalize=escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["table"] = _table
    template = environment.get_template("catalogue.md.j2")
    count = sum(map(len, grouped.values()))
    sections = [_section(family, members) for family, members in grouped.items()]
    return template.render(mark=Literal(MARK), count=count, sections=sections, dials=dials_table())


def render_figures(grouped: dict[str, list[Entry]]) -> dict[str, bytes]:
    """The SVG of each section by slug."""
    return {slug_of(family): family_svg(members) for family, members in grouped.items()}


def slug_of(title: str) -> str:
    """File name and anchor of a heading.

    >>> slug_of("waves and bumps")
    'waves-and-bumps'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _section(family: str, members: list[Entry]) -> Section:
    names = ", ".join(entry.name for entry in members)
    several = not all(entry.facts.elementwise for entry in members)
    fixed = ", ".join(map(number, OTHERS))
    return Section(
        title=family.capitalize(),
        slug=slug_of(family),
        alt=f"First output against first input, and its slope, of {names}."
        if several
        else f"φ, φ′ and φ″ of {names}.",
        note="These work on several features at once and have no curve of one variable. Drawn is the first output "
        f"y₁ as the first input z₁ varies while the other inputs stay at {fixed}, and its slope ∂y₁/∂z₁: a section, "
        "not the whole function. Facts of one variable do not apply; slopes are partial derivatives, the Lipschitz "
        "constant is that from l2 to l2, monotone means in every input, and moments are means over the outputs for "
        "independent standard normal inputs."
        if several
        else "",
        definitions=[(entry.name, _prose(entry.description)) for entry in members],
        table=facts_table(members),
    )


def _prose(text: str) -> Literal:
    """A line of a docstring: its backticks are meant as code."""
    return Literal(str(escape_markdown(text)).replace("\\`", "`"))


def _table(table: Table) -> Literal:
    """The table without its empty caption."""
    return Literal(table_block(table).lstrip("\n"))


def _template() -> str:
    return files("smoothness.report").joinpath("templates", "catalogue.md.j2").read_text(encoding="utf-8")
