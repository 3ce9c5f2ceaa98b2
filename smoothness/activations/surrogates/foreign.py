"""What can be learned of an unknown module from its values alone: is it elementwise, where is it rough?"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from smoothness.activations.base import Activation
from smoothness.activations.facts import Breakpoint
from smoothness.activations.mollification.gaussian_polynomials import GaussianPolynomial
from smoothness.activations.mollification.unknown_modules import frozen_elementwise
from smoothness.activations.probing import probe_breakpoints

_STEP = 1e-6  # of the differences that stand in for a derivative
_FAR = 96.0
_TABLE, _PER_SIGMA, _MOST = 64.0, 16, 2**18  # of tables of slopes: half-width, points in σ, and points at most
_REAL = 1e-4  # jumps of value or slope below this are taken for curvature or rounding


@dataclass(frozen=True)
class Probed:
    """Value jumps and kinks found in [-32, 32]: an estimate, never used for certificates.

    Attributes:
        breakpoints: order -1 or 0, ascending, each with its jump.
        function: φ in float64.
    """

    breakpoints: tuple[Breakpoint, ...]
    function: Callable[[Tensor], Tensor]

    @cached_property
    def affine_pieces(self) -> tuple[tuple[float, float], ...] | None:
        """(c0, c1) of φ between breakpoints, checked at points up to ±96; None when φ is not piecewise affine."""
        ends = (-_FAR, *(b.position for b in self.breakpoints), _FAR)
        shares = torch.tensor([0.01, 0.99, 0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
        pieces = []
        for low, high in pairwise(ends):
            z = low + (high - low) * shares
            with torch.no_grad():
                value = self.function(z)
            slope = (value[1] - value[0]) / (z[1] - z[0])
            line = value[0] + slope * (z - z[0])
            if not torch.allclose(value, line, rtol=1e-9, atol=1e-9):
                return None
            pieces.append((float(value[0] - slope * z[0]), float(slope)))
        return tuple(pieces)

    def mollified_slope(self, sigma: float) -> Callable[[Tensor], Tensor]:
        """Derivative of E φ(z + σu), u standard normal: in closed form, or from a table of 16 points in σ over ±64."""
        if self.affine_pieces is not None:
            positions = tuple(b.position for b in self.breakpoints)
            return GaussianPolynomial.of(positions, self.affine_pieces, sigma).derivative
        step = max(sigma / _PER_SIGMA, 2 * _TABLE / _MOST)
        reach = math.ceil(9 * sigma / step)
        offsets = step * torch.arange(-reach, reach + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        weights = -offsets / sigma**2 * weights / weights.sum()
        count = math.ceil(2 * _TABLE / step) + 1
        period = 2 ** math.ceil(math.log2(count + 2 * reach))
        with torch.no_grad():
            values = self.function(step * torch.arange(-reach, count + reach, dtype=torch.float64) - _TABLE)
            product = torch.fft.rfft(values.nan_to_num(0), period) * torch.fft.rfft(weights, period)
            table = torch.fft.irfft(product, period)[2 * reach : count + 2 * reach]

        def read(z: Tensor) -> Tensor:
            position = ((z.detach() + _TABLE) / step).nan_to_num(0).clamp(0, count - 1)
            index = position.long().clamp_max(count - 2)
            known = table.to(z)
            slope: Tensor = known[index].lerp(known[index + 1], position - index)
            return slope

        return read

    def slope(self, z: Tensor) -> Tensor:
        """φ' from differences of values, since a foreign backward pass may lie; 0 next to a breakpoint."""
        with torch.no_grad():
            z64 = z.detach().double()
            slope = (self.function(z64 + _STEP) - self.function(z64 - _STEP)) / (2 * _STEP)
            for b in self.breakpoints:
                slope = slope.masked_fill((z64 - b.position).abs() <= 2 * _STEP, 0)
        return slope.to(z.dtype)


_cache: weakref.WeakKeyDictionary[nn.Module, Probed | None] = weakref.WeakKeyDictionary()


def probe_module(module: nn.Module) -> Probed | None:
    """Probe a foreign leaf module without parameters; None when it is affine or not elementwise.

    >>> class Sign(nn.Module):
    ...     def forward(self, z):
    ...         return z.sign()
    >>> [(b.order, b.jump) for b in probe_module(Sign()).breakpoints]
    [(-1, 2.0)]
    """
    if isinstance(module, Activation) or type(module).__module__.startswith("torch."):
        return None  # an activation of these is recognised by its type
    if module._modules or module._parameters or module._buffers:
        return None
    if module not in _cache:
        _cache[module] = _probe(module)
    return _cache[module]


def _probe(module: nn.Module) -> Probed | None:
    try:
        forward = frozen_elementwise(module).forward  # past hooks; the module's own counters stay as they are
    except (TypeError, RuntimeError):  # a module that mixes elements, or that cannot be copied
        return None

    def function(z: Tensor) -> Tensor:
        value: Tensor = forward(z.clone())
        return value

    with torch.no_grad():
        rise = function(torch.linspace(-3.1, 2.9, 61, dtype=torch.float64)).diff()
    if torch.allclose(rise, rise[:1].expand_as(rise), rtol=1e-9, atol=1e-12):
        return None  # affine: a normalisation of the inputs, say
    found = (_breakpoint(function, position) for position in probe_breakpoints(function))
    return Probed(tuple(b for b in found if b is not None), function)


def _breakpoint(function: Callable[[Tensor], Tensor], position: float) -> Breakpoint | None:
    """The roughest jump at a position, from values on both sides."""
    sides = position + torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64) * _STEP * max(1.0, abs(position))
    with torch.no_grad():
        far_left, left, right, far_right = function(sides).tolist()
    value_jump = (2 * right - far_right) - (2 * left - far_left)  # both sides extrapolated to the position
    width = float(sides[1] - sides[0])
    slope_jump = (far_right - right) / width - (left - far_left) / width
    if abs(value_jump) > _REAL:
        return Breakpoint(position, -1, value_jump)
    return Breakpoint(position, 0, slope_jump) if abs(slope_jump) > _REAL else None
