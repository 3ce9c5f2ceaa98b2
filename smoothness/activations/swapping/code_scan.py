"""What may a module's forward call, read from its code without running it?"""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from smoothness.activations.functional import CLAMPS, FUNCTIONS, KINDS

_KNOWN = {spelling: kind for kind in (*KINDS, "clamp") for spelling in (kind, f"{kind}_")}
_KNOWN |= {spelling: "clamp" for name in CLAMPS for spelling in (name, f"{name}_")}
_KNOWN |= {"log_sigmoid": "logsigmoid", "expit": "sigmoid"}
_OTHERS = {
    "glu": "the gate of a gated linear unit",
    "log_softmax": "softmax normalises over an axis",
    "multi_head_attention_forward": "attention softmax",
    "scaled_dot_product_attention": "attention softmax",
    "softmax": "softmax normalises over an axis",
}
# A symbolic value takes the wrong branch of these in silence, or they leave no trace at all.
_UNTRACEABLE = frozenset(
    {"apply", "callable", "checkpoint", "hasattr", "is_floating_point", "is_grad_enabled", "is_tensor", "isinstance",
     "is_scripting", "is_tracing", "np", "numpy", "random", "type"}
)  # fmt: skip
_DEPTH = 3


@dataclass
class Mentions:
    """What the code of a forward, and of the methods and helpers it calls, mentions.

    Attributes:
        kinds: names of activation functions, in the order met ("clamp" only beside a zero).
        others: function -> why it stays, for softmax, gated linear units and attention.
        hazards: why a symbolic trace of the forward could differ from it in silence.
    """

    kinds: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    hazards: list[str] = field(default_factory=list)


def scan(module: nn.Module) -> Mentions:
    """Read the forward of a module, down to the methods and helper functions that it names.

    >>> class Net(nn.Module):
    ...     def forward(self, x):
    ...         return x.relu() if isinstance(x, int) else x.tanh()
    >>> found = scan(Net())
    >>> found.kinds, found.hazards
    (['relu', 'tanh'], ['its code asks isinstance'])
    """
    found = Mentions()
    forward = vars(module).get("forward")
    if forward is not None:
        found.hazards.append("its forward is set on the instance")
    function = getattr(forward, "__func__", forward) or type(module).forward
    if hasattr(function, "__wrapped__"):
        found.hazards.append("its forward is decorated")
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        found.hazards.append("its forward is not a Python function")
        return found
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        found.hazards.append("its forward takes optional arguments")
    seen: set[CodeType] = set()
    _walk(module, function, found, seen, 0)
    for value in vars(module).values():  # functions kept as attributes: self.act = lambda x: ...
        if isinstance(value, FunctionType) and value not in FUNCTIONS:
            _walk(module, value, found, seen, 1)
    return found


def _walk(module: nn.Module, function: FunctionType, found: Mentions, seen: set[CodeType], depth: int) -> None:
    if function.__code__ in seen or depth > _DEPTH:
        return
    for code in _nested(function.__code__):
        seen.add(code)
        names = _names(code, found)
        zero = any(type(constant) in (int, float) and constant == 0 for constant in code.co_consts)
        for name in names:
            kind = _KNOWN.get(name)
            if kind is not None and (kind != "clamp" or zero) and kind not in found.kinds:
                found.kinds.append(kind)
            if name in _OTHERS:
                found.others[name] = _OTHERS[name]
            for target in _targets(module, function, name):
                alias = FUNCTIONS.get(target) if inspect.isroutine(target) else None
                if alias is not None and _KNOWN[alias] not in found.kinds:
                    found.kinds.append(_KNOWN[alias])
                helper = inspect.unwrap(target) if inspect.isroutine(target) else None
                if isinstance(helper, FunctionType) and not helper.__module__.startswith("torch."):
                    _walk(module, helper, found, seen, depth + 1)


def _targets(module: nn.Module, function: FunctionType, name: str) -> Iterator[Any]:
    """What a name may stand for: a method of any class of the module, a global, an outer variable."""
    for kind in type(module).__mro__:
        if kind is nn.Module:
            break
        target = vars(kind).get(name)
        yield getattr(target, "__func__", target)
    yield function.__globals__.get(name)
    if name in function.__code__.co_freevars and function.__closure__ is not None:
        cell = function.__closure__[function.__code__.co_freevars.index(name)]
        yield cell.cell_contents if cell != types.CellType() else None


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _names(code: CodeType, found: Mentions) -> list[str]:
    """Names that the code loads, except the module's own attributes; hazards are noted on the way."""
    names = []
    before: list[tuple[str, Any]] = [("", None), ("", None)]
    for instruction in dis.get_instructions(code):
        kind, value = instruction.opname, instruction.argval
        own = before[-1][0].startswith("LOAD_FAST") and before[-1][1] == "self"
        if kind.startswith(("LOAD_ATTR", "LOAD_METHOD")):
            # self.relu is a child, looked at elsewhere; self.helper is a method to follow.
            names += [f"self.{value}" if own and value in _KNOWN else value]
        elif kind.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")):
            names.append(value)
        hazard = _hazard(kind, value, before)
        if hazard and hazard not in found.hazards:
            found.hazards.append(hazard)
        before = [before[-1], (kind, value)]
    return names


def _hazard(kind: str, value: object, before: list[tuple[str, Any]]) -> str:
    if kind.startswith("LOAD") and isinstance(value, str) and value in _UNTRACEABLE:
        return f"its code asks {value}"
    if "WITH" in kind or kind == "LOAD_SPECIAL":
        return "its code opens a context"
    compared = before[-1] if kind.endswith("_NONE") else before[0] if kind == "IS_OP" else ("", None)
    if compared[0].startswith("LOAD_FAST") and compared[1] != "self":
        return f"its code compares {compared[1]} with None"
    return ""
