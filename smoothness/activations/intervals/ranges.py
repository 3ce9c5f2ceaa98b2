"""What an activation can do on an interval: its values, its slopes and its secants, enclosed with proof."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.activations.intervals.enclosures import CertifiedCurve, Range
from smoothness.activations.intervals.periodic import PeriodicCurve
from smoothness.activations.intervals.secants import secant_extremes
from smoothness.activations.intervals.tangents import TOLERANCE

# Elements handled at once: their temporaries stay in the processor's cache.
_CHUNK = 1 << 15


def value_range(facts: ActivationFacts, lower: Tensor | float, upper: Tensor | float) -> Range:
    """Enclose φ on intervals: low <= φ(s) <= high for every s in [lower, upper].

    The right limit at a jump t counts when lower <= t < upper (φ takes the left value). Ranges are for the
    real-valued φ of the facts, within 1e-6 of the true range (absolute or relative; times the largest slope where
    that exceeds 1). They cover the rounding of evaluating φ in float64 (`CertifiedCurve` states the margins), not
    that of a float32 network. Beyond 2^27 periods from 0 a periodic φ, with or without drift, gets
    global bounds (`PeriodicCurve`).

    Args:
        facts: the activation.
        lower: left end points, float32 or float64; -inf and inf allowed.
        upper: right end points, of a shape that broadcasts with that of `lower`.

    Returns:
        (low, high) of the broadcast shape and the common type, rounded outward, computed in float64.

    Raises:
        TypeError: end points of another type, facts that lack the function, or an activation of several features.
        ValueError: NaN, or lower > upper; the argument is named.

    >>> from smoothness.activations import activation_facts
    >>> value_range(activation_facts("relu"), torch.tensor([-1.0, 2.0]), torch.tensor(3.0))
    (tensor([0., 2.]), tensor([3., 3.]))
    """
    return _by_chunks("value_range", facts, {"lower": lower, "upper": upper})


def slope_range(facts: ActivationFacts, lower: Tensor | float, upper: Tensor | float) -> Range:
    """Enclose the secant slopes (φ(s) - φ(t)) / (s - t) over all pairs s != t in [lower, upper].

    These are the extremes of the one-sided derivatives inside: from the right at `lower`, from the left at
    `upper`, from both sides between, and from both sides when lower == upper. A jump t makes one end infinite,
    with its sign, when lower <= t < upper; at t == upper it does not, since φ takes the left value. Exactness,
    arguments and errors as in `value_range`; slopes of affine pieces are exact.

    >>> from smoothness.activations import activation_facts
    >>> slope_range(activation_facts("leaky_relu"), torch.tensor([-1.0, 0.0]), torch.tensor(3.0))
    (tensor([0.0100, 1.0000]), tensor([1., 1.]))
    >>> slope_range(activation_facts("step"), torch.tensor([-1.0, 0.0, -1.0]), torch.tensor([1.0, 1.0, 0.0]))
    (tensor([0., 0., 0.]), tensor([inf, inf, 0.]))
    """
    return _by_chunks("slope_range", facts, {"lower": lower, "upper": upper})


def secant_range(
    facts: ActivationFacts,
    at: Tensor | float,
    lower: Tensor | float,
    upper: Tensor | float,
    *,
    slack: float = 0.0,
) -> Range:
    """Enclose the secant slopes (φ(s) - φ(at)) / (s - at) over all s != at in [lower, upper].

    `at` may lie inside the interval or outside. Inside, the limit s -> at contributes the one-sided derivatives
    (from the right when at < upper, from the left when at > lower, both when all three are equal), which are
    infinite from the right of a jump: the range of a step is finite unless `at` is its threshold. An infinite end
    point contributes the slope of φ there. Exactness, arguments and errors as in `value_range`; `at` must be finite.
    With `slack`, ranges may be wider by this share of the steepest slope, and are found sooner (not of a periodic φ).

    >>> from smoothness.activations import activation_facts
    >>> secant_range(activation_facts("step"), torch.tensor(-0.5), torch.tensor(-1.0), torch.tensor(1.0))
    (tensor(0.), tensor(2.0000))
    >>> secant_range(activation_facts("relu"), torch.tensor(1.0), torch.tensor(-3.0), torch.tensor(2.0))
    (tensor(0.2500), tensor(1.))
    """
    tolerance = max(TOLERANCE, slack * max(abs(facts.slope_min), abs(facts.slope_max)))
    return _by_chunks("secant_range", facts, {"at": at, "lower": lower, "upper": upper}, tolerance)


def _by_chunks(
    function: str, facts: ActivationFacts, arguments: dict[str, Tensor | float], tolerance: float = TOLERANCE
) -> Range:
    if not facts.elementwise:
        raise TypeError(f"{function} needs an elementwise activation; {facts.name} acts on several features at once")
    # Leaving inference mode lets the derivative be taken by automatic differentiation.
    with torch.inference_mode(False), torch.no_grad():
        tensors, dtype = _checked(arguments)
        extremes = _extremes(function, facts, tensors[0].device, tolerance)
        shape, flat = tensors[0].shape, [z.reshape(-1).contiguous() for z in tensors]
        starts = range(0, max(len(flat[0]), 1), _CHUNK)
        parts = [extremes(*(z[k : k + _CHUNK] for z in flat)) for k in starts]
        lows, highs = zip(*parts, strict=True)
        low, high = torch.cat(lows).reshape(shape), torch.cat(highs).reshape(shape)
        return _rounded(low, dtype, -1), _rounded(high, dtype, 1)


def _extremes(function: str, facts: ActivationFacts, device: torch.device, tolerance: float) -> Callable[..., Range]:
    curve = _curve(facts, device)
    if function == "value_range":
        return curve.value_extremes
    if function == "slope_range":
        return curve.slope_extremes
    if isinstance(curve, PeriodicCurve):
        return curve.secant_extremes
    return partial(secant_extremes, curve, tolerance=tolerance)


def _curve(facts: ActivationFacts, device: torch.device) -> CertifiedCurve | PeriodicCurve:
    """Made once for these facts, not for equal ones: equality does not look at the function."""
    curves: dict[torch.device, CertifiedCurve | PeriodicCurve] = vars(facts).setdefault("_curves", {})
    if device not in curves:
        curves[device] = CertifiedCurve(facts, device) if facts.period is None else PeriodicCurve(facts, device)
    return curves[device]


def _checked(arguments: dict[str, Tensor | float]) -> tuple[list[Tensor], torch.dtype]:
    """All arguments as float64 of one shape, and the type to answer in."""
    given = [z for z in arguments.values() if isinstance(z, Tensor)]
    device = given[0].device if given else None
    dtype = torch.float32 if given and all(z.dtype == torch.float32 for z in given) else torch.float64
    for name, z in arguments.items():
        if isinstance(z, Tensor) and z.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {z.dtype}; use {name}.float()")
    converted = [
        z.detach().clone().double() if isinstance(z, Tensor) else torch.tensor(z, dtype=torch.float64, device=device)
        for z in arguments.values()
    ]
    for name, z in zip(arguments, converted, strict=True):
        if z.isnan().any():
            raise ValueError(f"{name} holds NaN ({int(z.isnan().sum())} of {z.numel()} values)")
        if name == "at" and z.isinf().any():
            raise ValueError("at must be finite, got an infinite value; only end points may be infinite")
    shape = torch.broadcast_shapes(*(z.shape for z in converted))  # type: ignore[no-untyped-call]
    tensors = [z.expand(shape) for z in converted]
    lower, upper = tensors[-2:]
    if (lower > upper).any():
        k = int((lower > upper).flatten().nonzero()[0])
        raise ValueError(
            f"lower must not exceed upper, got lower = {float(lower.flatten()[k])!r} and "
            f"upper = {float(upper.flatten()[k])!r} at flat index {k}"
        )
    return tensors, dtype


def _rounded(z: Tensor, dtype: torch.dtype, direction: int) -> Tensor:
    """The nearest number of the type on the given side (-1 below, +1 above)."""
    near = z.to(dtype)
    beyond = torch.nextafter(near, torch.full_like(near, direction * torch.inf))
    return torch.where((near.double() - z) * direction < 0, beyond, near)
