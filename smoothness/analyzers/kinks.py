"""Exact kinks and jumps of piecewise affine networks along segments."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count
from smoothness.activations.facts import ActivationFacts
from smoothness.analyzers.affine_graph import affine_graph
from smoothness.analyzers.double import DoubleModel, double_copy, in_double
from smoothness.analyzers.graph_pieces import graph_switches
from smoothness.analyzers.piecewise import AffineChain, affine_chain
from smoothness.analyzers.segment_pieces import Switches, trace_switches
from smoothness.analyzers.segments import check_segments

PieceKind = Literal["effective", "merged", "raw"]
# A merged jump below this share of the largest on its segment has no effect.
EFFECTIVE_SHARE = 1e-9
# Arrays of (pieces, width) float64 alive at once while a chunk is traced.
_LIVE_ARRAYS = 6
# A network with branches costs an overhead for each batch of pieces: it gets 256 MiB at least.
_GRAPH_BYTES = 2**28
_NO_ACTIVATION = "no kinks: the network has no activation"


@dataclass(frozen=True, eq=False)
class Kinks:
    """Where f(t) = model(start + t · (end - start)) bends or jumps, t in (0, 1): one row per switching unit.

    Rows are sorted by segment, position, layer and unit, and are float64 / int64 on the CPU. Rows with the
    same segment and position share a vertex, and each carries the vertex's whole (merged) jump.

    Attributes:
        segment: (k,) index of the segment.
        position: (k,) t of the switch; kinks at the end points are not on the open segment.
        layer: (k,) index into `layers`.
        unit: (k,) index of the unit within its layer.
        value_jump: (k, outputs) f(t+) - f(t-); exactly 0 where the activations are continuous.
        jump: (k, outputs) f'(t+) - f'(t-), the signed change of df/dt.
        effective: (k,) whether the vertex changes the function: its |jump|, or its |value_jump|, in some
            output exceeds 1e-9 of the largest of its kind on its segment and the rounding error of float64.
        layers: module name of each activation.
        segments: number of segments.
        note: why the table is empty, when no network of this kind can have a kink; "" otherwise.
    """

    segment: Tensor
    position: Tensor
    layer: Tensor
    unit: Tensor
    value_jump: Tensor
    jump: Tensor
    effective: Tensor
    layers: tuple[str, ...]
    segments: int
    note: str = ""

    def __len__(self) -> int:
        return len(self.segment)

    @property
    def vertex(self) -> Tensor:
        """(k,) number of the row's vertex: rows with equal segment and position share one."""
        return _vertex_numbers(self.segment, self.position)

    @property
    def share(self) -> Tensor:
        """(k,) 1 / number of rows at the row's vertex: with these weights no merged jump counts twice."""
        vertex = self.vertex
        return 1 / torch.bincount(vertex).to(torch.float64)[vertex]

    def piece_counts(self, kind: PieceKind = "effective") -> Tensor:
        """(segments,) number of affine pieces of each segment.

        Args:
            kind: "effective": maximal intervals on which f is affine, so vertices that change f plus 1;
                "merged": vertices plus 1, effective or not; "raw": switches plus 1, coincident ones apart.

        Raises:
            ValueError: unknown kind.
        """
        check_choice("kind", kind, get_args(PieceKind))
        if kind == "raw":
            return torch.bincount(self.segment, minlength=self.segments) + 1
        first = torch.ones_like(self.segment, dtype=torch.bool)
        first[1:] = self.vertex[1:] != self.vertex[:-1]
        if kind == "effective":
            first &= self.effective
        return torch.bincount(self.segment[first], minlength=self.segments) + 1


def kinks_on_segments(model: nn.Module, starts: Tensor, ends: Tensor, *, max_bytes: int = 2**24) -> Kinks:
    """Every kink and jump of a piecewise affine network along segments, with its size: exact.

    Along start + t · (end - start) such a network is piecewise affine in t. The list of its pieces is refined
    layer by layer, with features and tangents on each piece: wherever a pre-activation z passes a breakpoint
    β of φ inside a piece, at t = left + (β - z) / (dz/dt), a vertex is inserted. At the end

        jump = f'(t+) - f'(t-),    value_jump = f(t+) - f(t-)

    are read off the pieces beside each vertex: no finite differences, and never an interpolation across a
    step. A unit is listed at a vertex when φ's affine piece differs between both sides. A unit whose own
    pre-activation jumps there, as a step upstream switches, follows from that step: not listed by itself.
    Crossings within 1e-12 in t are one vertex.

    Computed in float64 on the model's device, on converted weights, as in evaluation mode; the model is not
    changed. Bound: exact (up to float64 rounding), for every vertex on the open segment.

    Piece counts: `Kinks.piece_counts()` counts the affine pieces of the function itself, 2^k for the sawtooth
    of depth k (Telgarsky 2015, arXiv 1509.08101). Without coincident kinks, "raw" and "merged" counts agree:
    the pieces on which the activation pattern is constant.

    Args:
        model: affine operations (linear, convolution, evaluation-mode batch norm, average pooling, residual sums,
            reshaping, ...), elementwise activations, max pooling, maxout, group sort and k winners. Sequential
            MLPs of elementwise activations take the fastest way; other networks are traced by torch.fx.
        starts: (s, *input_shape), float32 or float64, in input units.
        ends: the same shape.
        max_bytes: rough cap on the working memory of segments traced together (one segment at least); it
            changes speed, not results.

    Returns:
        `Kinks`, with jump in output per t and value_jump in output; empty, with a note, when every activation
        has a continuous slope.

    Raises:
        TypeError: another operation than the above, code that cannot be traced, or a curved activation beside a
            kinked or stepped one; `kinks_by_bisection` takes those.
        ValueError: NaN or infinite values, shapes that differ or do not fit the model, a segment of length 0,
            or outputs beyond the range of float64.

    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> _ = net[0].weight.data.fill_(2.0), net[0].bias.data.fill_(-1.0)
    >>> table = kinks_on_segments(net, torch.tensor([[0.0]]), torch.tensor([[2.0]]))
    >>> table.position, table.jump
    (tensor([0.2500], dtype=torch.float64), tensor([[4.]], dtype=torch.float64))
    """
    check_count("max_bytes", max_bytes)
    chain = sequential_chain(model)
    if chain is None:
        return _kinks_of_graph(model, starts, ends, max_bytes)
    check_segments(starts, ends)
    starts = chain.flatten(starts)
    directions = chain.flatten(ends) - starts
    note = _no_kinks(chain.activations, chain.layers)
    with torch.no_grad():
        if note:
            return no_kinks(chain.outputs(starts[:1]), chain.layers, len(starts), note)
        chunks = _trace_in_chunks(chain, starts, directions, max_bytes)
    rows: dict[str, Any] = {
        name: torch.cat([getattr(chunk, name) for chunk in chunks])
        for name in ("segment", "position", "layer", "unit", "value_jump", "jump", "effective")
    }
    return Kinks(**rows, layers=chain.layers, segments=len(starts))


