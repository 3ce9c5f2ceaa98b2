"""Surrogate gradients: the forward pass as it is, another derivative on the way back."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_positive
from smoothness.activations.catalogue import activation_facts, is_activation
from smoothness.activations.facts import ActivationFacts, autograd_slope

# Each kernel has unit mass; beside it stands its integral from minus infinity.
Kernel = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
KERNELS: dict[str, Kernel] = {
    "tanh": (lambda u: 2 * _logistic_density(2 * u), lambda u: torch.sigmoid(2 * u)),
    "sigmoid": (lambda u: _logistic_density(u), torch.sigmoid),
    "arctan": (lambda u: 1 / (math.pi * (1 + u * u)), lambda u: 0.5 + torch.atan(u) / math.pi),
    "gaussian": (
        lambda u: torch.exp(-u * u / 2) / math.sqrt(2 * math.pi),
        lambda u: torch.special.ndtr(u),
    ),
    "triangular": (
        lambda u: (1 - u.abs()).clamp_min(0),
        lambda u: torch.where(u < 0, (1 + u).clamp_min(0) ** 2 / 2, 1 - (1 - u).clamp_min(0) ** 2 / 2),
    ),
    "hardtanh": (lambda u: 0.5 * (u.abs() <= 1).to(u.dtype), lambda u: 0.5 * (1 + u.clamp(-1, 1))),
}
SHAPES = ("identity", *KERNELS)

# Which hooks count in this thread and task: a hook left by another thread's context stays silent here.
_active: contextvars.ContextVar[frozenset[object]] = contextvars.ContextVar("surrogates", default=frozenset())


@contextmanager
def surrogate_gradient(
    model: nn.Module,
    shape: str = "tanh",
    *,
    width: float = 0.25,
    where: Callable[[str, nn.Module], bool] | None = None,
) -> Iterator[nn.Module]:
    """Replace the backward pass of a model's activations inside the context.

    The derivative used is φ' with every jump and kink blurred by a kernel of unit mass: a value jump J
    at t contributes J · K((z - t)/width)/width, a slope jump J contributes J · ∫K. With "tanh" and
    width 1/4 the step's derivative is 2 / cosh²(4z), the tanh'(4z) of the literature up to a factor.
    "identity" passes the gradient unchanged (straight-through; Bengio et al. 2013, arXiv 1308.3432).
    Forward values stay identical to the bit.

    Args:
        model: activations are found among its modules (itself included).
        shape: one of "identity", "tanh", "sigmoid", "arctan", "gaussian", "triangular", "hardtanh".
        width: the kernel's width in units of the pre-activation.
        where: keeps only the activations for which `where(name, module)` is true; all by default.

    Raises:
        ValueError: unknown shape, a width that is not positive, or no activation found.
        TypeError: an activation without known facts.

    >>> z = torch.tensor([0.0], requires_grad=True)
    >>> from smoothness.activations import activation
    >>> step = activation("step")
    >>> with surrogate_gradient(step):
    ...     torch.autograd.grad(step(z).sum(), z)
    (tensor([2.]),)
    """
    check_choice("surrogate shape", shape, SHAPES)
    check_positive("width", width)
    chosen = [
        module
        for name, module in model.named_modules()
        if is_activation(module) and (where is None or where(name, module))
    ]
    if not chosen:
        raise ValueError("surrogate_gradient found no activation module to work on; check the model and `where`")
    token = object()
    with ExitStack() as stack:
        for module in chosen:
            if shape != "identity" and activation_facts(module).smoothness_class > 0:
                continue  # nothing to blur: the true gradient stays
            slope = surrogate_slope(activation_facts(module), module.forward, shape, width)
            handle = module.register_forward_hook(_hook(token, slope))
            stack.callback(handle.remove)
        reset = _active.set(_active.get() | {token})
        stack.callback(_active.reset, reset)
        yield model


def _logistic_density(u: Tensor) -> Tensor:
    """sigmoid(u) · sigmoid(-u), exact in the tails, cut at |u| = 40 where subnormal numbers would slow training."""
    tail = torch.sigmoid(-u.abs().clamp_max(40))
    return tail * (1 - tail)


def surrogate_slope(
    facts: ActivationFacts, function: Callable[[Tensor], Tensor], shape: str, width: float
) -> Callable[[Tensor], Tensor]:
    """The blurred derivative of an activation, as a function of the pre-activation."""
    if shape == "identity":
        return torch.ones_like
    kernel, integral = KERNELS[shape]
    rough = [b for b in facts.breakpoints if b.order <= 0]

    def slope(z: Tensor) -> Tensor:
        if facts.affine_pieces is None:
            total = autograd_slope(function, z)
            for b in rough:  # replace the sharp slope jump by the blurred one
                total = total - b.jump * (z > b.position).to(z.dtype)
        else:
            total = torch.full_like(z, facts.affine_pieces[0][0])
            for b, (left, _), (right, _) in zip(rough, facts.affine_pieces[:-1], facts.affine_pieces[1:], strict=True):
                if b.order == -1 and right != left:
                    total = total + (right - left) * integral((z - b.position) / width)
        for b in rough:
            u = (z - b.position) / width
            total = total + (b.jump * kernel(u) / width if b.order == -1 else b.jump * integral(u))
        return total

    return slope


def _hook(token: object, slope: Callable[[Tensor], Tensor]) -> Callable[..., Tensor | None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if token not in _active.get():
            return None
        grafted: Tensor = _Graft.apply(args[0], output.detach(), slope)  # type: ignore[no-untyped-call]
        return grafted

    return hook


class _Graft(torch.autograd.Function):
    """Forward: the given value. Backward: slope(z) times the incoming gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, value: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, _, ctx.slope = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return gradient * ctx.slope(z), None, None
