"""Kinks on segments against published counts, one-sided differences and dense sampling of the real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smoothness.activations import Activation, activation
from smoothness.analyzers.kinks import kinks_on_segments
from tests.analyzers.kink_networks import (
    ACTIVATIONS,
    DOUBLE,
    assert_complete,
    dense,
    line,
    network,
    sawtooth,
    segments,
    vertices,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "networks.npz"


@pytest.mark.parametrize(("depth", "pieces"), [(3, 8), (8, 256), (14, 16384)])
def test_sawtooth_has_two_to_the_depth_pieces(depth: int, pieces: int) -> None:
    table = kinks_on_segments(sawtooth(depth), torch.zeros(1, 1), torch.ones(1, 1))
    assert table.piece_counts().tolist() == [pieces]
    assert table.jump.abs().min() == table.jump.abs().max() == 2 ** (depth + 1)
    expected = torch.arange(1, pieces, dtype=DOUBLE) / pieces
    torch.testing.assert_close(table.position[table.effective], expected, rtol=0, atol=0)


@pytest.mark.parametrize(("dims", "pieces"), [("16-64-64-64-1", 25_736), ("64-128-128-128-1", 50_231)])
def test_reference_networks(dims: str, pieces: int) -> None:
    stored = np.load(REFERENCE)
    shape = [int(width) for width in dims.split("-")]
    model = network(shape, ["relu"] * 3)
    for k, linear in enumerate(model[::2]):
        linear.weight.data = torch.from_numpy(stored[f"{dims}/weight{k}"])
        linear.bias.data = torch.from_numpy(stored[f"{dims}/bias{k}"])
    starts, ends = (torch.from_numpy(stored[f"{dims}/{name}"]) for name in ("start", "end"))
    table = kinks_on_segments(model, starts, ends)
    for kind in ("effective", "merged", "raw"):
        assert int(table.piece_counts(kind).sum()) == pieces
    assert table.value_jump.abs().max() == 0


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_jumps_equal_one_sided_differences(name: str) -> None:
    model = network([6, 16, 16, 3], [name] * 2)
    starts, ends = segments(4, 6)
    table = kinks_on_segments(model, starts, ends)
    checked = 0
    for segment in range(4):
        at, jump, value_jump, _ = vertices(table, segment)
        edges = torch.cat([torch.zeros(1, dtype=DOUBLE), at, torch.ones(1, dtype=DOUBLE)])
        low, high = edges[:-1] + edges.diff() / 4, edges[1:] - edges.diff() / 4
        values = [model(line(starts, ends, segment, t)).detach() for t in (low, high)]
        slopes = (values[1] - values[0]) / (high - low)[:, None]
        wide = torch.minimum(edges.diff()[:-1], edges.diff()[1:]) > 1e-6
        torch.testing.assert_close(slopes.diff(dim=0)[wide], jump[wide], rtol=0, atol=1e-8)
        assert value_jump.abs().max() == 0
        checked += int(wide.sum())
    assert checked > 40


@pytest.mark.parametrize("name", ["step", "staircase", "jump_relu"])
def test_value_jumps_equal_differences_of_the_real_model(name: str) -> None:
    model = network([6, 12, 12, 2], [name] * 2, seed=3)
    starts, ends = segments(4, 6)
    table = kinks_on_segments(model, starts, ends)
    assert len(table) > 20
    for segment in range(4):
        at, jump, value_jump, effective = vertices(table, segment)
        edges = torch.cat([torch.zeros(1, dtype=DOUBLE), at, torch.ones(1, dtype=DOUBLE)])
        delta = 1e-7
        assert edges.diff().min() > 2 * delta
        left, right = (model(line(starts, ends, segment, at + s * delta)).detach() for s in (-1, 1))
        torch.testing.assert_close(right - left, value_jump, rtol=0, atol=1e-5)
        if name != "jump_relu":
            torch.testing.assert_close(right - left, value_jump, rtol=0, atol=1e-13)
            assert jump.abs().max() == 0
            assert torch.equal(effective, ((right - left).abs() > 1e-12).any(dim=1))


@pytest.mark.parametrize(
    "names",
    [
        ["relu", "relu"],
        ["leaky_relu", "relu"],
        ["step", "step"],
        ["staircase", "staircase"],
        ["relu", "step"],
        ["jump_relu", "jump_relu", "relu"],
        ["relu", "jump_relu", "step"],
        ["step", "relu", "staircase"],
    ],
)
def test_the_table_rebuilds_the_function(names: list[str]) -> None:
    model = network([5, *[10] * len(names), 2], names, seed=5)
    assert_complete(model, *segments(4, 5), torch.linspace(0, 1, 5003, dtype=DOUBLE)[1:-1])


def test_every_change_of_pattern_is_found() -> None:
    model = network([3, 8, 8, 1], ["relu", "relu"], seed=7)
    starts, ends = segments(5, 3)
    table = kinks_on_segments(model, starts, ends)
    t = torch.linspace(0, 1, 20_001, dtype=DOUBLE)
    for segment in range(5):
        features, patterns = line(starts, ends, segment, t), []
        for module in model:
            if isinstance(module, Activation):
                patterns.append(features > 0)
            features = module(features)
        pattern = torch.cat(patterns, dim=1)
        rows = table.segment == segment
        cell = torch.searchsorted(t, table.position[rows]) - 1
        count = torch.zeros(len(t) - 1, 16, dtype=torch.int64)
        count.index_put_((cell, table.layer[rows] * 8 + table.unit[rows]), torch.tensor(1), accumulate=True)
        assert torch.equal(count % 2 == 1, pattern[1:] != pattern[:-1])


def test_consequences_of_a_step_are_not_listed() -> None:
    # The second layer's unit follows the first layer's step at t = 1/4: one vertex, one row.
    model = dense(([[1.0], [0.0]], [-0.25, 1.0]), ([[1.0, 0.0]], [-0.5]), ([[5.0]], [0.0]), act="step")
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert table.layer.tolist() == [0]
    assert table.position.tolist() == [0.25]
    assert table.value_jump.tolist() == [[5.0]]


def test_no_crossing_is_invented_across_a_step() -> None:
    # Each unit of the second layer sees only 0 and 1; its own threshold 0.3 is never crossed continuously.
    model = network([4, 20, 20, 1], ["step", "step"], seed=11)
    table = kinks_on_segments(model, *segments(16, 4))
    assert (table.layer == 0).all()


def test_independent_switch_at_a_step_is_listed() -> None:
    # jump_relu at t = 1/2 in unit 0; the second layer's unit 1 reads unit 1 only, continuous, and crosses there too.
    model = nn.Sequential(
        *dense(([[1.0], [1.0]], [0.0, 0.75]), ([[1.0, 0.0], [0.0, 1.0]], [0.0, -1.25]), act="jump_relu")[:2],
        nn.Linear(2, 2, dtype=DOUBLE),
        activation("relu"),
        nn.Linear(2, 1, dtype=DOUBLE),
    )
    model[2].weight.data, model[2].bias.data = torch.eye(2, dtype=DOUBLE), torch.tensor([-0.2, -1.25], dtype=DOUBLE)
    model[4].weight.data, model[4].bias.data = torch.ones(1, 2, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)
    table = kinks_on_segments(model, torch.zeros(1, 1), torch.ones(1, 1))
    assert list(zip(table.layer.tolist(), table.unit.tolist(), strict=True)) == [(0, 0), (1, 1)]
    torch.testing.assert_close(table.value_jump, torch.tensor([[0.3], [0.3]], dtype=DOUBLE))
    torch.testing.assert_close(table.jump, torch.tensor([[2.0], [2.0]], dtype=DOUBLE))
    assert table.share.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("names", [["relu", "relu"], ["staircase", "staircase"], ["jump_relu", "relu"]])
def test_jumps_telescope(names: list[str]) -> None:
    model = network([4, 9, 9, 2], names, seed=2)
    starts, ends = segments(6, 4)
    table = kinks_on_segments(model, starts, ends)
    for segment in range(6):
        at, jump, value_jump, _ = vertices(table, segment)
        t = torch.tensor([0.0, 1e-6, 1 - 1e-6, 1.0], dtype=DOUBLE)
        assert ((at > 1e-6) & (at < 1 - 1e-6)).all()
        f = model(line(starts, ends, segment, t)).detach()
        first, last = (f[1] - f[0]) / 1e-6, (f[3] - f[2]) / 1e-6
        torch.testing.assert_close(last - first, jump.sum(0), rtol=0, atol=1e-7)
        rise = first + ((1 - at)[:, None] * jump).sum(0)
        torch.testing.assert_close(f[3] - f[0], rise + value_jump.sum(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("names", [["relu", "relu"], ["jump_relu", "staircase"]])
def test_chunks_do_not_matter(names: list[str]) -> None:
    model = network([4, 16, 16, 2], names)
    starts, ends = segments(40, 4)
    whole = kinks_on_segments(model, starts, ends)
    for max_bytes in (1, 100_000):
        parts = kinks_on_segments(model, starts, ends, max_bytes=max_bytes)
        for name in ("segment", "layer", "unit", "effective"):
            assert torch.equal(getattr(parts, name), getattr(whole, name))
        for name in ("position", "jump", "value_jump"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_property_small_integer_networks_are_rebuilt(data: st.DataObject) -> None:
    """Integer weights make coincident kinks, dead units and units that rest on their breakpoint common."""
    names = data.draw(st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=1, max_size=3))
    widths = [2, *data.draw(st.lists(st.integers(1, 4), min_size=len(names), max_size=len(names))), 2]
    model = network(widths, names)
    for linear in model[::2]:
        for tensor in (linear.weight, linear.bias):
            size = tensor.numel()
            drawn = data.draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))
            tensor.data = torch.tensor(drawn, dtype=DOUBLE).view_as(tensor)
    ends = data.draw(st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(lambda p: p[:2] != p[2:]))
    points = torch.tensor(ends, dtype=DOUBLE).view(2, 1, 2)
    # Dyadic t (and five levels) keep the real forward pass exact, also where a unit rests on its breakpoint.
    assert_complete(model, points[0], points[1], torch.arange(1, 512, dtype=DOUBLE) / 512)
