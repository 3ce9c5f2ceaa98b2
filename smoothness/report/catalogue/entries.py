"""The catalogue's entries with everything known of them, as objects and as strict JSON."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import FAMILIES
from smoothness.activations.facts import ActivationFacts, Breakpoint


@dataclass(frozen=True)
class Entry:
    """One activation with its default parameters.

    Attributes:
        name, family: as in the catalogue.
        module, facts: the activation and what is known of it.
        parameters: arguments with their defaults.
        learnable: whether training changes any of them.
        description: formula and source, the first line of the class's docstring.
    """

    name: str
    family: str
    module: Activation
    facts: ActivationFacts
    parameters: dict[str, object]
    learnable: bool
    description: str

    def breaks(self, order: int) -> tuple[Breakpoint, ...] | None:
        """Breakpoints of one order (in one period, of a periodic φ); None where the fact does not apply."""
        if "breakpoints" not in self.facts.applicable:
            return None
        return tuple(b for b in self.facts.breakpoints if b.order == order)


def entries() -> list[Entry]:
    """All of the catalogue, family by family.

    >>> entries()[0].name, len({e.name for e in entries()}) == len(entries())
    ('identity', True)
    """
    return [_entry(name, family, kind) for family, members in FAMILIES.items() for name, kind in members.items()]


def _entry(name: str, family: str, kind: type[Activation]) -> Entry:
    arguments = inspect.signature(kind).parameters.values()
    module = kind()
    return Entry(
        name=name,
        family=family,
        module=module,
        facts=module.facts(),
        parameters={p.name: _default(module, p) for p in arguments if p.kind is p.POSITIONAL_OR_KEYWORD},
        learnable=any(True for _ in module.parameters()),
        description=(kind.__doc__ or "").strip().split("\n")[0],
    )


def _default(module: Activation, parameter: inspect.Parameter) -> object:
    """The default; where the class chooses one itself, what it chose."""
    return getattr(module, parameter.name, None) if parameter.default is None else parameter.default


def fact_names() -> list[str]:
    """Facts that are numbers, lists or truth values: all but the functions themselves."""
    return [f.name for f in dataclasses.fields(ActivationFacts) if f.name not in ("name", "function", "derivative")]


def records() -> list[dict[str, object]]:
    """Every fact of every entry in types of strict JSON: infinities as "inf" and "-inf", None where not applicable.

    >>> next(r for r in records() if r["name"] == "step")["lipschitz"]
    'inf'
    """
    return [_record(entry) for entry in entries()]


def _record(entry: Entry) -> dict[str, object]:
    facts = entry.facts
    known = {"elementwise", *facts.applicable}
    return {
        "name": entry.name,
        "label": facts.name,
        "family": entry.family,
        "description": entry.description,
        "parameters": _plain(entry.parameters),
        "learnable": entry.learnable,
        **{name: _plain(getattr(facts, name)) if name in known else None for name in fact_names()},
    }


def _plain(value: object) -> object:
    """The value in types of strict JSON.

    >>> _plain((1.5, math.inf, math.nan))
    [1.5, 'inf', None]
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else f"{value:g}"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")
