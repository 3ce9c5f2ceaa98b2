"""Gradients from scores: the truth on linear models, plateaus, the contract."""

import pytest
import torch
from torch import nn

from smoothness._norms import NORMS, vector_norm
from smoothness.attacks import PGD, EvolutionGradient
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points
from tests.attacks.step_cells import can_be_fooled, step_network


@pytest.mark.parametrize("norm", NORMS)
def test_linear_models_fall_where_the_closed_form_says(norm):
    model = linear_model(0)
    x, y = points(model, n=60)
    distance = nearest_distance(model, x, y, norm)
    epsilon = float(distance.median())
    found = EvolutionGradient(ThreatModel(norm, epsilon, bounds=None))(model, x, y)
    assert not (found.success & (distance > epsilon * (1 + 1e-6))).any()
    assert found.success[distance < epsilon * (0.999 if norm == "linf" else 0.9)].all()
    assert found.passes.backward == 0


def test_tiny_step_networks_by_cell_enumeration():
    model = step_network(1)
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    found = EvolutionGradient(ThreatModel("linf", 0.3))(model, x, y).success
    assert not (found & ~can_be_fooled(model, x, y, 0.3, bounds=(0.0, 1.0), inside=0.0)).any()
    sure = can_be_fooled(model, x, y, 0.27, bounds=(0.0, 1.0), inside=1e-2)
    assert int(sure.sum()) >= 5
    assert int((sure & ~found).sum()) <= 1


def test_it_sees_where_gradients_are_zero():
    model = build_model("mlp", "step", seed=0, input_shape=(8,), classes=4, width=32)
    x = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for threat in (ThreatModel("linf", 0.1), ThreatModel("l2", 0.25), ThreatModel("l1", 0.6)):
        blind = int(PGD(threat)(model, x, y).success.sum())
        assert int(EvolutionGradient(threat)(model, x, y).success.sum()) > blind + 8


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_inside(norm):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 3, 3, generator=generator) * 0.2
    x = low + 0.7 * torch.rand(6, 2, 3, 3, generator=generator)
    model = build_model("mlp", "step", input_shape=(2, 3, 3), classes=3, width=16)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for sigma in (0.1, 20.0):
        attack = EvolutionGradient(ThreatModel(norm, 0.4, bounds=(low, low + 0.7)), steps=5, sigma=sigma, restarts=2)
        found = attack(model, x, y).inputs
        assert float(vector_norm(found - x, norm).max()) <= 0.4 + 1e-6
        assert bool(((found >= low - 1e-6) & (found <= low + 0.7 + 1e-6)).all())


def test_the_contract_in_every_norm():
    model = build_model("mlp", "step", seed=0, input_shape=(5,), classes=3, width=8)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 3
    check_attack(EvolutionGradient(ThreatModel("linf", 0.2), steps=5, population=11), model, x, y)


def test_chunks_and_the_scale_of_the_logits():
    model = build_model("mlp", "step", seed=1, input_shape=(6,), classes=4, width=16).double()
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    attack = EvolutionGradient(ThreatModel("linf", 0.08), steps=8)
    whole = attack(model, x, y)
    parts = EvolutionGradient(attack.threat, steps=8, batch_size=6)(model, x, y)
    torch.testing.assert_close(whole.inputs, parts.inputs, atol=1e-6, rtol=0)
    assert whole.status == parts.status
    assert 0 < int(whole.success.sum()) < 20
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(2.0**40)
    assert attack(model, x, y).status == whole.status


def test_failures_are_not_robustness():
    class Fails(nn.Module):
        def forward(self, x):
            score = x.sum(dim=1, keepdim=True)
            return torch.cat([torch.where(score > 0.6, torch.nan, 1.0 + 0 * score), 0 * score], dim=1)

    x = torch.tensor([[0.25, 0.25], [0.0, 0.0]])
    found = EvolutionGradient(ThreatModel("linf", 0.2), steps=3)(Fails(), x, torch.tensor([0, 0]))
    assert found.status == ("model_failure", "survived")


def test_targeted_reaches_the_class():
    model = linear_model(2, classes=3)
    x, y = points(model)
    wanted = (y + 1) % 3
    found = EvolutionGradient(ThreatModel("linf", 3.0, bounds=None), targeted=True)(model, x, wanted)
    assert int(found.success.sum()) > 20
    assert torch.equal(model(found.inputs).argmax(dim=1) == wanted, found.success)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "population must be a whole number of at least 2"),
        ({"sigma": 0.0}, "sigma must be a positive"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        EvolutionGradient(ThreatModel("linf", 0.1), **settings)
