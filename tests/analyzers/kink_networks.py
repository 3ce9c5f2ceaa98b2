"""Small networks and an independent reconstruction, for the tests of kinks on segments."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from smoothness.activations import Activation, ActivationFacts, activation
from smoothness.activations.facts import piecewise_affine_facts
from smoothness.analyzers.kinks import Kinks, kinks_on_segments

DOUBLE = torch.float64


class JumpReLU(Activation):
    """z where z > 1/2, else 0: a value jump and a slope jump at one breakpoint."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z > 0.5, z, 0.0)

    def facts(self) -> ActivationFacts:
        return piecewise_affine_facts("jump_relu", (0.5,), ((0.0, 0.0), (1.0, 0.0)))


ACTIVATIONS = {
    "relu": lambda: activation("relu"),
    "leaky_relu": lambda: activation("leaky_relu", negative_slope=-0.3),
    "step": lambda: activation("step"),
    "staircase": lambda: activation("staircase", levels=5),
    "jump_relu": JumpReLU,
}


def network(widths: list[int], names: list[str], seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = nn.Linear(inputs, outputs, dtype=DOUBLE)
        linear.weight.data = torch.randn(outputs, inputs, generator=generator, dtype=DOUBLE) * (2 / inputs) ** 0.5
        linear.bias.data = torch.randn(outputs, generator=generator, dtype=DOUBLE) * 0.3
        layers.append(linear)
        if k < len(names):
            layers.append(ACTIVATIONS[names[k]]())
    return nn.Sequential(*layers)


def dense(*layers: tuple[list[list[float]], list[float]], act: str = "relu") -> nn.Sequential:
    """A network with given weights, an activation after every layer but the last."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(len(weight[0]), len(weight), dtype=DOUBLE)
        linear.weight.data, linear.bias.data = torch.tensor(weight, dtype=DOUBLE), torch.tensor(bias, dtype=DOUBLE)
        modules += [linear, ACTIVATIONS[act]()]
    return nn.Sequential(*modules[:-1])


def sawtooth(depth: int) -> nn.Sequential:
    """The tent map 2·relu(x) - 4·relu(x - 1/2), composed with itself (Telgarsky 2015)."""
    first, middle = ([[1.0], [1.0]], [0.0, -0.5]), ([[2.0, -4.0], [2.0, -4.0]], [0.0, -0.5])
    return dense(first, *[middle] * (depth - 1), ([[2.0, -4.0]], [0.0]))


def segments(count: int, dimension: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    starts, ends = torch.randn(2, count, dimension, generator=generator, dtype=DOUBLE) * 2
    return starts, ends


def line(starts: Tensor, ends: Tensor, segment: int, t: Tensor) -> Tensor:
    return starts[segment] + t[:, None] * (ends[segment] - starts[segment])


def vertices(table: Kinks, segment: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Position, jump, value jump and effectiveness of each vertex of one segment."""
    rows = (table.segment == segment).nonzero().flatten()
    rows = rows[torch.cat([torch.ones(1) > 0, table.position[rows][1:] != table.position[rows][:-1]])[: len(rows)]]
    return table.position[rows], table.jump[rows], table.value_jump[rows], table.effective[rows]


def rebuilt(model: nn.Module, table: Kinks, ends: tuple[Tensor, Tensor], segment: int, t: Tensor) -> Tensor:
    """f(t) from the table and two values of the real model on the first piece alone."""
    at, jump, value_jump, _ = vertices(table, segment)
    # A power of two: exact where the ends are integers, so that a unit resting on its threshold rests there here too.
    first = 2.0 ** math.floor(math.log2(float(at[0]))) if len(at) else 1.0
    probe = torch.tensor([first / 4, first * 3 / 4], dtype=DOUBLE)
    low, high = model(line(*ends, segment, probe)).detach()
    slope = (high - low) / (first / 2)
    past = (t[:, None] > at).to(DOUBLE)
    return low + (t - first / 4)[:, None] * slope + past @ value_jump + (past * (t[:, None] - at)) @ jump


def assert_complete(model: nn.Module, starts: Tensor, ends: Tensor, t: Tensor) -> Kinks:
    """The real model equals its reconstruction from the table at every t away from the vertices."""
    table = kinks_on_segments(model, starts, ends)
    for segment in range(len(starts)):
        at = vertices(table, segment)[0]
        away = t[((t[:, None] - at).abs() > 1e-9).all(dim=1)]
        truth = model(line(starts, ends, segment, away)).detach()
        error = (rebuilt(model, table, (starts, ends), segment, away) - truth).abs().max()
        assert error <= 1e-8 * (1 + truth.abs().max())
    return table
