"""The catalogue as a whole: what it holds, what every entry can do, and adding one from outside."""

import copy

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import smoothness as sm
from smoothness.activations import activation_facts
from smoothness.activations.catalogue import ACTIVATIONS, FAMILIES, is_activation
from smoothness.activations.facts import piecewise_polynomial_facts
from smoothness.activations.families.vector import KWinners
from smoothness.cli import app
from smoothness.testing import check_activation

ELEMENTWISE = [name for name, kind in ACTIVATIONS.items() if kind.elementwise]
KEEPS_SHAPE = [name for name in ACTIVATIONS if name != "maxout"]


def test_at_least_45_entries_each_in_one_family():
    assert len(ACTIVATIONS) >= 45
    assert sum(map(len, FAMILIES.values())) == len(ACTIVATIONS)
    assert sm.list_activations() == sorted(ACTIVATIONS)


def test_an_identity_is_no_place_to_swap_but_has_facts():
    assert not is_activation(nn.Identity())
    assert activation_facts(nn.Identity()) == activation_facts("identity")


class SoftClip(sm.Activation):
    """φ(z) = 0 below 0, 3z² - 2z³ to 1, then 1: the smoothstep, an activation from outside."""

    def forward(self, z: Tensor) -> Tensor:
        z = z.clamp(0, 1)
        return z * z * (3 - 2 * z)

    def facts(self) -> sm.ActivationFacts:
        return piecewise_polynomial_facts("smoothstep", (0.0, 1.0), ((0.0,), (0.0, 0.0, 3.0, -2.0), (1.0,)))


def test_adding_an_activation_is_one_class_and_one_line(monkeypatch):
    monkeypatch.setitem(FAMILIES["sigmoidal"], "smoothstep", SoftClip)  # the line

    module = sm.activation("smoothstep")
    check_activation(module)
    facts = sm.activation_facts("smoothstep")
    assert (facts.smoothness_class, facts.slope_max, facts.curvature) == (1, 1.5, 6.0)
    assert "smoothstep" in sm.list_activations()
    low, high = facts.secant_range(0.5, -1.0, 2.0)
    assert float(low) < 1 / 3 < float(high) <= 1.5 + 1e-6
    smooth = sm.mollify("smoothstep", 0.2)
    assert smooth.method == "closed form"
    z = torch.tensor([0.3], dtype=torch.float64)
    u = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    weight = torch.exp(-u * u / 2) / (2 * torch.pi) ** 0.5
    assert float(smooth(z)) == pytest.approx(float(torch.trapezoid(weight * module(z + 0.2 * u), u)), abs=1e-9)
    model = sm.build_model("mlp", "smoothstep", input_shape=(1, 8, 8), classes=10, width=32)
    sm.train(model, sm.load_dataset("digits"), sm.Recipe(epochs=1))
    assert sm.swap_activations(model, "relu").swap_report.replaced[0][1:] == ("SoftClip()", "ReLU()")
    assert "smoothstep" in CliRunner().invoke(app, ["activations"]).stdout


@pytest.mark.parametrize("name", KEEPS_SHAPE)
def test_every_entry_can_be_swapped_in(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    swapped, x = sm.swap_activations(model, name), torch.randn(5, 6)
    own = sm.activation(name).eval()
    expected = model[4](own(model[2](own(model[0](x)))))
    assert torch.equal(swapped(x), expected)
    assert len(swapped.swap_report.replaced) == 2


def test_an_activation_that_pools_features_cannot_be_swapped_in():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    with pytest.raises(ValueError, match=r"MaxOut\(pool=2\) gives 1 feature out for 2 in, so it cannot replace ReLU"):
        sm.swap_activations(model, "maxout")


def test_networks_are_built_with_room_for_pooling():
    for architecture in ("mlp", "cnn"):
        model = sm.build_model(architecture, "maxout", input_shape=(1, 8, 8), classes=10)
        assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match="'maxout' needs other weight shapes than 'relu'"):
        sm.build_twins("mlp", ["relu", "maxout"], input_shape=(4,), classes=3)
    with pytest.raises(ValueError, match="gain='auto' needs the second moment of KWinners"):
        sm.build_model("mlp", "k_winners", input_shape=(4,), classes=3, gain="auto")


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", ["tanh", "identity", "mollified"])
def test_every_elementwise_entry_under_a_surrogate(name, shape):
    module = sm.activation(name).double().eval()
    z = torch.tensor([-1.7, -0.31, 0.12, 0.44, 2.6], dtype=torch.float64, requires_grad=True)
    plain = module(z)
    with sm.surrogate_gradient(module, shape, width=0.3):
        value = module(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    assert torch.equal(value, plain)
    if shape == "identity":
        assert torch.equal(slope, torch.ones_like(z))
    elif shape == "mollified":
        smooth, h = sm.mollify(module, 0.3), 1e-5
        with torch.no_grad():
            torch.testing.assert_close(slope, (smooth(z + h) - smooth(z - h)) / (2 * h), rtol=1e-5, atol=1e-5)
    else:
        facts = module.facts()
        assert slope.isfinite().all()
        assert (slope != 0).any()
        if facts.smoothness_class > 0:  # nothing to blur
            assert torch.equal(slope, torch.autograd.grad(plain.sum(), z)[0])


@pytest.mark.parametrize("shape", ["tanh", "gaussian", "mollified"])
def test_k_winners_are_blurred_at_the_last_winner(shape):
    winners = KWinners(k=2)
    z = torch.tensor([[3.0, -1.0, 2.0, 1.5]], dtype=torch.float64, requires_grad=True)
    with sm.surrogate_gradient(winners, shape, width=0.3):
        (slope,) = torch.autograd.grad(winners(z).sum(), z)
    # As jump_relu with its jump at the second largest, which itself wins.
    like = sm.activation("jump_relu", height=2.0)
    with sm.surrogate_gradient(like, shape, width=0.3):
        (expected,) = torch.autograd.grad(like(z).sum(), z)
    won = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64) if shape != "mollified" else 0.0
    torch.testing.assert_close(slope, expected + won)
    assert slope[0, 3] > 0.1  # a loser near the threshold learns


def test_groups_keep_their_own_gradient_under_a_surrogate():
    for name in ("maxout", "group_sort"):
        module = copy.deepcopy(sm.activation(name))
        z = torch.tensor([[3.0, -1.0, 2.0, 1.5]], requires_grad=True)
        (plain,) = torch.autograd.grad(module(z).square().sum(), z)
        with sm.surrogate_gradient(module, "identity"):
            assert torch.equal(torch.autograd.grad(module(z).square().sum(), z)[0], plain)


def test_random_slopes_are_reproducible_in_training_and_leave_the_generator_alone():
    data = sm.load_dataset("digits")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    finals = []
    for start in (0, 1):
        torch.manual_seed(start)
        model = sm.build_model("mlp", "rrelu", input_shape=(1, 8, 8), classes=10, width=16)
        before = torch.get_rng_state()
        sm.train(model, data, sm.Recipe(epochs=1))
        assert torch.equal(torch.get_rng_state(), before)
        finals.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*finals)
    torch.set_rng_state(state)
