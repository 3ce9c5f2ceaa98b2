"""Activations by name: the explicit table, and the facts of any module in it."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from smoothness._checks import check_choice
from smoothness.activations.base import Activation
from smoothness.activations.declared import declared_facts
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.families.bumps import Gaussian, Sin, Snake, Tent
from smoothness.activations.families.exponential import CELU, ELU, SELU
from smoothness.activations.families.gated import GELU, GELUTanh, Mish, PSiLU, PSSiLU, SiLU, Swish
from smoothness.activations.families.hard import HardSigmoid, HardSwish, HardTanh
from smoothness.activations.families.rectifiers import (
    Identity,
    KinkedLinear,
    LeakyReLU,
    PReLU,
    ReLU,
    ReLU6,
    ReLUSquared,
    RReLU,
)
from smoothness.activations.families.shrinkage import HardShrink, SoftShrink, TanhShrink
from smoothness.activations.families.sigmoidal import Arctan, Erf, Sigmoid, Softsign, Tanh
from smoothness.activations.families.smooth_rectifiers import (
    CentredSoftplus,
    LogSigmoid,
    SmoothReLU,
    Softplus,
    Squareplus,
)
from smoothness.activations.families.steps import JumpReLU, QuantisedReLU, SigmoidStaircase, Sign, Staircase, Step
from smoothness.activations.families.vector import GroupSort, KWinners, MaxOut

FAMILIES: dict[str, dict[str, type[Activation]]] = {
    "rectifiers": {
        "identity": Identity,
        "relu": ReLU,
        "leaky_relu": LeakyReLU,
        "prelu": PReLU,
        "rrelu": RReLU,
        "relu6": ReLU6,
        "relu_squared": ReLUSquared,
        "kinked_linear": KinkedLinear,
    },
    "smooth rectifiers": {
        "softplus": Softplus,
        "centred_softplus": CentredSoftplus,
        "squareplus": Squareplus,
        "smooth_relu": SmoothReLU,
        "logsigmoid": LogSigmoid,
    },
    "exponential": {"elu": ELU, "celu": CELU, "selu": SELU},
    "gated": {
        "gelu": GELU,
        "gelu_tanh": GELUTanh,
        "silu": SiLU,
        "swish": Swish,
        "mish": Mish,
        "psilu": PSiLU,
        "pssilu": PSSiLU,
    },
    "sigmoidal": {"sigmoid": Sigmoid, "tanh": Tanh, "arctan": Arctan, "erf": Erf, "softsign": Softsign},
    "hard": {"hardtanh": HardTanh, "hardsigmoid": HardSigmoid, "hardswish": HardSwish},
    "shrinkage": {"softshrink": SoftShrink, "hardshrink": HardShrink, "tanhshrink": TanhShrink},
    "waves and bumps": {"sin": Sin, "snake": Snake, "gaussian": Gaussian, "tent": Tent},
    "steps": {
        "step": Step,
        "sign": Sign,
        "staircase": Staircase,
        "sigmoid_staircase": SigmoidStaircase,
        "quantised_relu": QuantisedReLU,
        "jump_relu": JumpReLU,
    },
    "vector": {"k_winners": KWinners, "maxout": MaxOut, "group_sort": GroupSort},
}
# The same without the families; a name added to one of them is here, too.
# A chain map lists its last map first.
ACTIVATIONS: Mapping[str, type[Activation]] = ChainMap(*reversed(FAMILIES.values()))


def list_activations() -> list[str]:
    """Names that `activation` knows.

    >>> list_activations()[:3]
    ['arctan', 'celu', 'centred_softplus']
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
    """Whether the module is one of our activations or a torch.nn activation; nn.Identity is a place-holder."""
    return isinstance(module, Activation) or (type(module) in _COUNTERPARTS and type(module) is not nn.Identity)


def activation_facts(which: str | nn.Module) -> ActivationFacts:
    """Facts of an activation, by name or of a module (ours, or torch.nn's counterpart).

    Raises:
        ValueError: unknown name.
        TypeError: a module whose facts are neither known nor declared (`declare_facts`).

    >>> activation_facts("gelu").slope_max
    1.12890...
    >>> activation_facts(nn.LeakyReLU(0.2)).slope_min
    0.2
    """
    if isinstance(which, str):
        return activation(which).facts()
    if isinstance(which, Activation):
        return which.facts()
    declared = declared_facts(which) if isinstance(which, nn.Module) else None
    if declared is not None:
        return declared
    own = own_counterpart(which)
    if own is None:
        raise TypeError(
            f"no facts are known for {type(which).__name__}; declare them with "
            f"smoothness.activations.declare_facts, or "
            f"use one of ours ({', '.join(list_activations())}) or its torch.nn counterpart"
        )
    return own.facts()


def own_counterpart(module: nn.Module) -> Activation | None:
    """Our activation that computes exactly what a torch.nn module does in evaluation; None when there is none."""
    build = _COUNTERPARTS.get(type(module))
    try:
        return None if build is None else build(module)
    except ValueError:  # arguments that torch takes and ours refuse, such as ELU(alpha=0)
        return None


def _gelu(module: nn.GELU) -> Activation:
    return GELUTanh() if module.approximate == "tanh" else GELU()


def _prelu(module: nn.PReLU) -> Activation | None:
    return PReLU(module.weight.item()) if module.num_parameters == 1 else None


def _threshold(module: nn.Threshold) -> Activation | None:
    return JumpReLU(module.threshold) if module.value == 0 and module.threshold >= 0 else None


# torch.nn's activations: ours with the same arguments.
_COUNTERPARTS: dict[type[nn.Module], Callable[[Any], Activation | None]] = {
    nn.CELU: lambda module: CELU(module.alpha),
    nn.ELU: lambda module: ELU(module.alpha),
    nn.GELU: _gelu,
    nn.Hardshrink: lambda module: HardShrink(module.lambd),
    nn.Hardsigmoid: lambda _: HardSigmoid(),
    nn.Hardswish: lambda _: HardSwish(),
    nn.Hardtanh: lambda module: HardTanh(module.min_val, module.max_val),
    nn.Identity: lambda _: Identity(),
    nn.LeakyReLU: lambda module: LeakyReLU(module.negative_slope),
    nn.LogSigmoid: lambda _: LogSigmoid(),
    nn.Mish: lambda _: Mish(),
    nn.PReLU: _prelu,
    nn.RReLU: lambda module: RReLU(module.lower, module.upper),
    nn.ReLU: lambda _: ReLU(),
    nn.ReLU6: lambda _: ReLU6(),
    nn.SELU: lambda _: SELU(),
    nn.SiLU: lambda _: SiLU(),
    nn.Sigmoid: lambda _: Sigmoid(),
    nn.Softplus: lambda module: Softplus(module.beta, module.threshold),
    nn.Softshrink: lambda module: SoftShrink(module.lambd),
    nn.Softsign: lambda _: Softsign(),
    nn.Tanh: lambda _: Tanh(),
    nn.Tanhshrink: lambda _: TanhShrink(),
    nn.Threshold: _threshold,
}
