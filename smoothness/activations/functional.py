"""Which function calls are activations, and which module computes the same?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Call:
    """One call of an activation function.

    Attributes:
        kind: its name in torch.nn.functional, such as "leaky_relu".
        parameters: values of the call's parameters, in the function's order.
        inplace: whether the call writes into its input.
        caution: why the call may be something else than a hidden activation; "" when it is one.
    """

    kind: str
    parameters: tuple[Any, ...]
    inplace: bool
    caution: str = ""

    @property
    def module(self) -> nn.Module:
        """A torch.nn module that computes the same, parameters included; made anew each time."""
        if self.kind == "clamp":
            return nn.ReLU6() if self.parameters == (0, 6) else nn.Hardtanh(*self.parameters)
        return _KINDS[self.kind][0](*self.parameters)


# name: the module and the parameters with their defaults, in the order of the call after the input.
_KINDS: dict[str, tuple[Callable[..., nn.Module], tuple[tuple[str, Any], ...]]] = {
    "celu": (nn.CELU, (("alpha", 1.0),)),
    "elu": (nn.ELU, (("alpha", 1.0),)),
    "gelu": (nn.GELU, (("approximate", "none"),)),
    "hardshrink": (nn.Hardshrink, (("lambd", 0.5),)),
    "hardsigmoid": (nn.Hardsigmoid, ()),
    "hardswish": (nn.Hardswish, ()),
    "hardtanh": (nn.Hardtanh, (("min_val", -1.0), ("max_val", 1.0))),
    "leaky_relu": (nn.LeakyReLU, (("negative_slope", 0.01),)),
    "logsigmoid": (nn.LogSigmoid, ()),
    "mish": (nn.Mish, ()),
    "relu": (nn.ReLU, ()),
    "relu6": (nn.ReLU6, ()),
    "rrelu": (nn.RReLU, (("lower", 1 / 8), ("upper", 1 / 3))),
    "selu": (nn.SELU, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "silu": (nn.SiLU, ()),
    "softplus": (nn.Softplus, (("beta", 1.0), ("threshold", 20.0))),
    "softshrink": (nn.Softshrink, (("lambd", 0.5),)),
    "softsign": (nn.Softsign, ()),
    "tanh": (nn.Tanh, ()),
    "tanhshrink": (nn.Tanhshrink, ()),
    "threshold": (nn.Threshold, (("threshold", 0.0), ("value", 0.0))),
}
KINDS = tuple(_KINDS)
# Everything a call takes after its input, in order.
_DEFAULTS: dict[str, dict[str, Any]] = {
    kind: {**dict(declared), **({"training": False} if kind == "rrelu" else {}), "inplace": False}
    for kind, (_, declared) in _KINDS.items()
}
CLAMPS = ("clamp", "clamp_min", "clip")
SQUASHING = ("hardsigmoid", "logsigmoid", "sigmoid", "tanh")
_TWO_SIDED = "a two-sided clamp may only limit a range; name it in `where` to replace it"


def _functions() -> dict[Any, str]:
    """Function -> name, with a trailing underscore where it writes into its input."""
    found = {}
    for name in (*KINDS, *CLAMPS):
        for home in (F, torch, torch.Tensor):
            for spelling in (name, f"{name}_"):
                function = getattr(home, spelling, None)
                if callable(function):
                    found[function] = spelling
    return {**found, torch.special.expit: "sigmoid"}


FUNCTIONS: Mapping[Any, str] = _functions()


def read_call(name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call | None:
    """Read a call by its name and its arguments after the input; None when it is no activation.

    >>> read_call("leaky_relu", (0.2,), {}).module
    LeakyReLU(negative_slope=0.2)
    >>> read_call("clamp", (), {"min": 0}).module
    ReLU()
    >>> read_call("clamp", (), {"min": 1e-9}) is None
    True
    """
    kind = name.removesuffix("_")
    if kind in CLAMPS:
        return _read_clamp(name, arguments, keywords)
    declared = _KINDS[kind][1]
    given = dict(_DEFAULTS[kind])
    given.update(zip(_DEFAULTS[kind], arguments, strict=False))
    given.update(keywords)
    values = tuple(given[parameter] for parameter, _ in declared)
    if not all(isinstance(value, (int, float, str)) for value in values):
        return None  # a computed parameter has no module that says the same
    return Call(kind, values, bool(given["inplace"]) or name.endswith("_"))


def _read_clamp(name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call | None:
    given = {**dict(zip(("min", "max"), arguments, strict=False)), **keywords}
    low, high, inplace = given.get("min"), given.get("max"), name.endswith("_")
    if any(isinstance(limit, bool) or not isinstance(limit, (int, float, type(None))) for limit in (low, high)):
        return None
    if low == 0 and high is None:
        return Call("relu", (), inplace)
    if low is None or high is None or not low < high:
        return None
    return Call("clamp", (low, high), inplace, _TWO_SIDED)


def module_of(function: object) -> nn.Module | None:
    """The module that computes what an activation function, or a partial of one, does; None for others.

    >>> module_of(functools.partial(F.gelu, approximate="tanh"))
    GELU(approximate='tanh')
    """
    keywords: Mapping[str, Any] = {}
    if isinstance(function, functools.partial) and not function.args:
        keywords, function = function.keywords, function.func
    name = FUNCTIONS.get(function) if inspect.isroutine(function) else None
    if name is None or name.removesuffix("_") in CLAMPS:
        return None
    call = read_call(name, (), keywords)
    return None if call is None else call.module


def input_of(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The activation's input, and the arguments and keywords that remain."""
    if arguments:
        return arguments[0], arguments[1:], dict(keywords)
    rest = dict(keywords)
    return rest.pop("input", rest.pop("self", None)), (), rest


def is_floating_tensor(value: object) -> bool:
    """Whether a value is a tensor that an activation can be applied to."""
    return isinstance(value, Tensor) and value.is_floating_point()
