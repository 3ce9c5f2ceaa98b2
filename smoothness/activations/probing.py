"""Where does an unknown elementwise function jump, or bend sharply?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smoothness.activations.mollification.quadrature import nth_derivative

Function = Callable[[Tensor], Tensor]

PROBED = 32.0  # breakpoints are looked for in [-32, 32]
_CELLS = 4099
_ROUNDS = 4  # a cell may hold more than one breakpoint
_FELT = 1e-8  # a change between neighbouring floats that counts as a jump, relative to 1 + |value|
_SHARP = 1e-5  # a change over 1e-9 that does: |z|^1.5 has no jump, but a slope of infinite slope
_MARGIN = 1e-12  # kept from known breakpoints while looking for more
_APART = 2e-9  # two breakpoints closer than this are one
_SPACING = 1e-6  # of the differences that stand in for autograd
_BENT = 1e-3  # a change of slope over 4 spacings that counts as a kink


def probe_breakpoints(function: Function) -> tuple[float, ...]:
    """Positions in [-32, 32] where φ, φ' or φ'' jumps, by bisection in float64, ascending.

    Each cell of a grid is halved towards its larger change until it is as narrow as rounding; what still
    changes there is a jump. Derivatives come from autograd; where there is no graph, kinks come from
    differences and jumps of φ'' are not looked for. Of several breakpoints within 1/64 some may be missed.

    >>> [round(t, 9) for t in probe_breakpoints(lambda z: (z - 0.1).abs())]
    [0.1]
    """
    found: list[float] = []
    _search(function, found)
    if _has_graph(function):
        for order in (1, 2):
            _search(lambda z, order=order: nth_derivative(function, z, order), found)  # type: ignore[misc]
    else:
        _search_kinks(function, found)
    return tuple(found)


def _search(quantity: Function, found: list[float]) -> None:
    """Add the positions at which the quantity jumps."""
    for _ in range(_ROUNDS):
        low, high = _bisect(quantity, *_cells(found, _MARGIN), halvings=24)  # down to a width of 1e-9
        sharp = _change(quantity, low, high) > _SHARP
        low, high = _bisect(quantity, low, high, halvings=46)
        if not _add(low[sharp | (_change(quantity, low, high) > _FELT)], found, _APART):
            return


def _change(quantity: Function, low: Tensor, high: Tensor) -> Tensor:
    """Change from low to high, relative to 1 + the smaller value."""
    left, right = _values(quantity, low), _values(quantity, high)
    return (right - left).abs() / (1 + torch.minimum(left.abs(), right.abs()))


def _search_kinks(function: Function, found: list[float]) -> None:
    """Add the positions of kinks, each where the tangents of its two sides meet."""
    h = _SPACING

    def slope(z: Tensor) -> Tensor:
        return (function(z + h) - function(z - h)) / (2 * h)

    for _ in range(_ROUNDS):
        low, high = _bisect(slope, *_cells(found, 8 * h), halvings=13)
        low, high = low - h, high + h
        left = (_values(function, low) - _values(function, low - h)) / h
        right = (_values(function, high + h) - _values(function, high)) / h
        bent = (right - left).abs() > _BENT * (1 + torch.minimum(left.abs(), right.abs()))
        low, high, left, right = low[bent], high[bent], left[bent], right[bent]
        rise = _values(function, high) - _values(function, low)
        meeting = low + (right * (high - low) - rise) / (right - left)
        if not _add(torch.minimum(torch.maximum(meeting, low), high), found, 8 * h):
            return


def _cells(found: list[float], margin: float) -> tuple[Tensor, Tensor]:
    """Both ends of the cells between grid points, less a margin around each breakpoint found so far."""
    grid = torch.linspace(-PROBED - 0.00137, PROBED + 0.00291, _CELLS + 1, dtype=torch.float64)
    points, order = torch.cat([grid, grid.new_tensor(found)]).sort()
    margins = margin * (1 + points.abs()) * (order > _CELLS)
    low, high = points[:-1] + margins[:-1], points[1:] - margins[1:]
    return low[low < high], high[low < high]


def _bisect(quantity: Function, low: Tensor, high: Tensor, halvings: int) -> tuple[Tensor, Tensor]:
    left, right = _values(quantity, low), _values(quantity, high)
    for _ in range(halvings):
        middle = low + (high - low) / 2
        value = _values(quantity, middle)
        go_left = (value - left).abs() >= (right - value).abs()
        low, high = torch.where(go_left, low, middle), torch.where(go_left, middle, high)
        left, right = torch.where(go_left, left, value), torch.where(go_left, value, right)
    return low, high


def _add(positions: Tensor, found: list[float], apart: float) -> bool:
    """Insert the new positions in order; whether there were any."""
    before = len(found)
    for t in positions.tolist():
        if all(abs(t - other) > apart * (1 + abs(t)) / 2 for other in found):
            found.append(t)
    found.sort()
    return len(found) > before


def _values(quantity: Function, z: Tensor) -> Tensor:
    """The quantity, huge where it is not finite: a pole is a breakpoint too."""
    with torch.no_grad():
        return quantity(z).nan_to_num(nan=1e150, posinf=1e150, neginf=-1e150)


def _has_graph(function: Function) -> bool:
    with torch.enable_grad():
        return function(torch.full((3,), 0.4142, dtype=torch.float64, requires_grad=True)).grad_fn is not None
