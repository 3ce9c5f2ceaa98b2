"""Twins: equal weights, equal shapes, declared gains."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import list_activations
from smoothness.models import build_model, build_record, build_twins, weights_fingerprint


@pytest.mark.parametrize(("architecture", "shape"), [("mlp", (1, 8, 8)), ("mlp", (7,)), ("cnn", (3, 9, 8))])
def test_twins_are_equal_to_the_bit(architecture, shape):
    names = [name for name in list_activations() if name != "maxout"]  # whose layers are wider
    twins = build_twins(architecture, names, seed=5, input_shape=shape, classes=4)
    first = twins["relu"].state_dict()
    for model in twins.values():
        state = model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in first.items())
        assert all(name.startswith("activation") for name in state.keys() - first.keys())  # learnable slopes
        assert model(torch.rand(2, *shape)).shape == (2, 4)


def test_weights_have_the_declared_spread():
    model = build_model("mlp", input_shape=(400,), classes=10, width=500, depth=2, gain=1.5)
    assert model.linear2.weight.std().item() == pytest.approx(1.5 / math.sqrt(500), rel=0.01)
    assert model.output.weight.std().item() == pytest.approx(1 / math.sqrt(500), rel=0.05)
    assert not model.linear2.bias.any()


@pytest.mark.parametrize("name", [name for name in list_activations() if name != "k_winners"])
def test_automatic_gain_keeps_the_second_moment(name):
    """In a wide network the pre-activations of every layer have second moment 1 for inputs of norm √n."""
    model = build_model("mlp", name, input_shape=(1000,), classes=2, width=1000, depth=3, gain="auto", seed=3)
    x = nn.functional.normalize(torch.randn(50, 1000)) * math.sqrt(1000)
    gain = build_record(model).gain
    z1 = model.linear1(model.flatten(x)) / gain
    h1 = model.activation1(z1)  # standard normal pre-activations
    z2 = model.linear2(h1)
    assert z2.square().mean().item() == pytest.approx(1, abs=0.1)


def test_gain_per_activation_is_recorded_and_divides_out():
    twins = build_twins("mlp", ["relu", "tanh"], input_shape=(6,), classes=3, gain={"tanh": 2.0})
    assert build_record(twins["tanh"]).gain == 2.0
    assert build_record(twins["relu"]).gain == pytest.approx(math.sqrt(2))
    relu, tanh = (weights_fingerprint(m, build_record(m).gain) for m in twins.values())
    assert relu == pytest.approx(tanh, rel=1e-6)
    other = build_model("mlp", input_shape=(6,), classes=3, seed=1)
    assert weights_fingerprint(other, math.sqrt(2)) != pytest.approx(relu, rel=1e-2)


def test_global_random_state_is_untouched():
    before = torch.random.get_rng_state()
    build_model("cnn", input_shape=(1, 8, 8), classes=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_instances_and_factories():
    model = build_model("mlp", nn.PReLU(init=0.1), input_shape=(3,), classes=2)
    assert model.activation1 is not model.activation2
    assert isinstance(build_model("mlp", nn.Mish, input_shape=(3,), classes=2).activation1, nn.Mish)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "mpl"}, "unknown architecture 'mpl'; did you mean 'mlp'"),
        ({"activation": "rellu"}, "unknown activation 'rellu'"),
        ({"widht": 3}, "'mlp' has no option 'widht'; it takes width, depth"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"classes": 1}, "classes must be a whole number of at least 2"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"gain": "aut"}, "gain must be a positive number or 'auto'"),
        ({"gain": -1.0}, "gain must be a positive finite number"),
        ({"architecture": "cnn"}, "cnn needs input_shape"),
        ({"architecture": "cnn", "input_shape": (1, 2, 2), "depth": 5}, "too small for 5 strided convolutions"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"architecture": "mlp", "input_shape": (4,), "classes": 3, **arguments})


def test_bad_twins():
    with pytest.raises(ValueError, match="activations must differ"):
        build_twins("mlp", ["relu", "relu"], input_shape=(4,), classes=3)
    with pytest.raises(ValueError, match="activations is empty"):
        build_twins("mlp", [], input_shape=(4,), classes=3)
    with pytest.raises(ValueError, match="unknown label in gain 'tan'"):
        build_twins("mlp", ["tanh"], input_shape=(4,), classes=3, gain={"tan": 1.0})
    with pytest.raises(TypeError, match="not made by build_model"):
        build_record(nn.Linear(1, 1))
