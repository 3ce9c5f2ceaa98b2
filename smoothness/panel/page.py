"""A panel as HTML: a page of its own, and the same content as a fragment for notebooks."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2

from smoothness.panel.lines import order_in_words
from smoothness.panel.summary import sections
from smoothness.panel.text import places, plain

if TYPE_CHECKING:
    from smoothness.panel.result import Panel

_FILES = ("page.html.j2", "panel.html.j2", "panel.css")


def page(panel: Panel) -> str:
    """A self-contained page: no script, no request; everything from the model is escaped."""
    return _environment().get_template("page.html.j2").render(**_content(panel))


def fragment(panel: Panel) -> str:
    """For notebooks: one element with styles that touch nothing around it."""
    return _environment().get_template("panel.html.j2").render(**_content(panel))


def _content(panel: Panel) -> dict[str, Any]:
    return {
        "about": panel.about,
        "verdict": panel.verdict,
        "masked": panel.masking is not None and panel.masking.masked,
        "sections": sections(panel),
        "uses": [
            {
                "name": use.name,
                "known": use.known,
                "order": order_in_words(use.order),
                "slope": "–" if use.slope is None else f"{use.slope[0]:.3g} to {use.slope[1]:.3g}",
                "curvature": "–" if use.curvature is None else f"{use.curvature:.3g}",
                "places": places(use),
                "note": use.note,
            }
            for use in panel.activations
        ],
        "left_out": panel.left_out,
        "checks": panel.checks,
    }


@cache
def _environment() -> jinja2.Environment:
    folder = files("smoothness.panel").joinpath("templates")
    texts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in _FILES}
    return jinja2.Environment(
        loader=jinja2.DictLoader(texts),
        autoescape=True,
        finalize=lambda value: plain(value) if type(value) is str else value,  # no control characters in a page
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
