"""Checks of an activation of several features: what a sample of inputs, Jacobians and segments can refute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from smoothness.activations import ActivationFacts
from smoothness.testing import behaviour

FEATURES = 840  # divides into groups of 2 to 8
_ROWS = 256


def problems(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    """Everything found wrong."""
    z = torch.randn(_ROWS, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield from behaviour.common(module, z[:4])
    if not behaviour.same(torch.func.vmap(lambda row: module(row[None])[0])(z[:4]), module(z[:4])):
        yield "under torch.vmap the values differ"
    scalar = ("breakpoints", "polynomial_pieces", "value_turns", "slope_turns", "function", "derivative", "period")
    for name in scalar:
        if getattr(facts, name):
            yield f"{name} is given, but applies to elementwise activations only"
    if not math.isnan(facts.slope_variation):
        yield f"slope_variation is {facts.slope_variation:g}, but applies to elementwise activations only: NaN"
    one = z[:1]
    jacobian = torch.func.vmap(lambda out: torch.func.vjp(module, one)[1](out)[0])(
        torch.eye(module(one).shape[1], dtype=z.dtype)[:, None]
    )[:, 0]
    if jacobian.shape[0] == FEATURES and (jacobian == jacobian.diag().diag()).all() and _local(module, z):
        yield "elementwise is False, but each output depends on its own input alone"
    yield from _slopes(module, facts, jacobian)
    yield from _roughness(module, facts, z)
    yield from _shape(module, facts, z)
    seen = (float(module(z).mean()), float(module(z).square().mean()), float(jacobian.square().sum(1).mean()))
    for name, value in zip(("mean", "second_moment", "slope_second_moment"), seen, strict=True):
        claimed = getattr(facts, name)
        if not math.isnan(claimed) and abs(claimed - value) > 1e-2 * (1 + abs(value)):
            yield f"{name} is {claimed:.6g}, but {value:.6g} is seen"


def _local(module: nn.Module, z: Tensor) -> bool:
    """Whether exchanging all features but the first leaves the first output alone."""
    other = torch.cat([z[:, :1], z.roll(1, 0)[:, 1:]], dim=1)
    return bool((module(other)[:, 0] == module(z)[:, 0]).all())


def _slopes(module: nn.Module, facts: ActivationFacts, jacobian: Tensor) -> Iterator[str]:
    for name, seen in (("slope_min", float(jacobian.min())), ("slope_max", float(jacobian.max()))):
        claimed = getattr(facts, name)
        if not math.isnan(claimed) and abs(claimed - seen) > 1e-3 * (1 + abs(seen)):
            yield f"{name} is {claimed:.6g}, but {seen:.6g} is seen"


def _roughness(module: nn.Module, facts: ActivationFacts, z: Tensor) -> Iterator[str]:
    """Jumps of the value, then of the gradient, on segments; the Lipschitz constant from pairs and Jacobians."""
    weights = torch.linspace(0.5, 1.5, module(z[:1]).shape[1], dtype=z.dtype)
    segments = list(zip(z[:8], z[8:16], strict=True))
    values = max(_jump(lambda x: module(x[None])[0], a, b) for a, b in segments)
    weighted = partial(behaviour.slope, lambda x: module(x) @ weights)
    slopes = max(_jump(lambda x: weighted(x[None])[0], a, b) for a, b in segments)
    seen = -1 if values > 1e-6 else 0 if slopes > 1e-6 else 1
    if min(facts.smoothness_class, 1) != seen:
        yield f"smoothness_class is {facts.smoothness_class:g}, but order {seen} is seen on segments"
    if seen < 1 and not math.isinf(facts.curvature):
        yield f"curvature is {facts.curvature:g}, but there is a kink or jump: it must be infinite"
    if seen == -1:
        if not math.isinf(facts.lipschitz):
            yield f"lipschitz is {facts.lipschitz:g}, but the value jumps: it must be infinite"
        return
    apart = [(module(a[None]) - module(b[None])).norm() / (a - b).norm() for a, b in segments]
    direction = z[:1]
    for _ in range(20):  # the Jacobian's largest singular value
        out, pull = torch.func.vjp(module, z[:1])[:2]
        forth = (module(z[:1] + 1e-7 * direction / direction.norm()) - out) / 1e-7
        direction = pull(forth)[0]
    ratio = max([*map(float, apart), float(forth.norm())])
    if not -1e-6 * (1 + ratio) <= facts.lipschitz - ratio <= 1e-2 * (1 + ratio):  # what is seen is a lower bound
        yield f"lipschitz is {facts.lipschitz:.6g}, but {ratio:.6g} is seen"


def _jump(function: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor) -> float:
    """What is left of the change between two points when the segment is halved to rounding."""
    low, high = function(start), function(stop)
    for _ in range(45):
        middle = (start + stop) / 2
        value = function(middle)
        if (value - low).norm() >= (high - value).norm():
            stop, high = middle, value
        else:
            start, low = middle, value
    return float((high - low).norm())


def _shape(module: nn.Module, facts: ActivationFacts, z: Tensor) -> Iterator[str]:
    raised = z[:1] + 2 * torch.eye(FEATURES, dtype=z.dtype)  # one input at a time
    falls = bool((module(raised) - module(z[:1]) < -1e-12).any())
    if facts.monotone == falls:
        yield "claims to be monotone, but falls" if falls else "claims not to be monotone, but never falls"
    grows = float(module(1e9 * z).abs().max()) > 1.1 * float(module(1e6 * z).abs().max())
    if facts.bounded == grows:
        yield "claims to be bounded, but grows" if grows else "claims not to be bounded, but is flat far out"
    at_zero = module(torch.zeros_like(z[:1]))
    if not torch.allclose(at_zero, torch.full_like(at_zero, facts.at_zero), rtol=1e-9, atol=1e-12):
        yield f"at_zero is {facts.at_zero:.9g}, but {float(at_zero.flatten()[0]):.9g} is seen"
