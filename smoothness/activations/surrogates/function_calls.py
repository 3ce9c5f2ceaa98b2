"""Give the activation functions that a model's code calls another gradient, while its forward runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smoothness.activations.functional import FUNCTIONS, input_of, is_floating_tensor, read_call

Graft = Callable[[Tensor, Tensor], Tensor]
GraftOf = Callable[[str, nn.Module], Graft | None]


class _Running(threading.local):
    """Per thread: the modes of the forwards that run, and how deep inside activation modules they are."""

    def __init__(self) -> None:
        self.modes: list[_Grafting] = []
        self.depth = 0


class _Grafting(TorchFunctionMode):
    """Intercepts activation functions; everything else passes through."""

    def __init__(self, graft_of: GraftOf, running: _Running) -> None:
        super().__init__()
        self.graft_of, self.running = graft_of, running
        self.known: dict[tuple[Any, ...], Graft | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        name = FUNCTIONS.get(func)
        if name is None or self.running.depth:
            return func(*args, **keywords)
        source, rest, named = input_of(args, keywords)
        call = read_call(name, rest, named)
        if call is None or call.caution or not is_floating_tensor(source):
            return func(*args, **keywords)
        key = (call.kind, call.parameters)
        if key not in self.known:
            self.known[key] = self.graft_of(call.kind, call.module)
        graft = self.known[key]
        if graft is None:
            return func(*args, **keywords)
        if call.inplace:  # the old values are needed on the way back
            before = source.clone()
            return source.copy_(graft(before, call.module(before.detach())))
        return graft(source, func(*args, **keywords))


@contextmanager
def grafted_calls(
    model: nn.Module, modules: Sequence[nn.Module], graft_of: GraftOf, is_open: Callable[[], bool]
) -> Iterator[None]:
    """While the model's forward runs in a context that is open, graft the functions it calls.

    Args:
        model: whose forward counts, with everything that it calls in the same thread.
        modules: activation modules: what happens inside them is their own affair.
        graft_of: from a function's name and the module that computes the same to the graft, or None.
        is_open: whether the calling thread is inside the surrogate's context.
    """
    running = _Running()

    def enter(*_: object) -> None:
        if is_open():
            running.modes.append(_Grafting(graft_of, running))
            running.modes[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: object) -> None:
        if running.modes:
            running.modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def deeper(*_: object) -> None:
        running.depth += 1

    def higher(*_: object) -> None:
        running.depth -= 1

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(deeper).remove)
            stack.callback(module.register_forward_hook(higher, always_call=True).remove)
        stack.callback(model.register_forward_pre_hook(enter).remove)
        stack.callback(model.register_forward_hook(leave, always_call=True).remove)
        yield
