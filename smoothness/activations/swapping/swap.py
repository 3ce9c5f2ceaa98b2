"""Exchange a model's activations without touching anything else."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

from smoothness._checks import check_choice
from smoothness._state import model_device
from smoothness.activations.base import Activation
from smoothness.activations.recognition import counterpart, is_any_activation
from smoothness.activations.swapping.in_place import InPlace
from smoothness.activations.swapping.new_forward import CallSlots, Make, use_run_time, use_traced
from smoothness.activations.swapping.places import Functional, Place, Places, find_places
from smoothness.activations.swapping.replacement import To, Where, check_indices, check_where, chosen, read_to
from smoothness.activations.swapping.report import SwapReport
from smoothness.activations.swapping.tracing import TracedCode, put_module

_WAYS = ("auto", "trace", "run-time")


def swap_activations(model: nn.Module, to: To, where: Where = None, functional: Functional = "auto") -> nn.Module:
    """Copy a model and replace its activations: modules, functions in attributes, function calls.

    Weights are equal to the bit, state_dict keys stay, the original is never changed. The copy carries
    `.swap_report`. Shared instances stay shared. Replacements of function calls are children of the
    module whose forward makes the call, so that `surrogate_gradient` finds them.

    Function calls (F.relu, torch.relu, z.relu_(), z.clamp(min=0), F.gelu, ...) are found by tracing each
    module's own forward with torch.fx, its children as leaves. Where a trace could differ from the
    forward (optional arguments, branches on values, the training mode), the calls are replaced while
    that forward runs, in its thread alone: one replacement a function, and further ones on first use
    where `to` depends on the parameters of the call. Calls made outside of a forward stay.

    Gates (a sigmoid that multiplies), final outputs (sigmoid or tanh), two-sided clamps and the tanh of a
    pooler stay unless `where` picks them; softmax, gated linear units, attention and recurrent layers
    always do. The silu or gelu inside a gated feed-forward block is replaced.

    Args:
        model: any nn.Module.
        to: a name; an instance (copied for each place); a factory; a function of what is there, which
            gives a module, a name, or None to leave it; or a mapping from names or types to any of these.
            What is there is given as torch.nn's counterpart where another library's module has one.
        where: what to replace: a predicate of (name, module), a pattern of names such as "encoder.*", a
            module type or function, an index among the hidden activations, or a collection of patterns,
            types and indices. By default all but what the paragraph above names.
        functional: "auto"; "trace" or "run-time" alone; True: either, but fail where neither works;
            False: leave function calls.

    Raises:
        ValueError: unknown name, nothing matched, an index out of range, or function calls that cannot be
            replaced in the way demanded.
        TypeError: a model, `to` or `where` of another type, or a model that cannot be copied.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> swap_activations(net, to="gelu")[1]
    GELU()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}; wrap it with smoothness.wrap")
    if not isinstance(functional, bool):
        check_choice("functional", functional, _WAYS)
    check_where(where)
    make, depends = read_to(to)
    try:
        swapped = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise TypeError(
            f"model {type(model).__name__} cannot be copied ({error}); detach or drop the tensors that it keeps"
        ) from error
    bare = is_any_activation(swapped)
    places = Places([Place("", nn.Module(), "", swapped, "module")]) if bare else find_places(swapped, functional)
    picked, left = _pick(places, where, functional)
    replaced, ways, unmade = _Swap(swapped, make, depends).replace(picked)
    left = [*left, *unmade, *places.left]
    if not replaced:
        seen = f"; seen and left: {', '.join(f'{name} ({why})' for name, why in left)}" if left else ""
        raise ValueError(f"swap_activations found no activation module or call to replace{seen}")
    result = picked[0].owner._modules[""] if bare else swapped
    assert result is not None
    object.__setattr__(result, "swap_report", SwapReport(tuple(replaced), tuple(left), tuple(ways)))
    return result


