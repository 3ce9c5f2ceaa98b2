"""Validation errors as a person wants to read them: key, what was wrong, the nearest valid name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError


def readable_problems(error: ValidationError, schema: type[BaseModel]) -> Iterator[str]:
    """One line per problem: "training.epoch: unknown key; did you mean 'epochs'?"."""
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        key = _dotted(location)
        if problem["type"] == "extra_forbidden":
            known = sorted(_keys_at(schema, location[:-1]))
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            yield f"{key}: unknown key; {hint}"
        elif problem["type"] == "missing":
            yield f"{key}: missing; add it"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{key}: {message[0].lower()}{message[1:]}{_got(problem['input'])}"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "study"


def _got(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""


def _keys_at(schema: Any, location: tuple[int | str, ...]) -> set[str]:
    """Names of the fields of the table at `location`."""
    tables = list(_tables(schema))
    for part in location:
        if isinstance(part, int):
            continue
        inner: list[type[BaseModel]] = []
        for table in tables:
            if part in table.model_fields:
                inner += _tables(table.model_fields[part].annotation)
            elif part in {_tag(table)}:  # a union's tag stands in the location too
                inner.append(table)
        tables = inner
    return {name for table in tables for name in table.model_fields}


def _tag(table: type[BaseModel]) -> str | None:
    kind = table.model_fields.get("kind")
    return None if kind is None else str(get_args(kind.annotation)[0])


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings tables inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for inner in get_args(annotation):
            yield from _tables(inner)
