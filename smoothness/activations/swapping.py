"""Exchange a model's activations without touching anything else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from smoothness.activations.catalogue import activation, is_activation


@dataclass(frozen=True)
class SwapReport:
    """What `swap_activations` did.

    Attributes:
        replaced: (module name, old type, new type) of every exchange.
        left: (module name, why) of activations seen and left alone.
    """

    replaced: tuple[tuple[str, str, str], ...]
    left: tuple[tuple[str, str], ...]


def swap_activations(
    model: nn.Module,
    to: str | nn.Module | Callable[[], nn.Module],
    where: Callable[[str, nn.Module], bool] | None = None,
) -> nn.Module:
    """Copy a model and replace its activation modules.

    Weights are equal to the bit; the original is never changed. The copy carries `.swap_report`.

    Args:
        model: any nn.Module whose activations are modules (ours or torch.nn's).
        to: an activation's name, an instance (copied for each place) or a factory.
        where: keeps only the places for which `where(name, module)` is true; all by default.

    Raises:
        ValueError: unknown name, or no activation matched.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> swap_activations(net, to="gelu")[1]
    GELU()
    """
    make = _factory(to)
    swapped = copy.deepcopy(model)
    if is_activation(swapped):
        fresh = make()
        fresh.train(swapped.training)
        object.__setattr__(fresh, "swap_report", SwapReport((("", _kind(swapped), _kind(fresh)),), ()))
        return fresh
    replaced: list[tuple[str, str, str]] = []
    left: list[tuple[str, str]] = []
    fresh_for: dict[int, nn.Module] = {}  # a shared instance stays shared
    for parent_name, parent in list(swapped.named_modules(remove_duplicate=False)):
        for child_name, child in list(parent._modules.items()):  # named_children hides repeats
            name = f"{parent_name}.{child_name}" if parent_name else child_name
            if child is None or not is_activation(child) or id(child) in {id(new) for new in fresh_for.values()}:
                continue
            if where is not None and not where(name, child):
                left.append((name, "not chosen by `where`"))
                continue
            fresh = fresh_for.setdefault(id(child), make().train(child.training))
            replaced.append((name, _kind(child), _kind(fresh)))
            setattr(parent, child_name, fresh)
    if not replaced:
        seen = f"; seen and left: {', '.join(name for name, _ in left)}" if left else ""
        raise ValueError(f"swap_activations found no activation module to replace{seen}")
    object.__setattr__(swapped, "swap_report", SwapReport(tuple(replaced), tuple(left)))
    return swapped


def _factory(to: str | nn.Module | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if isinstance(to, str):
        activation(to)  # fail before copying the model
        return lambda: activation(to)
    if isinstance(to, nn.Module):
        return lambda: copy.deepcopy(to)
    return to


def _kind(module: nn.Module) -> str:
    return repr(module) if is_activation(module) else type(module).__name__
