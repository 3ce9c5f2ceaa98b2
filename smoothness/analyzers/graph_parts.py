"""Pieces of a network with branches halfway through it, and their division into parts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from smoothness.analyzers.segment_pieces import Pieces

# Where a piece is cut in two: no place where a later layer is likely to have a vertex.
_CUT = 0.4999171
Span = tuple[int, float, float]  # segment, and t from and to


@dataclass(eq=False)
class Part:
    """Pieces of some spans on their way through the graph.

    Attributes:
        spans: whose pieces are numbered by `pieces.segment`, with t in (0, 1) of each.
        done: number of steps taken.
        pieces: their places; the features are in `env`.
        env: what later steps need.
        vertices, units: of each activation and pooling so far.
    """

    spans: list[Span]
    done: int
    pieces: Pieces
    env: dict[fx.Node, Any]
    vertices: list[Tensor]
    units: list[Tensor]

    def numbers(self) -> int:
        """Live numbers of one piece."""
        return 2 * sum(dual.value[0].numel() for dual in live_duals(self.env.values()))

    def bytes(self) -> int:
        """Of all its live numbers."""
        return 8 * self.numbers() * len(self.pieces.left)


@dataclass(eq=False)
class Dual:
    """A tensor of the network on every piece: its value at the left end, and its derivative in t."""

    value: Tensor
    tangent: Tensor


def divide(part: Part, room: int) -> list[Part]:
    """Parts of at most `room` pieces: a piece where it is cut is in both, so that every vertex has both its sides."""
    count, target = len(part.pieces.left), max(1, room // 2)
    cuts = [0, *range(target, count - 1, target), count - 1]
    middles = part.pieces.left + _CUT * part.pieces.lengths()
    return [_between(part, a, b, middles) for a, b in itertools.pairwise(cuts)]


def _between(part: Part, a: int, b: int, middles: Tensor) -> Part:
    """Pieces a to b, from the middle of a to the middle of b; the first of all is whole, and so is the last."""
    pieces, rows = part.pieces, slice(a, b + 1)
    begins, ends = a > 0, b < len(pieces.left) - 1
    first, last = int(pieces.segment[a]), int(pieces.segment[b])
    low, high = middles.new_zeros(last - first + 1), middles.new_ones(last - first + 1)
    if begins:
        low[0] = middles[a]
    if ends:
        high[-1] = middles[b]
    segment, length = pieces.segment[rows] - first, high - low
    left = (pieces.left[rows] - low[segment]) / length[segment]
    left[0] = 0.0
    stepped = None if pieces.stepped is None else pieces.stepped[rows].clone()
    if stepped is not None:
        stepped[0] = False
    moved = (middles[a] - pieces.left[a]) * begins
    new: dict[int, Dual] = {}

    def cut(dual: Dual) -> Dual:
        if id(dual) not in new:
            value = dual.value[rows].clone()
            value[0] += moved * dual.tangent[a]
            new[id(dual)] = Dual(value, dual.tangent[rows] * length[segment].view(-1, *[1] * (value.ndim - 1)))
        return new[id(dual)]

    def each(value: Any) -> Any:
        if isinstance(value, tuple):
            return type(value)(map(each, value)) if not isinstance(value, torch.Size) else value
        return cut(value) if isinstance(value, Dual) else value

    inside = [(v > a) & (v <= b) for v in part.vertices]
    spans = [
        (s, start + float(lo) * (stop - start), start + float(hi) * (stop - start))
        for (s, start, stop), lo, hi in zip(part.spans[first : last + 1], low, high, strict=True)
    ]
    return Part(
        spans,
        part.done,
        Pieces(
            segment,
            left,
            left[:, None],
            left[:, None],
            stepped,
            pieces.value_noise[first : last + 1].clone(),
            pieces.tangent_noise[first : last + 1] * length,
        ),
        {node: each(value) for node, value in part.env.items()},
        [v[keep] - a for v, keep in zip(part.vertices, inside, strict=True)],
        [u[keep] for u, keep in zip(part.units, inside, strict=True)],
    )


def live_duals(values: Any) -> list[Dual]:
    """Each once, also of those in tuples."""
    out: dict[int, Dual] = {}
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Dual):
                out[id(part)] = part
    return list(out.values())
