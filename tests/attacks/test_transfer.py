"""From a source with a gradient to a target without."""

import pytest
import torch
from torch import nn

from smoothness.activations import mollify, swap_activations
from smoothness.attacks import APGD, PGD, Transfer
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points

LINF = ThreatModel("linf", 0.1)


def twins(features=8, n=60):
    """A hard-step network, and its mollified copy as the source."""
    target = build_model("mlp", "step", seed=0, input_shape=(features,), classes=4, width=32)
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return swap_activations(target, to=mollify("step", 0.3)), target, x, target(x).argmax(dim=1)


def test_the_same_linear_model_as_source_is_an_attack_on_itself():
    model = linear_model(0, dtype=torch.float32)
    x, y = points(model, n=60)
    distance = nearest_distance(model, x, y, "linf")
    epsilon = float(distance.median())
    for guided in (True, False):
        found = Transfer(
            ThreatModel("linf", epsilon, bounds=None), linear_model(0, dtype=torch.float32), guided=guided
        )
        success = found(model, x, y).success
        assert not (success & (distance > epsilon * 1.001)).any()
        assert success[distance < 0.999 * epsilon].all()


def test_success_is_read_on_the_target():
    source, target, x, y = twins()
    found = Transfer(LINF, source)(target, x, y)
    with torch.no_grad():
        assert torch.equal(target(found.inputs).argmax(dim=1) != y, found.success)
    native = PGD(LINF)(target, x, y).success
    plain = Transfer(LINF, source, guided=False)(target, x, y)
    assert int(found.success.sum()) > int(plain.success.sum())
    assert int(found.success.sum()) > int(native.sum())
    assert plain.passes.backward > 0
    assert found.zero_gradient is None


def test_the_contract():
    source, target, x, y = twins(features=5, n=6)
    y[0] = (y[0] + 1) % 4
    source.train()
    check_attack(Transfer(LINF, source, attack=APGD(LINF, steps=5, drop_fooled=False)), target, x, y)
    assert source.training
    assert all(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_and_several_attacks(norm):
    source, target, x, y = twins()
    threat = ThreatModel(norm, {"l2": 0.3, "l1": 0.8}[norm])
    attacks = [PGD(threat, loss=loss, drop_fooled=False) for loss in ("ce", "margin")]
    both, one = (Transfer(threat, source, attack=a)(target, x, y) for a in (attacks, attacks[0]))
    assert bool((both.success >= one.success).all())
    assert int(one.success.sum()) > 10


def test_batch_norm_statistics_of_the_source_stay():
    source = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4))
    before = source[0].running_mean.clone()
    _, target, x, y = twins(n=10)
    Transfer(LINF, source)(target, x, y)
    assert torch.equal(source[0].running_mean, before)


def test_targeted():
    source, target, x, y = twins()
    wanted = (y + 1) % 4
    threat = ThreatModel("linf", 0.4)
    found = Transfer(threat, source, attack=PGD(threat, targeted=True, drop_fooled=False))(target, x, wanted)
    assert int(found.success.sum()) > 5
    with torch.no_grad():
        assert torch.equal(target(found.inputs).argmax(dim=1) == wanted, found.success)


def test_settings_are_checked():
    source = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module"):
        Transfer(LINF, lambda x: x)
    with pytest.raises(ValueError, match=r"threat of PGD, .* is not Transfer's .*; give both the same"):
        Transfer(LINF, source, attack=PGD(ThreatModel("linf", 0.2)))
    with pytest.raises(ValueError, match="attack is empty"):
        Transfer(LINF, source, attack=[])
    with pytest.raises(ValueError, match="some attacks are targeted"):
        Transfer(LINF, source, attack=[PGD(LINF), PGD(LINF, targeted=True)])
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match=r"outputs of the target's shape \(1, 2\) for one example, got \(1, 3\)"):
        Transfer(LINF, nn.Linear(2, 3))(source, x, y)


def test_a_source_that_fails_leaves_the_targets_scores_alone():
    class Broken(nn.Module):
        def forward(self, x):
            return x * torch.nan

    model = linear_model(0, features=2, dtype=torch.float32)
    x, y = points(model, n=8)
    found = Transfer(ThreatModel("linf", 1e-3, bounds=None), Broken())(model, x, y)
    assert "model_failure" not in found.status
