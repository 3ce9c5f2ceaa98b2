"""Which activations does a model use, and what is known of each?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smoothness._state import probing
from smoothness.activations import activation_facts
from smoothness.activations.recognition import counterpart, is_any_activation
from smoothness.activations.surrogates.foreign import probe_module
from smoothness.activations.swapping.places import find_places
from smoothness.wrapping import Wrapped

# Functions with value jumps: what the catalogue's names for function calls do not cover.
_ROUGH = frozenset(
    {"sign", "sgn", "round", "floor", "ceil", "trunc", "fix", "heaviside", "gt", "ge", "lt", "le", "greater",
     "greater_equal", "less", "less_equal"}
)  # fmt: skip


@dataclass(frozen=True)
class ActivationUse:
    """One kind of activation in a model.

    Attributes:
        name: as the catalogue has it, with parameters; the type or function where it is not known there.
        places: names of the modules, attributes or calls.
        known: whether the facts come from the catalogue.
        order: of smoothness: -1 value jump, 0 kink, 1 curvature jump, infinity smooth; None if unknown.
        slope: infimum and supremum of the derivative; None if unknown.
        curvature: Lipschitz constant of the derivative; None if unknown.
        note: what else is to be said.
    """

    name: str
    places: tuple[str, ...]
    known: bool
    order: float | None = None
    slope: tuple[float, float] | None = None
    curvature: float | None = None
    note: str = ""


def activations_of(model: nn.Module, example: Tensor) -> tuple[ActivationUse, ...]:
    """Every activation found, in order: modules, functions kept in attributes, function calls.

    >>> [use.name for use in activations_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.zeros(1, 2))]
    ['relu']
    """
    merged: dict[ActivationUse, list[str]] = {}
    for place, use in (*_found(model), *_foreign(model), *_rough_calls(model, example)):
        names = merged.setdefault(use, [])
        if place not in names:
            names.append(place)
    return tuple(
        ActivationUse(use.name, tuple(names), use.known, use.order, use.slope, use.curvature, use.note)
        for use, names in merged.items()
    )


def _found(model: nn.Module) -> Iterator[tuple[str, ActivationUse]]:
    if is_any_activation(model):
        yield "the model itself", _facts(model)
        return
    places = find_places(model)
    for place in places.found:
        yield place.name, _facts(place.there)
    for name, why in places.left:
        yield name, ActivationUse(name.rpartition(".")[2] or type(model).__name__, (), False, note=why)


def _facts(module: nn.Module) -> ActivationUse:
    same = counterpart(module)
    try:
        facts = activation_facts(same)
    except TypeError:
        return ActivationUse(type(module).__name__, (), False, note="an activation without known facts")
    curvature = facts.curvature if facts.curvature == facts.curvature else None  # NaN: of several features at once
    return ActivationUse(
        facts.name, (), True, facts.smoothness_class, (facts.slope_min, facts.slope_max), curvature,
        "" if facts.elementwise else "of several features at once",
    )  # fmt: skip


def _foreign(model: nn.Module) -> Iterator[tuple[str, ActivationUse]]:
    """Modules that are in no catalogue and turn out, by their values, to be activations."""
    if isinstance(model, Wrapped) and model.function is not None:
        name = getattr(model.function, "__name__", type(model.function).__name__)
        yield name, ActivationUse("unknown", (), False, note="inside a predict function, which cannot be read")
    if is_any_activation(model):
        return
    owners = {id(place.owner) for place in find_places(model).found if place.way in ("traced", "run time")}
    for name, module in model.named_modules():
        if is_any_activation(module) or id(module) in owners or isinstance(module, Wrapped):
            continue
        probed = probe_module(module)
        if probed is not None:
            orders = [b.order for b in probed.breakpoints]
            found = {-1: "value jumps", 0: "kinks"}.get(min(orders, default=1), "neither jumps nor kinks")
            note = f"not in the catalogue; probing its values finds {found} in [-32, 32] (an estimate)"
            yield (
                name or "the model itself",
                ActivationUse(type(module).__name__, (), False, min(orders, default=None), note=note),
            )


class _Calls(TorchFunctionMode):
    """Notes rough functions of floating-point values, outside of known activation modules."""

    def __init__(self) -> None:
        self.depth = 0
        self.names: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        if name in _ROUGH and not self.depth and any(isinstance(a, Tensor) and a.is_floating_point() for a in args):
            self.names[name] = None
        return func(*args, **(kwargs or {}))

    def deeper(self, *_: object) -> None:
        self.depth += 1

    def higher(self, *_: object) -> None:
        self.depth -= 1


def _rough_calls(model: nn.Module, example: Tensor) -> Iterator[tuple[str, ActivationUse]]:
    """Calls such as sign or round, which no surrogate reaches, seen while one example runs."""
    calls = _Calls()
    with ExitStack() as stack:
        for module in model.modules():
            known = is_any_activation(module) or probe_module(module) is not None
            if known:
                stack.callback(module.register_forward_pre_hook(calls.deeper).remove)
                stack.callback(module.register_forward_hook(calls.higher, always_call=True).remove)
        stack.enter_context(probing(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(calls)
        model(example.clone())
    for name in calls.names:
        note = "a function call with value jumps, not in the catalogue; the surrogate does not reach it"
        yield "a function call", ActivationUse(name, (), False, -1, note=note)
