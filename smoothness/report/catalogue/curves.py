"""Points of φ, φ′ and φ″ of a family's activations, piece by piece between their breakpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothness.activations.facts import Breakpoint
from smoothness.activations.probing import probe_breakpoints
from smoothness.report.catalogue.entries import Entry

Array = npt.NDArray[np.float64]
Function = Callable[[Tensor], Tensor]

OTHERS = (0.5, -1.0, 1.0)  # the inputs that stay where they are while the first one of several varies
_POINTS = 601
_SPACING = 1e-5  # of the differences for derivatives
_HAIR = 1e-9  # one-sided limits are taken this far inside a piece
_FELT = 1e-6  # far below what a figure resolves
_LEAP = 1e-3  # visible
_SPAN = 3.0


@dataclass(frozen=True)
class Curve:
    """What is drawn of one activation, or of several that are the same function.

    Attributes:
        names: the activations.
        breaks: breakpoints within the figure.
        taken: φ at each of them.
        z: points of each piece between breakpoints.
        levels: φ, φ′ and φ″ at these points.
    """

    names: tuple[str, ...]
    breaks: tuple[Breakpoint, ...]
    taken: tuple[float, ...]
    z: tuple[Array, ...]
    levels: tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]

    @property
    def label(self) -> str:
        """The names of one function."""
        return " = ".join(self.names)


def family_curves(members: list[Entry]) -> tuple[list[Curve], tuple[float, float]]:
    """The curves of a family and the stretch of z they are drawn on; equal functions share a curve."""
    described = [_describe(entry) for entry in members]
    span = _stretch([b for _, _, breaks, _ in described for b in breaks], [e.facts.period for e in members])
    curves: list[Curve] = []
    for entry, (function, slope, breaks, half) in zip(members, described, strict=True):
        new = _curve(entry.name, function, slope, _repeat(breaks, entry.facts.period, span), span, half)
        for i, old in enumerate(curves):
            if _same(old, new):
                curves[i] = Curve((*old.names, entry.name), old.breaks, old.taken, old.z, old.levels)
                break
        else:
            curves.append(new)
    return curves, span


def first_output(entry: Entry) -> Function:
    """The first output of an activation of several features as its first input varies."""

    def function(z: Tensor) -> Tensor:
        fixed = z.new_tensor(OTHERS).expand(len(z), -1)
        return entry.module(torch.cat([z[:, None], fixed], dim=1))[:, 0]  # type: ignore[no-any-return]

    return function


def _describe(entry: Entry) -> tuple[Function, Function, tuple[Breakpoint, ...], float]:
    """φ, φ′, breakpoints and how far from the edges of a piece differences are taken."""
    facts = entry.facts
    if facts.function is not None and facts.derivative is not None:
        return facts.function, facts.derivative, facts.breakpoints, _HAIR
    function = first_output(entry)

    def slope(z: Tensor) -> Tensor:
        return (function(z + _SPACING) - function(z - _SPACING)) / (2 * _SPACING)

    # Classified by one-sided values and slopes: no facts of one variable exist here.
    breaks = []
    for t in probe_breakpoints(function):
        sides = torch.tensor([t - 2 * _SPACING, t + 2 * _SPACING], dtype=torch.float64)
        (left, right), (before, after) = function(sides).tolist(), slope(sides).tolist()
        jumps = abs(right - left) > 100 * _SPACING
        breaks.append(Breakpoint(t, -1, right - left) if jumps else Breakpoint(t, 0, after - before))
    return function, slope, tuple(breaks), 2 * _SPACING


def _stretch(breaks: list[Breakpoint], periods: list[float | None]) -> tuple[float, float]:
    """From -3 to 3, or as far as it takes to show every breakpoint and a whole period; less where all is within."""
    positions = [b.position for b in breaks]
    if breaks and all(b.order == -1 for b in breaks) and max(map(abs, positions)) < 1:
        reach = 1.5  # steps: nothing happens further out
    else:
        reach = max([_SPAN, *(0.55 * p for p in periods if p is not None)])
    return min([-reach, *(1.25 * p for p in positions)]), max([reach, *(1.25 * p for p in positions)])


def _repeat(breaks: tuple[Breakpoint, ...], period: float | None, span: tuple[float, float]) -> tuple[Breakpoint, ...]:
    """Every breakpoint in the stretch: those of one period are known of a periodic φ."""
    shifts = [0.0]
    if period is not None:
        shifts = [n * period for n in range(int(span[0] // period), int(span[1] // period) + 1)]
    found = [Breakpoint(b.position + shift, b.order, b.jump) for shift in shifts for b in breaks]
    return tuple(b for b in found if span[0] < b.position < span[1])


def _curve(
    name: str,
    function: Function,
    slope: Function,
    breaks: tuple[Breakpoint, ...],
    span: tuple[float, float],
    hair: float,
) -> Curve:
    edges = [span[0], *(b.position for b in breaks), span[1]]
    places: list[Array] = []
    levels: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for low, high in pairwise(edges):
        count = max(5, round(_POINTS * (high - low) / (span[1] - span[0])))
        z = torch.linspace(low, high, count, dtype=torch.float64)
        inside = z.clamp(low + hair, high - hair)
        h = min(_SPACING, (high - low) / 8)
        near = z.clamp(low + hair + h, high - hair - h)
        places.append(z.numpy())
        with torch.no_grad():
            bend = (slope(near + h) - slope(near - h)) / (2 * h)
            for level, y in zip(levels, (function(inside), slope(inside), bend), strict=True):
                level.append(y.detach().numpy())
    at = torch.tensor([_exact(b.position) for b in breaks], dtype=torch.float64)
    taken = tuple(function(at).tolist()) if breaks else ()
    value, first, second = (tuple(level) for level in levels)
    return Curve((name,), breaks, taken, tuple(places), (value, first, second))


def _exact(position: float) -> float:
    """The round number that a position was meant as, when it is the next float: where a figure reads φ."""
    nearest = round(position, 9)
    return nearest if abs(nearest - position) < 1e-14 else position


def _same(one: Curve, other: Curve) -> bool:
    if [(b.order, b.position) for b in one.breaks] != [(b.order, b.position) for b in other.breaks]:
        return False
    pieces = zip(one.levels[0], other.levels[0], strict=True)
    return all(bool(np.allclose(a, b, rtol=0, atol=_FELT)) for a, b in pieces)


def joined(curve: Curve, level: int) -> tuple[Array, Array]:
    """All points of φ (level 0), φ′ (1) or φ″ (2) as one line, with NaN where it jumps: a gap."""
    z, y = [curve.z[0]], [curve.levels[level][0]]
    for i, right in enumerate(curve.levels[level][1:]):
        if _gap(curve, level, i):
            z.append(np.array([curve.breaks[i].position]))
            y.append(np.array([np.nan]))
        z.append(curve.z[i + 1])
        y.append(right)
    return np.concatenate(z), np.concatenate(y)


def _gap(curve: Curve, level: int, index: int) -> bool:
    """Whether φ, φ′ or φ″ jumps at a breakpoint: φ′ of a step is 0 on both sides."""
    left, right = curve.levels[level][index][-1], curve.levels[level][index + 1][0]
    return curve.breaks[index].order < level and bool(abs(left - right) > _LEAP)


def ends(curve: Curve, level: int) -> list[tuple[float, float, bool]]:
    """Ends of pieces where φ, φ′ or φ″ jumps: (z, y, whether φ takes that value; never for its derivatives)."""
    marks = []
    for i, (left, right) in enumerate(pairwise(curve.levels[level])):
        if _gap(curve, level, i):
            for y in (float(left[-1]), float(right[0])):
                closed = level == 0 and abs(y - curve.taken[i]) < _LEAP
                marks.append((curve.breaks[i].position, y, closed))
    return marks
