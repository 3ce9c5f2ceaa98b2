"""Surrogate gradients: the forward pass as it is, another derivative on the way back."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_positive
from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation_facts
from smoothness.activations.facts import Breakpoint, autograd_slope
from smoothness.activations.families.vector import KWinners
from smoothness.activations.mollification.mollify import mollify
from smoothness.activations.recognition import is_any_activation
from smoothness.activations.surrogates.foreign import Probed, probe_module
from smoothness.activations.surrogates.function_calls import grafted_calls

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
SHAPES = ("identity", "mollified", *KERNELS)

Slope = Callable[[Tensor], Tensor]

# Which surrogates count in this thread and task: hooks left by another thread's context stay silent here.
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
    "mollified" is the derivative of E φ(z + width · u), which blurs the smooth parts too. "identity"
    passes the gradient unchanged (straight-through; Bengio et al. 2013, arXiv 1308.3432). Activations
    without jumps and kinks keep their true gradient, except under "identity" and "mollified".

    Forward values stay identical to the bit. Contexts nest: the inner one wins. Other threads that use the
    model at the same time see its true gradient. Works under autograd and torch.func.

    Found are activation modules (ours, torch.nn's, other houses'), activation functions that foreign
    modules call (F.relu, torch.tanh, z.relu_() ...), and foreign leaf modules without parameters that turn
    out to be elementwise when probed; their jumps are located from their values in [-32, 32]. k_winners is blurred
    at the k-th largest feature, taken as a constant; maxout and group_sort keep their own gradient.

    Args:
        model: activations are looked for among its modules (itself included) and in their calls.
        shape: "identity", "mollified", "tanh", "sigmoid", "arctan", "gaussian", "triangular", "hardtanh".
        width: the kernel's width in units of the pre-activation; σ for "mollified".
        where: keeps only the activations for which `where(name, module)` is true; all by default. A
            function's call is offered under the function's name with the module that computes the same.

    Raises:
        ValueError: unknown shape, a width that is not positive, or no activation found.

    >>> z = torch.tensor([0.0], requires_grad=True)
    >>> from smoothness.activations import activation
    >>> step = activation("step")
    >>> with surrogate_gradient(step):
    ...     torch.autograd.grad(step(z).sum(), z)
    (tensor([2.]),)
    """
    check_choice("surrogate shape", shape, SHAPES)
    check_positive("width", width)
    everything = [(name, module) for name, module in model.named_modules() if _is_candidate(module)]
    chosen = [module for name, module in everything if where is None or where(name, module)]
    calling = [m for m in model.modules() if _may_call_functions(m) and all(m is not found for _, found in everything)]
    if not chosen and not calling:
        raise ValueError(
            "surrogate_gradient found no activation module or function to work on; check the model and `where`"
        )
    token = object()
    with ExitStack() as stack:
        for module in chosen:
            slope = surrogate_slope(module, shape, width)
            if slope is not None:
                stack.callback(module.register_forward_hook(_hook(token, slope)).remove)
        if calling:
            inside = [module for _, module in everything]  # what these call is theirs
            stack.enter_context(grafted_calls(model, inside, partial(_graft_of, shape, width, where), _is_open(token)))
        reset = _active.set(_active.get() | {token})
        stack.callback(_active.reset, reset)
        yield model


def surrogate_slope(module: nn.Module, shape: str, width: float) -> Slope | None:
    """The derivative to use for an activation, as a function of z; None where its own needs no change."""
    if isinstance(module, Activation) and not module.elementwise:
        return _winners_slope(module, shape, width) if isinstance(module, KWinners) else None
    if shape == "identity":
        return torch.ones_like
    if shape == "mollified":
        probed = None if is_any_activation(module) else probe_module(module)
        if probed is not None:
            return probed.mollified_slope(width)
        return partial(autograd_slope, mollify(module, width).forward)
    try:
        facts = activation_facts(module)
    except TypeError:
        probed = probe_module(module) or Probed((), module.forward)
        return _blurred(probed.breakpoints, probed.slope, shape, width)
    rough = tuple(b for b in facts.breakpoints if b.order <= 0)
    return _blurred(rough, facts.derivative or partial(autograd_slope, module.forward), shape, width)


def _blurred(rough: tuple[Breakpoint, ...], derivative: Slope, shape: str, width: float) -> Slope | None:
    if not rough:
        return None
    kernel, integral = KERNELS[shape]

    def slope(z: Tensor) -> Tensor:
        total = derivative(z)
        for b in rough:
            u = (z - b.position) / width
            if b.order == -1:
                total = total + b.jump * kernel(u) / width
            else:  # the sharp rise of the slope gives way to a blurred one
                total = total + b.jump * (integral(u) - (u > 0).to(u.dtype))
        return total

    return slope


def _winners_slope(winners: KWinners, shape: str, width: float) -> Slope:
    """The slope of z · (z >= t), blurred at its jump, with t the k-th largest feature taken as a constant."""
    kernel, integral = KERNELS["gaussian" if shape == "mollified" else shape if shape in KERNELS else "tanh"]

    def slope(z: Tensor) -> Tensor:
        if shape == "identity":
            return torch.ones_like(z)
        threshold = winners.threshold(z)
        u = (z - threshold) / width
        kept = integral(u) if shape == "mollified" else (z >= threshold).to(z.dtype)
        return kept + threshold * kernel(u) / width

    return slope


def _is_candidate(module: nn.Module) -> bool:
    return is_any_activation(module) or probe_module(module) is not None


def _may_call_functions(module: nn.Module) -> bool:
    """Whether a module's own code may call an activation function: torch's and ours do so in known places only."""
    known = type(module).__module__.startswith(("torch.nn.modules", "smoothness."))
    return not known or isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))


def _is_open(token: object) -> Callable[[], bool]:
    return lambda: token in _active.get()


def _graft_of(
    shape: str, width: float, where: Callable[[str, nn.Module], bool] | None, kind: str, module: nn.Module
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """How to give a function call's value another gradient; None to leave the call alone."""
    if where is not None and not where(kind, module):
        return None
    slope = surrogate_slope(module, shape, width)
    return None if slope is None else lambda z, value: _graft(z, value, slope)


def _hook(token: object, slope: Slope) -> Callable[..., Tensor | None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return _graft(args[0], output, slope) if token in _active.get() else None

    return hook


def _graft(z: Tensor, value: Tensor, slope: Slope) -> Tensor:
    grafted: Tensor = _Graft.apply(z, value.detach(), slope)  # type: ignore[no-untyped-call]
    return grafted


def _logistic_density(u: Tensor) -> Tensor:
    """sigmoid(u) · sigmoid(-u), exact in the tails, cut at |u| = 40 where subnormal numbers would slow training."""
    tail = torch.sigmoid(-u.abs().clamp_max(40))
    return tail * (1 - tail)


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
