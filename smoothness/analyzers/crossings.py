"""Where along segments does any unit pass a breakpoint, in any network made of modules?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smoothness.analyzers.double import DoubleModel
from smoothness.analyzers.unit_states import watching

# A grid cell of 1/64 is halved down to 2^-46, some 60 float64 spacings at t = 1.
_WIDTH = 2.0**-46
_HELD_NUMBERS = 2**24
_FORWARD: Any = forward_ad  # its functions are untyped
_At = Callable[[Tensor, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Crossings:
    """Cells about 2^-46 wide at whose ends some unit's state differs, sorted by segment and t, and the units.

    Attributes:
        segment, left, right: (cells,).
        cell, layer, unit: (rows,) each unit that changes state in a cell; sorted by cell, layer and unit.
        layers: name of each watched call of a module, in order.
        orders: order of the roughest breakpoint of each.
    """

    segment: Tensor
    left: Tensor
    right: Tensor
    cell: Tensor
    layer: Tensor
    unit: Tensor
    layers: tuple[str, ...]
    orders: tuple[float, ...]


def find_crossings(double: DoubleModel, starts: Tensor, directions: Tensor, *, grid: int) -> Crossings:
    """Halve every cell at whose ends some unit's state differs, all segments and all units together.

    A unit that crosses and returns within one cell of the grid is not seen.

    Args:
        double: the model.
        starts: (s, *input_shape) float64, t = 0.
        directions: the same shape; points are starts + t · directions, t in [0, 1].
        grid: cells of each segment at the start.
    """
    count = len(starts)
    parts: list[Crossings] = []
    done, size = 0, 1
    with watching(double.module) as states, torch.no_grad():

        def at(segment: Tensor, t: Tensor) -> Tensor | None:
            run(double, point(starts, directions, segment, t))
            return states.take()

        while done < count:
            rows = torch.arange(done, min(done + size, count), device=starts.device)
            t = torch.linspace(0, 1, grid + 1, dtype=torch.float64, device=starts.device)
            first = at(rows.repeat_interleave(grid + 1), t.repeat(len(rows)))
            if first is None:
                return _none(starts)
            width = first.shape[1]
            table = first.view(len(rows), grid + 1, width)
            differ = (table[:, 1:] != table[:, :-1]).any(dim=2)
            row, cell = differ.nonzero(as_tuple=True)
            sizes = tuple(states.sizes)
            for some in torch.split(torch.arange(len(row)), max(1, _HELD_NUMBERS // (4 * width))):
                r, c = row[some], cell[some]
                parts.append(_halve(at, rows[r], t[c], t[c + 1], table[r, c], table[r, c + 1], sizes))
            layers, orders = tuple(states.layers), tuple(states.orders)
            done += len(rows)
            size = max(1, min(256, _HELD_NUMBERS // (width * (grid + 1))))
    return _join(parts, layers, orders) if parts else _none(starts)


def _halve(
    at: _At, segment: Tensor, left: Tensor, right: Tensor, before: Tensor, after: Tensor, sizes: tuple[int, ...]
) -> Crossings:
    while len(segment) and float((right - left).max()) > _WIDTH:
        middle = left + (right - left) / 2
        state = at(segment, middle)
        assert state is not None
        first, second = (before != state).any(dim=1), (state != after).any(dim=1)
        segment = torch.cat([segment[first], segment[second]])
        left, right = torch.cat([left[first], middle[second]]), torch.cat([middle[first], right[second]])
        before, after = torch.cat([before[first], state[second]]), torch.cat([state[first], after[second]])
    order = left.argsort()
    order = order[segment[order].argsort(stable=True)]
    cell, unit = (before[order] != after[order]).nonzero(as_tuple=True)
    edges = torch.tensor([0, *sizes], device=unit.device).cumsum(0)
    layer = torch.bucketize(unit, edges[1:], right=True)
    return Crossings(segment[order], left[order], right[order], cell, layer, unit - edges[layer], (), ())


def _join(parts: list[Crossings], layers: tuple[str, ...], orders: tuple[float, ...]) -> Crossings:
    first = torch.tensor([0, *(len(part.segment) for part in parts)]).cumsum(0).tolist()
    cell = torch.cat([part.cell + offset for part, offset in zip(parts, first[:-1], strict=True)])
    rest = (torch.cat([getattr(part, name) for part in parts]) for name in ("segment", "left", "right"))
    segment, left, right = rest
    layer, unit = (torch.cat([getattr(part, name) for part in parts]) for name in ("layer", "unit"))
    # Units that switch together may fall into neighbouring cells by rounding.
    fresh = torch.ones_like(segment, dtype=torch.bool)
    fresh[1:] = (segment[1:] != segment[:-1]) | (left[1:] - right[:-1] > 4 * _WIDTH)
    group, last = fresh.cumsum(0) - 1, torch.ones_like(fresh)
    last[:-1] = fresh[1:]
    return Crossings(segment[fresh], left[fresh], right[last], group[cell], layer, unit, layers, orders)


def _none(like: Tensor) -> Crossings:
    whole = torch.zeros(0, dtype=torch.int64, device=like.device)
    real = torch.zeros(0, dtype=torch.float64, device=like.device)
    return Crossings(whole, real, real, whole, whole, whole, (), ())


def point(starts: Tensor, directions: Tensor, segment: Tensor, t: Tensor) -> Tensor:
    """Return starts + t · directions, row by row."""
    return torch.addcmul(starts[segment], t.view(-1, *[1] * (starts.ndim - 1)), directions[segment])


def run(double: DoubleModel, points: Tensor) -> Tensor:
    """The outputs of a whole forward pass, without a graph."""
    with torch.no_grad():
        return double(points)


def along(double: DoubleModel, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and their derivatives along the directions, (n, outputs) each, by forward-mode differentiation.

    Raises:
        TypeError: an operation without a forward-mode derivative.
    """
    load_forward_mode()
    with torch.no_grad(), forward_ad.dual_level():
        try:
            outputs = double(_FORWARD.make_dual(points, directions))
        except (NotImplementedError, RuntimeError) as error:
            if "forward" not in str(error):
                raise
            raise TypeError(
                f"no directional derivatives: {str(error).splitlines()[0]}; SmoothnessProbe works from values alone"
            ) from error
        value, slope = _FORWARD.unpack_dual(outputs)
    return value, torch.zeros_like(value) if slope is None else slope


@cache
def load_forward_mode() -> None:
    """Let torch load its rules on first use, without the warnings of its own deprecated calls."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        _FORWARD.make_dual(torch.zeros(1), torch.zeros(1))
