"""On which piece of its activation does every unit stand?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation_facts, is_activation
from smoothness.activations.recognition import counterpart, is_any_activation

_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
State = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class UnitStates:
    """States of all units that ran since the last `take`, in the order of the calls.

    Attributes:
        layers: module name of each call that has states.
        sizes: units of each.
        orders: order of the roughest breakpoint of each: -1 value jump, 0 kink, 1 curvature jump, ...
    """

    layers: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    orders: list[float] = field(default_factory=list)
    _held: list[tuple[str, float, Tensor]] = field(default_factory=list)

    def take(self) -> Tensor | None:
        """(n, units) whole numbers, as the last forward pass left them; None when no unit has breakpoints."""
        held, self._held = self._held, []
        self.layers = [name for name, _, _ in held]
        self.orders = [order for _, order, _ in held]
        self.sizes = [state.shape[1] for _, _, state in held]
        return torch.cat([state for _, _, state in held], dim=1) if held else None


@contextmanager
def watching(module: nn.Module) -> Iterator[UnitStates]:
    """Watch every activation module with breakpoints, and every max pooling, while the context is open.

    A state is the number of breakpoints below the pre-activation; the winner of a pooling window; for activations of
    several features, where each output comes from. Activations whose facts are unknown, and functional ones, are not
    watched.

    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> _ = net[0].load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    >>> with watching(net) as states:
    ...     _ = net(torch.tensor([[-1.0], [1.0]]))
    ...     states.take().flatten()
    tensor([0, 1], dtype=torch.int32)
    """
    states = UnitStates()

    def watch(name: str, part: nn.Module, order: float, state: State) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            z = inputs[0].detach()
            states._held.append((name, order, state(z).flatten(1).to(torch.int32)))

        return part.register_forward_pre_hook(hook)

    found = ((name, part, _state_of(part)) for name, part in module.named_modules())
    hooks = [watch(name, part, *state) for name, part, state in found if state is not None]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _state_of(part: nn.Module) -> tuple[float, State] | None:
    """Order of the roughest breakpoint, and the state as a function of the pre-activations."""
    if isinstance(part, _POOLS):
        return 0, _winners(part)
    if not is_any_activation(part):
        return None
    same = counterpart(part)
    if not (isinstance(same, Activation) or is_activation(same)):
        return None
    try:
        facts = activation_facts(same)
    except TypeError:
        return None
    if not facts.elementwise:
        return facts.smoothness_class, lambda z: _sources(same, z)
    if not facts.breakpoints:
        return None
    knots = torch.tensor([b.position for b in facts.breakpoints], dtype=torch.float64)
    return facts.smoothness_class, lambda z: torch.bucketize(z, knots.to(z))


def _winners(pool: Any) -> State:
    def state(z: Tensor) -> Tensor:
        keep, pool.return_indices = pool.return_indices, True
        try:
            winner: Tensor = pool.forward(z)[1]
        finally:
            pool.return_indices = keep
        return winner

    return state


def _sources(module: nn.Module, z: Tensor) -> Tensor:
    """A number for each input that says which outputs it goes to."""
    with torch.enable_grad():
        z = z.clone().requires_grad_()
        out = module.forward(z + 0.0)
        ramp = torch.arange(1, out[0].numel() + 1, device=z.device, dtype=z.dtype).view(out[0].shape)
        (source,) = torch.autograd.grad((out * ramp).sum(), z)
    return source
