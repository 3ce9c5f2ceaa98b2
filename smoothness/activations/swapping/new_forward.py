"""How does one instance get another forward, and stay what it was to isinstance, deepcopy and pickle?"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from smoothness.activations.functional import FUNCTIONS, Call, input_of, is_floating_tensor, read_call
from smoothness.activations.swapping.in_place import write_back
from smoothness.activations.swapping.tracing import TracedCode

Make = Callable[[nn.Module], nn.Module | None]
_growing = threading.Lock()


@dataclass
class CallSlots:
    """Which child of a module replaces which of its function calls at run time.

    Attributes:
        slots: the child's name, by the function's name and the call's parameters (None: whatever they are).
        make: the replacement of what is there, for parameters not met before; None when it is fixed.
    """

    slots: dict[tuple[str, tuple[Any, ...] | None], str] = field(default_factory=dict)
    make: Make | None = None

    def find(self, owner: nn.Module, call: Call) -> nn.Module | None:
        """The replacement of a call; None when calls of its kind stay."""
        fixed = self.slots.get((call.kind, None))
        if fixed is not None:
            return owner._modules[fixed]
        slot = self.slots.get((call.kind, call.parameters))
        if slot is None and self.make is not None and any(kind == call.kind for kind, _ in self.slots):
            slot = self._grow(owner, call, self.make)
        return None if not slot else owner._modules[slot]

    def _grow(self, owner: nn.Module, call: Call, make: Make) -> str:
        with _growing:
            key = (call.kind, call.parameters)
            if key not in self.slots:
                fresh = make(call.module.train(owner.training))
                self.slots[key] = "" if fresh is None else free_name(owner, call.kind)
                if fresh is not None:
                    owner.add_module(self.slots[key], fresh)
            return self.slots[key]


class _Replacing(TorchFunctionMode):
    """Intercepts the activation calls of one module's own code while its forward runs, in its thread alone."""

    def __init__(self, owner: nn.Module, slots: CallSlots) -> None:
        super().__init__()
        self.owner, self.slots = owner, slots
        self.kinds = {kind for kind, _ in slots.slots}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        name = FUNCTIONS.get(func)
        if name is not None:
            source, rest, named = input_of(args, keywords)
            call = read_call(name, rest, named)
            wanted = call is not None and call.kind in self.kinds and is_floating_tensor(source)
            if call is not None and wanted and _calling_module() is self.owner:
                replacement = self.slots.find(self.owner, call)
                if replacement is not None:
                    return write_back(replacement, source) if call.inplace else replacement(source)
        return func(*args, **keywords)


def _calling_module() -> object:
    """The module whose forward makes the call: the innermost one on this thread's stack."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code in _FORWARDS:
            return frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _run_time_forward(base: type[nn.Module]) -> Callable[..., Any]:
    @functools.wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _Replacing(self, self.__dict__["_swapped_calls"]):
            return base.forward(self, *args, **kwargs)

    return forward


_FORWARDS = frozenset({nn.Module._call_impl.__code__, _run_time_forward(nn.Module).__code__})


def _traced_forward(codes: tuple[TracedCode, ...]) -> Callable[..., Any]:
    evaluate, *others = (code.forward() for code in codes)
    if not others:
        return evaluate

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (others[0] if self.training else evaluate)(self, *args, **kwargs)

    return forward


def use_traced(owner: nn.Module, codes: tuple[TracedCode, ...]) -> None:
    """Let one instance run a traced forward: one for both modes, or one for evaluation and one for training."""
    owner.__class__ = _subclass(type(owner), codes)


def use_run_time(owner: nn.Module, slots: CallSlots) -> None:
    """Let one instance replace its function calls while its forward runs."""
    before = vars(owner).get("_swapped_calls")
    if before is not None:
        before.slots.update(slots.slots)
        before.make = slots.make
        return
    vars(owner)["_swapped_calls"] = slots
    owner.__class__ = _subclass(type(owner), ())


def replaced_at_run_time(owner: nn.Module) -> frozenset[str]:
    """Kinds of calls that an earlier swap replaces in this module."""
    slots: CallSlots | None = vars(owner).get("_swapped_calls")
    return frozenset() if slots is None else frozenset(kind for kind, _ in slots.slots)


def free_name(owner: nn.Module, name: str, taken: Collection[str] = ()) -> str:
    """The first free name for a further child: relu, relu_1, ..."""
    free, count = name, 0
    while hasattr(owner, free) or free in taken:
        count += 1
        free = f"{name}_{count}"
    return free


def _subclass(base: type[nn.Module], codes: tuple[TracedCode, ...]) -> type[nn.Module]:
    """A class of the same name with another forward: traced, or replacing calls at run time without codes."""
    forward = _traced_forward(codes) if codes else _run_time_forward(base)

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (base, codes), self.__getstate__()  # type: ignore[no-untyped-call]

    names = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return types.new_class(base.__name__, (base,), {}, lambda space: space.update(names))


def _rebuild(base: type[nn.Module], codes: tuple[TracedCode, ...]) -> nn.Module:
    kind = _subclass(base, codes)
    return kind.__new__(kind)
