"""Targeted attacks: success is the prediction of y."""

import pytest
import torch

from smoothness._norms import DUAL, NORMS, vector_norm
from smoothness.attacks import APGD, DDN, FMN, PGD, DeepFool
from smoothness.models import build_model
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, points

EPSILON = {"linf": 0.2, "l2": 0.6, "l1": 1.5}


def attacks(norm, bounds=None, **settings):
    threat = ThreatModel(norm, EPSILON[norm], bounds=bounds)
    found = [PGD(threat, targeted=True, loss=loss, **settings) for loss in ("ce", "margin")]
    found += [APGD(threat, targeted=True, loss=loss, **settings) for loss in ("ce", "margin", "dlr")]
    found += [FMN(threat, targeted=True, **settings), DeepFool(threat, targeted=True, **settings)]
    return found + ([DDN(threat, targeted=True, **settings)] if norm == "l2" else [])


@pytest.mark.parametrize("norm", NORMS)
def test_two_classes_reach_the_closed_form(norm):
    model = linear_model(0)
    x, y = points(model)
    with torch.no_grad():
        logits = model(x)
        gap = logits.gather(1, y.unsqueeze(1)).squeeze(1) - logits.gather(1, 1 - y.unsqueeze(1)).squeeze(1)
        distance = gap / vector_norm((model.weight[0] - model.weight[1]).unsqueeze(0), DUAL[norm])
    clear = (distance / EPSILON[norm] - 1).abs() > 0.02
    for attack in attacks(norm):
        result = attack(model, x, 1 - y)
        assert torch.equal(result.success[clear], distance[clear] < EPSILON[norm]), attack.label
        assert 3 < int(result.success.sum()) < 37


@pytest.mark.parametrize("norm", NORMS)
def test_success_is_the_prediction_of_the_target(norm):
    model = build_model("mlp", "softplus", seed=0, input_shape=(6,), classes=4, width=24).double()
    x = torch.rand(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        start = model(x).argmax(dim=1)
    target = (start + torch.arange(24) % 3) % 4  # a third stands there already
    for attack in attacks(norm, bounds=(0.0, 1.0)):
        result = attack(model, x, target)
        with torch.no_grad():
            reached = model(result.inputs).argmax(dim=1) == target
        assert torch.equal(result.success, reached), attack.label
        there = torch.tensor([status == "clean_error" for status in result.status])
        assert torch.equal(there, start == target)
        assert bool((result.distance[there] == 0).all())
        assert torch.equal(result.inputs[there], x[there])
        assert "fooled" in result.status
        assert float(vector_norm(result.inputs - x, norm).max()) <= EPSILON[norm] + 1e-9
        part = type(attack)(**{**vars(attack), "batch_size": 7})(model, x, target)
        torch.testing.assert_close(part.inputs, result.inputs, atol=1e-6, rtol=0)


def test_a_targeted_success_is_an_untargeted_one():
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    threat = ThreatModel("l2", bounds=None)
    nearest = torch.stack([FMN(threat, targeted=True)(model, x, (y + k) % 3).distance for k in (1, 2)]).amin(dim=0)
    untargeted = FMN(threat)(model, x, y).distance
    found = nearest.isfinite()
    assert int(found.sum()) > 20
    assert float((untargeted / nearest)[found].median()) == pytest.approx(1, abs=1e-3)
