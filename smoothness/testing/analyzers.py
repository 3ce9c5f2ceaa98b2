"""The contract of an analyzer, checked on one model and one batch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, get_args

import torch
from torch import Tensor, nn

from smoothness.measurement import BoundKind, Bracket, Measurement
from smoothness.testing.surroundings import Surroundings, is_frozen


def check_analyzer(analyzer: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor | None = None) -> None:
    """Check what an analyzer returns, and that it leaves everything else alone.

    It must be a frozen dataclass, and return one Measurement, a Bracket, or several in a tuple. Each has one of the
    four kinds of bound, a quantity and a unit, CPU values without a graph, a row per example (or none, when it is
    global), NaN only where not valid, and then with a reason, and every field of the analyzer
    that is not None among its settings. A second call gives the same; a batch of one gives that example's row (not
    asked where bound is "estimate": draws may depend on the place). Model, inputs, random state and grad mode stay.

    Args:
        analyzer: an instance, called with (model, x) or (model, x, y).
        model: any model it takes; put into training mode and back.
        x: at least two examples.
        y: labels, for analyzers that need them.

    Raises:
        AssertionError: with everything found wrong.

    >>> from smoothness.analyzers import JacobianNorm
    >>> check_analyzer(JacobianNorm(), nn.Linear(3, 2), torch.ones(4, 3))
    """
    problems = list(_problems(analyzer, model, x, y))
    if problems:
        raise AssertionError(f"{analyzer!r}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _problems(analyzer: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor | None) -> Iterator[str]:
    if not is_frozen(analyzer):
        yield "is not a frozen dataclass: its settings can change between two calls"
    labels = () if y is None else (y,)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()  # what must be left as it is
        before = Surroundings(model, x, *labels)
        found = _measurements(analyzer(model, x, *labels))
        yield from before.changes()
        with torch.no_grad():
            quiet = Surroundings(model, x, *labels)
            again = _measurements(analyzer(model, x, *labels))
            yield from (f"under torch.no_grad, {change}" for change in quiet.changes())
        single = _measurements(analyzer(model, x[:1], *(label[:1] for label in labels)))
    finally:
        for module, training in modes:
            module.training = training
    if found is None:
        yield "returns no Measurement, Bracket or tuple of them"
        return
    names = [m.quantity for m in found]
    if len({(m.quantity, m.bound) for m in found}) < len(names):  # both sides of a bracket share a name
        yield f"gives one name to two measurements: {', '.join(names)}"
    for place, m in enumerate(found):
        yield from (f"{m.quantity}: {problem}" for problem in _one(m, analyzer, len(x)))
        second = None if again is None or len(again) != len(found) else again[place]
        if second is None or not _same(m.values, second.values):
            yield f"{m.quantity}: a second call gives other values"
        first = None if single is None or len(single) != len(found) else single[place]
        asked = m.bound != "estimate" and m.per_example and len(m.values) == len(x)
        if asked and (first is None or not first.per_example or not _close(m.values[:1], first.values)):
            yield f"{m.quantity}: the first example alone gives another value than in the batch"


def _measurements(answer: Any) -> list[Measurement] | None:
    """Flat; None when something else is among them."""
    parts = answer if isinstance(answer, (tuple, list)) else (answer,)
    flat = [m for part in parts for m in ((part.lower, part.upper) if isinstance(part, Bracket) else (part,))]
    return flat if flat and all(isinstance(m, Measurement) for m in flat) else None


def _one(m: Measurement, analyzer: Any, count: int) -> Iterator[str]:
    if not m.quantity or not isinstance(m.unit, str) or not m.unit:
        yield 'quantity and unit must be named ("1" without a dimension)'
    if m.bound not in get_args(BoundKind):
        yield f"bound is {m.bound!r}, not one of {', '.join(get_args(BoundKind))}"
    for name, tensor in (("values", m.values), ("valid", m.valid)):
        if tensor.requires_grad or tensor.device.type != "cpu":
            yield f"{name} must be detached and on the CPU"
    if m.valid.dtype != torch.bool:
        yield f"valid must be bool, got {m.valid.dtype}"
    if m.per_example and len(m.values) != count:
        yield f"{len(m.values)} rows for {count} examples"
        return
    rows = m.values.reshape(len(m.values), -1) if m.per_example else m.values.reshape(1, -1)
    valid = m.valid.reshape(-1).bool()
    if (rows.isnan().any(dim=1) & valid).any():
        yield "NaN counts as valid: set valid to False there"
    reasons = m.details.get("reason", ())
    reasons = [reasons] if isinstance(reasons, str) else list(reasons)
    if not valid.all() and not all(
        place < len(reasons) and reasons[place] for place in (~valid).nonzero().flatten().tolist()
    ):
        yield 'examples are not valid, but details["reason"] does not say why'
    yield from _settings(m.settings, analyzer)


def _settings(settings: Mapping[str, Any], analyzer: Any) -> Iterator[str]:
    wanted = [f.name for f in fields(analyzer) if getattr(analyzer, f.name) is not None] if is_frozen(analyzer) else []
    missing = [name for name in wanted if name not in settings]
    if missing:
        yield f"settings lack {', '.join(missing)}"
    try:
        json.dumps(dict(settings))
    except (TypeError, ValueError) as error:
        yield f"settings cannot be stored as JSON ({error})"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(math.pi), other.nan_to_num(math.pi))


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal but for the rounding of another batch size."""
    return one.shape == other.shape and torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5, equal_nan=True)
