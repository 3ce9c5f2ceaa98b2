"""Distances against the closed form of linear classifiers."""

import json

import pytest
import torch
from torch import nn

from smoothness._norms import DUAL, NORMS, vector_norm
from smoothness.analyzers import MinimalPerturbation
from smoothness.attacks import APGD, FMN
from smoothness.testing import check_analyzer
from smoothness.threat import ThreatModel


def linear(seed=0, n=20):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(6, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 6, generator=generator, dtype=torch.float64))
        x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
        return model, x, model(x).argmax(dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifiers_reach_the_closed_form(norm):
    model, x, y = linear()
    with torch.no_grad():
        logits, weight = model(x), model.weight
        apart = vector_norm((weight[None] - weight[y][:, None]).flatten(0, 1), DUAL[norm]).view(len(x), 3)
        exact = ((logits.gather(1, y[:, None]) - logits) / apart).scatter(1, y[:, None], torch.inf).amin(dim=1)
    found = MinimalPerturbation(norm, bounds=None)(model, x, y)
    assert (found.quantity, found.unit, found.bound) == ("minimal_perturbation", f"input {norm}", "upper")
    assert bool((found.values >= exact - 1e-6).all())
    torch.testing.assert_close(found.values, exact, rtol=2e-3, atol=1e-6)
    assert json.loads(json.dumps(found.settings))["attack"]["threat"]["epsilon"] is None


def test_clean_errors_are_at_distance_0_and_constant_models_out_of_reach():
    model, x, y = linear(n=4)
    y[0] = (y[0] + 1) % 3
    assert float(MinimalPerturbation("l2", bounds=None)(model, x, y).values[0]) == 0
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    found = MinimalPerturbation("l2", bounds=None)(model, x, torch.zeros(4, dtype=torch.long))
    assert bool(found.values.isinf().all())
    assert not found.valid.any()
    assert found.details["reason"] == ["no misclassified input was found"] * 4


@pytest.mark.parametrize("norm", NORMS)
def test_the_contract_is_kept(norm):
    model, x, y = linear(n=4)
    check_analyzer(MinimalPerturbation(norm, bounds=None), model, x, y)


def test_failing_outputs_are_not_valid():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0.5, torch.nan, 1.0) * x[:, 1:3]

    x = torch.tensor([[0.9, 0.7, 0.1], [0.1, 0.7, 0.1]])
    found = MinimalPerturbation("linf")(Broken(), x, torch.tensor([0, 0]))
    assert found.valid.tolist() == [False, True]
    assert bool(found.values[0].isnan())
    assert found.details["reason"] == ["the model's outputs are NaN or infinite", ""]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="the attack's norm is 'l2' and not 'linf'"):
        MinimalPerturbation("linf", attack=FMN(ThreatModel("l2")))
    with pytest.raises(TypeError, match="attack must be an instance with a threat model"):
        MinimalPerturbation("linf", attack=APGD)
    with pytest.raises(ValueError, match="unknown norm 'l3'"):
        MinimalPerturbation("l3")
