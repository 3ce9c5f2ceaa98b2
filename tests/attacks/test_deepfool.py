"""DeepFool: closed forms, the box, bookkeeping."""

import pytest
import torch

from smoothness._norms import NORMS
from smoothness.attacks import FMN, DeepFool
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_classifiers_are_solved_exactly(norm, classes, dtype):
    model = linear_model(1, features=20, classes=classes, dtype=dtype)
    x, y = points(model)
    ratio = DeepFool(ThreatModel(norm, bounds=None))(model, x, y).distance / nearest_distance(model, x, y, norm)
    assert float(ratio.min()) >= 1 - 1e-5
    assert float(ratio.max()) <= 1.001


@pytest.mark.parametrize("norm", NORMS)
def test_the_contract_is_kept(norm):
    model = build_model("mlp", "gelu", seed=0, input_shape=(6,), classes=3, width=16)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    for threat in (ThreatModel(norm), ThreatModel(norm, 0.1), ThreatModel(norm, bounds=None)):
        check_attack(DeepFool(threat), model, x, torch.arange(12) % 3)


@pytest.mark.parametrize("norm", NORMS)
def test_near_the_better_search_on_a_network(norm):
    model = build_model("mlp", "softplus", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    quick, slow = (attack(ThreatModel(norm, bounds=None))(model, x, y) for attack in (DeepFool, FMN))
    assert bool(quick.success.all())
    assert bool((quick.distance >= slow.distance * (1 - 1e-3)).all())
    assert float((quick.distance / slow.distance).median()) < 1.2
    assert quick.passes.total < slow.passes.total


def test_settings_are_checked():
    with pytest.raises(ValueError, match="overshoot must be finite and at least 0, got -1"):
        DeepFool(ThreatModel("l2"), overshoot=-1)
    with pytest.raises(TypeError, match="threat must be a ThreatModel, got str"):
        DeepFool("l2")