def _pick(places: Places, where: Where, functional: Functional) -> tuple[list[Place], list[tuple[str, str]]]:
    """Places to replace, and (name, why) of those left."""
    numbered = [id(place) for place in places.found if not place.stays]
    if numbered:
        check_indices(where, len(numbered))
    picked, left = [], []
    for place in places.found:
        index = numbered.index(id(place)) if id(place) in numbered else None
        if where is not None and not chosen(where, place.name, place.there, index, len(numbered)):
            left.append((place.name, "not chosen by `where`"))
        elif where is None and place.stays:
            left.append((place.name, place.stays))
        elif functional is False and place.way in ("traced", "run time"):
            left.append((place.name, "a function call, and functional=False"))
        elif functional == "trace" and place.untraced:
            raise ValueError(
                f"{place.name}: the forward of {type(place.owner).__name__} cannot be traced ({place.untraced}); "
                "use functional='auto' to replace its calls at run time, or leave it out of `where`"
            )
        elif place.cannot and functional is not True:
            left.append((place.name, place.cannot))
        elif place.cannot:
            raise ValueError(
                f"{place.name}: the calls of {type(place.owner).__name__} can be replaced neither by tracing "
                f"({place.untraced}) nor at run time ({place.cannot}); leave it out of `where`, or make it a module"
            )
        else:
            picked.append(place)
    return picked, left


class _Swap:
    """The replacements made so far, so that shared instances stay shared."""

    def __init__(self, model: nn.Module, make: Make, depends: bool) -> None:
        self.model, self.depends, self.device = model, depends, model_device(model)
        self.user_make = make
        self.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        self.shared: dict[int, nn.Module | None] = {}

    def make(self, there: nn.Module) -> nn.Module | None:
        fresh = self.user_make(counterpart(there))
        if fresh is None:
            return None
        pooled = _pooled(fresh)
        if pooled != _pooled(there):
            raise ValueError(
                f"{fresh!r} gives 1 feature out for {pooled} in, so it cannot replace {type(there).__name__} in a "
                "finished network; build the network for it instead (smoothness.build_model)"
            )
        if getattr(fresh, "inplace", False) is True:
            vars(fresh)["inplace"] = False  # what replaces z -> φ(z) must leave z alone
        if self.dtype is not None and any(True for _ in fresh.parameters()):
            fresh = fresh.to(self.dtype)  # learned slopes; constants without a gradient keep their precision
        return fresh.train(there.training).to(self.device)

    def replace(self, places: list[Place]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]], Any]:
        """(name, old, new) of each, (name, way) of each call, and (name, why) of those `to` leaves."""
        replaced, ways, unmade = [], [], []
        traced: dict[nn.Module, list[fx.Graph]] = {}
        slots: dict[nn.Module, CallSlots] = {}
        for place in places:
            fresh = self.fresh(place)
            if fresh is None:
                unmade.append((place.name, "`to` gives no replacement for it"))
                continue
            replaced.append((place.name, _kind(place.there), _kind(fresh)))
            if place.way == "module":
                place.owner._modules[place.slot] = InPlace(fresh) if place.writes else fresh
            elif place.way == "attribute":
                setattr(place.owner, place.slot, fresh)
            elif place.nodes and place.call is not None:
                place.owner.add_module(place.slot, fresh)
                for node in place.nodes:
                    put_module(node, place.slot, inplace=place.call.inplace)
                traced[place.owner] = [node.graph for node in place.nodes]
                ways.append((place.name, "traced"))
            elif place.call is not None:
                own = slots.setdefault(place.owner, CallSlots(make=self.make if self.depends else None))
                key = place.call.parameters if self.depends else None
                place.owner.add_module(place.slot, fresh)
                own.slots[place.call.kind, key] = place.slot
                ways.append((place.name, f"at run time: {place.untraced}"))
            _leave_fast_path(self.model, place)
        for owner, graphs in traced.items():
            if isinstance(owner, fx.GraphModule):
                owner.recompile()
            else:
                use_traced(owner, tuple(TracedCode.of(graph) for graph in graphs))
        for owner, calls in slots.items():
            use_run_time(owner, calls)
        return replaced, ways, unmade

    def fresh(self, place: Place) -> nn.Module | None:
        if place.way != "module":
            return self.make(place.there)
        if id(place.there) not in self.shared:
            self.shared[id(place.there)] = self.make(place.there)
        return self.shared[id(place.there)]


def _pooled(module: nn.Module) -> int:
    return module.inputs_per_output if isinstance(module, Activation) else 1


def _leave_fast_path(model: nn.Module, place: Place) -> None:
    """Torch's fused encoder layer computes relu or gelu by itself, whatever module stands there."""
    if not hasattr(place.owner, "activation_relu_or_gelu") or place.slot != "activation":
        return
    vars(place.owner)["activation_relu_or_gelu"] = 0
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and place.owner in module.layers:
            module.use_nested_tensor = False


def _kind(module: nn.Module) -> str:
    return repr(module) if is_any_activation(module) else type(module).__name__
