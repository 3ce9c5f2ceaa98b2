"""The curvature bound is above every curvature found, tight where it can be, infinite at kinks."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import CurvatureUpperBound, InputCurvature
from smoothness.testing import check_analyzer


def mlp(act, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 12), nn.BatchNorm1d(12), activation(act), nn.Linear(12, 8), activation(act), nn.Linear(8, 3)
    ).eval()


@pytest.mark.parametrize("act", ["softplus", "gelu", "tanh", "elu", "sin"])
@pytest.mark.parametrize("of", ["margin", "logits"])
def test_above_the_lower_side(act, of):
    x = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    model = mlp(act)
    upper, lower = CurvatureUpperBound(of=of)(model, x), InputCurvature(of=of)(model, x).curvature
    assert (lower.values <= upper.values).all()
    assert upper.values.isfinite().all()


def test_tight_for_one_layer():
    """f = Σ tanh(z_u), reached where every |φ''| is at its top: there |H| = sup |φ''| |W|²."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), activation("tanh"), nn.Linear(4, 1, bias=False)).double()
    model[0].weight.data.fill_(2.0)
    model[2].weight.data.fill_(1.0)
    upper = CurvatureUpperBound(of="logits")(model, torch.zeros(1, 1))
    turn = math.atanh(1 / math.sqrt(3)) / 2
    lower = InputCurvature(of="logits")(model, torch.full((1, 1), turn, dtype=torch.float64)).curvature
    assert lower.values.item() == pytest.approx(upper.values.item(), rel=1e-9)


def test_kinks_have_no_bound_and_lines_none_to_have():
    x = torch.zeros(2, 5)
    assert CurvatureUpperBound()(mlp("relu"), x).values.tolist() == [math.inf, math.inf]
    assert CurvatureUpperBound()(nn.Sequential(nn.Linear(5, 3)), x).values.tolist() == [0.0, 0.0]


def test_bad_input_and_contract():
    with pytest.raises(ValueError, match="unknown of"):
        CurvatureUpperBound(of="loss")
    with pytest.raises(TypeError, match="sequential MLPs only"):
        CurvatureUpperBound()(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 2, 2))
    check_analyzer(CurvatureUpperBound(), mlp("gelu"), torch.rand(3, 5))


def test_formula_for_two_layers():
    """f = a·softplus(b·tanh(c·x)), term by term."""
    a, b, c = 0.7, 1.9, 0.4
    layers = [nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(3)]
    for layer, weight in zip(layers, (c, b, a), strict=True):
        layer.weight.data.fill_(weight)
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], activation("softplus", beta=2.0), layers[2])
    # sup |softplus''| = β / 4 = 1/2, its slope at most 1; tanh'' at most 4 / (3 √3), slope 1.
    truth = 0.5 * a * b**2 * c**2 + 4 / (3 * math.sqrt(3)) * a * b * c**2
    found = CurvatureUpperBound(of="logits")(model, torch.zeros(1, 1))
    assert found.values.item() == pytest.approx(truth, rel=1e-9)
