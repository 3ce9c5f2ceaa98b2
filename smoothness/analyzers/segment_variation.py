"""How much do the value and the gradient of a model vary along segments, in jumps and in between?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness.analyzers import chebyshev
from smoothness.analyzers.crossings import Crossings, along, find_crossings, point
from smoothness.analyzers.double import DoubleModel, double_model, in_double
from smoothness.analyzers.kinks import kinks_on_segments
from smoothness.analyzers.segments import check_segments

# A panel is resolved when its last coefficients fall below this share of the largest slope on its segment.
_RESOLVED = 1e-10
_HALVINGS = 14
# Vertices of piecewise affine networks are known to 1e-12.
_BESIDE = 2e-12
# Coefficients below this share of it are rounding.
_FLAT = 1e-13
# Changes of the value that are rounding, as a share of the largest value on the segment.
_ROUNDING = 1e-12
_HELD_NUMBERS = 2**22


@dataclass(frozen=True, eq=False)
class SegmentVariation:
    """Parts of the variation of g(t) = model(start + t · (end - start)), t in [0, 1], one row a segment.

    Attributes:
        value_jumps: Σ |g(t+) - g(t-)|.
        value_slopes: ∫ |g'| dt between the jumps.
        slope_jumps: Σ |g'(t+) - g'(t-)|.
        slope_curvature: ∫ |g''| dt between the kinks.
        unresolved: share of [0, 1] in panels where g' was not resolved: a kink that no watched module explains.
        closure: |g(1) - g(0) - ∫ g' - Σ jumps| over the largest |g|: what the parts leave unexplained.
        pieces: number of smooth pieces.
        samples: (segment, |g''|, weight in t, local scale in t) at points between the kinks, for `concentration`.
    """

    value_jumps: Tensor
    value_slopes: Tensor
    slope_jumps: Tensor
    slope_curvature: Tensor
    unresolved: Tensor
    closure: Tensor
    pieces: Tensor
    samples: tuple[Tensor, Tensor, Tensor, Tensor]

    def concentration(self, scales: Tensor) -> Tensor:
        """(segments, scales) share of the variation of g' at points of local scale below h (in t); NaN if none."""
        segment, density, weight, width = self.samples
        bent = torch.zeros(len(self.slope_jumps), len(scales), dtype=torch.float64)
        bent.index_add_(0, segment, (density * weight)[:, None] * (width[:, None] < scales))
        whole = self.slope_jumps + torch.zeros_like(self.slope_jumps).index_add_(0, segment, density * weight)
        return (self.slope_jumps[:, None] + bent) / whole[:, None]


def variation_on_segments(
    model: nn.Module,
    starts: Tensor,
    ends: Tensor,
    *,
    of: str = "logits",
    weights: Tensor | None = None,
    grid: int = 64,
) -> SegmentVariation:
    """Total variation of the outputs and of their directional derivative along segments.

    Every segment is cut where a unit passes a breakpoint of its activation: exactly for piecewise affine networks,
    else by bisection on the units' states. In between, g' is interpolated by Chebyshev panels, halved until resolved.
    The variation of g' is

        Σ |g'(t+) - g'(t-)|  +  ∫ |g''| dt

    with l2 norms over several outputs. The local scale of a point is 0 at a kink, and elsewhere the length of the
    interval around it on which |g''| stays above half its value there; `concentration(h)` is the share of the
    variation at points whose local scale is below h. Computed in float64; g' by forward-mode differentiation.

    Args:
        model: any module; its breakpoints are those of activation modules with known facts and of max pooling.
        starts: (s, *input_shape), t = 0.
        ends: the same shape, t = 1.
        of: "logits", or "layer:NAME" for the flat output of a module inside.
        weights: (s, outputs) linear functional of the outputs on each segment; None for all of them.
        grid: cells of each segment at the start of a bisection; a unit that crosses and returns within one is missed.

    Raises:
        TypeError: a model that cannot be copied to float64, or an operation without a forward-mode derivative.
        ValueError: bad segments, an unknown layer, outputs that are NaN or infinite.

    >>> kink = variation_on_segments(nn.ReLU(), torch.tensor([[-1.0]]), torch.tensor([[3.0]]))
    >>> float(kink.slope_jumps), float(kink.slope_curvature), round(float(kink.value_slopes), 9)
    (4.0, 0.0, 3.0)
    """
    check_count("grid", grid)
    check_segments(starts, ends)
    double = double_model(model, starts, of=of)
    first = in_double(double, starts)
    steps = in_double(double, ends) - first
    with torch.no_grad():
        vertices = _exact_crossings(model, starts, ends)
        crossings = vertices or find_crossings(double, first, steps, grid=grid)
        follow = _Followed(double, first, steps, weights)
        return _parts(follow, crossings, affine=vertices is not None)


