"""The affine pieces of a network with branches along segments, refined operation by operation."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad

from smoothness.analyzers.affine_graph import AffineGraph, Step, is_product
from smoothness.analyzers.crossings import load_forward_mode
from smoothness.analyzers.envelopes import Groups, compete, groups_of
from smoothness.analyzers.graph_parts import Dual, Part, Span, divide, live_duals
from smoothness.analyzers.segment_pieces import ROUNDING, TINY, Pieces, Switches, activate, switches_of
from smoothness.analyzers.winners import keep_largest

_FORWARD: Any = forward_ad  # its functions are untyped
# Live numbers are copied while they are refined and compared.
_COPIES = 6


class _Batch(int):
    """A size that is the number of pieces, whatever it is by now."""


def graph_switches(graph: AffineGraph, starts: Tensor, directions: Tensor, max_bytes: int) -> Switches:
    """Every switch of every unit on the segments starts + t · directions, t in (0, 1).

    Segments are traced together as the cap allows. Where they have more pieces than fit, these are divided, and the
    parts go on from there one by one; when too much waits, the last parts are given up and traced anew later.
    """
    tracing = _Tracing(graph, starts, directions, max_bytes)
    todo: list[Span | Part] = [(s, 0.0, 1.0) for s in reversed(range(len(starts)))]
    found: list[Switches] = []
    size = 1
    load_forward_mode()
    with torch.no_grad():
        while todo:
            batch: list[Span] = []
            while todo and len(batch) < size and not isinstance(todo[-1], Part):
                batch.append(todo.pop())  # type: ignore[arg-type]
            head = todo.pop() if not batch else None
            part = head if isinstance(head, Part) else tracing.begin(batch)
            parts = tracing.advance(part)
            if parts:
                todo += reversed(parts)
                _give_up(todo, max_bytes)
                size = max(1, size // 2) if batch else size
                continue
            found.append(tracing.finish(part))
            grow = batch and found[-1].pieces * 4 < _last_room(found[-1], max_bytes)
            size = min(2 * size, len(starts)) if grow else size
    return _join(found)


def _give_up(todo: list[Span | Part], max_bytes: int) -> None:
    """Keep of the waiting parts, from the next one on, what the cap holds."""
    room = max_bytes
    for place in reversed(range(len(todo))):
        part = todo[place]
        if isinstance(part, Part):
            room -= part.bytes()
            if room < 0 and place < len(todo) - 1:
                todo[place : place + 1] = reversed(part.spans)


def _last_room(switches: Switches, max_bytes: int) -> int:
    """Pieces that would fit, going by the numbers held at most a piece."""
    return int(max_bytes / (8 * _COPIES * max(switches.held, 1)))


def _join(parts: list[Switches]) -> Switches:
    rows: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in fields(Switches)
        if f.name not in ("value_floor", "floor", "pieces", "held")
    }
    floors = {name: torch.stack([getattr(p, name) for p in parts]).amax(dim=0) for name in ("value_floor", "floor")}
    return Switches(**rows, **floors, pieces=sum(p.pieces for p in parts), held=max(p.held for p in parts))


class _Tracing:
    """Takes parts through the graph, step by step."""

    def __init__(self, graph: AffineGraph, starts: Tensor, directions: Tensor, max_bytes: int) -> None:
        self.graph, self.starts, self.directions, self.max_bytes, self.held = graph, starts, directions, max_bytes, 0
        self.nodes = list(graph.steps[0].node.graph.nodes) if graph.steps else []
        self.last = {used: node for node in self.nodes for used in node.all_input_nodes}
        self.groups: dict[fx.Node, Groups] = {}

    def begin(self, spans: list[Span]) -> Part:
        """One piece for each span, before the first step."""
        device = self.starts.device
        rows, low, length = self._of(spans)
        wide = (-1, *[1] * (self.starts.ndim - 1))
        steps = length.view(wide) * self.directions[rows]
        x = Dual(self.starts[rows] + low.view(wide) * self.directions[rows], steps)
        zeros = torch.zeros(len(spans), dtype=torch.float64, device=device)
        numbers = torch.arange(len(spans), device=device)
        pieces = Pieces(numbers, zeros, zeros[:, None], zeros[:, None], None, zeros, zeros)
        env = {node: x for node in self.nodes if node.op == "placeholder" and node.users}
        return Part(spans, 0, pieces, env, [], [])

    def _of(self, spans: list[Span]) -> tuple[Tensor, Tensor, Tensor]:
        device = self.starts.device
        low, high = (torch.tensor([span[k] for span in spans], dtype=torch.float64, device=device) for k in (1, 2))
        return torch.tensor([s for s, _, _ in spans], device=device), low, high - low

    def advance(self, part: Part) -> list[Part]:
        """Go to the end, or to where the cap makes it several parts, which are returned."""
        self._take(part)
        for step in self.graph.steps[part.done :]:
            self.env[step.node] = self._do(step)
            for used in step.node.all_input_nodes:
                if self.last[used] is step.node:
                    self.env.pop(used, None)
            part.done += 1
            if step.facts is not None or step.grouped is not None:
                self.held = max(self.held, part.numbers())
                room = max(2, int(self.max_bytes / (8 * _COPIES * max(part.numbers(), 1))))
                if len(self.pieces.left) > room:
                    return divide(part, room)
        return []

    def _take(self, part: Part) -> None:
        self.pieces, self.env, self.vertices, self.units = part.pieces, part.env, part.vertices, part.units

    def finish(self, part: Part) -> Switches:
        """The switches on the segments, after the last step."""
        self._take(part)
        (output,) = (node for node in self.nodes if node.op == "output")
        result: Any = output.args[0]
        out = self.env[result]
        self.pieces.value, self.pieces.tangent = out.value.flatten(1), out.tangent.flatten(1)
        switches = switches_of(self.pieces, self.vertices, self.units)
        rows, low, length = self._of(part.spans)
        none = torch.zeros(len(self.starts), dtype=torch.float64, device=rows.device)
        span = length[switches.segment]
        return replace(
            switches,
            segment=rows[switches.segment],
            position=low[switches.segment] + span * switches.position,
            jump=switches.jump / span[:, None],
            value_floor=none.scatter_reduce(0, rows, switches.value_floor, "amax"),
            floor=none.scatter_reduce(0, rows, switches.floor / length, "amax"),
            held=self.held,
        )

    def _do(self, step: Step) -> Any:
        arguments: Any = fx.node.map_arg(step.node.args, self._current)
        keywords: Any = fx.node.map_arg(step.node.kwargs, self._current)
        if step.facts is not None or step.grouped is not None:
            inputs = arguments[0] if arguments else next(iter(keywords.values()))
            return self._break(step, inputs) if isinstance(inputs, Dual) else step.call
        return self._affine(step, arguments, keywords)

    def _current(self, node: fx.Node) -> Any:
        return self.env[node]

    def _affine(self, step: Step, arguments: Any, keywords: Any) -> Any:
        assert step.call is not None
        duals: list[Dual] = []
        count = len(self.pieces.left)
        with _FORWARD.dual_level():

            def lift(part: Any) -> Any:
                if isinstance(part, Dual):
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

    def _lower(self, step: Step, out: Any, duals: list[Dual]) -> Any:
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
        return Dual(value, tangent)

    def _spread_noise(self, duals: list[Dual], value: Tensor, tangent: Tensor) -> None:
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

    def _break(self, step: Step, inputs: Dual) -> Dual:
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
            split = keep_largest if self.groups[step.node].keep else compete
            kept, vertex, unit = split(pieces, self.groups[step.node])
        self.vertices[:] = [*(kept[earlier] for earlier in self.vertices), vertex]
        self.units.append(unit)
        out = Dual(pieces.value.view(-1, *shape), pieces.tangent.view(-1, *shape))
        if len(pieces.left) > len(old):
            self._refine(old, kept)
        return out

    def _refine(self, old: Tensor, kept: Tensor) -> None:
        """Cut every other live tensor where the pieces were cut."""
        new = self.pieces.left
        parent = torch.bucketize(torch.arange(len(new), device=new.device), kept, right=True) - 1
        shift = new - old[parent]
        for dual in live_duals(self.env.values()):
            dual.tangent = dual.tangent[parent]
            dual.value = dual.value[parent] + shift.view(-1, *[1] * (dual.value.ndim - 1)) * dual.tangent


def _divides_by(step: Step, arguments: Any) -> bool:
    name = getattr(step.node.target, "__name__", step.node.target)
    return "div" in str(name) and len(arguments) > 1 and isinstance(arguments[1], Dual)
