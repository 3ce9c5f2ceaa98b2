"""Linear regions: counts from theory and of reference networks, areas, maps and boundaries against the model."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import LinearRegions, linear_regions
from smoothness.analyzers.polygons import cut, square
from smoothness.testing import check_analyzer

DOUBLE = torch.float64
E1, E2 = torch.eye(2, dtype=DOUBLE)
NETWORKS = Path(__file__).parents[1] / "reference" / "networks.npz"


def reference_network(dims):
    stored = np.load(NETWORKS)
    layers = []
    for k in range(dims.count("-")):
        weight, bias = (torch.from_numpy(stored[f"{dims}/{name}{k}"]).double() for name in ("weight", "bias"))
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=DOUBLE)
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp(act="relu", inputs=2, outputs=3, width=12, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, width), activation(act), nn.Linear(width, width), activation(act), nn.Linear(width, outputs)
    ).double()


def inside(polygon, count, points):
    """Whether points lie in a convex polygon, counter-clockwise or clockwise."""
    corners = polygon[:count]
    edge = corners.roll(-1, 0) - corners
    away = points[:, None] - corners
    turn = edge[:, 0] * away[..., 1] - edge[:, 1] * away[..., 0]
    return (turn > 0).all(dim=1) | (turn < 0).all(dim=1)


@pytest.mark.parametrize(("dims", "count"), [("2-16-16-16-1", 1315), ("2-32-32-1", 1995)])
def test_reference_counts(dims, count):
    found = linear_regions(reference_network(dims), torch.zeros(2), E1, E2, bounds=(-3, 3, -3, 3))
    assert len(found) == count
    assert found.areas.sum().item() == pytest.approx(36)


@pytest.mark.parametrize(("units", "count"), [(8, 37), (16, 137)])
def test_zaslavsky(units, count):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, units), nn.ReLU(), nn.Linear(units, 1))
    far = 1e5
    assert len(linear_regions(model, torch.zeros(2), E1, E2, bounds=(-far, far, -far, far))) == count


@pytest.mark.parametrize("act", ["relu", "hardtanh", "step", "staircase", "jump_relu", "tent"])
def test_maps_are_the_model(act):
    model = mlp(act, inputs=5)
    torch.manual_seed(4)
    origin, first, second = torch.randn(3, 5, dtype=DOUBLE)
    found = linear_regions(model, origin, first, second)
    assert found.areas.sum().item() == pytest.approx(4)
    assert (found.areas > 0).all()
    rows = torch.randperm(len(found))[:40]
    weights = torch.rand(len(rows), found.polygons.corners.shape[1], dtype=DOUBLE)
    weights *= torch.arange(weights.shape[1]) < found.polygons.count[rows][:, None]
    points = (weights / weights.sum(1, keepdim=True))[:, None].bmm(found.polygons.corners[rows])[:, 0]
    truth = model(origin + points @ torch.stack([first, second])).detach()
    built = torch.einsum("rok,rk->ro", found.slopes[rows], points) + found.offsets[rows]
    assert torch.allclose(built, truth, atol=1e-10)
    # Every point lies in one region.
    sample = torch.rand(200, 2, dtype=DOUBLE) * 2 - 1
    hits = sum(inside(p, c, sample).int() for p, c in zip(found.polygons.corners, found.polygons.count, strict=True))
    assert (hits == 1).all()


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_boundary(outputs):
    """Both ends and the middle of each line tie, and every change of class on a fine line crosses one."""
    model = mlp(outputs=outputs, seed=5)
    with torch.no_grad():
        model[-1].bias -= model(torch.tensor([[0.2, 0.3]], dtype=DOUBLE))[0]  # a tie
    found = linear_regions(model, torch.zeros(2), E1, E2, bounds=(-3, 3, -3, 3))
    assert len(found.boundary) > 0
    points = torch.cat([found.boundary[:, 0], found.boundary[:, 1], found.boundary.mean(dim=1)])
    scores = model(points).detach()
    scores = torch.cat([scores, torch.zeros_like(scores)], dim=1) if outputs == 1 else scores
    top = scores.topk(2, dim=1).values
    assert (top[:, 0] - top[:, 1]).abs().max() < 1e-9
    x = torch.linspace(-3, 3, 4001, dtype=DOUBLE)
    scores = model(torch.stack([x, torch.full_like(x, 0.317)], dim=1)).detach()
    scores = torch.cat([scores, torch.zeros_like(scores)], dim=1) if outputs == 1 else scores
    changes = int((scores.argmax(1)[1:] != scores.argmax(1)[:-1]).sum())
    height = found.boundary[..., 1] - 0.317
    assert int((height[:, 0] * height[:, 1] < 0).sum()) == changes


def test_boundary_length_of_a_known_network():
    """Classes by |u| + |v| > 1: a square of side √2."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    model[0].weight.data = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=DOUBLE)
    model[0].bias.data.zero_()
    model[2].weight.data.fill_(1.0)
    model[2].bias.data.fill_(-1.0)
    found = linear_regions(model, torch.zeros(2), E1, E2, bounds=(-2, 2, -2, 2))
    assert len(found) == 4
    assert found.boundary_length == pytest.approx(4 * math.sqrt(2))


def test_cutting_through_corners_makes_no_slivers():
    heights = torch.tensor([[-1.0, 0.0, 1.0, 0.0]], dtype=DOUBLE)
    pieces, parent = cut(square(0, 1, 0, 1), heights)
    assert pieces.count.tolist() == [3, 3]
    assert pieces.areas.tolist() == [0.5, 0.5]
    assert parent.tolist() == [0, 0]
    whole, _ = cut(square(0, 1, 0, 1), heights.abs())
    assert len(whole) == 1


def test_bad_input_and_contract():
    with pytest.raises(ValueError, match="collinear"):
        linear_regions(mlp(), torch.zeros(2), E1, 2 * E1)
    with pytest.raises(ValueError, match="bounds must be"):
        linear_regions(mlp(), torch.zeros(2), E1, E2, bounds=(1, 1, 0, 1))
    with pytest.raises(ValueError, match="origin: inputs hold NaN"):
        linear_regions(mlp(), torch.full((2,), math.nan), E1, E2)
    with pytest.raises(TypeError, match=r"'1' \(gelu\) is not piecewise affine"):
        linear_regions(mlp("gelu"), torch.zeros(2), E1, E2)
    with pytest.raises(TypeError, match="sequential MLPs only"):
        linear_regions(
            nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.eye(2)[None]
        )
    with pytest.raises(ValueError, match="at least 2 features"):
        LinearRegions()(mlp(inputs=1), torch.zeros(1, 1))
    check_analyzer(LinearRegions(), mlp(inputs=4).float(), torch.rand(3, 4))
