"""Validation errors as a person wants to read them: key, what was wrong, the nearest valid name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from smoothness.study.fields import SeveralProblemsError
from smoothness.study.levels import KINDS

_TABLE, _LIST = "a table of settings, such as [name] or {key = value}", "a list, such as [1, 2]"
_SHAPES = {
    "model_type": _TABLE, "model_attributes_type": _TABLE, "dict_type": _TABLE, "tuple_type": _LIST,
    "string_type": "text in quotes",
}  # fmt: skip


def readable_problems(error: ValidationError, schema: type[BaseModel]) -> Iterator[str]:
    """One line per problem: "training.epoch: unknown key; did you mean 'epochs'?"."""
    problems = error.errors(include_url=False)
    for problem in problems:
        location = problem["loc"]
        key = _dotted(location)
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, SeveralProblemsError):
            yield from cause.lines
        elif problem["type"] == "extra_forbidden":
            known = sorted(_keys_at(schema, location[:-1]))
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            yield f"{key}: unknown key; {hint}"
        elif problem["type"] == "missing":
            yield f"{key}: missing; add it"
        elif problem["type"] == "union_tag_not_found":
            yield f"{key}.kind: missing; add it"
        elif problem["type"] == "union_tag_invalid":
            tags = [tag.strip(" '") for tag in problem["ctx"]["expected_tags"].split(",")]
            near = difflib.get_close_matches(str(problem["ctx"]["tag"]), tags, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(tags)}"
            yield f"{key}.kind: unknown kind {problem['ctx']['tag']!r}; {hint}"
        elif problem["type"] == "too_short":
            # Entries that failed are missing from the list, too: their own lines say why.
            if not any(other["loc"][: len(location)] == location != other["loc"] for other in problems):
                yield f"{key}: must not be empty; give at least one entry"
        elif problem["type"] in _SHAPES:
            yield f"{key}: must be {_SHAPES[problem['type']]}{_got(problem['input'])}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{key}: {message[0].lower()}{message[1:]}{_got(problem['input'])}"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    if location[:1] in (("attacks",), ("analyzers",)):  # their kind stands third
        location = location[:2] + location[3:]
    for part in location:
        if not _is_tag(part):
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "study"


def _is_tag(part: int | str) -> bool:
    """Whether a part of a location only says which kind of table stands there."""
    return isinstance(part, str) and part.startswith("<")


def _got(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""


def _keys_at(schema: Any, location: tuple[int | str, ...]) -> set[str]:
    """Names of the fields of the table at `location`."""
    tables = list(_tables(schema))
    for part in location:
        if isinstance(part, int):
            continue
        if _is_tag(part):
            tables = [table for table in tables if KINDS[str(part)] is table]
            continue
        inner: list[type[BaseModel]] = []
        for table in tables:
            if part in table.model_fields:
                inner += _tables(table.model_fields[part].annotation)
            elif part in {_tag(table)}:  # a union's tag stands in the location too
                inner.append(table)
        tables = inner
    return {field.alias or name for table in tables for name, field in table.model_fields.items()}


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
