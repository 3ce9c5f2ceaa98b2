"""The affine pieces of a piecewise affine network along segments, refined layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.activations.facts import ActivationFacts
from smoothness.analyzers.piecewise import AffineChain, AffineMap

# Vertices nearer than this (in t) are one vertex: 4500 float64 spacings at t = 1.
MERGE = 1e-12
# Float64 rounding of one affine map, in units of |row| · |x|, with a safety factor of 16.
ROUNDING = 16 * torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny
# A pre-activation is continuous at a vertex when its limits agree to this share of |row| · |x|.
CONTINUOUS = 1e-9


@dataclass(frozen=True, eq=False)
class Switches:
    """Units that change their affine piece at the vertices of a batch of segments.

    Attributes:
        segment, position, layer, unit: (k,) each, sorted by segment, position, layer and unit.
        value_jump, jump: (k, outputs) right minus left limit of f and of df/dt at the unit's vertex.
        value_floor, floor: (segments,) size below which a jump of f, or of df/dt, is rounding.
        pieces: number of pieces traced, over all segments.
        held: largest number of features held at once for each piece; 0 where it was not counted.
    """

    segment: Tensor
    position: Tensor
    layer: Tensor
    unit: Tensor
    value_jump: Tensor
    jump: Tensor
    value_floor: Tensor
    floor: Tensor
    pieces: int
    held: int = 0


@dataclass(eq=False)
class Pieces:
    """Pieces sorted by segment and t: features h(t) = value + (t - left) · tangent inside each one.

    `value` is the limit from the right at the piece's left end; the limit from the left at its right end
    follows from the same formula, so a value jump is never interpolated across.
    """

    segment: Tensor  # (p,)
    left: Tensor  # (p,) in t; exactly 0 on the first piece of a segment and nowhere else
    value: Tensor  # (p, width)
    tangent: Tensor  # (p, width)
    stepped: Tensor | None  # (p,) features may jump at the left end; None: no step so far
    value_noise: Tensor  # (segments,) size of the rounding noise in value and in tangent
    tangent_noise: Tensor

    def lengths(self) -> Tensor:
        """(p,) length of each piece in t."""
        right = self.left.roll(-1)
        return torch.where(right == 0, 1.0, right) - self.left

    def map(self, affine: AffineMap) -> Tensor:
        """Apply an affine map; returns (p,) bounds of |W h + b| in any unit, from the row norms of W."""
        norms = affine.row_norms()
        gain, offset = norms.max(), affine.bias.abs().max()
        size: Tensor = gain * torch.linalg.vector_norm(self.value, dim=1) + offset
        speed = gain * torch.linalg.vector_norm(self.tangent, dim=1)
        # Noise is independent across units: W lengthens it by |W|_F / √in, not by its spectral norm.
        spread = torch.linalg.vector_norm(norms) / affine.weight.shape[-1] ** 0.5
        fresh = ROUNDING * len(norms) ** 0.5
        self.value_noise = spread * self.value_noise + fresh * self._largest(size)
        self.tangent_noise = spread * self.tangent_noise + fresh * self._largest(speed)
        self.value, self.tangent = affine.value(self.value), affine.tangent(self.tangent)
        return size

    def speed(self) -> Tensor:
        """(segments,) length of the longest tangent of each segment."""
        return self._largest(torch.linalg.vector_norm(self.tangent, dim=1))

    def _largest(self, sizes: Tensor) -> Tensor:
        return self.value_noise.new_zeros(self.value_noise.shape).scatter_reduce(0, self.segment, sizes, "amax")


def trace_switches(chain: AffineChain, starts: Tensor, directions: Tensor) -> Switches:
    """Every switch of every unit on the segments starts + t · directions, t in (0, 1)."""
    count = len(starts)
    zeros = torch.zeros(count, dtype=starts.dtype, device=starts.device)
    segment = torch.arange(count, device=starts.device)
    pieces = Pieces(segment, zeros, starts, directions, None, zeros, zeros)
    vertices: list[Tensor] = []
    units: list[Tensor] = []
    for group, facts in zip(chain.maps[:-1], chain.activations, strict=True):
        size = torch.linalg.vector_norm(pieces.value, dim=1)
        for affine in group:
            size = pieces.map(affine)
        kept, vertex, unit = activate(pieces, facts, size)
        vertices = [kept[earlier] for earlier in vertices] + [vertex]
        units.append(unit)
    for affine in chain.maps[-1]:
        pieces.map(affine)
    return switches_of(pieces, vertices, units)


def activate(pieces: Pieces, facts: ActivationFacts, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Refine the pieces where pre-activations cross a breakpoint of φ, then apply φ.

    Returns the new index of each old piece, and the (vertex, unit) pairs that switch; a vertex is named by
    the piece to its right.
    """
    knots = pieces.value.new_tensor([b.position for b in facts.breakpoints])
    speed = pieces.speed()
    kept, parent = _refine(pieces, knots, size)
    size, lengths = size[parent], pieces.lengths()
    middle = torch.addcmul(pieces.value, lengths[:, None] / 2, pieces.tangent)
    farthest = max((abs(b.position) for b in facts.breakpoints), default=0.0)
    # Rounding must not lift a unit that rests on its knot; where nothing moves, z is as in the forward pass.
    blur = torch.where(speed[pieces.segment] > 0, ROUNDING / 4 * (size + farthest), 0.0)
    index = _piece_of(middle, knots, blur[:, None])
    changed = index[1:] != index[:-1]
    changed[(pieces.left[1:] == 0).nonzero().flatten()] = False
    vertex, unit = marked(changed)
    vertex = vertex + 1
    stepped = pieces.stepped
    if facts.smoothness_class == -1:
        # Consequences of an upstream jump need no mark of their own: their vertex has one.
        stepped = torch.zeros_like(pieces.left, dtype=torch.bool) if stepped is None else stepped.clone()
        stepped[vertex] = True
    if pieces.stepped is not None:
        own = is_own(pieces, lengths, size, vertex, unit)
        vertex, unit = vertex[own], unit[own]
    pieces.stepped = stepped
    _apply(pieces, facts, index)
    # An activation thins out noise as it thins out the tangents; values keep theirs, up to the slope.
    pieces.tangent_noise = pieces.tangent_noise * (pieces.speed() / speed.clamp_min(TINY))
    pieces.value_noise = pieces.value_noise * max(abs(facts.slope_min), abs(facts.slope_max))
    return kept, vertex, unit


