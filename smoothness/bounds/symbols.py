"""Values while a network is read: affine functions of the input and of the features of hidden layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness.activations.catalogue import activation_facts
from smoothness.activations.facts import ActivationFacts
from smoothness.bounds.graph import AffineSum, HiddenLayer, Network


@dataclass(frozen=True, eq=False)
class Symbol:
    """One value of the traced forward.

    Attributes:
        columns: source -> (width of the source, *shape): the image of each basis vector, so that any linear
            operation on batches applies to it unchanged.
        bias: (1, *shape).
        memory: bytes that one matrix may take.
    """

    columns: dict[int, Tensor]
    bias: Tensor
    memory: float = math.inf

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the batch axis."""
        return tuple(self.bias.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.bias.device

    def linear(self, function: Callable[[Tensor], Tensor]) -> Symbol:
        """Apply a linear function of batches.

        Raises:
            TypeError: it changes the batch axis.
            ValueError: the result takes more than the memory allowed.
        """
        bias = function(self.bias)
        check_memory(sum(len(part) for part in self.columns.values()), bias.numel(), self.memory)
        columns = {j: function(part) for j, part in self.columns.items()}
        for before, after in ((self.bias, bias), *((self.columns[j], part) for j, part in columns.items())):
            if after.ndim == 0 or before.shape[0] != after.shape[0]:
                raise TypeError(
                    f"an operation that mixes the batch axis cannot be read: shape {tuple(before.shape)} -> "
                    f"{tuple(after.shape)}; keep the first axis, as in x.flatten(1)"
                )
        return Symbol(columns, bias, self.memory)

    def reshaped(self, sizes: tuple[int, ...]) -> Symbol:
        """`view` or `reshape` to sizes that include the batch axis (1, or -1)."""
        shape = self.bias.reshape(sizes).shape
        if len(shape) == 0 or shape[0] != 1:
            raise TypeError(f"a reshape to {sizes} mixes the batch axis and cannot be read; use x.flatten(1)")
        return self.linear(lambda x: x.reshape(x.shape[0], *shape[1:]))

    def plus(self, constant: Tensor | None) -> Symbol:
        """Add a constant that broadcasts over the features."""
        if constant is None:
            return self
        bias = self.bias + constant
        if bias.shape[0] != 1:
            raise TypeError("a constant with a batch axis cannot be added; it must have the shape of one example")
        columns = {j: c.expand(c.shape[0], *bias.shape[1:]) for j, c in self.columns.items()}
        return Symbol(columns, bias, self.memory)

    def added(self, other: Symbol, sign: float = 1.0) -> Symbol:
        """Sum of both, or their difference with sign = -1."""
        bias = self.bias + sign * other.bias
        columns = {j: c.expand(c.shape[0], *bias.shape[1:]) for j, c in self.columns.items()}
        for j, c in other.columns.items():
            columns[j] = columns[j] + sign * c if j in columns else (sign * c).expand(c.shape[0], *bias.shape[1:])
        return Symbol(columns, bias, self.memory)

    def affine(self) -> AffineSum:
        """As matrices, the features flattened."""
        sources = tuple((j, self.columns[j].flatten(1).T.contiguous()) for j in sorted(self.columns))
        return AffineSum(sources, self.bias.flatten().contiguous())


def check_memory(columns: int, rows: int, memory: float) -> None:
    """Raise ValueError when a float64 matrix takes more than `memory` bytes."""
    need = 8.0 * columns * rows
    if need > memory:
        raise ValueError(
            f"a layer of {rows} x {columns} takes {need / 2**30:.3g} GiB as a matrix, and memory_gib allows "
            f"{memory / 2**30:.3g}; raise memory_gib, or measure a smaller part with of='layer:NAME'"
        )


class Builder:
    """Collects the hidden layers in the order in which they are met."""

    def __init__(self, inputs: int, device: torch.device, memory: float = math.inf) -> None:
        self.inputs, self.device, self.memory = inputs, device, memory
        self.layers: list[HiddenLayer] = []

    def input(self, shape: tuple[int, ...]) -> Symbol:
        """The network's input."""
        return self._features(0, shape)

    def activate(self, name: str, value: Symbol, facts: ActivationFacts) -> Symbol:
        """A new hidden layer φ(value)."""
        self.layers.append(HiddenLayer(name, value.affine(), facts))
        return self._features(len(self.layers), value.shape)

    def _features(self, source: int, shape: tuple[int, ...]) -> Symbol:
        bias = torch.zeros((1, *shape), dtype=torch.float64, device=self.device)
        check_memory(bias.numel(), bias.numel(), self.memory)
        basis = torch.eye(bias.numel(), dtype=torch.float64, device=self.device)
        return Symbol({source: basis.view(-1, *shape)}, bias, self.memory)

    def network(self, result: Symbol) -> Network:
        """The network with this output, without the layers that it does not read."""
        output = result.affine()
        needed = {j for j, _ in output.sources}
        for k in range(len(self.layers), 0, -1):
            if k in needed:
                needed |= {j for j, _ in self.layers[k - 1].affine.sources}
        kept = [k for k in range(1, len(self.layers) + 1) if k in needed]
        number = {0: 0, **{k: i + 1 for i, k in enumerate(kept)}}

        def renumbered(affine: AffineSum) -> AffineSum:
            return AffineSum(tuple((number[j], weight) for j, weight in affine.sources), affine.bias)

        layers = [self.layers[k - 1] for k in kept]
        hidden = tuple(HiddenLayer(la.name, renumbered(la.affine), la.facts) for la in layers)
        return Network(self.inputs, hidden, renumbered(output))


def max_pool(builder: Builder, name: str, value: Symbol, pool: nn.Module) -> Symbol:
    """Max pooling as a tree of max(a, b) = b + relu(a - b)."""
    members, shape = _windows(value.shape, pool, value.device)
    candidates = [_picked(value, column) for column in members.T]
    relu = activation_facts("relu")
    while len(candidates) > 1:
        half = len(candidates) // 2
        first, second = _stacked(candidates[:half]), _stacked(candidates[half : 2 * half])
        larger = second.added(builder.activate(name, first.added(second, -1.0), relu))
        width = len(members)
        parts = [_picked(larger, torch.arange(k * width, (k + 1) * width, device=value.device)) for k in range(half)]
        candidates = parts + candidates[2 * half :]
    return candidates[0].linear(lambda x: x.reshape(x.shape[0], *shape))


def _windows(shape: tuple[int, ...], pool: nn.Module, device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
    """Which inputs each output of a pool reads: (outputs, size of the largest window), repeated where fewer."""
    count = int(torch.tensor(shape).prod())
    rows: list[Tensor] = []
    # The pool itself tells: an input belongs to the windows whose maximum rises when it alone is 1.
    for start in range(0, count, 1024):
        stop = min(start + 1024, count)
        probe = torch.zeros(stop - start, count, dtype=torch.float64, device=device)
        probe[torch.arange(stop - start), torch.arange(start, stop)] = 1
        rows.append(pool(probe.view(-1, *shape)).flatten(1) > 0.5)
    reads = torch.cat(rows).T  # (outputs, inputs)
    out = tuple(pool(torch.zeros(1, *shape, dtype=torch.float64, device=device)).shape[1:])
    largest = int(reads.sum(dim=1).max())
    order = reads.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :largest]
    inside = reads.gather(1, order)
    return torch.where(inside, order, order[:, :1]), out


def _picked(value: Symbol, index: Tensor) -> Symbol:
    return value.linear(lambda x: x.flatten(1)[:, index])


def _stacked(values: list[Symbol]) -> Symbol:
    total: Symbol | None = None
    width = values[0].bias.shape[1]
    for k, value in enumerate(values):
        left, right = k * width, (len(values) - 1 - k) * width
        placed = value.linear(partial(nn.functional.pad, pad=(left, right)))
        total = placed if total is None else total.added(placed)
    assert total is not None
    return total