def sequential_chain(model: nn.Module) -> AffineChain | None:
    """The model as a sequential MLP; None when it is another network."""
    try:
        chain = affine_chain(model)
    except TypeError:
        return None
    return chain if all(facts.elementwise for facts in chain.activations) else None


def _kinks_of_graph(model: nn.Module, starts: Tensor, ends: Tensor, max_bytes: int) -> Kinks:
    check_segments(starts, ends)
    double = DoubleModel(double_copy(model))
    graph = affine_graph(double.module)
    pooled = any(step.grouped is not None for step in graph.steps)
    note = _no_kinks(graph.activations, graph.layers, pooled=pooled)
    first = in_double(double, starts)
    with torch.no_grad():
        if note:
            return no_kinks(double(first[:1]), graph.layers, len(starts), note)
        switches = graph_switches(graph, first, in_double(double, ends) - first, max(max_bytes, _GRAPH_BYTES))
    return _table(switches, graph.layers, 0)


def no_kinks(outputs: Tensor, layers: tuple[str, ...], segments: int, note: str) -> Kinks:
    """An empty table of functions with as many outputs as given."""
    none = torch.zeros(0, dtype=torch.int64)
    jumps = torch.zeros(0, outputs.shape[1], dtype=torch.float64)
    return Kinks(none, jumps.sum(1), none, none, jumps, jumps, none > 0, layers, segments, note)


def _no_kinks(activations: tuple[ActivationFacts, ...], layers: tuple[str, ...], *, pooled: bool = False) -> str:
    """Why the network has no kinks; "" when it may have some and all its activations are piecewise affine."""
    rough = [i for i, facts in enumerate(activations) if facts.smoothness_class < 1]
    if not rough and not pooled:
        return "no kinks: every activation has a continuous slope" if activations else _NO_ACTIVATION
    for i, facts in enumerate(activations):
        if facts.affine_pieces is None:
            other = f"{layers[rough[0]]!r} ({activations[rough[0]].name})" if rough else "a max pooling or k winners"
            raise TypeError(
                f"activation {layers[i]!r} ({facts.name}) is curved and {other} has a "
                "kink or a jump: the exact method needs every activation piecewise affine, or every slope "
                "continuous; use kinks_by_bisection, or exchange one of them with smoothness.swap_activations"
            )
    return ""


def _trace_in_chunks(chain: AffineChain, starts: Tensor, directions: Tensor, max_bytes: int) -> list[Kinks]:
    widths = [m.weight.shape[0] for group in chain.maps for m in group] or [starts.shape[1]]

    def fitting(pieces: float) -> int:
        return max(1, int(max_bytes / (pieces * max(widths) * 8 * _LIVE_ARRAYS)))

    chunks: list[Kinks] = []
    # A line meets about as many kinks as there are units (Hanin and Rolnick 2019, arXiv 1901.09021).
    done, size = 0, min(16, fitting(sum(widths)))
    while done < len(starts):
        stop = min(done + size, len(starts))
        switches = trace_switches(chain, starts[done:stop], directions[done:stop])
        chunks.append(_table(switches, chain.layers, done))
        size = min(4 * size, fitting(switches.pieces / (stop - done)))
        done = stop
    return chunks


def _table(switches: Switches, layers: tuple[str, ...], offset: int) -> Kinks:
    if not (switches.jump.isfinite().all() and switches.value_jump.isfinite().all()):
        raise ValueError("the network's outputs exceed the range of float64 on a segment; scale its weights down")
    segment = switches.segment
    effective = torch.zeros_like(segment, dtype=torch.bool)
    for jump, floor in ((switches.jump, switches.floor), (switches.value_jump, switches.value_floor)):
        size = jump.abs().amax(dim=1)
        largest = torch.zeros_like(floor).scatter_reduce(0, segment, size, "amax")
        effective |= size > torch.maximum(EFFECTIVE_SHARE * largest, floor)[segment]
    rows = {
        field.name: getattr(switches, field.name).cpu()
        for field in fields(Switches)
        if field.name in Kinks.__dataclass_fields__
    }
    rows["segment"] = rows["segment"] + offset
    return Kinks(**rows, effective=effective.cpu(), layers=layers, segments=len(switches.floor))


def _vertex_numbers(segment: Tensor, position: Tensor) -> Tensor:
    new = torch.zeros_like(segment)
    new[1:] = ((segment[1:] != segment[:-1]) | (position[1:] != position[:-1])).to(new.dtype)
    return new.cumsum(0)
