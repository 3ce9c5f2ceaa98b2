"""What replaces what: how `to` and `where` are read."""

from __future__ import annotations

import copy
import fnmatch
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from torch import nn

from smoothness.activations.catalogue import activation
from smoothness.activations.functional import module_of
from smoothness.activations.recognition import kind_name

Replacement: TypeAlias = "str | nn.Module | Callable[..., Any]"
To: TypeAlias = "Replacement | Mapping[str | type[nn.Module], Replacement]"
Where: TypeAlias = "Callable[..., Any] | str | int | type[nn.Module] | Collection[str | int | type[nn.Module]] | None"
# What is there -> its replacement; None leaves it.
Make: TypeAlias = "Callable[[nn.Module], nn.Module | None]"


def read_to(to: To) -> tuple[Make, bool]:
    """How to make a replacement, and whether that depends on what is there.

    Raises:
        ValueError: unknown activation name, or an empty mapping.
        TypeError: something that is no name, module, factory, function or mapping.
    """
    if isinstance(to, Mapping):
        if not to:
            raise ValueError("the mapping `to` is empty; give it as {'relu': 'gelu'} or {nn.ReLU: 'gelu'}")
        for key in to:
            if not isinstance(key, (str, type)):
                raise TypeError(f"a key of `to` must be an activation's name or a type, got {key!r}")
        makers = {key: read_to(value)[0] for key, value in to.items()}
        return lambda there: _from_mapping(makers, there), True
    if isinstance(to, str):
        activation(to)  # fail before copying the model
        return lambda there: activation(to), False
    if isinstance(to, nn.Module):
        return lambda there: copy.deepcopy(to), False
    known = module_of(to)
    if known is not None:
        return lambda there: copy.deepcopy(known), False
    if not callable(to):
        raise TypeError(
            f"`to` must be an activation's name, a module, a factory, a function of what is there or a mapping, "
            f"got {to!r} ({type(to).__name__})"
        )
    if _takes_an_argument(to):
        return lambda there: _checked(to(there), there), True
    return lambda there: _checked(to(), there), False


def _takes_an_argument(to: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(to).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _checked(made: object, there: nn.Module) -> nn.Module | None:
    if isinstance(made, str):
        return activation(made)
    if made is None or made is there:
        return None
    if not isinstance(made, nn.Module):
        raise TypeError(f"`to` must make an nn.Module, a name or None, got {type(made).__name__} for {there!r}")
    return made


def _from_mapping(makers: Mapping[str | type, Make], there: nn.Module) -> nn.Module | None:
    for key, make in makers.items():
        matches = isinstance(there, key) if isinstance(key, type) else key in (kind_name(there), type(there).__name__)
        if matches:
            return make(there)
    return None


def check_where(where: Where) -> None:
    """Raise unless `where` is a predicate, a pattern, a type, an index, a collection of those, or None."""
    single = (str, int, type)
    if where is None or (isinstance(where, single) and not isinstance(where, bool)) or callable(where):
        return
    if isinstance(where, (list, tuple, set, frozenset)):
        bad = [item for item in where if not isinstance(item, single) or isinstance(item, bool)]
        if where and not bad:
            return
        what = f"{bad[0]!r} ({type(bad[0]).__name__}) in it" if bad else f"an empty {type(where).__name__}"
    else:
        what = f"{where!r} ({type(where).__name__})"
    raise TypeError(
        "`where` must be a predicate of (name, module), a name pattern such as 'encoder.*', a module type, an index, "
        f"or a collection of those, got {what}"
    )


def chosen(where: Where, name: str, module: nn.Module, index: int | None, count: int) -> bool:
    """Whether `where` picks the place number `index` of `count` (None: a place that has no number)."""
    kind = None if isinstance(where, type) else module_of(where)
    if kind is not None:
        return type(module) is type(kind)
    if callable(where) and not isinstance(where, type):
        return bool(where(name, module))
    for item in where if isinstance(where, (list, tuple, set, frozenset)) else (where,):
        if isinstance(item, str) and fnmatch.fnmatchcase(name, item):
            return True
        if isinstance(item, type) and isinstance(module, item):
            return True
        if isinstance(item, int) and index is not None and item % count == index and -count <= item < count:
            return True
    return False


def check_indices(where: Where, count: int) -> None:
    """Raise when an index is outside the places found."""
    for item in where if isinstance(where, (list, tuple, set, frozenset)) else (where,):
        if isinstance(item, int) and not -count <= item < count:
            raise ValueError(f"`where` has the index {item}, but the model has {count} activations: 0 to {count - 1}")
