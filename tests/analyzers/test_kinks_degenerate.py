"""Kinks where floating point is delicate: coincidences, dead units, constants, units that rest on a breakpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers.kinks import kinks_on_segments
from tests.analyzers.kink_networks import (
    ACTIVATIONS,
    DOUBLE,
    dense,
    network,
    segments,
)


def test_coincident_kinks_share_one_vertex() -> None:
    model = dense(([[1.0], [3.0], [-0.7]], [-0.3, -0.9, 0.21]), ([[1.0, 1.0, 1.0]], [0.0]))
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.unit.tolist() == [0, 1, 2]
    assert len(set(table.position.tolist())) == 1
    torch.testing.assert_close(table.jump, torch.full((3, 1), 4.7, dtype=DOUBLE))
    assert [table.piece_counts(kind).tolist() for kind in ("raw", "merged", "effective")] == [[4], [2], [2]]


def test_kinks_that_cancel_are_not_effective() -> None:
    model = dense(([[1.0], [1.0], [1.0]], [-0.3, -0.3, -0.6]), ([[0.1, -0.1, 0.5]], [0.0]))
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.effective.tolist() == [False, False, True]
    assert table.piece_counts().tolist() == [2]


def test_a_constant_up_to_rounding_has_no_effective_kink() -> None:
    model = network([4, 32, 1], ["relu"])
    first, last = model[0], model[2]
    first.weight.data[16:], first.bias.data[16:] = 3 * first.weight.data[:16], 3 * first.bias.data[:16]
    last.weight.data[:, 16:] = -last.weight.data[:, :16] / 3
    table = kinks_on_segments(model, *segments(8, 4))
    assert len(table) > 50
    assert not table.effective.any()
    deeper = nn.Sequential(*model, activation("leaky_relu"), nn.Linear(1, 3, dtype=DOUBLE))
    assert not kinks_on_segments(deeper, *segments(8, 4)).effective.any()


def test_dead_units_and_zero_weights() -> None:
    model = network([4, 8, 8, 1], ["relu", "relu"])
    model[0].bias.data[:4] = -100
    model[2].weight.data[:, :] = 0
    table = kinks_on_segments(model, *segments(8, 4))
    assert set(table.unit.tolist()) <= {4, 5, 6, 7}
    assert not table.effective.any()
    assert (table.jump == 0).all()
    assert table.piece_counts().tolist() == [1] * 8


def test_small_networks_keep_their_kinks() -> None:
    model = network([4, 8, 1], ["relu"])
    large = kinks_on_segments(model, *segments(3, 4))
    model[2].weight.data *= 1e-30
    small = kinks_on_segments(model, *segments(3, 4))
    assert torch.equal(large.effective, small.effective)
    assert large.effective.any()


def test_kinks_at_end_points_are_outside() -> None:
    model = dense(([[1.0], [1.0], [1.0]], [0.0, -1.0, -0.5]), ([[1.0, 1.0, 1.0]], [0.0]))
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.unit.tolist() == [2]


@pytest.mark.parametrize("name", ["relu", "step", "staircase"])
def test_resting_on_a_breakpoint(name: str) -> None:
    # Unit 0 of the second layer is x - x plus a threshold: it rests on its breakpoint all along.
    threshold = {"relu": 0.0, "step": 0.0, "staircase": -0.25}[name]
    model = nn.Sequential(
        *dense(([[1.0], [1.0], [1.0]], [0.1, 0.1, -1 / 3]), ([[0.0] * 3], [0.0]))[:2],
        nn.Linear(3, 1, dtype=DOUBLE),
        ACTIVATIONS[name](),
        nn.Linear(1, 1, dtype=DOUBLE),
    )
    model[2].weight.data = torch.tensor([[0.7, -0.7, 0.0]], dtype=DOUBLE)
    model[2].bias.data.fill_(threshold)
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.layer.tolist() == [0]
    assert not table.effective.any()


def test_touching_a_breakpoint_is_no_switch() -> None:
    # |x - 1/2| touches 0 at 1/2, where the first layer's units switch.
    model = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, 1.0]], [0.0]), ([[1.0]], [0.0]))
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.layer.tolist() == [0, 0]
    assert table.jump.tolist() == [[2.0], [2.0]]
