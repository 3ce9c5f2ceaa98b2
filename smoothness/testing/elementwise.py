"""Checks of an elementwise activation: what a fine grid and points far out can refute."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from smoothness.activations import ActivationFacts, Breakpoint, polynomials
from smoothness.testing import behaviour
from smoothness.testing.behaviour import slope as autograd

# The grid's offset keeps it off the round numbers where breakpoints like to be.
SPAN = 12.0
_POINTS = 240_001
_OFFSET = 1.37e-5


@dataclasses.dataclass(frozen=True)
class _Sample:
    """φ on the grid, and its slopes; `step` apart."""

    z: Tensor
    value: Tensor
    slope: Tensor

    @property
    def step(self) -> float:
        return float(self.z[1] - self.z[0])


def problems(module: nn.Module, facts: ActivationFacts) -> Iterator[str]:
    """Everything found wrong."""
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    trouble = list(_alone(module, z))
    yield from trouble
    if trouble:  # nothing below means anything then
        return
    yield from behaviour.common(module, z)
    grid = _grid(max(SPAN, facts.period or 0.0))
    sample = _Sample(grid, module(grid), autograd(module, grid))
    if facts.period is not None:
        yield from _period(module, facts, sample)
        facts = _unrolled(facts)
    for check in (_gradient, _breakpoints, _turns, _slopes, _curvature, _shape, _moments, _formulas):
        yield from check(module, facts, sample)


def _alone(module: nn.Module, z: Tensor) -> Iterator[str]:
    """Elementwise: values keep their place, whatever is beside them."""
    try:
        value, reordered = module(z), module(z.flatten().flip(0))
    except (RuntimeError, ValueError) as error:
        yield f"fails on inputs of some shapes: not elementwise ({error})"
        return
    if value.shape != z.shape:
        yield f"returns shape {tuple(value.shape)} for input {tuple(z.shape)}: not elementwise"
    elif reordered.shape != (z.numel(),) or not behaviour.same(reordered.flip(0).view_as(z), value):
        yield "an element's value depends on the others: not elementwise"
    elif not behaviour.same(torch.func.vmap(module)(z), value):
        yield "under torch.vmap the values differ"


def _grid(reach: float) -> Tensor:
    return torch.linspace(-reach, reach, _POINTS, dtype=torch.float64) + _OFFSET


def _far(decade: int) -> Tensor:
    """Points at random with |z| from 10^decade to ten times that, a row for each side: no wave fits them."""
    z = torch.rand(2, 2001, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(dim=1).values
    return (1 + 9 * z) * 10.0**decade * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def _near(z: Tensor, breakpoints: Sequence[Breakpoint], distance: float, order: int = 99) -> Tensor:
    """Where z lies within `distance` of a breakpoint of at most this order."""
    close = torch.zeros_like(z, dtype=torch.bool)
    for b in breakpoints:
        if b.order <= order:
            close |= (z - b.position).abs() <= distance
    return close


def _period(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    assert facts.period is not None
    gain = module(sample.z + facts.period) - sample.value
    if float(gain.max() - gain.min()) > 1e-6 * (1 + abs(float(gain[0]))):
        yield f"period is {facts.period:.9g}, but φ(z + period) - φ(z) depends on z"
    points = (*(b.position for b in facts.breakpoints), *facts.value_turns, *facts.slope_turns)
    if any(not 0 <= t < facts.period for t in points):
        yield f"breakpoints and turning points must lie in [0, {facts.period:.6g}), the period"


def _unrolled(facts: ActivationFacts) -> ActivationFacts:
    """With breakpoints and turning points of all periods in the span."""
    assert facts.period is not None
    count = math.ceil(SPAN / facts.period) + 2
    shifts = [k * facts.period for k in range(-count, count + 1)]
    return dataclasses.replace(
        facts,
        breakpoints=tuple(Breakpoint(b.position + s, b.order, b.jump) for s in shifts for b in facts.breakpoints),
        value_turns=tuple(t + s for s in shifts for t in facts.value_turns),
        slope_turns=tuple(t + s for s in shifts for t in facts.slope_turns),
    )


def _gradient(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    """Autograd against central differences away from breakpoints: the true a.e. derivative."""
    h = 1e-5
    z, slope = sample.z[::50], sample.slope[::50]
    numeric = (module(z + h) - module(z - h)) / (2 * h)
    gap = ((slope - numeric).abs() / (1 + numeric.abs())).masked_fill(_near(z, facts.breakpoints, 2 * h), 0)
    worst = int(gap.argmax())
    if gap[worst] > 1e-4:
        yield (
            f"backward gives {slope[worst].item():.6g} at {z[worst].item():.6g}, "
            f"central differences give {numeric[worst].item():.6g}"
        )


def _breakpoints(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    """Every breakpoint claimed is there, with its jump and nothing rougher; none is missing on the grid."""
    for b in facts.breakpoints:
        seen = [r - s for r, s in zip(_limits(module, b.position, 1), _limits(module, b.position, -1), strict=True)]
        for order in range(-1, min(b.order, 2) + 1):
            claimed = b.jump if order == b.order else 0.0
            if abs(seen[order + 1] - claimed) > 1e-3 * (1 + abs(b.jump)):
                yield (
                    f"breakpoint at {b.position:g} of order {b.order} claims a jump of {b.jump:g}, "
                    f"seen {seen[order + 1]:.6g} of order {order}"
                )
        if b.jump == 0:
            yield f"breakpoint at {b.position:g} claims a jump of 0"
    roughest = min((b.order for b in facts.breakpoints), default=math.inf)
    if facts.smoothness_class != roughest:
        yield f"smoothness_class is {facts.smoothness_class:g}, but the roughest breakpoint has order {roughest:g}"
    bend = sample.slope.diff() / sample.step
    for what, path in (("value", sample.value), ("slope", sample.slope), ("curvature", bend)):
        z = sample.z[1 : path.numel()]
        spike = _spikes(path.diff()) & ~_near(z, facts.breakpoints, 4 * sample.step)
        if spike.any():
            yield f"the {what} jumps at {z[spike][0].item():.6g}, which is no breakpoint"
            return


def _limits(module: nn.Module, position: float, side: int) -> list[float]:
    """One-sided limits of φ, φ', φ'', φ''' from slopes at three points on that side (quadratic fit)."""
    h = 1e-5
    z = position + side * h * torch.arange(1, 4, dtype=torch.float64)
    a, b, c = autograd(module, z).tolist()
    first, second, third = 3 * a - 3 * b + c, side * (-2.5 * a + 4 * b - 1.5 * c) / h, (a - 2 * b + c) / h**2
    value = float(module(z[:1])) - side * h * first - h**2 * second / 2
    return [value, first, second, third]


def _spikes(change: Tensor) -> Tensor:
    """Changes far above those two cells away: of a smooth path, neighbouring changes are alike."""
    size = change.abs()
    beside = torch.maximum(size.roll(2), size.roll(-2))
    spike = size > 10 * beside + 1e-6 * (1 + float(size.median()))
    spike[:2] = spike[-2:] = False
    return spike


def _turns(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    """Between two points where a derivative has different signs lies a turning point or breakpoint, else none."""
    bend = (sample.slope.diff() / sample.step).masked_fill(
        _near(sample.z[1:], facts.breakpoints, 2 * sample.step, 0), 0.0
    )
    for name, z, path in (
        ("value_turns", sample.z, sample.slope),
        ("slope_turns", sample.z[1:] - sample.step / 2, bend),
    ):
        path = torch.where(path.abs() > max(1e-10, 1e-9 * float(path.abs().max())), path.sign(), 0.0)
        index = path.nonzero().flatten()
        change = (path[index[1:]] != path[index[:-1]]).nonzero().flatten()
        slack = sample.step
        spans = [(float(z[index[i]]) - slack, float(z[index[i + 1]]) + slack) for i in change]
        claimed = [t for t in getattr(facts, name) if abs(t) < -float(sample.z[0]) - sample.step]
        for low, high in spans:
            broken = any(low <= b.position <= high for b in facts.breakpoints)
            if not broken and sum(low <= t <= high for t in claimed) % 2 == 0:
                yield f"{name} misses a change of sign between {low:.6g} and {high:.6g}"
        for t in claimed:
            if not any(low <= t <= high for low, high in spans):
                yield f"{name} has {t:.6g}, but no change of sign is seen there"
            elif any(b.position == t for b in facts.breakpoints):
                yield f"{name} has {t:.6g}, which is a breakpoint"


def _slopes(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    outside = torch.logspace(math.log10(SPAN), 9, 4001, dtype=torch.float64)
    path = torch.cat([autograd(module, -outside.flip(0)), sample.slope, autograd(module, outside)])
    near, far = (autograd(module, _far(decade)) for decade in (3, 4))
    for name, claimed, side in (("slope_min", facts.slope_min, -1), ("slope_max", facts.slope_max, 1)):
        seen, grows = float((side * path).max()), (side * far).max() > 1.01 * (side * near).max() > 0
        if math.isinf(claimed):
            if claimed != side * math.inf or not grows:
                yield f"{name} is {claimed:g}, but slopes only reach {side * float((side * far).max()):.9g}"
        elif not seen - side * claimed <= 1e-9 * (1 + abs(claimed)):
            yield f"{name} is {claimed:.9g}, but slopes reach {side * seen:.9g}"
        elif side * claimed - seen > 1e-3 * (1 + abs(claimed)):
            yield f"{name} is {claimed:.9g}, but slopes only reach {side * seen:.9g}"
    expected = math.inf if facts.smoothness_class == -1 else max(abs(facts.slope_min), abs(facts.slope_max))
    if not math.isclose(facts.lipschitz, expected, rel_tol=1e-12):
        yield f"lipschitz is {facts.lipschitz:g}, the slopes and jumps say {expected:g}"
    endless = bool(far.diff().abs().sum() > 0.5 * near.diff().abs().sum() > 1e-9)
    variation = math.inf if endless else float(path.diff().abs().sum())
    if not math.isclose(facts.slope_variation, variation, rel_tol=1e-3, abs_tol=1e-3):
        yield f"slope_variation is {facts.slope_variation:.6g}, but {variation:.6g} is seen"


def _curvature(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    if facts.smoothness_class <= 0:
        if not math.isinf(facts.curvature):
            yield f"curvature is {facts.curvature:g}, but there is a kink or jump: it must be infinite"
        return
    beside = [abs(_limits(module, b.position, side)[2]) for b in facts.breakpoints for side in (1, -1)]
    bend = max([float(sample.slope.diff().abs().max()) / sample.step, *beside])
    if math.isinf(facts.curvature):
        z = torch.tensor([-1e4, -1e3, 1e3, 1e4], dtype=torch.float64)
        far = (autograd(module, z + 0.01) - autograd(module, z)).abs() / 0.01
        if not max(far[0], far[3]) > 1.01 * max(far[1], far[2]) > 1e-6:
            yield f"curvature is inf, but only {bend:.9g} is seen"
    elif not bend <= facts.curvature * (1 + 1e-5) + 1e-9:
        yield f"curvature is {facts.curvature:.9g}, but {bend:.9g} is seen"
    elif bend < facts.curvature * 0.998 - 1e-9:
        yield f"curvature is {facts.curvature:.9g}, but only {bend:.9g} is seen"


def _shape(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    beside = [math.nextafter(b.position, math.inf) for b in facts.breakpoints]
    z = torch.cat([sample.z, sample.z.new_tensor([*beside, *(b.position for b in facts.breakpoints)])]).sort().values
    value = module(z)
    falls = bool((value.diff() < -1e-13 * (1 + value[1:].abs())).any())
    if facts.monotone and falls:
        yield "claims to be monotone, but falls"
    if not facts.monotone and not falls:
        yield "claims not to be monotone, but never falls on the grid"
    near, far = (float(module(_far(decade)).abs().max()) for decade in (8, 11))
    grows = far > 1.1 * near + 1e-9
    if facts.bounded and grows:
        yield f"claims to be bounded, but reaches {far:.3g}"
    if not facts.bounded and not grows:
        yield "claims not to be bounded, but is flat far out"
    at_zero = float(module(torch.zeros((), dtype=torch.float64)))
    if not math.isclose(at_zero, facts.at_zero, rel_tol=1e-9, abs_tol=1e-12):
        yield f"at_zero is {facts.at_zero:.9g}, but {at_zero:.9g} is seen"


def _moments(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    """E φ(u), E φ(u)², E φ'(u)² by the trapezoidal rule; jumps cost it about a grid step."""
    density = torch.exp(-sample.z.square() / 2) / math.sqrt(2 * math.pi)
    for name, claimed, integrand in (
        ("mean", facts.mean, sample.value),
        ("second_moment", facts.second_moment, sample.value**2),
        ("slope_second_moment", facts.slope_second_moment, sample.slope**2),
    ):
        seen = float(torch.trapezoid(integrand * density, sample.z))
        if not abs(seen - claimed) <= 1e-4 * (1 + abs(claimed)):
            yield f"{name} is {claimed:.9g}, but {seen:.9g} is seen"


def _formulas(module: nn.Module, facts: ActivationFacts, sample: _Sample) -> Iterator[str]:
    """The facts' own ways to compute φ."""

    def pieces(z: Tensor) -> Tensor:
        assert facts.polynomial_pieces is not None
        return polynomials.evaluate(tuple(b.position for b in facts.breakpoints), facts.polynomial_pieces, z)

    formulas: list[tuple[str, Callable[[Tensor], Tensor] | None, Tensor]] = [
        ("function", facts.function, sample.value),
        ("derivative", facts.derivative, sample.slope),
    ]
    if facts.polynomial_pieces is not None:
        if len(facts.polynomial_pieces) != len(facts.breakpoints) + 1:
            yield "polynomial_pieces must be one more than the breakpoints"
        else:
            formulas.append(("polynomial_pieces", pieces, sample.value))
    for name, formula, expected in formulas:
        gap = (formula(sample.z) - expected).abs() / (1 + expected.abs()) if formula else torch.zeros(1)
        worst = int(gap.argmax())
        if not gap[worst] <= 1e-7:  # torch's own CELU has a slope good to 2e-8
            yield f"{name} differs from the module by {float(gap[worst]):.3g} at {float(sample.z[worst]):.6g}"
