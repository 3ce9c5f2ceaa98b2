"""Contract checks for your own plug-ins: an activation's facts, its gradient and its behaviour under torch.

Each check raises one AssertionError that lists everything it found wrong.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from smoothness.activations import ActivationFacts, activation_facts, surrogate_gradient

# Facts are compared on this grid; what happens outside [-SPAN, SPAN] is not seen. Its offset keeps it off the
# round numbers where breakpoints like to be.
SPAN = 12.0
_POINTS = 240_001
_OFFSET = 1.37e-5


def check_activation(module: nn.Module, facts: ActivationFacts | None = None) -> None:
    """Check an elementwise activation against its facts and the contract of the package.

    Compared by sampling on a fine grid over [-12, 12] in float64: slopes, curvature, total variation,
    breakpoints (none missing, none invented, each with its jump), boundedness, monotony, the value at 0
    and the moments; the backward pass against central differences; elementwise behaviour, dtypes, NaN,
    vmap, torch.func.grad, deepcopy, state_dict and the forward pass under a surrogate gradient. A sample can
    refute a fact and never prove it: facts may still be wrong outside the span or between grid points.

    Args:
        module: the activation; its parameters count as constants.
        facts: what is claimed; `activation_facts(module)` when None.

    Raises:
        AssertionError: with every violation found.
        TypeError: no facts are known for the module and none are given.

    >>> from smoothness.activations import activation
    >>> check_activation(activation("gelu"))
    >>> import dataclasses
    >>> lie = dataclasses.replace(activation("relu").facts(), at_zero=0.1)
    >>> check_activation(activation("relu"), lie)
    Traceback (most recent call last):
        ...
    AssertionError: ReLU():
      at_zero is 0.1, but 0 is seen
    """
    facts = activation_facts(module) if facts is None else facts
    problems = [
        problem
        for check in (_behaviour, _gradient, _breakpoints, _slopes, _shape, _moments)
        for problem in check(_in_double(module), facts)
    ]
    if problems:
        raise AssertionError(f"{module!r}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _in_double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().eval().requires_grad_(False)


def _grid() -> Tensor:
    return torch.linspace(-SPAN, SPAN, _POINTS, dtype=torch.float64) + _OFFSET


def _near(z: Tensor, facts: ActivationFacts, distance: float, order: int = 99) -> Tensor:
    """Where z lies within `distance` of a breakpoint of at most this order."""
    close = torch.zeros_like(z, dtype=torch.bool)
    for b in facts.breakpoints:
        if b.order <= order:
            close |= (z - b.position).abs() <= distance
    return close


def _autograd(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(z).sum(), z)
    return slope


def _behaviour(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    value = module(z)
    if value.shape != z.shape:
        yield f"returns shape {tuple(value.shape)} for input {tuple(z.shape)}: not elementwise"
        return
    if not _same(module(z.flatten().flip(0)).flip(0).view_as(z), value):
        yield "an element's value depends on the others: not elementwise"
    if module(z.float()).dtype != torch.float32:
        yield f"float32 in, {module(z.float()).dtype} out"
    if not module(torch.tensor([math.nan], dtype=z.dtype)).isnan().all():
        yield "NaN in, a number out: failures of a model would be hidden"
    if not _same(torch.func.vmap(module)(z), value):
        yield "under torch.vmap the values differ"
    if not torch.equal(copy.deepcopy(module)(z), value):
        yield "a deepcopy computes other values"
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    if not torch.equal(twin(z), value):
        yield "state_dict does not restore the module"
    one = z.flatten()[0]
    if not _same(torch.func.grad(lambda x: module(x).sum())(one), _autograd(module, one)):
        yield "torch.func.grad and autograd.grad differ"
    with surrogate_gradient(module, "identity"):
        if not torch.equal(module(z), value):
            yield "the forward pass changes under a surrogate gradient"


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal up to the few last bits in which vectorised and scalar kernels differ."""
    return torch.allclose(one, other, rtol=1e-12, atol=1e-15)