def _refine(pieces: Pieces, knots: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Insert a vertex wherever a pre-activation passes a knot inside a piece.

    Crossings at a vertex, up to rounding, are left to the comparison of the pieces beside it.
    Returns the new index of each old piece, and the old piece of each new one.
    """
    lengths = pieces.lengths()
    row, unit, knot = _crossings(pieces, lengths, knots)
    value, tangent, length = pieces.value[row, unit], pieces.tangent[row, unit], lengths[row]
    offset = (knot - value) / tangent
    blur = ROUNDING * (size[row] + knot.abs())
    inside = (offset > MERGE) & (length - offset > MERGE)
    inside &= ((value - knot).abs() > blur) & ((value + length * tangent - knot).abs() > blur)
    row, unit, knot, offset = row[inside], unit[inside], knot[inside], offset[inside]
    kept, parent, place = insert_vertices(pieces, row, offset)
    pieces.value[place, unit] = knot
    return kept, parent


def insert_vertices(pieces: Pieces, row: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the pieces `row` at `offset` from their left ends; cuts within 1e-12 are one.

    Returns the new index of each old piece, the old piece of each new one, and the new piece right of each cut.
    """
    position = pieces.left[row] + offset
    order = position.argsort()
    order = order[row[order].argsort(stable=True)]
    sorted_row, position = row[order], position[order]
    fresh = torch.ones_like(row, dtype=torch.bool)
    fresh[1:] = (sorted_row[1:] != sorted_row[:-1]) | (position[1:] - position[:-1] > MERGE)
    host, position = sorted_row[fresh], position[fresh]

    old = torch.arange(len(pieces.left), device=row.device)
    added = torch.bincount(host, minlength=len(old))
    kept = old + added.cumsum(0) - added
    place = host + torch.arange(1, len(host) + 1, device=row.device)
    parent = old.repeat_interleave(added + 1)
    left = pieces.left[parent]
    shift = torch.zeros_like(left)
    shift[place] = position - left[place]
    left[place] = position
    pieces.tangent = pieces.tangent.index_select(0, parent)
    pieces.value = pieces.value.index_select(0, parent).addcmul_(shift[:, None], pieces.tangent)
    if pieces.stepped is not None:
        stepped = torch.zeros_like(left, dtype=torch.bool)
        stepped[kept] = pieces.stepped
        pieces.stepped = stepped
    pieces.left, pieces.segment = left, pieces.segment[parent]
    cut = torch.empty_like(row)
    cut[order] = place[fresh.cumsum(0) - 1]
    return kept, parent, cut


def _crossings(pieces: Pieces, lengths: Tensor, knots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(piece, unit, knot) wherever a pre-activation's two ends lie on different sides of a knot."""
    end = torch.addcmul(pieces.value, lengths[:, None], pieces.tangent)
    before, after = _piece_of(pieces.value, knots), _piece_of(end, knots)
    row, unit = marked(before != after)
    if len(knots) == 1:
        return row, unit, knots.expand(len(row))
    lowest = torch.minimum(before, after)[row, unit]
    passed = (after - before)[row, unit].abs()
    first = passed.cumsum(0) - passed
    step = torch.arange(int(passed.sum()), device=row.device) - first.repeat_interleave(passed)
    knot = knots[lowest.repeat_interleave(passed) + step]
    return row.repeat_interleave(passed), unit.repeat_interleave(passed), knot


def _piece_of(z: Tensor, knots: Tensor, blur: Tensor | float = 0.0) -> Tensor:
    """Index of φ's piece: the number of knots below z. At a knot (up to blur), the piece to its left."""
    return z > knots + blur if len(knots) == 1 else torch.bucketize(z - blur, knots)


def marked(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(row, unit) of the entries that are set."""
    if mask.shape[1] % 8:
        row, unit = mask.nonzero(as_tuple=True)
        return row, unit
    # Few entries are set: read eight at a time first, which is several times faster.
    row, word = mask.view(torch.int64).nonzero(as_tuple=True)
    hit, byte = mask.view(len(mask), mask.shape[1] // 8, 8)[row, word].nonzero(as_tuple=True)
    return row[hit], word[hit] * 8 + byte


def is_own(pieces: Pieces, lengths: Tensor, size: Tensor, vertex: Tensor, unit: Tensor) -> Tensor:
    """Whether each switching unit's own pre-activation is continuous at the vertex.

    Where it jumps with the features, its switch is a consequence, contained in the vertex's value jump.
    """
    assert pieces.stepped is not None
    before = vertex - 1
    limit = pieces.value[before, unit] + lengths[before] * pieces.tangent[before, unit]
    gap = (pieces.value[vertex, unit] - limit).abs()
    return ~pieces.stepped[vertex] | (gap <= CONTINUOUS * torch.maximum(size[vertex], size[before]))


def _apply(pieces: Pieces, facts: ActivationFacts, index: Tensor) -> None:
    """φ on every piece: slope · z + intercept, and the tangent by the slope."""
    table = facts.affine_pieces
    assert table is not None
    slopes = pieces.value.new_tensor([slope for slope, _ in table])
    intercepts = pieces.value.new_tensor([intercept for _, intercept in table])
    if table == ((0.0, 0.0), (1.0, 0.0)):
        slope = index.to(slopes.dtype)
    elif index.dtype == torch.bool:
        slope = torch.where(index, slopes[1], slopes[0])
    else:
        slope = slopes[index]
    pieces.value.mul_(slope)
    pieces.tangent.mul_(slope)
    if intercepts.any():
        pieces.value.add_(torch.where(index, intercepts[1], intercepts[0]) if len(table) == 2 else intercepts[index])


def switches_of(pieces: Pieces, vertices: Sequence[Tensor], units: Sequence[Tensor]) -> Switches:
    """The table of the switches, with the jumps read off the final pieces beside each vertex."""
    vertex, unit = torch.cat(list(vertices)), torch.cat(list(units))
    sizes = torch.tensor([len(v) for v in vertices], device=vertex.device)
    layer = torch.arange(len(vertices), device=vertex.device).repeat_interleave(sizes)
    order = vertex.argsort(stable=True)
    vertex, unit, layer = vertex[order], unit[order], layer[order]
    jump = pieces.tangent[vertex] - pieces.tangent[vertex - 1]
    value_jump = torch.zeros_like(jump)
    if pieces.stepped is not None:
        step = pieces.stepped[vertex].nonzero().flatten()
        right, left = vertex[step], vertex[step] - 1
        limit = pieces.value[left] + pieces.lengths()[left, None] * pieces.tangent[left]
        value_jump[step] = pieces.value[right] - limit
    return Switches(
        segment=pieces.segment[vertex],
        position=pieces.left[vertex],
        layer=layer,
        unit=unit,
        value_jump=value_jump,
        jump=jump,
        value_floor=pieces.value_noise,
        floor=pieces.tangent_noise,
        pieces=len(pieces.left),
    )
