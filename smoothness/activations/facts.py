"""What is known about an activation function: the numbers that attacks, bounds and reports rely on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from smoothness.activations import polynomials
from smoothness.activations.moments import fine_cuts, normal_moments


@dataclass(frozen=True)
class Breakpoint:
    """A point where some derivative of φ jumps.

    Attributes:
        position: where.
        order: -1 for a jump of the value, 0 of the slope (kink), 1 of the curvature, and so on.
        jump: size with sign: right limit minus left limit of the derivative number order + 1
            (the value itself for order -1).
    """

    position: float
    order: int
    jump: float


@dataclass(frozen=True)
class ActivationFacts:
    """Facts of one elementwise activation φ.

    Attributes:
        name: catalogue name with its parameters.
        smoothness_class: order of the roughest breakpoint: -1 value jump, 0 kink, 1 curvature jump, ...,
            infinity for a smooth function.
        breakpoints: every point where a derivative jumps, in ascending order.
        slope_min, slope_max: infimum and supremum of φ' where it exists.
        lipschitz: Lipschitz constant of φ; infinite at a value jump.
        curvature: Lipschitz constant of φ'; infinite at a kink or a value jump.
        slope_variation: total variation of the almost-everywhere derivative (ReLU 1, a step 0).
        bounded, monotone: whether φ is bounded, and non-decreasing.
        at_zero: φ(0).
        mean, second_moment, slope_second_moment: E φ(u), E φ(u)², E φ'(u)² for a standard normal u.
        polynomial_pieces: coefficients (c0, c1, c2, ...) of each piece between breakpoints when φ is a
            piecewise polynomial; None otherwise. At a jump φ takes the value of the piece to its left.
        value_turns: points other than breakpoints where φ' changes sign.
        slope_turns: points other than breakpoints where φ'' changes sign.
        function: φ itself, for float64 tensors.
        derivative: φ' almost everywhere, for float64 tensors.
        period: φ(z + period) - φ(z) is the same for all z (None for most φ); breakpoints and turning points are
            then those in [0, period).
        elementwise: False for an activation of several features at once. `applicable` names the facts it has; the
            others are NaN, empty or None. Its Lipschitz constant is that from l2 to l2, slopes are the partial
            derivatives, monotone means in every input, moments are means over the outputs for independent
            standard normal inputs.
    """

    name: str
    smoothness_class: float
    breakpoints: tuple[Breakpoint, ...]
    slope_min: float
    slope_max: float
    lipschitz: float
    curvature: float
    slope_variation: float
    bounded: bool
    monotone: bool
    at_zero: float
    mean: float
    second_moment: float
    slope_second_moment: float
    polynomial_pieces: tuple[tuple[float, ...], ...] | None = None
    value_turns: tuple[float, ...] = ()
    slope_turns: tuple[float, ...] = ()
    function: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)
    derivative: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)
    period: float | None = None
    elementwise: bool = True

    @property
    def applicable(self) -> tuple[str, ...]:
        """Names of the facts that apply: all for an elementwise activation, some for one of several features.

        >>> from smoothness.activations import activation_facts
        >>> "breakpoints" in activation_facts("group_sort").applicable
        False
        """
        names = [f.name for f in fields(self) if f.name not in ("name", "elementwise")]
        if self.elementwise:
            return tuple(names)
        scalar = ("breakpoints", "polynomial_pieces", "value_turns", "slope_turns", "function", "derivative", "period")
        return tuple(n for n in names if n not in scalar and getattr(self, n) == getattr(self, n))

    @property
    def affine_pieces(self) -> tuple[tuple[float, float], ...] | None:
        """(slope, intercept) of each piece between breakpoints when φ is piecewise affine; None otherwise."""
        pieces = self.polynomial_pieces
        if pieces is None or any(any(c != 0 for c in piece[2:]) for piece in pieces):
            return None
        padded = [(*piece, 0.0, 0.0) for piece in pieces]
        return tuple((piece[1], piece[0]) for piece in padded)

    def value_range(self, lower: Tensor | float, upper: Tensor | float) -> tuple[Tensor, Tensor]:
        """Enclose φ on [lower, upper], elementwise: see `smoothness.activations.intervals.ranges.value_range`."""
        from smoothness.activations.intervals.ranges import value_range  # that module imports this one

        return value_range(self, lower, upper)

    def slope_range(self, lower: Tensor | float, upper: Tensor | float) -> tuple[Tensor, Tensor]:
        """Enclose the slopes between any two points of [lower, upper]: see `intervals.slope_range`."""
        from smoothness.activations.intervals.ranges import slope_range

        return slope_range(self, lower, upper)

    def secant_range(self, at: Tensor | float, lower: Tensor | float, upper: Tensor | float) -> tuple[Tensor, Tensor]:
        """Enclose the slopes from `at` to any other point of [lower, upper]: see `intervals.secant_range`."""
        from smoothness.activations.intervals.ranges import secant_range

        return secant_range(self, at, lower, upper)


def smooth_facts(
    name: str,
    function: Callable[[Tensor], Tensor],
    *,
    slope: tuple[float, float],
    curvature: float,
    slope_variation: float,
    bounded: bool,
    breakpoints: tuple[Breakpoint, ...] = (),
    value_turns: tuple[float, ...] = (),
    slope_turns: tuple[float, ...] = (),
    width: float | None = None,
    derivative: Callable[[Tensor], Tensor] | None = None,
) -> ActivationFacts:
    """Facts of φ from its closed-form extremes; moments by quadrature to about 1e-13.

    `derivative` is φ' where it is quicker than automatic differentiation, which is the default.
    `width` is the length over which φ' changes, sup |φ'| / curvature by default: the quadrature is as fine around
    0, breakpoints and turning points.
    """
    function = getattr(function, "forward", function)  # past the hooks of an open surrogate gradient
    function = _frozen(function)
    derivative = derivative or partial(autograd_slope, function)
    steepest = max(abs(slope[0]), abs(slope[1]))
    if width is None:
        width = steepest / curvature if 0 < curvature < math.inf else 1.0
    centres = {0.0, *(b.position for b in breakpoints), *slope_turns}
    mean, second, slope_second = normal_moments(function, derivative, fine_cuts(centres, width))
    order = min((b.order for b in breakpoints), default=math.inf)
    return ActivationFacts(
        name=name,
        smoothness_class=order,
        breakpoints=breakpoints,
        slope_min=slope[0],
        slope_max=slope[1],
        lipschitz=math.inf if order == -1 else steepest,
        curvature=curvature,
        slope_variation=slope_variation,
        bounded=bounded,
        monotone=slope[0] >= 0 and all(b.jump > 0 for b in breakpoints if b.order == -1),
        at_zero=float(function(torch.zeros((), dtype=torch.float64))),
        mean=mean,
        second_moment=second,
        slope_second_moment=slope_second,
        value_turns=value_turns,
        slope_turns=slope_turns,
        function=function,
        derivative=derivative,
    )


def sinusoid_facts(
    name: str, amplitude: float, frequency: float, *, phase: float = 0.0, line: tuple[float, float] = (0.0, 0.0)
) -> ActivationFacts:
    """Facts of φ(z) = c0 + c1 z + amplitude · sin(frequency · z + phase), line = (c0, c1), all in closed form."""
    (c0, c1), a, f = line, amplitude, frequency
    period, steepest = 2 * math.pi / f, abs(a) * f
    low, high = c1 - steepest, c1 + steepest
    # E sin(fu + p) = m sin p; E cos 2(fu + p) = m⁴ cos 2p; E u sin(fu + p) = f m cos p.
    m = math.exp(-(f**2) / 2)
    mean_sine, sine_square = m * math.sin(phase), 0.5 - 0.5 * m**4 * math.cos(2 * phase)

    def turns(offsets: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted((x - phase) / f % period for x in offsets))

    values: tuple[float, ...] = ()
    if low < 0 < high:
        x = math.acos(-c1 / (a * f))
        values = turns((x, -x))

    def function(z: Tensor) -> Tensor:
        return c0 + c1 * z + a * torch.sin(f * z + phase)

    def derivative(z: Tensor) -> Tensor:
        return c1 + a * f * torch.cos(f * z + phase)

    return ActivationFacts(
        name=name,
        smoothness_class=math.inf,
        breakpoints=(),
        slope_min=low,
        slope_max=high,
        lipschitz=max(abs(low), abs(high)),
        curvature=abs(a) * f**2,
        slope_variation=math.inf,
        bounded=c1 == 0,
        monotone=low >= 0,
        at_zero=c0 + a * math.sin(phase),
        mean=c0 + a * mean_sine,
        second_moment=c0**2 + c1**2 + a**2 * sine_square + 2 * a * (c0 * mean_sine + c1 * f * m * math.cos(phase)),
        slope_second_moment=c1**2 + 2 * c1 * a * f * m * math.cos(phase) + (a * f) ** 2 * (1 - sine_square),
        value_turns=values,
        slope_turns=turns((0.0, math.pi)),
        function=function,
        derivative=derivative,
        period=period,
    )


def vector_facts(
    name: str,
    *,
    smoothness_class: float,
    lipschitz: float,
    monotone: bool,
    moments: tuple[float, float, float] = (math.nan, math.nan, math.nan),
) -> ActivationFacts:
    """Facts of an activation that passes on some of its inputs, unchanged: one input has slope 1, the rest 0."""
    mean, second, slope_second = moments
    return ActivationFacts(
        name=name,
        smoothness_class=smoothness_class,
        breakpoints=(),
        slope_min=0.0,
        slope_max=1.0,
        lipschitz=lipschitz,
        curvature=math.inf,
        slope_variation=math.nan,
        bounded=False,
        monotone=monotone,
        at_zero=0.0,
        mean=mean,
        second_moment=second,
        slope_second_moment=slope_second,
        elementwise=False,
    )


def piecewise_affine_facts(
    name: str, positions: tuple[float, ...], pieces: tuple[tuple[float, float], ...]
) -> ActivationFacts:
    """Facts of a piecewise affine φ, all in closed form.

    `pieces[i]` is (slope, intercept) between `positions[i - 1]` and `positions[i]`.

    >>> piecewise_affine_facts("relu", (0.0,), ((0.0, 0.0), (1.0, 0.0))).breakpoints
    (Breakpoint(position=0.0, order=0, jump=1.0),)
    """
    return piecewise_polynomial_facts(name, positions, tuple((intercept, slope) for slope, intercept in pieces))


def piecewise_polynomial_facts(
    name: str, positions: tuple[float, ...], pieces: tuple[tuple[float, ...], ...]
) -> ActivationFacts:
    """Facts of a piecewise polynomial φ, all in closed form.

    `pieces[i]` holds the coefficients (c0, c1, c2, ...) between `positions[i - 1]` and `positions[i]`;
    a position where nothing jumps is dropped.

    Raises:
        ValueError: positions that do not ascend, or a number of pieces that does not fit them.

    >>> piecewise_polynomial_facts("square", (0.0,), ((0.0,), (0.0, 0.0, 1.0))).breakpoints
    (Breakpoint(position=0.0, order=1, jump=2.0),)
    """
    if len(pieces) != len(positions) + 1:
        raise ValueError(f"{len(positions)} breakpoints need {len(positions) + 1} pieces, got {len(pieces)}")
    if any(not a < b for a, b in pairwise(positions)):
        raise ValueError(f"positions must ascend, got {positions}")
    breakpoints: list[Breakpoint] = []
    kept = [pieces[0]]
    for position, right in zip(positions, pieces[1:], strict=True):
        jump = polynomials.roughest_jump(position, kept[-1], right)
        if jump is not None:
            breakpoints.append(Breakpoint(float(position), *jump))
            kept.append(right)
    pieces, positions = tuple(tuple(map(float, c)) for c in kept), tuple(b.position for b in breakpoints)
    order = min((b.order for b in breakpoints), default=math.inf)
    edges = (-math.inf, *positions, math.inf)
    spans = list(zip(pieces, edges[:-1], edges[1:], strict=True))
    slopes = [polynomials.derivative(piece) for piece in pieces]
    path = [s for slope, (_, low, high) in zip(slopes, spans, strict=True) for s in polynomials.path(slope, low, high)]
    bends = [s for piece, low, high in spans for s in polynomials.path(polynomials.derivative(piece, 2), low, high)]

    def turns(order: int) -> tuple[float, ...]:
        return tuple(
            z for c, low, high in spans for z in polynomials.sign_changes(polynomials.derivative(c, order), low, high)
        )

    def expectation(powers: int, derivatives: int) -> float:
        return sum(
            polynomials.normal_expectation(polynomials.derivative(c, derivatives), low, high, powers)
            for c, low, high in spans
        )

    return ActivationFacts(
        name=name,
        smoothness_class=order,
        breakpoints=tuple(breakpoints),
        slope_min=min(path),
        slope_max=max(path),
        lipschitz=math.inf if order == -1 else max(map(abs, path)),
        curvature=max(map(abs, bends)) if order > 0 else math.inf,
        slope_variation=sum((abs(b - a) for a, b in pairwise(path) if a != b), start=0.0),
        bounded=not any(c for piece in (pieces[0], pieces[-1]) for c in piece[1:]),
        monotone=min(path) >= 0 and all(b.jump > 0 for b in breakpoints if b.order == -1),
        at_zero=pieces[sum(position < 0 for position in positions)][0],
        mean=expectation(1, 0),
        second_moment=expectation(2, 0),
        slope_second_moment=expectation(2, 1),
        polynomial_pieces=pieces,
        value_turns=turns(1),
        slope_turns=turns(2),
        function=partial(polynomials.evaluate, positions, pieces),
        derivative=partial(polynomials.evaluate, positions, tuple(slopes)),
    )


def _frozen(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function of a module as it is now: facts do not follow parameters that are trained later."""
    module = getattr(function, "__self__", None)
    if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
        return copy.deepcopy(module).double().requires_grad_(False).forward
    return function


def autograd_slope(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """φ' by automatic differentiation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(z).sum(), z)
    return slope