def _gradient(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    """Autograd against central differences away from breakpoints: the true a.e. derivative."""
    z, h = _grid()[::50], 1e-5
    z = z[~_near(z, facts, 2 * h)]
    numeric = (module(z + h) - module(z - h)) / (2 * h)
    gap = (_autograd(module, z) - numeric).abs() / (1 + numeric.abs())
    if gap.max() > 1e-4:
        worst = int(gap.argmax())
        yield (
            f"backward gives {_autograd(module, z)[worst].item():.6g} at {z[worst].item():.6g}, "
            f"central differences give {numeric[worst].item():.6g}"
        )


def _breakpoints(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    """Every breakpoint claimed is there, with its jump; no other jump or kink shows on the grid."""
    h = 1e-4
    for b in facts.breakpoints:
        side = torch.arange(1, 4, dtype=torch.float64) * h
        right, left = (_one_sided(module, b.position, sign * side, b.order + 1) for sign in (1, -1))
        if b.order <= 1 and abs((right - left) - b.jump) > 1e-2 * (1 + abs(b.jump)):
            seen = right - left
            yield f"breakpoint at {b.position:g} of order {b.order} claims a jump of {b.jump:g}, seen {seen:.6g}"
        if b.jump == 0:
            yield f"breakpoint at {b.position:g} claims a jump of 0"
    roughest = min((b.order for b in facts.breakpoints), default=math.inf)
    if facts.smoothness_class != roughest:
        yield f"smoothness_class is {facts.smoothness_class:g}, but the roughest breakpoint has order {roughest:g}"
    z = _grid()
    value, step = module(z), float(z[1] - z[0])
    away = ~_near(z, facts, 3 * step)
    rise = value.diff()
    # A smooth function's differences shrink with the step; a jump's do not.
    jumps = (rise.abs() > 50 * step * max([1.0, *map(abs, _finite(facts.slope_min, facts.slope_max))])) & away[1:]
    if jumps.any():
        yield f"the value jumps at {z[1:][jumps][0].item():.6g}, which is no breakpoint"
    bend = value.diff(n=2).abs() / step
    limit = 50 * step * max([1.0, *_finite(facts.curvature)])
    kinks = (bend > limit) & away[1:-1] & ~(jumps[1:] | jumps[:-1])
    if kinks.any() and math.isfinite(facts.curvature):
        yield f"the slope jumps at {z[1:-1][kinks][0].item():.6g}, which is no breakpoint"
    if math.isinf(facts.curvature):
        sharp = (bend > 1e-2) & away[1:-1] & ~(jumps[1:] | jumps[:-1])
        if sharp.any():
            yield f"the slope jumps at {z[1:-1][sharp][0].item():.6g}, which is no breakpoint"


def _one_sided(module: nn.Module, position: float, side: Tensor, derivative: int) -> float:
    """One-sided limit of a derivative from values at three points on that side (quadratic fit)."""
    z = position + side
    value = module(z)
    powers = torch.stack([torch.ones_like(side), side, side**2], dim=1)
    fit = torch.linalg.solve(powers, value)
    return float(fit[derivative] * math.factorial(derivative)) if derivative <= 2 else math.nan


def _finite(*values: float) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _slopes(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    z = _grid()
    slope = _autograd(module, z)
    low, high = float(slope.min()), float(slope.max())
    tight = 2e-3 * (1 + max(map(abs, _finite(facts.slope_min, facts.slope_max)), default=0.0))
    for name, claimed, seen, side in (
        ("slope_min", facts.slope_min, low, -1),
        ("slope_max", facts.slope_max, high, 1),
    ):
        if side * (seen - claimed) > 1e-9:
            yield f"{name} is {claimed:.9g}, but slopes reach {seen:.9g}"
        elif side * (claimed - seen) > tight:
            yield f"{name} is {claimed:.9g}, but slopes only reach {seen:.9g} on the grid"
    jumps = facts.smoothness_class == -1
    expected = math.inf if jumps else max(abs(facts.slope_min), abs(facts.slope_max))
    if not math.isclose(facts.lipschitz, expected, rel_tol=1e-12):
        yield f"lipschitz is {facts.lipschitz:g}, the slopes and jumps say {expected:g}"
    if facts.smoothness_class <= 0:
        if not math.isinf(facts.curvature):
            yield f"curvature is {facts.curvature:g}, but there is a kink or jump: it must be infinite"
    else:
        step = float(z[1] - z[0])
        bend = float((slope.diff() / step).abs().max())
        if bend > facts.curvature * (1 + 1e-6) + 1e-9:
            yield f"curvature is {facts.curvature:.9g}, but {bend:.9g} is seen"
        elif bend < facts.curvature * 0.98 - 1e-9:
            yield f"curvature is {facts.curvature:.9g}, but only {bend:.9g} is seen"
    variation = float(slope.diff().abs().sum())
    if abs(variation - facts.slope_variation) > 5e-3 * (1 + facts.slope_variation):
        yield f"slope_variation is {facts.slope_variation:.6g}, but {variation:.6g} is seen"


def _shape(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    z = _grid()
    value = module(z)
    falls = bool((value.diff() < -1e-9 * (1 + value[1:].abs())).any())
    if facts.monotone and falls:
        yield "claims to be monotone, but falls"
    if not facts.monotone and not falls:
        yield "claims not to be monotone, but never falls on the grid"
    far = module(torch.tensor([-1e9, -1e6, 1e6, 1e9], dtype=torch.float64))
    grows = float(max((far[0] - far[1]).abs(), (far[3] - far[2]).abs())) > 1.0
    if facts.bounded and grows:
        yield f"claims to be bounded, but reaches {float(far.abs().max()):.3g}"
    if not facts.bounded and not grows:
        yield "claims not to be bounded, but is flat far out"
    at_zero = float(module(torch.zeros((), dtype=torch.float64)))
    if not math.isclose(at_zero, facts.at_zero, rel_tol=1e-9, abs_tol=1e-12):
        yield f"at_zero is {facts.at_zero:.9g}, but {at_zero:.9g} is seen"


def _moments(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    """E φ(u), E φ(u)², E φ'(u)² by the trapezoidal rule; jumps cost it about a grid step."""
    z = _grid()
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    value, slope = module(z), _autograd(module, z)
    for name, claimed, integrand in (
        ("mean", facts.mean, value),
        ("second_moment", facts.second_moment, value**2),
        ("slope_second_moment", facts.slope_second_moment, slope**2),
    ):
        seen = float(torch.trapezoid(integrand * density, z))
        if abs(seen - claimed) > 1e-4 * (1 + abs(claimed)):
            yield f"{name} is {claimed:.9g}, but {seen:.9g} is seen"
