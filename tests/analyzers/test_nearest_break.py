"""Distances to kinks and boundaries against closed forms."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import NearestBreak
from smoothness.testing import check_analyzer


def halfplane(dimension=6):
    """Classes by the sign of x_0; a kink at x_0 = 0.3."""
    model = nn.Sequential(nn.Linear(dimension, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data = torch.zeros(2, dimension)
    model[0].weight.data[0, 0], model[0].weight.data[1, 1] = 1.0, 1.0
    model[0].bias.data = torch.tensor([-0.3, 9.0])
    model[2].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    model[2].bias.data = torch.tensor([0.0, 0.2])
    return model


def test_distances_along_directions():
    x = torch.zeros(2, 6)
    x[0, 0] = 0.1
    found = NearestBreak(segments=32)(halfplane(), x)
    # Along u the kink is at 0.2 / u_0, the boundary (relu = 0.1) at 0.3 / u_0: their quotient is the same.
    assert found.boundary.values[0] / found.kink.values[0] == pytest.approx(0.3 / 0.2, rel=1e-6)  # weights in float32
    assert (found.kink.values >= torch.tensor([0.2, 0.3])).all()
    assert found.kink.bound == "upper"
    none = NearestBreak(segments=4, radius=0.1)(halfplane(), x)
    assert none.kink.values.tolist() == none.boundary.values.tolist() == [math.inf, math.inf]


def test_curved_networks_and_contract():
    torch.manual_seed(0)
    for act in ("selu", "gelu", "step"):
        model = nn.Sequential(nn.Linear(4, 8), activation(act), nn.Linear(8, 3))
        found = NearestBreak(segments=4, radius=3.0)(model, torch.rand(3, 4))
        assert bool(found.kink.values.isfinite().all()) == (act != "gelu")
    check_analyzer(NearestBreak(segments=2), halfplane(), torch.rand(3, 6))
    for settings in ({"segments": 0}, {"radius": 0.0}, {"grid": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            NearestBreak(**settings)
    model = halfplane()
    model[0].weight.data[0] = math.nan
    found = NearestBreak()(model, torch.rand(2, 6))
    assert not found.kink.valid.any()
