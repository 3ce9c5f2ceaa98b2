"""Which function calls are affine in their tensor, and what do they make of a symbol?"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness.bounds.symbols import Symbol

Linear = Callable[[Tensor], Tensor]

LOWER = "LipschitzLowerBound works with any module"
# Functions and methods that are linear in their first argument; the others are sizes and axes.
LINEAR: dict[Any, Callable[..., Tensor]] = {
    torch.flatten: torch.flatten,
    torch.reshape: torch.reshape,
    torch.permute: torch.permute,
    torch.transpose: torch.transpose,
    torch.squeeze: torch.squeeze,
    torch.unsqueeze: torch.unsqueeze,
    torch.mean: torch.mean,
    torch.sum: torch.sum,
    torch.neg: torch.neg,
    operator.neg: torch.neg,
    operator.getitem: operator.getitem,
    F.avg_pool1d: F.avg_pool1d,
    F.avg_pool2d: F.avg_pool2d,
    F.adaptive_avg_pool1d: F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d: F.adaptive_avg_pool2d,
}
METHODS = frozenset(
    {"flatten", "permute", "transpose", "squeeze", "unsqueeze", "mean", "sum", "neg", "contiguous", "clone", "double",
     "float", "unflatten"}
)  # fmt: skip
CONVOLVE = frozenset({F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d})
ADD = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
SUB = frozenset({operator.sub, operator.isub, torch.sub, "sub", "sub_"})
MUL = frozenset({operator.mul, operator.imul, torch.mul, "mul", "mul_"})
MATMUL = frozenset({operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"})
DIV = frozenset({operator.truediv, operator.itruediv, torch.div, "div", "div_"})


def placing(dim: int, start: int, size: int) -> Linear:
    """Puts a tensor into zeros of length `size` along `dim`."""

    def place(x: Tensor) -> Tensor:
        shape = list(x.shape)
        shape[dim] = size
        whole = x.new_zeros(shape)
        whole.narrow(dim, start, x.shape[dim]).copy_(x)
        return whole

    return place


def method(name: str) -> Callable[..., Tensor]:
    """The method of that name; conversions change nothing in real arithmetic."""

    def call(x: Tensor, *rest: Any, **keywords: Any) -> Tensor:
        if name in ("contiguous", "clone", "double", "float"):
            return x
        result: Tensor = getattr(x, name)(*rest, **keywords)
        return result

    return call


def weighted(label: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any) -> Symbol:
    """F.linear and F.convNd with constant weights."""
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    value, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
    if not isinstance(value, Symbol) or isinstance(weight, Symbol) or isinstance(bias, Symbol):
        raise unread(label, "with weights that depend on the input")
    mapped = value.linear(lambda x: function(x, weight, None, *args[3:], **given))
    axes = 1 if function is F.linear else len(mapped.shape)
    return mapped if bias is None else mapped.plus(bias.view(-1, *[1] * (axes - 1)))


def sum_of(first: Any, second: Any, sign: float) -> Symbol:
    """First + sign · second; one of them may be a constant."""
    if isinstance(first, Symbol) and isinstance(second, Symbol):
        return first.added(second, sign)
    if isinstance(first, Symbol):
        return first.plus(sign * torch.as_tensor(second, dtype=torch.float64, device=first.device))
    constant = torch.as_tensor(first, dtype=torch.float64, device=second.device)
    negated: Symbol = second if sign > 0 else second.linear(torch.neg)
    return negated.plus(constant)


def product_of(label: str, args: tuple[Any, ...], *, divide: bool) -> Symbol:
    """Product with a constant, or quotient by one."""
    first, second = args
    if isinstance(first, Symbol) and isinstance(second, Symbol):
        raise unread(label, "as a product of two values that depend on the input (a gate, or attention)")
    if isinstance(second, Symbol):
        if divide:
            raise unread(label, "as a division by a value that depends on the input")
        first, second = second, first
    factor = torch.as_tensor(second, dtype=torch.float64, device=first.device)
    factor = 1 / factor if divide else factor
    scaled: Symbol = first.linear(lambda x: x * factor)
    return scaled


def unread(what: str, why: str) -> TypeError:
    """The error that names what cannot be read."""
    reason = f": {why}" if why else ""
    return TypeError(
        f"{what} cannot be read{reason}. Certified bounds read linear layers, convolutions, batch normalisation, "
        f"pooling, reshaping, sums and elementwise activations with known facts. {LOWER}"
    )
