"""Continuation against enumeration, and on every kind of activation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation, mollify
from smoothness.activations.surrogates.mollified_forward import mollified_forward
from smoothness.attacks import APGD, PGD, Continuation, margin_loss
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.step_cells import can_be_fooled, step_network

LINF = ThreatModel("linf", 0.3, bounds=None)


def labelled(model, n, features, seed=0, dtype=torch.float64):
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tiny_step_networks_by_cell_enumeration(seed):
    model = step_network(seed)
    x, y = labelled(model, 30, 3, seed)
    found = Continuation(LINF, restarts=4)(model, x, y).success
    assert not (found & ~can_be_fooled(model, x, y, 0.3, inside=0.0)).any()
    sure = can_be_fooled(model, x, y, 0.3 / 1.05, inside=1e-3)
    assert int(sure.sum()) >= 5
    assert int((sure & ~found).sum()) <= 1


@pytest.mark.parametrize("name", ["step", "gelu", "k_winners"])
def test_the_contract_in_every_norm(name):
    model = build_model("mlp", name, seed=0, input_shape=(5,), classes=3, width=8)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 3
    check_attack(Continuation(ThreatModel("linf", 0.2), sigmas=(0.5, 0.1), steps=3), model, x, y)


def test_activations_of_several_features_stay():
    model = build_model("mlp", "maxout", seed=0, input_shape=(5,), classes=3, width=8)
    x, y = labelled(model, 20, 5, dtype=torch.float32)
    assert int(Continuation(LINF, steps=6)(model, x, y).success.sum()) > 5


@pytest.mark.parametrize("name", ["step", "gelu"])
def test_examples_do_not_depend_on_their_company(name):
    model = build_model("mlp", name, seed=1, input_shape=(6,), classes=4, width=16).double()
    x, y = labelled(model, 24, 6)
    x[3] *= 20  # a wide one must not change what σ means for the others
    y = model(x).argmax(dim=1)
    together, chunks = (Continuation(LINF, steps=6, batch_size=size)(model, x, y) for size in (None, 7))
    torch.testing.assert_close(together.inputs, chunks.inputs, atol=1e-6, rtol=0)
    assert together.status == chunks.status
    few = Continuation(LINF, steps=6)(model, x[:2], y[:2])
    assert few.status == together.status[:2]


def test_it_sees_where_gradients_are_zero():
    model = build_model("mlp", "step", seed=0, input_shape=(8,), classes=4, width=32)
    x, y = labelled(model, 60, 8, dtype=torch.float32)
    blind = PGD(LINF)(model, x, y).success.float().mean()
    seeing = Continuation(LINF)(model, x, y)
    assert seeing.success.float().mean() > blind + 0.2
    assert seeing.passes.backward > 0


def test_smooth_models_are_attacked_as_well_as_by_their_gradient():
    model = build_model("mlp", "tanh", seed=0, input_shape=(8,), classes=4, width=32)
    x, y = labelled(model, 60, 8, dtype=torch.float32)
    native = APGD(ThreatModel("linf", 0.1, bounds=None))(model, x, y).success
    soft = Continuation(ThreatModel("linf", 0.1, bounds=None))(model, x, y).success
    assert int(soft.sum()) >= int(native.sum()) - 1
    assert int(native.sum()) > 5


@pytest.mark.parametrize("name", ["step", "staircase", "relu", "gelu", "elu", "sin", "hardtanh"])
def test_the_mollified_forward_is_that_of_mollify(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), activation(name), nn.Linear(64, 1)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    deviations = model[0](x).detach().std(dim=1, correction=0)
    with mollified_forward(model) as dial:
        with dial.recording(torch.arange(5), 5):
            model(x)
        for sigma in (0.5, 0.1):
            # An example's width is that of its deviation, to the next half octave.
            widths = sigma * 2 ** ((2 * deviations.log2()).round() / 2)
            rows = [
                nn.Sequential(model[0], mollify(activation(name), float(width)), model[2])(x[i : i + 1])
                for i, width in enumerate(widths)
            ]
            expected = torch.cat(rows)
            with dial.turned_to(sigma, torch.arange(5)):
                soft = model(x)
            torch.testing.assert_close(soft, expected, atol=5e-3, rtol=5e-3)
            mine, true = (torch.autograd.grad(out.sum(), x)[0] for out in (soft, expected))
            assert float(F.cosine_similarity(mine, true).min()) > 0.98
        assert torch.equal(model(x), nn.Sequential(*model)(x))
    assert not model[1]._forward_hooks
    assert not model[1]._forward_pre_hooks


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.three(F.relu(self.two(F.relu(self.one(x)))))


def test_calls_modules_and_in_place_modules_are_the_same():
    torch.manual_seed(0)
    calls = Calls()
    modules = nn.Sequential(calls.one, nn.ReLU(), calls.two, nn.ReLU(), calls.three)
    inplace = nn.Sequential(calls.one, nn.ReLU(inplace=True), calls.two, nn.ReLU(inplace=True), calls.three)
    x = torch.randn(4, 4, requires_grad=True)
    found = []
    for model in (calls, modules, inplace):
        with mollified_forward(model) as dial:
            with dial.recording(torch.arange(4), 4):
                model(x)
            assert dial.places == 2
            with dial.turned_to(0.5, torch.arange(4)):
                soft = model(x)
        found.append((soft, torch.autograd.grad(soft.square().sum(), x)[0]))
    for soft, gradient in found[1:]:
        torch.testing.assert_close(soft, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])
    assert not torch.allclose(found[0][0], modules(x))


def test_targeted_reaches_the_class():
    model = build_model("mlp", "step", seed=0, input_shape=(6,), classes=3, width=32)
    x, y = labelled(model, 30, 6, dtype=torch.float32)
    wanted = (y + 1) % 3
    found = Continuation(ThreatModel("linf", 0.6, bounds=None), targeted=True)(model, x, wanted)
    assert int(found.success.sum()) > 10
    assert torch.equal(model(found.inputs).argmax(dim=1) == wanted, found.success)


def test_the_scale_of_the_logits_does_not_matter():
    model = build_model("mlp", "step", seed=0, input_shape=(6,), classes=3, width=24)
    x, y = labelled(model, 30, 6, dtype=torch.float32)
    plain = Continuation(LINF, steps=6)(model, x, y)
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(2.0**20)
    scaled = Continuation(LINF, steps=6)(model, x, y)
    assert scaled.status == plain.status


def test_survivors_hold_the_lowest_real_margin_seen():
    model = build_model("mlp", "step", seed=0, input_shape=(6,), classes=3, width=24)
    x, y = labelled(model, 30, 6, dtype=torch.float32)
    found = Continuation(ThreatModel("linf", 0.05, bounds=None))(model, x, y)
    survived = ~found.success
    assert bool(survived.any())
    with torch.no_grad():
        assert bool((margin_loss(model(found.inputs), y) >= margin_loss(model(x), y))[survived].all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigmas": ()}, "sigmas must fall"),
        ({"sigmas": (0.1, 0.2)}, "sigmas must fall"),
        ({"sigmas": (0.1, -0.2)}, "sigmas must be a positive"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"restarts": 0}, "restarts must be"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Continuation(LINF, **settings)


def test_a_model_without_activations_is_refused():
    with pytest.raises(ValueError, match="no activation"):
        Continuation(LINF)(nn.Linear(3, 2), torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))