def _exact_crossings(model: nn.Module, starts: Tensor, ends: Tensor) -> Crossings | None:
    """The vertices of a piecewise affine network; None for any other."""
    try:
        table = kinks_on_segments(model, starts, ends)
    except (TypeError, ValueError):
        return None
    if table.note:
        return None
    first = torch.ones_like(table.segment, dtype=torch.bool)
    first[1:] = table.vertex[1:] != table.vertex[:-1]
    stepping = torch.zeros(len(table.layers), dtype=torch.bool)
    stepping[table.layer[(table.value_jump != 0).any(dim=1)]] = True
    place = table.position[first]
    return Crossings(
        table.segment[first],
        (place - _BESIDE).clamp_min(0),
        (place + _BESIDE).clamp_max(1),
        table.vertex,
        table.layer,
        table.unit,
        table.layers,
        tuple(-1.0 if step else 0.0 for step in stepping.tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Followed:
    """g and g' at points of the segments, chunked."""

    double: DoubleModel
    starts: Tensor
    steps: Tensor
    weights: Tensor | None

    def at(self, segment: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if len(segment) == 0:
            some, _ = self.at(segment.new_zeros(1), t.new_zeros(1))
            return some[:0], some[:0]
        size = max(1, _HELD_NUMBERS // self.starts[0].numel())
        values, slopes = [], []
        for s, u in zip(torch.split(segment, size), torch.split(t, size), strict=True):
            value, slope = along(self.double, point(self.starts, self.steps, s, u), self.steps[s])
            if self.weights is not None:
                w = self.weights[s].to(value)
                value, slope = ((v * w).sum(dim=1, keepdim=True) for v in (value, slope))
            values.append(value)
            slopes.append(slope)
        value, slope = torch.cat(values), torch.cat(slopes)
        if not (value.isfinite().all() and slope.isfinite().all()):
            raise ValueError("the model's outputs or derivatives are NaN or infinite on a segment; repair the model")
        return value, slope


def _parts(follow: _Followed, crossings: Crossings, *, affine: bool) -> SegmentVariation:
    count, device = len(follow.starts), follow.starts.device
    every = torch.arange(count, device=device)
    zeros = torch.zeros(count, dtype=torch.float64, device=device)

    # Both ends of the segments, and both sides of every crossing.
    ends, end_slopes = follow.at(every.repeat(2), torch.cat([zeros, zeros + 1]))
    seg = crossings.segment
    # One width further: an end may lie on the breakpoint itself.
    width = crossings.right - crossings.left
    before, after = (crossings.left - width).clamp_min(0), (crossings.right + width).clamp_max(1)
    value_left, slope_left = follow.at(seg, before)
    value_right, slope_right = follow.at(seg, after)
    largest = torch.maximum(*_length(ends).view(2, -1)).scatter_reduce(0, seg, _length(value_left), "amax")
    drift = (slope_left + slope_right) / 2 * (after - before)[:, None]
    value_jump = value_right - value_left - drift
    felt = _length(value_jump) > _ROUNDING * largest[seg]
    value_jump = torch.where((_of_order(crossings, -1) & felt)[:, None], value_jump, 0.0)
    slope_jump = torch.where(_of_order(crossings, 0)[:, None], slope_right - slope_left, 0.0)

    # Smooth pieces: from the right side of a crossing to the left side of the next one.
    piece_segment, order = torch.cat([every, seg]).sort(stable=True)
    left, right = torch.cat([zeros, after])[order], torch.ones(len(order), dtype=zeros.dtype, device=device)
    follows = piece_segment[1:] == piece_segment[:-1]
    right[:-1] = torch.where(follows, torch.cat([zeros, before])[order][1:], 1.0)
    if affine:
        slope_from = torch.cat([end_slopes[:count], slope_right])[order]
        slope_to = end_slopes[count:][piece_segment]
        slope_to[:-1] = torch.where(
            follows[:, None], torch.cat([end_slopes[:count], slope_left])[order][1:], slope_to[:-1]
        )
        panels = _affine_panels(follow, piece_segment, left, right, (slope_from, slope_to))
    else:
        panels = _panels(follow, piece_segment, left, right)

    def total(segment: Tensor, sizes: Tensor) -> Tensor:
        return zeros.index_add(0, segment, sizes)

    half = (panels.right - panels.left) / 2
    integral = chebyshev.antiderivative(panels.series)
    change = (2 * integral[:, 1::2].sum(dim=1)) * half[:, None]
    start, end = ends.view(2, count, -1)
    explained = torch.zeros_like(start).index_add(0, panels.segment, change).index_add(0, seg, value_jump + drift)
    slopes, curvature = chebyshev.variation(integral) * half, chebyshev.variation(panels.series)
    return SegmentVariation(
        value_jumps=total(seg, _length(value_jump)).cpu(),
        value_slopes=total(panels.segment, slopes).cpu(),
        slope_jumps=total(seg, _length(slope_jump)).cpu(),
        slope_curvature=total(panels.segment, curvature).cpu(),
        unresolved=total(panels.segment, 2 * half * ~panels.resolved).cpu(),
        closure=(_length(end - start - explained) / largest.clamp_min(1e-300)).cpu(),
        pieces=torch.bincount(piece_segment, minlength=count).cpu(),
        samples=_samples(panels, count),
    )


def _of_order(crossings: Crossings, order: int) -> Tensor:
    """(cells,) whether a unit switches there whose activation has a breakpoint of this order, or a rougher one."""
    rough = torch.tensor(
        [worst <= order for worst in crossings.orders], dtype=torch.bool, device=crossings.cell.device
    )
    out = torch.zeros_like(crossings.left, dtype=torch.bool)
    if len(rough):
        out[crossings.cell[rough[crossings.layer]]] = True
    return out


@dataclass(frozen=True, eq=False)
class _Panels:
    segment: Tensor
    left: Tensor
    right: Tensor
    series: Tensor  # (panels, degrees, outputs) of g'
    resolved: Tensor


def _affine_panels(
    follow: _Followed, segment: Tensor, left: Tensor, right: Tensor, slopes: tuple[Tensor, Tensor]
) -> _Panels:
    """One panel a piece on which g' is constant: the slopes at its ends are known and agree, or it is interpolated."""
    size = torch.maximum(*map(_length, slopes))
    largest = torch.zeros(len(follow.starts), dtype=size.dtype, device=size.device)
    largest = largest.scatter_reduce(0, segment, size, "amax")[segment]
    alike = _length(slopes[1] - slopes[0]) <= _RESOLVED * largest
    others = _panels(follow, segment[~alike], left[~alike], right[~alike])
    series = others.series.new_zeros(int(alike.sum()), *others.series.shape[1:])
    series[:, 0] = (slopes[0] + slopes[1])[alike] / 2
    flat = _Panels(segment[alike], left[alike], right[alike], series, alike[alike])
    return _joined([flat, others])


def _joined(several: list[_Panels]) -> _Panels:
    names = ("segment", "left", "right", "series", "resolved")
    return _Panels(*(torch.cat([getattr(panels, name) for panels in several]) for name in names))


def _panels(follow: _Followed, segment: Tensor, left: Tensor, right: Tensor) -> _Panels:
    """Interpolate g' on every piece, halved where its last coefficients have not died down."""
    x = (chebyshev.nodes().to(left) + 1) / 2
    done: list[_Panels] = []
    largest = torch.zeros(len(follow.starts), dtype=torch.float64, device=left.device)
    for depth in range(_HALVINGS + 1):
        t = left[:, None] + (right - left)[:, None] * x
        _, slope = follow.at(segment.repeat_interleave(len(x)), t.flatten())
        values = slope.view(len(segment), len(x), slope.shape[1])
        series = chebyshev.coefficients(values)
        steepest = torch.linalg.vector_norm(values, dim=2).amax(dim=1)
        largest = largest.scatter_reduce(0, segment, steepest, "amax")
        tail = torch.linalg.vector_norm(series[:, -3:], dim=2).amax(dim=1)
        resolved = tail <= _RESOLVED * largest[segment]
        # Rounding is no curvature.
        felt = torch.linalg.vector_norm(series, dim=2, keepdim=True) > _FLAT * largest[segment][:, None, None]
        felt[:, 0] = True
        series = series * felt
        keep = resolved | (depth == _HALVINGS)
        done.append(_Panels(segment[keep], left[keep], right[keep], series[keep], resolved[keep]))
        segment, left, right = segment[~keep], left[~keep], right[~keep]
        if len(segment) == 0:
            break
        middle = left + (right - left) / 2
        segment, left, right = segment.repeat(2), torch.cat([left, middle]), torch.cat([middle, right])
    return _joined(done)


def _samples(panels: _Panels, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """|g''| at Gauss points, with weights in t and half-height widths: (segment, density, weight, width)."""
    x = chebyshev.gauss()[0][::4]
    bend = torch.linalg.vector_norm(chebyshev.evaluate(chebyshev.derivative(panels.series), x), dim=2)
    half = ((panels.right - panels.left) / 2)[:, None]
    position = panels.left[:, None] + half * (x.to(half) + 1)
    mass = chebyshev.variation(panels.series)[:, None]
    density = bend / half
    share = bend / bend.sum(dim=1, keepdim=True).clamp_min(1e-300)
    weight = torch.where(density > 0, mass * share / density.clamp_min(1e-300), 0.0)
    segment = panels.segment[:, None].expand_as(position)
    flat = [part.flatten() for part in (segment, position, density, weight)]
    # A wall of density 0 at both ends of every segment.
    every, nothing = torch.arange(count, device=half.device), half.new_zeros(count)
    walls = [every, nothing - 1, nothing, nothing], [every, nothing + 2, nothing, nothing]
    segment, position, density, weight = (torch.cat(parts) for parts in zip(flat, *walls, strict=True))
    order = position.argsort()
    order = order[segment[order].argsort(stable=True)]
    segment, position, density, weight = (part[order] for part in (segment, position, density, weight))
    end, start = position[_next_below(density)], position.flip(0)[_next_below(density.flip(0))].flip(0)
    width = end.clamp_max(1) - start.clamp_min(0)
    keep = density > 0
    return segment[keep].cpu(), density[keep].cpu(), weight[keep].cpu(), width[keep].cpu()


def _next_below(density: Tensor) -> Tensor:
    """Index of the first later entry below half of each entry, by doubling; the last one when there is none."""
    count = len(density)
    minima = [density]  # minima[k][i] is the least of the 2^k entries from i on
    while 2 ** len(minima) <= count:
        last, reach = minima[-1], 2 ** (len(minima) - 1)
        minima.append(torch.minimum(last[:-reach], last[reach:]))
    place = torch.arange(1, count + 1, device=density.device)
    for k in range(len(minima) - 1, -1, -1):
        fits = place <= count - 2**k
        above = minima[k][place.clamp_max(len(minima[k]) - 1)] >= density / 2
        place = torch.where(fits & above, place + 2**k, place)
    return place.clamp_max(count - 1)


def _length(vectors: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return size
