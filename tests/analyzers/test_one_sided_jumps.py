"""Jumps of value and slope to 1e-8, against one-sided differences of the model's values and its own derivatives."""

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import kinks_by_bisection, kinks_on_segments
from smoothness.analyzers.crossings import load_forward_mode
from tests.analyzers.kink_networks import segments, vertices
from tests.analyzers.test_graph_kinks import ACTIVATIONS, Residual, cnn, images

DOUBLE = torch.float64


def mlp(act):
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Linear(5, 12), activation(act), nn.Linear(12, 12), activation(act), nn.Linear(12, 3)
    )  # fmt: skip


NETWORKS = {"mlp": mlp, "cnn": cnn, "residual": Residual}


def built(kind, act):
    model = NETWORKS[kind](act).double().eval()
    ends = [3 * x for x in segments(4, 5)] if kind == "mlp" else images(1, size=10 if kind == "cnn" else 6)
    return model, *ends


def on_line(model, start, end, t):
    wide = (-1, *[1] * start.ndim)
    with torch.no_grad():
        return model(start + t.view(wide) * (end - start))


@pytest.fixture(autouse=True, scope="module")
def _forward_mode():
    load_forward_mode()  # torch warns of itself on first use


def slopes(model, start, end, t):
    """df/dt at each t, by forward-mode differentiation of the model itself."""
    wide = (-1, *[1] * start.ndim)
    x = start + t.view(wide) * (end - start)
    return torch.func.jvp(model, (x,), ((end - start).expand_as(x),))[1].detach()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("act", [*ACTIVATIONS, "k_winners"])
def test_piecewise_affine_networks(act, kind):
    """Between vertices f is affine, so that one-sided differences at any distance are its one-sided derivatives."""
    model, starts, ends = built(kind, act)
    table = kinks_on_segments(model, starts, ends)
    checked = 0
    for k in range(len(starts)):
        at, jump, value_jump, _ = vertices(table, k)
        if len(at) == 0:
            continue
        walls = torch.cat([torch.zeros(1), at, torch.ones(1)]).double()
        width = walls.diff()
        inner = torch.tensor([0.25, 0.5, 0.75], dtype=DOUBLE)
        t = walls[:-1, None] + width[:, None] * inner
        low, middle, high = on_line(model, starts[k], ends[k], t.flatten()).view(*t.shape, -1).unbind(dim=1)
        slope = slopes(model, starts[k], ends[k], t[:, 1])
        scale = 1 + slope.abs().max() + middle.abs().max()
        # Forward-mode slopes on both sides, at every vertex; then differences of values alone, where pieces are wide.
        assert (slope.diff(dim=0) - jump).abs().max() < 1e-8 * scale
        right, left = middle - slope * width[:, None] / 2, middle + slope * width[:, None] / 2
        assert (right[1:] - left[:-1] - value_jump).abs().max() < 1e-8 * scale
        difference = (high - low) / (width[:, None] / 2)
        right, left = low - (middle - low), high + (high - middle)
        wide = (width > 1e-6)[1:] & (width > 1e-6)[:-1]
        assert (difference.diff(dim=0) - jump)[wide].abs().max() < 1e-8 * scale
        assert (right[1:] - left[:-1] - value_jump)[wide].abs().max() < 1e-8 * scale
        checked += int(wide.sum())
        assert wide.double().mean() > 0.8
    assert checked >= 10


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("act", ["selu", "hardswish", "jump_relu"])
def test_kinks_beside_curvature(act, kind):
    """One-sided limits of f and of its forward-mode derivative, extrapolated from four distances."""
    model, starts, ends = built(kind, act)
    starts, ends = 4 * starts, 4 * ends
    table = kinks_by_bisection(model, starts, ends)
    weights = torch.tensor([4.0, -6.0, 4.0, -1.0], dtype=DOUBLE)  # cubic, to distance 0
    checked = 0
    for k in range(len(starts)):
        at, jump, value_jump, _ = vertices(table, k)
        walls = torch.cat([torch.zeros(1), at, torch.ones(1)]).double()
        for i, t in enumerate(at.tolist()):
            gap = float(walls.diff()[i : i + 2].min())
            if gap < 1e-4:
                continue
            h = min(1e-4, gap / 8) * torch.arange(1, 5, dtype=DOUBLE)
            sides = []
            for sign in (1, -1):
                u = t + sign * h
                values, slope = on_line(model, starts[k], ends[k], u), slopes(model, starts[k], ends[k], u)
                sides.append((weights @ values, weights @ slope))
            scale = 1 + sides[0][1].abs().max() + sides[0][0].abs().max()
            assert (sides[0][1] - sides[1][1] - jump[i]).abs().max() < 1e-8 * scale
            assert (sides[0][0] - sides[1][0] - value_jump[i]).abs().max() < 1e-8 * scale
            checked += 1
    assert checked >= 5
