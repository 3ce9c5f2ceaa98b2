"""The factors of a study, and which of their combinations it takes."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from smoothness._checks import check_choice
from smoothness.models import ARCHITECTURES
from smoothness.models.classical import CLASSICAL
from smoothness.study.fields import Count, Gain, Seed, Settings, Size, Text, listed, written
from smoothness.study.levels import ActivationEntry, ActivationLevel, DataLevel, DialRange, MollifyRange

_ORDER = ("seed", "data", "subset", "epochs", "architecture", "width", "depth", "normalisation", "gain", "activation")


def _expanded(entries: tuple[Any, ...]) -> tuple[ActivationLevel, ...]:
    """Ranges as the levels they stand for."""
    ranges = (DialRange, MollifyRange)
    return tuple(level for e in entries for level in (e.expand() if isinstance(e, ranges) else [e]))


class Factors(Settings):
    """What varies; every combination is one cell. Factors without levels here have one fixed setting elsewhere."""

    activation: Annotated[tuple[ActivationEntry, ...], Field(min_length=1), AfterValidator(_expanded)]
    architecture: Annotated[tuple[str, ...], Field(min_length=1)]
    width: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None
    depth: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None
    normalisation: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    gain: Annotated[tuple[Gain, ...], Field(min_length=1)] | None = None
    data: Annotated[tuple[DataLevel, ...], Field(min_length=1)] | None = None
    subset: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    epochs: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    seed: Annotated[tuple[Seed, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Factors:
        for name in self.architecture:
            check_choice("architecture", name, [*ARCHITECTURES, *CLASSICAL])
        for factor, labels in self.labels().items():
            repeated = sorted({label for label in labels if labels.count(label) > 1})
            if repeated:
                raise ValueError(f"{factor} lists {', '.join(repeated)} more than once; give each level one label")
        return self

    def levels(self) -> dict[str, tuple[Any, ...]]:
        """The factors that have levels here, and their levels."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: levels for name, levels in given.items() if levels is not None}

    def labels(self) -> dict[str, list[str]]:
        """As `levels`, by the levels' labels."""
        return {name: [label_of(level) for level in levels] for name, levels in self.levels().items()}

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Factor -> level for every combination: seed by seed, so that an unfinished run covers all levels early."""
        levels = self.levels()
        names = [name for name in _ORDER if name in levels]
        for combination in itertools.product(*(levels[name] for name in names)):
            yield dict(zip(names, combination, strict=True))


def label_of(level: Any) -> str:
    """How a level is called in selections, labels and the frame."""
    return str(level.label) if hasattr(level, "label") else written(level)


_Choice = Annotated[tuple[str | int | float, ...], Field(min_length=1), BeforeValidator(listed)] | None


class Selection(Settings):
    """Combinations: levels by label for some factors, one or a list; factors left out take every level."""

    activation: _Choice = None
    architecture: _Choice = None
    width: _Choice = None
    depth: _Choice = None
    normalisation: _Choice = None
    gain: _Choice = None
    data: _Choice = None
    subset: _Choice = None
    epochs: _Choice = None
    seed: _Choice = None

    def wanted(self) -> dict[str, list[str]]:
        """Factor -> labels, for the factors that are named."""
        chosen = {name: getattr(self, name) for name in Selection.model_fields}
        return {name: [label_of(level) for level in levels] for name, levels in chosen.items() if levels is not None}

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Whether a combination, factor -> label, is among them."""
        return all(labels[factor] in levels for factor, levels in self.wanted().items())


class Exclusion(Selection):
    """Combinations that are left out, and why; the report says so."""

    reason: Text


def selection_problems(
    table: str, selections: Sequence[Selection], factors: Factors, grid: Sequence[Mapping[str, str]]
) -> list[str]:
    """Selections that name what is not there, or that no combination of the grid fits."""
    known = factors.labels()
    problems = []
    for place, selection in enumerate(selections):
        key, wrong = f"{table}[{place}]", []
        for factor, labels in selection.wanted().items():
            if factor not in known:
                wrong.append(f"{key}.{factor}: not a factor of this study; list its levels under [factors]")
                continue
            for label in labels:
                if label not in known[factor]:
                    near = difflib.get_close_matches(label, known[factor], n=2, cutoff=0.5) or known[factor][:8]
                    wrong.append(f"{key}.{factor}: {label!r} is no level of this study; near: {', '.join(near)}")
        if not wrong and not selection.wanted():
            wrong.append(f"{key}: names no factor; name at least one, such as activation = 'relu'")
        if not wrong and not any(selection.takes(labels) for labels in grid):
            wrong.append(f"{key}: matches no combination; drop it, or correct its levels")
        problems += wrong
    return problems
