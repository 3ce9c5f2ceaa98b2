"""Plateaus: shares that are known, and gradients that lie."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import PlateauFraction
from smoothness.testing import check_analyzer


class StraightThrough(nn.Module):
    def forward(self, z):
        return (z > 0).to(z) + (z - z.detach())


class NoGraph(nn.Module):
    def forward(self, z):
        return (z > 0).to(z)


def test_half_of_the_ball():
    """relu at its kink: half of the interval is flat. At 0.25 with radius 1: 3/8."""
    found = PlateauFraction(radius=1.0, points=4000)(nn.ReLU(), torch.tensor([[0.0], [0.25], [2.0]]))
    truth = torch.tensor([0.5, 0.375, 0.0], dtype=torch.float64)
    for m in found[:2]:
        assert (m.values - truth).abs().max() < 0.03
        assert (m.values - truth).abs().max() < 4 * m.details["standard_error"].max()
    assert torch.equal(found.saturation.values[:, 0], found.flat.values)


@pytest.mark.parametrize(
    ("act", "flat", "zero"),
    [(activation("step"), 1, 1), (NoGraph(), 1, 1), (StraightThrough(), 1, 0), (nn.Tanh(), 0, 0)],
)
def test_values_and_gradients_are_told_apart(act, flat, zero):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), act, nn.Linear(8, 2))
    found = PlateauFraction(of="margin")(model, torch.rand(4, 3))
    assert found.flat.values.mean() == pytest.approx(flat, abs=0.02)
    assert found.zero_gradient.values.mean() == pytest.approx(zero, abs=0.02)


def test_saturation_by_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 50), nn.ReLU(inplace=True), nn.Linear(50, 9), nn.Tanh(), nn.Linear(9, 2))
    x = torch.randn(5, 3)
    found = PlateauFraction(radius=1e-9).__call__(model, x).saturation
    assert found.coords["layer"] == ("1", "3")
    dead = (model[0](x) < 0).double().mean(dim=1)
    assert torch.allclose(found.values[:, 0], dead)
    assert (found.values[:, 1] == 0).all()
    model[2].weight.data.mul_(1e4)
    found = PlateauFraction(radius=1e-9, saturated=1e-3)(model, x).saturation
    assert (found.values[:, 1] > 0.9).all()


def test_functional_activations_are_not_valid_for_saturation():
    class Functional(nn.Module):
        def forward(self, x):
            return x.relu()

    found = PlateauFraction()(Functional(), torch.ones(2, 3))
    assert found.flat.valid.all()
    assert not found.saturation.valid.any()
    assert "no activation modules" in found.saturation.details["reason"][0]


def test_bad_input_and_contract():
    for settings in ({"points": 0}, {"radius": -1.0}, {"saturated": -0.1}, {"of": "loss"}, {"norm": "l0"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            PlateauFraction(**settings)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    check_analyzer(PlateauFraction(batch_size=2), model, torch.rand(5, 4))
    model[0].weight.data[0] = math.nan
    found = PlateauFraction()(model, torch.rand(5, 4))
    assert not any(bool(m.valid.any()) for m in found)
    assert "NaN" in found.flat.details["reason"][0]
