"""Where does a model apply activations: as modules, as functions kept in attributes, in calls of its forwards?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx, nn

from smoothness.activations.functional import Call, module_of, read_call
from smoothness.activations.recognition import is_any_activation, is_squashing, role_by_name, why_stays
from smoothness.activations.swapping.code_scan import Mentions, scan
from smoothness.activations.swapping.new_forward import free_name, replaced_at_run_time
from smoothness.activations.swapping.tracing import (
    Trace,
    activation_calls,
    hidden_write,
    module_nodes,
    output_node,
    reused_input,
    role_in_graph,
    trace,
)

Way = Literal["module", "attribute", "traced", "run time"]
Functional = Literal["auto", "trace", "run-time"] | bool


@dataclass
class Place:
    """One place where a model applies an activation.

    Attributes:
        name: of the module or attribute; of a call, the owner's name and the function's.
        owner: the module that holds the child or attribute, or whose forward makes the call.
        slot: the child's or attribute's name; of a call, the name its replacement gets as a child.
        there: what is there; for a function, the module that computes the same.
        way: how it is replaced.
        stays: why it stays unless `where` asks for it; "" for a hidden activation.
        cannot: why it cannot be replaced at all; "" when it can.
        untraced: why the owner's forward is not traced; "" when it is.
        writes: whether its input is read again after it was changed in place.
        nodes, call: of a traced call; two nodes where the training mode has another graph.
    """

    name: str
    owner: nn.Module
    slot: str
    there: nn.Module
    way: Way
    stays: str = ""
    cannot: str = ""
    untraced: str = ""
    writes: bool = False
    nodes: tuple[fx.Node, ...] = ()
    call: Call | None = None


@dataclass
class Places:
    """Every place found, in order, and what was seen and is no activation to replace: (name, why)."""

    found: list[Place] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def find_places(model: nn.Module, functional: Functional = "auto") -> Places:
    """Look through a model that is itself no activation.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.TransformerEncoderLayer(2, 1))
    >>> [(place.name, place.way) for place in find_places(model).found]
    [('1', 'module'), ('2.activation', 'attribute')]
    """
    return _Search(model, functional).places


class _Search:
    def __init__(self, model: nn.Module, functional: Functional) -> None:
        self.model, self.functional = model, functional
        self.places = Places()
        self.traces: dict[nn.Module, Trace] = {}
        self.mentions: dict[nn.Module, Mentions] = {}
        self.keep = {id(part): part for part in (*model.modules(), *model.parameters(), *model.buffers())}
        self.visit("", model, set())
        self.name_roles()

    def visit(self, name: str, module: nn.Module, seen: set[nn.Module]) -> None:
        if module in seen:
            return
        seen.add(module)
        if isinstance(module, torch.jit.ScriptModule):
            self.places.left.append((name, "TorchScript cannot be changed; pass the Python model"))
            return
        for slot, child in module._modules.items():
            path = f"{name}.{slot}" if name else slot
            if child is None:
                continue
            why = why_stays(child)
            if is_any_activation(child):
                place = Place(path, module, slot, child, "module")
                place.writes = getattr(child, "inplace", False) is True and self.input_is_reused(module, slot)
                self.places.found.append(place)
            elif why:
                self.places.left.append((path, why))
            else:
                self.visit(path, child, seen)
        for slot, value in list(vars(module).items()):
            there = module_of(value)
            if there is not None:
                path = f"{name}.{slot}" if name else slot
                self.places.found.append(Place(path, module, slot, there.train(module.training), "attribute"))
        if not type(module).__module__.startswith("torch.") or isinstance(module, fx.GraphModule):
            self.read_calls(name, module)

    def read_calls(self, name: str, module: nn.Module) -> None:
        mentions = self.mentioned(module)
        prefix = f"{name}." if name else ""
        self.places.left += [(f"{prefix}{function}", why) for function, why in mentions.others.items()]
        if not mentions.kinds and not isinstance(module, fx.GraphModule):
            return
        traced = self.traced(module)
        problem = "functional='run-time'" if self.functional == "run-time" else traced.problem
        calls = list(activation_calls(traced.graph)) if traced.graph is not None else []
        twins = calls if traced.training is None else list(activation_calls(traced.training))
        if not problem and any(call.inplace and hidden_write(node) for node, call in calls):
            problem = "an in-place call acts through a view"
        if problem:
            self.places.found += self.run_time_places(prefix, module, mentions, problem)
            return
        taken: list[str] = []
        for (node, call), (twin, _) in zip(calls, twins, strict=True):
            slot = free_name(module, call.kind, taken)
            taken.append(slot)
            there = call.module.train(module.training)
            stays = call.caution or (role_in_graph(node) if is_squashing(there) else "")
            nodes = (node,) if twin is node else (node, twin)
            self.places.found.append(
                Place(f"{prefix}{slot}", module, slot, there, "traced", stays, nodes=nodes, call=call)
            )

    def run_time_places(self, prefix: str, module: nn.Module, mentions: Mentions, why: str) -> Iterator[Place]:
        cannot = _no_run_time(module)
        kinds = dict.fromkeys("relu" if kind == "clamp" else kind for kind in mentions.kinds)
        for kind in kinds:
            call = read_call(kind, (), {})
            if call is None or kind in replaced_at_run_time(module):
                continue
            there = call.module.train(module.training)
            stays = f"perhaps a gate or an output, which a trace would show ({why})" if is_squashing(there) else ""
            slot = free_name(module, kind)
            yield Place(f"{prefix}{slot}", module, slot, there, "run time", stays, cannot, untraced=why, call=call)

    def input_is_reused(self, module: nn.Module, slot: str) -> bool:
        graph = self.traced(module).graph if not isinstance(module, nn.Sequential) else None
        nodes = [] if graph is None else module_nodes(graph, slot)
        return any(reused_input(node) or hidden_write(node) for node in nodes)

    def name_roles(self) -> None:
        """Say which squashing activations are gates and which the model's output."""
        squashing = [place for place in self.places.found if not place.stays and is_squashing(place.there)]
        end = self.last_place() if squashing else None
        for place in squashing:
            nodes = [] if place.way != "module" else self.nodes(place.owner, place.slot)
            roles = [role_in_graph(node) for node in nodes]
            final = end is not None and end[0] is place.owner and end[1] in (place.slot, *place.nodes)
            place.stays = role_by_name(place.name) or ("final output" if final else "")
            if not place.stays and roles and all(roles):
                place.stays = roles[0]

    def last_place(self) -> tuple[nn.Module, str | fx.Node] | None:
        """The child, or the call, that computes the model's output: from the root down."""
        module = self.model
        while True:
            slot: str | None = None
            names = [name for name, child in module._modules.items() if child is not None]
            graph = None if type(module) is nn.Sequential else self.traced(module).graph
            if type(module) is nn.Sequential or (graph is None and len(names) == 1):
                slot = names[-1] if names else None
            elif graph is not None:
                node = output_node(graph)
                if node is not None and node.op != "call_module":
                    return module, node
                slot = (
                    str(node.target) if node is not None and len(module_nodes(graph, str(node.target))) == 1 else None
                )
            if slot is None:
                return None
            path, _, slot = slot.rpartition(".")
            module = module.get_submodule(path)
            child = module.get_submodule(slot)
            if is_any_activation(child) or isinstance(child, torch.jit.ScriptModule):
                return module, slot
            module = child

    def nodes(self, module: nn.Module, slot: str) -> list[fx.Node]:
        if type(module).__module__.startswith("torch."):
            return []
        graph = self.traced(module).graph
        return [] if graph is None else module_nodes(graph, slot)

    def mentioned(self, module: nn.Module) -> Mentions:
        if module not in self.mentions:
            self.mentions[module] = scan(module)
        return self.mentions[module]

    def traced(self, module: nn.Module) -> Trace:
        if module not in self.traces:
            self.traces[module] = trace(module, self.mentioned(module).hazards, self.keep)
        return self.traces[module]


def _no_run_time(module: nn.Module) -> str:
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return "its forward does not trace, and a container that iterates over its children cannot hold another one"
    if "forward" in vars(module):
        return "its forward is set on the instance"
    return ""
