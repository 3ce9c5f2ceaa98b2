"""Piecewise constant functions under autograd: the forward pass in place, the derivative 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Flat(torch.autograd.Function):
    """Forward: any function of z. Backward: zeros, which cost nothing but the memory."""

    @staticmethod
    def forward(z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        return (None if gradient is None else torch.zeros_like(gradient)), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, None], z: Tensor, function: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, int | None]:
        return flat(z, function), in_dims[0]  # elementwise: one more axis changes nothing

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        return None if tangent is None else torch.zeros_like(tangent)


def flat(z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a piecewise constant function, which may work in place on tensors of its own.

    >>> z = torch.tensor([0.3, 1.7], requires_grad=True)
    >>> torch.autograd.grad(flat(z, torch.floor).sum(), z)
    (tensor([0., 0.]),)
    """
    value: Tensor = _Flat.apply(z, function)  # type: ignore[no-untyped-call]
    return value
