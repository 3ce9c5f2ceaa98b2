"""Activations by name: the explicit table, and the facts of any module in it."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from smoothness._checks import check_choice
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.piecewise import HardSigmoid, HardSwish, HardTanh, LeakyReLU, ReLU, ReLU6, Tent
from smoothness.activations.smooth import ELU, GELU, Sigmoid, SiLU, Softplus, Tanh
from smoothness.activations.stepped import JumpReLU, QuantisedReLU, Sign, Staircase, Step

ACTIVATIONS: dict[str, type[Activation]] = {
    "elu": ELU,
    "gelu": GELU,
    "hardsigmoid": HardSigmoid,
    "hardswish": HardSwish,
    "hardtanh": HardTanh,
    "jump_relu": JumpReLU,
    "leaky_relu": LeakyReLU,
    "quantised_relu": QuantisedReLU,
    "relu": ReLU,
    "relu6": ReLU6,
    "sigmoid": Sigmoid,
    "sign": Sign,
    "silu": SiLU,
    "softplus": Softplus,
    "staircase": Staircase,
    "step": Step,
    "tanh": Tanh,
    "tent": Tent,
}


def list_activations() -> list[str]:
    """Names that `activation` knows.

    >>> list_activations()[:3]
    ['elu', 'gelu', 'hardsigmoid']
    """
    return sorted(ACTIVATIONS)


def activation(name: str, **parameters: Any) -> Activation:
    """Build an activation module by name.

    Raises:
        ValueError: unknown name (the nearest known ones are listed), unknown parameter, or a value
            out of range.

    >>> activation("softplus", beta=4.0)
    Softplus(beta=4)
    """
    kind = ACTIVATIONS[check_choice("activation", name, ACTIVATIONS)]
    known = list(inspect.signature(kind).parameters)
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"activation {name!r} has no parameter {parameter!r}; it takes {', '.join(known) or 'none'}"
            )
    return kind(**parameters)


def is_activation(module: nn.Module) -> bool:
    """Whether the module is one of our activations or a torch.nn activation that we recognise."""
    return isinstance(module, Activation) or type(module) in _TORCH_NAMES or type(module) in _TORCH_OTHERS


def activation_facts(which: str | nn.Module) -> ActivationFacts:
    """Facts of an activation, by name or of a module (ours, or torch.nn's counterpart).

    Raises:
        ValueError: unknown name.
        TypeError: a module whose facts are not known.

    >>> activation_facts("gelu").slope_max
    1.12890...
    >>> activation_facts(nn.LeakyReLU(0.2)).slope_min
    0.2
    """
    if isinstance(which, str):
        return activation(which).facts()
    if isinstance(which, Activation):
        return which.facts()
    own = own_counterpart(which)
    if own is None:
        raise TypeError(
            f"no facts are known for {type(which).__name__}; "
            f"use one of ours ({', '.join(list_activations())}) or its torch.nn counterpart"
        )
    return own.facts()


def own_counterpart(module: nn.Module) -> Activation | None:
    """Our activation that computes exactly what a torch.nn module does; None when there is none."""
    name = _TORCH_NAMES.get(type(module))
    if name is None or (isinstance(module, nn.GELU) and module.approximate != "none"):
        return None
    if isinstance(module, nn.LeakyReLU):
        return activation(name, negative_slope=module.negative_slope)
    if isinstance(module, nn.ELU):
        return activation(name, alpha=module.alpha)
    if type(module) is nn.Hardtanh:  # ReLU6 is a subclass
        return activation(name, min_val=module.min_val, max_val=module.max_val)
    if isinstance(module, nn.Threshold):
        return activation(name, height=module.threshold) if module.value == 0 and module.threshold >= 0 else None
    return activation(name)


# torch.nn modules that compute exactly what ours do.
_TORCH_NAMES: dict[type[nn.Module], str] = {
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Hardtanh: "hardtanh",
    nn.LeakyReLU: "leaky_relu",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Threshold: "jump_relu",
}
# torch.nn modules that are activations too: swapped, but without facts as yet.
_TORCH_OTHERS: frozenset[type[nn.Module]] = frozenset(
    {
        nn.CELU, nn.Hardshrink, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.RReLU, nn.SELU, nn.Softplus, nn.Softshrink,
        nn.Softsign, nn.Tanhshrink,
    }
)  # fmt: skip
