"""The universal dial: any activation convolved with a Gaussian."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation as build_activation
from smoothness.activations.catalogue import own_counterpart
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.mollification.mollified_facts import Expectation
from smoothness.activations.mollification.routes import Route, find_route
from smoothness.activations.mollification.unknown_modules import foreign_expectation, frozen_elementwise

_CHUNK = 2**15  # elements a core

Method = Literal["closed form", "quadrature", "estimate"]


@overload
def mollify(activation: str | Activation, sigma: float) -> Activation: ...
@overload
def mollify(activation: nn.Module, sigma: float) -> nn.Module: ...
def mollify(activation: str | nn.Module, sigma: float) -> nn.Module:
    """Convolve an activation with a Gaussian: φ_σ(z) = E φ(z + σu), u standard normal.

    φ_σ has derivatives of every order, also where φ jumps, and they are what autograd gives: for σ > 0 the
    gradient is Stein's, E[u φ(z + σu)] / σ, not the almost-everywhere derivative of φ. The largest slope of
    a mollified unit step and the largest curvature of a mollified ReLU are both 1 / (σ √(2π)). As σ -> 0,
    φ_σ tends to φ, at a jump to the midpoint. Mollifying twice is mollifying once: by √(σ² + τ²).

    Three ways, told by `.method`, with `.error` for value and slope in float64:

    - "closed form": piecewise polynomials with any breakpoints and jumps, gelu, elu, celu, selu, erf, gaussian,
      sin, snake;
    - "quadrature": the other elementwise ones of ours (verified), and any other elementwise module by
      Gauss-Legendre between the jumps and kinks that probing finds in [-32, 32], when two resolutions agree to
      1e-8 and there is no jump or kink from there to ±96;
    - "estimate": the same, when they do not, or there is.

    Activations are copied with their present parameters, which are not trained, and taken in evaluation mode.

    Args:
        activation: a name, one of our activations, a torch.nn activation or any elementwise module.
        sigma: standard deviation of the noise, in units of the pre-activation; 0 gives a copy of φ itself.

    Returns:
        A `Mollified` module; for sigma = 0 a deep copy of the activation.

    Raises:
        ValueError: unknown name; sigma negative, infinite or not a number.
        TypeError: neither a name nor a module; a module that mixes elements (softmax, maxout, k_winners), depends on
            their position (PReLU with several slopes), on chance, or on anything but one tensor.

    >>> step = mollify("step", sigma=0.5)
    >>> step
    Mollified(Step(), sigma=0.5)
    >>> round(step.facts().slope_max, 6)  # 1 / (0.5 √(2π))
    0.797885
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
        raise TypeError(f"sigma must be a number, got {type(sigma).__name__} {sigma!r}")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a finite number of at least 0, got {sigma!r}")
    if isinstance(activation, str):
        activation = build_activation(activation)
    if not isinstance(activation, nn.Module):
        raise TypeError(f"activation must be a name or an nn.Module, got {type(activation).__name__}")
    if sigma == 0:
        return copy.deepcopy(activation)
    if isinstance(activation, Mollified):
        return Mollified(activation.base, math.hypot(activation.sigma, sigma))
    return Mollified(activation, float(sigma))


class Mollified(Activation):
    """φ_σ(z) = E φ(z + σu), as built by `mollify`.

    Attributes:
        base: φ, a frozen copy that is no submodule: it has no entry in the state dict.
        sigma: σ.
        method: "closed form", "quadrature" or "estimate".
        error: largest error of value and slope in float64, per unit of |φ_σ| above 1 and of 1/σ for the slope:
            rounding for closed forms, verified for our own quadrature, estimated for other modules.
    """

    base: nn.Module
    method: Method
    error: float

    def __init__(self, base: nn.Module, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        own = _own_copy(base)
        route = None if own is None else find_route(own, sigma)
        rule: Expectation
        if route is None:
            own, base = None, frozen_elementwise(base)
            rule, self.error, probed = foreign_expectation(base, sigma)
            self.method = "quadrature" if probed and self.error <= 1e-8 else "estimate"
        else:
            base, rule, self.error = copy.deepcopy(base).requires_grad_(False), route.rule, route.error
            self.method = "closed form" if route.exact else "quadrature"
        for name, hidden in (("base", base), ("_known", own), ("_route", route), ("_rule", rule)):
            object.__setattr__(self, name, hidden)  # past nn.Module's: swapping must not look inside

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ_σ elementwise."""
        return _expected(z, self._rule)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mollified:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.base.to(device=fn(torch.empty(0)).device)  # it follows the device, not the precision
        return self

    def facts(self) -> ActivationFacts:
        """Facts in closed form where φ_σ has one; turning points, slope extremes and moments to 1e-12.

        Raises:
            TypeError: φ is a module whose own facts are not known.
        """
        return self._facts

    @cached_property
    def _facts(self) -> ActivationFacts:
        if self._known is None or self._route is None:
            raise TypeError(
                f"facts of {self!r} are not certified: its breakpoints were found by probing; mollify one of our "
                "activations or its torch.nn counterpart instead"
            )
        base = self._known.facts()
        widest = find_route(self._known, math.hypot(1, self.sigma))
        assert widest is not None
        mean = float(widest.rule(torch.zeros(1, dtype=torch.float64)))
        facts = self._route.facts(base, f"{base.name}@sigma={self.sigma:g}", mean)
        function, derivative = (partial(_expected, rule=rule) for rule in (self._rule, self._rule.derivative))
        return replace(facts, function=function, derivative=derivative)  # differentiable, and fit for vmap

    def extra_repr(self) -> str:
        """What is mollified, and how exactly where not in closed form."""
        how = "" if self.method == "closed form" else f", method={self.method!r}, error={self.error:.1g}"
        return f"{self.base!r}, sigma={self.sigma:g}{how}"

    _known: Activation | None
    _route: Route | None
    _rule: Expectation


def _own_copy(base: nn.Module) -> Activation | None:
    """A frozen float64 copy of an activation of ours, or our counterpart of torch.nn's.

    Raises:
        TypeError: one of several features at once.
    """
    own = base if isinstance(base, Activation) else own_counterpart(base)
    if own is None:
        return None
    if not own.elementwise:
        raise TypeError(
            f"mollify needs an elementwise activation; an output of {type(base).__name__} depends on several features"
        )
    return copy.deepcopy(own).double().requires_grad_(False)


class _Expected(torch.autograd.Function):
    """E φ(z + σu), whose derivative is of the same kind: there are as many as asked, in both modes."""

    @staticmethod
    def forward(z: Tensor, rule: Expectation) -> Tensor:
        return _in_chunks(rule, z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, ctx.rule = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return gradient * _expected(z, ctx.rule.derivative), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * _expected(z, ctx.rule.derivative)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], z: Tensor, rule: Expectation) -> tuple[Tensor, Any]:
        return _expected(z, rule), in_dims[0]


def _expected(z: Tensor, rule: Expectation) -> Tensor:
    value: Tensor = _Expected.apply(z, rule)  # type: ignore[no-untyped-call]
    return value


def _in_chunks(rule: Expectation, z: Tensor) -> Tensor:
    """The rule by pieces that fit a core's cache: several times faster where it makes many passes."""
    size = _CHUNK * torch.get_num_threads()
    if z.device.type != "cpu" or z.numel() <= size or getattr(rule, "brief", False):
        return rule(z)
    value = torch.empty_like(z, memory_format=torch.contiguous_format)
    for start in range(0, z.numel(), size):
        value.view(-1)[start : start + size] = rule(z.reshape(-1)[start : start + size])
    return value
