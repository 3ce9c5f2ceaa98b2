"""The affine pieces of a network with branches along segments, refined operation by operation."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad

from smoothness.analyzers.affine_graph import AffineGraph, Step, is_product
from smoothness.analyzers.crossings import load_forward_mode
from smoothness.analyzers.envelopes import Groups, compete, groups_of
from smoothness.analyzers.segment_pieces import ROUNDING, TINY, Pieces, Switches, activate, switches_of

_FORWARD: Any = forward_ad  # its functions are untyped
# Live numbers are copied while they are refined and compared.
_COPIES = 6
# Where a span is cut in two: no place where anything is likely to lie.
_CUT = 0.4999171


@dataclass(eq=False)
class _Dual:
    """A tensor of the network on every piece: its value at the left end, and its derivative in t."""

    value: Tensor
    tangent: Tensor


class _Batch(int):
    """A size that is the number of pieces, whatever it is by now."""


class _TooLargeError(Exception):
    """More live numbers than the cap allows."""


def graph_switches(graph: AffineGraph, starts: Tensor, directions: Tensor, max_bytes: int) -> Switches:
    """Every switch of every unit on the segments starts + t · directions, t in (0, 1).

    Segments are traced together as the cap allows; one with more pieces than fit is cut in t.
    """
    todo = [(s, 0.0, 1.0) for s in range(len(starts))][::-1]
    found: list[Switches] = []
    size = 1
    load_forward_mode()
    while todo:
        size = min(size, len(todo))
        batch = todo[-size:][::-1]
        try:
            found.append(_trace(graph, starts, directions, batch, max_bytes))
        except _TooLargeError:
            if size > 1:
                size = max(1, size // 2)
                continue
            s, low, high = todo.pop()
            middle = low + _CUT * (high - low)
            if not low < middle < high:
                raise ValueError(f"max_bytes = {max_bytes} does not hold one piece of the network; raise it") from None
            todo += [(s, middle, high), (s, low, middle)]
            continue
        del todo[-size:]
        size = 2 * size if found[-1].pieces * 4 < _last_room(found[-1], max_bytes) else size
    return _join(found)


def _last_room(switches: Switches, max_bytes: int) -> int:
    """Pieces that would fit, going by the numbers held at most a piece."""
    return int(max_bytes / (8 * _COPIES * max(switches.held, 1)))


def _trace(
    graph: AffineGraph, starts: Tensor, directions: Tensor, spans: list[tuple[int, float, float]], max_bytes: int
) -> Switches:
    rows = torch.tensor([s for s, _, _ in spans], device=starts.device)
    low, high = (torch.tensor([span[k] for span in spans], device=starts.device).double() for k in (1, 2))
    wide = (-1, *[1] * (starts.ndim - 1))
    x = _Dual(starts[rows] + low.view(wide) * directions[rows], (high - low).view(wide) * directions[rows])
    with torch.no_grad():
        switches = _Tracing(graph, x, max_bytes).run()
    span = high[switches.segment] - low[switches.segment]
    return replace(
        switches,
        segment=rows[switches.segment],
        position=low[switches.segment] + span * switches.position,
        jump=switches.jump / span[:, None],
        value_floor=torch.zeros(len(starts), device=rows.device).double().index_add(0, rows, switches.value_floor),
        floor=torch.zeros(len(starts), device=rows.device).double().index_add(0, rows, switches.floor / (high - low)),
    )


def _join(parts: list[Switches]) -> Switches:
    rows: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in fields(Switches)
        if f.name not in ("value_floor", "floor", "pieces", "held")
    }
    floors = {name: torch.stack([getattr(p, name) for p in parts]).amax(dim=0) for name in ("value_floor", "floor")}
    return Switches(**rows, **floors, pieces=sum(p.pieces for p in parts), held=max(p.held for p in parts))


class _Tracing:
    """One batch of spans on its way through the graph."""

    def __init__(self, graph: AffineGraph, x: _Dual, max_bytes: int) -> None:
        count, device = len(x.value), x.value.device
        zeros = torch.zeros(count, dtype=torch.float64, device=device)
        self.graph, self.max_bytes, self.held = graph, max_bytes, 0
        self.pieces = Pieces(
            torch.arange(count, device=device), zeros, zeros[:, None], zeros[:, None], None, zeros, zeros
        )
        self.input = x
        self.env: dict[fx.Node, Any] = {}
        self.vertices: list[Tensor] = []
        self.units: list[Tensor] = []
        self.groups: dict[fx.Node, Groups] = {}

    def run(self) -> Switches:
        """The switches, with t in (0, 1) of each span."""
        steps = self.graph.steps
        nodes = list(steps[0].node.graph.nodes) if steps else []
        for node in nodes:
            if node.op == "placeholder" and node.users:
                self.env[node] = self.input
        last = {used: node for node in nodes for used in node.all_input_nodes}
        for step in steps:
            self.env[step.node] = self._do(step)
            for used in step.node.all_input_nodes:
                if last[used] is step.node:
                    self.env.pop(used, None)
        (output,) = (node for node in nodes if node.op == "output")
        result: Any = output.args[0]
        out = self.env[result]
        self.pieces.value, self.pieces.tangent = out.value.flatten(1), out.tangent.flatten(1)
        return replace(switches_of(self.pieces, self.vertices, self.units), held=self.held)

    def _do(self, step: Step) -> Any:
        arguments: Any = fx.node.map_arg(step.node.args, self._current)
        keywords: Any = fx.node.map_arg(step.node.kwargs, self._current)
        if step.facts is not None or step.grouped is not None:
            inputs = arguments[0] if arguments else next(iter(keywords.values()))
            return self._break(step, inputs) if isinstance(inputs, _Dual) else step.call
        return self._affine(step, arguments, keywords)

    def _current(self, node: fx.Node) -> Any:
        return self.env[node]

    def _affine(self, step: Step, arguments: Any, keywords: Any) -> Any:
        assert step.call is not None
        duals: list[_Dual] = []
        count = len(self.pieces.left)
        with _FORWARD.dual_level():

            def lift(part: Any) -> Any:
                if isinstance(part, _Dual):
                    duals.append(part)
                    return _FORWARD.make_dual(part.value, part.tangent)
                if isinstance(part, _Batch):
                    return count
                if isinstance(part, dict):
                    return {key: lift(value) for key, value in part.items()}
                if isinstance(part, (list, tuple)):
                    return (list if isinstance(part, list) else tuple)(map(lift, part))
                return part

            lifted, named = lift(tuple(arguments)), lift(dict(keywords))
            if (len(duals) > 1 and is_product(step)) or _divides_by(step, arguments):
                raise TypeError(
                    f"{step.label!r} multiplies or divides features by each other, which is not affine; "
                    "use kinks_by_bisection"
                )
            out = step.call(*lifted, **named)
            return self._lower(step, out, duals)

    def _lower(self, step: Step, out: Any, duals: list[_Dual]) -> Any:
        if isinstance(out, torch.Size):
            return (_Batch(out[0]), *out[1:]) if duals else tuple(out)
        if isinstance(out, (tuple, list)) and duals:
            return tuple(self._lower(step, part, duals) for part in out)
        if isinstance(out, int) and duals and step.node.target == "size" and step.node.args[1:] == (0,):
            return _Batch(out)
        if not isinstance(out, Tensor) or not duals:
            return out
        value, tangent = _FORWARD.unpack_dual(out)
        if value.shape[:1] != (len(self.pieces.left),):
            raise TypeError(f"{step.label!r} mixes examples of the batch; the model must treat each by itself")
        tangent = torch.zeros_like(value) if tangent is None else tangent
        self._spread_noise(duals, value, tangent)
        return _Dual(value, tangent)

    def _spread_noise(self, duals: list[_Dual], value: Tensor, tangent: Tensor) -> None:
        """Rounding grows and shrinks with the features, and a little is added by every operation."""
        pieces, fresh = self.pieces, ROUNDING * value[0].numel() ** 0.5
        for name, out in (("value", value), ("tangent", tangent)):
            size = self._largest(out)
            before = sum(self._largest(getattr(dual, name)) for dual in duals)
            noise = getattr(pieces, f"{name}_noise")
            gain = size / torch.as_tensor(before).clamp_min(TINY)
            setattr(pieces, f"{name}_noise", torch.maximum(noise * gain.clamp_max(1e3), fresh * size))

    def _largest(self, features: Tensor) -> Tensor:
        zeros = torch.zeros_like(self.pieces.value_noise)
        return zeros.scatter_reduce(
            0, self.pieces.segment, torch.linalg.vector_norm(features.flatten(1), dim=1), "amax"
        )

    def _break(self, step: Step, inputs: _Dual) -> _Dual:
        """An activation or a pooling: cut the pieces, everywhere."""
        pieces, shape = self.pieces, tuple(inputs.value.shape[1:])
        old = pieces.left
        pieces.value, pieces.tangent = inputs.value.flatten(1), inputs.tangent.flatten(1)
        if step.facts is not None:
            size: Tensor = torch.linalg.vector_norm(pieces.value, dim=1)
            kept, vertex, unit = activate(pieces, step.facts, size)
        else:
            if step.node not in self.groups:
                groups = groups_of(step.grouped, shape, pieces.left.device)
                if groups is None:
                    raise TypeError(f"{step.label!r} cannot be read over features of shape {shape}")
                self.groups[step.node] = groups
            shape = self.groups[step.node].shape
            kept, vertex, unit = compete(pieces, self.groups[step.node])
        self.vertices = [kept[earlier] for earlier in self.vertices] + [vertex]
        self.units.append(unit)
        out = _Dual(pieces.value.view(-1, *shape), pieces.tangent.view(-1, *shape))
        if len(pieces.left) > len(old):
            self._refine(old, kept)
        self._check_room(out)
        return out

    def _refine(self, old: Tensor, kept: Tensor) -> None:
        """Cut every other live tensor where the pieces were cut."""
        new = self.pieces.left
        parent = torch.bucketize(torch.arange(len(new), device=new.device), kept, right=True) - 1
        shift = new - old[parent]
        for dual in _duals(self.env.values()):
            dual.tangent = dual.tangent[parent]
            dual.value = dual.value[parent] + shift.view(-1, *[1] * (dual.value.ndim - 1)) * dual.tangent

    def _check_room(self, out: _Dual) -> None:
        numbers = 2 * sum(dual.value[0].numel() for dual in [out, *_duals(self.env.values())])
        self.held = max(self.held, numbers)
        if numbers * len(self.pieces.left) * 8 * _COPIES > self.max_bytes and len(self.pieces.left) > 2:
            raise _TooLargeError


def _duals(values: Any) -> list[_Dual]:
    out: dict[int, _Dual] = {}
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, _Dual):
                out[id(part)] = part
    return list(out.values())


def _divides_by(step: Step, arguments: Any) -> bool:
    name = getattr(step.node.target, "__name__", step.node.target)
    return "div" in str(name) and len(arguments) > 1 and isinstance(arguments[1], _Dual)
