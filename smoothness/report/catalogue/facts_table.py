"""Every fact of a family's activations as a table: a row a fact, a column an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from smoothness.activations.facts import Breakpoint
from smoothness.report.catalogue.entries import Entry
from smoothness.report.displays import Cell, Table

_ZERO = 1e-12  # quadrature leaves moments that are 0 a little off


def facts_table(members: list[Entry]) -> Table:
    """All that is known of a family; numbers to 6 significant digits."""
    rows = [[heading, *(show(entry) for entry in members)] for heading, show in _ROWS]
    return Table(
        caption="",
        columns=["fact", *(entry.name for entry in members)],
        rows=[[Cell(text) for text in row] for row in rows],
        heads=1,
        prose=tuple(range(1, len(members) + 1)),
    )


def number(value: float) -> str:
    """Six significant digits.

    >>> number(1 / 3), number(-math.inf), number(-1e-17)
    ('0.333333', '-∞', '0')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "0" if abs(value) < _ZERO else f"{value:.6g}"


def polynomial(coefficients: Sequence[float]) -> str:
    """A polynomial from its coefficients, lowest power first.

    >>> polynomial((-1.0, 0.0, 2.0)), polynomial((0.0, 1.0)), polynomial((0.0,))
    ('-1 + 2 z²', 'z', '0')
    """
    terms: list[str] = []
    for power, c in enumerate(coefficients):
        if c == 0:
            continue
        z = {0: "", 1: "z", 2: "z²", 3: "z³"}.get(power, f"z^{power}")
        size = number(abs(c))
        term = z if z and size == "1" else f"{size} {z}".strip()
        sign = "-" if c < 0 else "+"
        terms.append(f" {sign} {term}" if terms else f"{'-' if c < 0 else ''}{term}")
    return "".join(terms) or "0"


def _argument(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _parameters(entry: Entry) -> str:
    text = ", ".join(f"{name}={_argument(default)}" for name, default in entry.parameters.items())
    return text or "none"


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _when(name: str, show: Callable[[Entry], str]) -> Callable[[Entry], str]:
    """The text, or a dash where the fact does not apply."""
    return lambda entry: show(entry) if name in entry.facts.applicable else "-"


def _number(name: str) -> Callable[[Entry], str]:
    return _when(name, lambda entry: number(getattr(entry.facts, name)))


def _truth(name: str) -> Callable[[Entry], str]:
    return _when(name, lambda entry: _flag(getattr(entry.facts, name)))


def _positions(name: str) -> Callable[[Entry], str]:
    return _when(name, lambda entry: ", ".join(map(number, getattr(entry.facts, name))) or "nowhere")


def _breaks(fits: Callable[[int], bool]) -> Callable[[Entry], str]:
    """Where and by how much: the order is written out where a row holds several."""

    def text(b: Breakpoint) -> str:
        size = ("+" if b.jump > 0 else "") + number(b.jump)
        return f"{size} at {number(b.position)}" + (f" (order {b.order})" if b.order > 1 else "")

    def show(entry: Entry) -> str:
        return ", ".join(text(b) for b in entry.facts.breakpoints if fits(b.order)) or "none"

    return _when("breakpoints", show)


def _slopes(entry: Entry) -> str:
    return f"{number(entry.facts.slope_min)} to {number(entry.facts.slope_max)}"


def _pieces(entry: Entry) -> str:
    pieces = entry.facts.polynomial_pieces
    return "-" if pieces is None else "; ".join(map(polynomial, pieces))


def _period(entry: Entry) -> str:
    return "none" if entry.facts.period is None else number(entry.facts.period)


_ROWS: tuple[tuple[str, Callable[[Entry], str]], ...] = (
    ("parameters", _parameters),
    ("learnable", lambda entry: _flag(entry.learnable)),
    ("elementwise", lambda entry: _flag(entry.facts.elementwise)),
    ("order of smoothness", _number("smoothness_class")),
    ("value jumps", _breaks(lambda order: order == -1)),
    ("kinks (slope jumps)", _breaks(lambda order: order == 0)),
    ("jumps of φ″ and beyond", _breaks(lambda order: order >= 1)),
    ("slope φ′", _when("slope_min", _slopes)),
    ("Lipschitz constant", _number("lipschitz")),
    ("curvature", _number("curvature")),
    ("slope variation", _number("slope_variation")),
    ("bounded", _truth("bounded")),
    ("monotone", _truth("monotone")),
    ("φ(0)", _number("at_zero")),
    ("E φ(u)", _number("mean")),
    ("E φ(u)²", _number("second_moment")),
    ("E φ′(u)²", _number("slope_second_moment")),
    ("φ′ changes sign at", _positions("value_turns")),
    ("φ″ changes sign at", _positions("slope_turns")),
    ("period", _when("period", _period)),
    ("polynomial pieces", _when("polynomial_pieces", _pieces)),
)
