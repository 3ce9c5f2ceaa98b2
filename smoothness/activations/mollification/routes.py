"""How each activation of ours is mollified: the closed form, or which quadrature and where it must look."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts
from smoothness.activations.families.bumps import Gaussian, Sin, Snake
from smoothness.activations.families.exponential import CELU, ELU, SELU
from smoothness.activations.families.gated import GELU, GELUTanh, Mish, PSiLU, PSSiLU, SiLU, Swish
from smoothness.activations.families.shrinkage import TanhShrink
from smoothness.activations.families.sigmoidal import Arctan, Erf, Sigmoid, Softsign, Tanh
from smoothness.activations.families.smooth_rectifiers import (
    CentredSoftplus,
    LogSigmoid,
    SmoothReLU,
    Softplus,
    Squareplus,
)
from smoothness.activations.families.steps import SigmoidStaircase, Staircase
from smoothness.activations.mollification.gaussian_exponential import GaussianExponential
from smoothness.activations.mollification.gaussian_polynomials import GaussianPolynomial, Jumps
from smoothness.activations.mollification.gaussian_sinusoid import GaussianSinusoid
from smoothness.activations.mollification.mollified_facts import Bends, Expectation, mollified_facts
from smoothness.activations.mollification.quadrature import QUADRATURE_ERROR, Panels, Trapezoid, graded_cuts

CLOSED_ERROR = 1e-14
_NARROW = 0.2  # strips of fewer σ: the trapezoidal rule takes more nodes than panels do
_NATIVE = 4  # derivatives taken of φ itself where the noise is no wider than φ's own bends


@dataclass(frozen=True)
class Route:
    """φ_σ, and where it bends.

    Attributes:
        rule: φ_σ with its derivatives.
        bends: for the search of turning points.
    """

    rule: Expectation
    bends: Bends

    @property
    def exact(self) -> bool:
        """Whether in closed form."""
        return not isinstance(self.rule, (Trapezoid, Panels))

    @property
    def error(self) -> float:
        """Largest error of value and slope, per unit of |φ_σ| above 1 and of 1/σ for the slope."""
        return CLOSED_ERROR if self.exact else QUADRATURE_ERROR

    def facts(self, base: ActivationFacts, name: str, mean: float) -> ActivationFacts:
        """Facts of φ_σ, given those of φ and E φ_σ(u)."""
        if isinstance(self.rule, GaussianSinusoid):
            return self.rule.facts(name)
        return mollified_facts(base, name, self.rule, self.bends, mean)


def find_route(own: Activation, sigma: float) -> Route | None:
    """φ_σ of an activation of ours; None where neither a closed form nor its singularities are known."""
    kind = type(own)
    if kind in _CLOSED:
        return _closed(_CLOSED[kind](own, sigma))
    if kind in _STRIPS and (strip := _STRIPS[kind](own)) < math.inf:
        centres = Staircase(own.levels).thresholds if isinstance(own, SigmoidStaircase) else (0.0,)
        return _analytic(own, sigma, strip, centres)
    if kind in _BROKEN:
        return _broken(own, sigma, *_BROKEN[kind](own))
    try:
        facts = own.facts()
    except TypeError:
        return None
    if facts.polynomial_pieces is None:
        return None
    positions = tuple(b.position for b in facts.breakpoints)
    return _closed(GaussianPolynomial.of(positions, facts.polynomial_pieces, sigma))


# Closed forms beside those of piecewise polynomials.
_CLOSED: dict[type[Activation], Callable[[Any, float], Expectation]] = {
    ELU: lambda elu, sigma: GaussianExponential.elu(sigma, elu.alpha),
    CELU: lambda celu, sigma: GaussianExponential.elu(sigma, celu.alpha, rate=1 / celu.alpha),
    SELU: lambda selu, sigma: GaussianExponential.elu(sigma, selu.SCALE * selu.ALPHA, slope=selu.SCALE),
    # gelu is relu - pdf mollified by 1: z cdf(z) = (z cdf(z) + pdf(z)) - pdf(z).
    GELU: lambda _, sigma: _one_bend(math.hypot(1, sigma), (0.0,), (0.0, 1.0), ((-1, -1.0), (1, 1.0))),
    # erf is sign mollified by √½, and exp(-z²) is √π times that Gaussian's density.
    Erf: lambda _, sigma: _one_bend(math.hypot(math.sqrt(0.5), sigma), (-1.0,), (1.0,), ((0, 2.0),)),
    Gaussian: lambda _, sigma: _one_bend(
        math.hypot(math.sqrt(0.5), sigma), (0.0,), (0.0,), ((-1, math.sqrt(math.pi)),)
    ),
    Sin: lambda sin, sigma: GaussianSinusoid.sin(sigma, sin.frequency),
    Snake: lambda snake, sigma: GaussianSinusoid.snake(sigma, snake.frequency),
}

# Half-width of the strip around the real axis in which φ is analytic: the distance of its nearest singularity.
_STRIPS: dict[type[Activation], Callable[[Any], float]] = {
    Sigmoid: lambda _: math.pi,
    Tanh: lambda tanh: math.pi / (2 * tanh.steepness),
    TanhShrink: lambda _: math.pi / 2,
    Arctan: lambda _: 1.0,
    SiLU: lambda _: math.pi,
    Swish: lambda swish: math.pi / swish.beta,
    PSiLU: lambda psilu: _gate(psilu),
    PSSiLU: lambda pssilu: _gate(pssilu),
    Mish: lambda _: 0.75 * math.pi,  # (1 + e^z)² = -1 at log √2 ± 3πi/4
    GELUTanh: lambda _: 2.754770601637983,  # √(2/π) (z + 0.044715 z³) = πi/2 at ±0.634368... + 2.75477...i
    Softplus: lambda softplus: math.inf if softplus.facts().breakpoints else math.pi / softplus.beta,
    CentredSoftplus: lambda softplus: math.pi / softplus.beta,
    LogSigmoid: lambda _: math.pi,
    Squareplus: lambda squareplus: math.sqrt(squareplus.b),  # branch points at ±i√b
    SigmoidStaircase: lambda staircase: math.pi * staircase.temperature,
}


def _softsign(_: Softsign) -> tuple[float, float, Jumps]:
    """Z / (1 ± z): at 0 the even derivatives jump, by -2 k!."""
    return 1.0, 0.0, ((2, -4.0),)


def _smooth_relu(own: SmoothReLU) -> tuple[float, float, Jumps]:
    """Z - log(1 + alpha z)/alpha right of 0: the k-th derivative jumps by (-1)^k (k - 1)! alpha^(k-1)."""
    return 1 / own.alpha, 0.0, ((2, own.alpha), (3, -2 * own.alpha**2))


def _cut_softplus(own: Softplus) -> tuple[float, float, Jumps]:
    """Right of the threshold z, which is less than the left piece by log(1 + exp(-beta z))/beta."""
    b, tail = own.beta, math.exp(-own.threshold)
    s = tail / (1 + tail)
    jumps = ((0, -math.log1p(tail) / b), (1, s), (2, -b * s * (1 - s)), (3, b * b * s * (1 - s) * (1 - 2 * s)))
    return 1 / b, own.threshold / b, jumps


# With a breakpoint: the distance of the pieces' own singularities from 0 (a third of it, for softplus: π/beta),
# the breakpoint, and the jumps there of the derivatives below _NATIVE.
_BROKEN: dict[type[Activation], Callable[[Any], tuple[float, float, Jumps]]] = {
    Softsign: _softsign,
    SmoothReLU: _smooth_relu,
    Softplus: _cut_softplus,
}


def _gelu_tanh(z: Tensor) -> Tensor:
    """Beyond ±20 the gate is 0 or 1 to the bit."""
    y = z.clamp(-20, 20)
    return z * torch.sigmoid(math.sqrt(8 / math.pi) * (y + 0.044715 * y**3))


def _mish(z: Tensor) -> Tensor:
    return z * torch.tanh(F.softplus(z, 1.0, 40.0))


# torch's own have NaN for a second derivative far out.
_FAR_SAFE: dict[type[Activation], Callable[[Tensor], Tensor]] = {GELUTanh: _gelu_tanh, Mish: _mish}


def _closed(rule: Expectation) -> Route:
    if isinstance(rule, GaussianPolynomial):  # of gelu, erf and gaussian wider than the noise
        return Route(rule, Bends(rule.sigma, rule.positions))
    if isinstance(rule, GaussianExponential):
        sigma = rule.polynomial.sigma
        return Route(rule, Bends(sigma, (0.0,), (0.0,), 1 / rule.rate))
    return Route(rule, Bends(0.0))


def _analytic(own: Activation, sigma: float, strip: float, centres: tuple[float, ...]) -> Route:
    rule: Expectation
    function = _FAR_SAFE.get(type(own), own.forward)
    if strip >= _NARROW * sigma:
        rule = Trapezoid(function, sigma, strip)
    else:
        rule = Panels(function, sigma, graded_cuts(centres, strip, sigma), native=1)
    return Route(rule, Bends(sigma, (), centres, strip / math.pi))  # exponential tails fall off over strip/π


def _broken(own: Activation, sigma: float, width: float, position: float, jumps: Jumps) -> Route:
    native = _NATIVE if sigma <= width else 1  # beyond, derivatives of φ would cancel against the deltas
    cuts = tuple(sorted({*graded_cuts((0.0,), width, sigma), position}))
    rule = Panels(own.forward, sigma, cuts, native=native, jumps=((position, jumps),))
    return Route(rule, Bends(sigma, (position,), (0.0,), width))


def _one_bend(width: float, left: tuple[float, ...], right: tuple[float, ...], jumps: Jumps) -> GaussianPolynomial:
    return GaussianPolynomial(width, (0.0,), (left, right), (jumps,))


def _gate(own: PSiLU | PSSiLU) -> float:
    """π/|alpha|, as alpha is now; without a bound for alpha = 0, a line."""
    alpha = own.alpha.item()
    return math.pi / abs(alpha) if alpha else math.inf
