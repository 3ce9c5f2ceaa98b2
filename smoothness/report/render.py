"""A page as HTML and Markdown; nothing from the data reaches either unescaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files

import jinja2

from smoothness.report.displays import Table
from smoothness.report.page import Page

MARK = '<meta name="generator" content="smoothness">'
_TEMPLATES = jinja2.DictLoader(
    {
        name: files("smoothness.report").joinpath("templates", name).read_text(encoding="utf-8")
        for name in ("report.html.j2", "report.css", "report.js", "report.md.j2")
    }
)


def data_uri(svg: bytes) -> str:
    """An SVG as the source of an image: its ids stay its own, and no script in it could run."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def render_html(page: Page) -> str:
    """One self-contained HTML page: no request, and no script but the one that its policy names by hash."""
    environment = jinja2.Environment(
        loader=_TEMPLATES, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = data_uri
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("report.html.j2").render(page=page, script=script, script_hash=digest)


def render_markdown(page: Page) -> str:
    """The same in Markdown, with its figures in files beside it."""
    environment = jinja2.Environment(
        loader=_TEMPLATES,
        autoescape=False,  # every value goes through `finalize` instead
        finalize=escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": code_block, "table": table_block}
    return environment.get_template("report.md.j2").render(page=page)


class Literal(str):
    """Text that `escape_markdown` leaves alone."""


def escape_markdown(value: object) -> object:
    r"""The value as plain text in Markdown, on one line.

    >>> escape_markdown("a|b <c> *d* leaky_relu")
    'a\\|b &lt;c&gt; \\*d\\* leaky_relu'
    """
    if isinstance(value, Literal):
        return value
    text = re.sub(r"\s+", " ", str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    # An underscore inside a word is not emphasis; escaping it would only hurt readers of the source.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)


def table_block(table: Table) -> Literal:
    """A table in Markdown under its caption."""

    def line(texts: Iterable[object]) -> str:
        return "| " + " | ".join(str(escape_markdown(text)) for text in texts) + " |"

    left = [i < table.heads or i in table.prose for i in range(len(table.columns))]
    rule = "| " + " | ".join("---" if flag else "---:" for flag in left) + " |"
    rows = [line(cell.text for cell in row) for row in table.rows]
    return Literal("\n".join([str(escape_markdown(table.caption)), "", line(table.columns), rule, *rows]))


def code_block(text: str) -> Literal:
    """Text as a fenced block, with a fence longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return Literal(f"{fence}sh\n{text}\n{fence}")
