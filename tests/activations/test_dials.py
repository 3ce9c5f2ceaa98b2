"""Dials: ends, places on the three scales, equal steps, held moments, and what they refuse."""

import math

import pytest
import torch

import smoothness as sm
from smoothness.activations import activation_facts, scales
from smoothness.activations.affine import Affine
from smoothness.activations.dials import DIALS, SCALES
from smoothness.testing import check_activation

CONTINUOUS = [name for name, d in DIALS.items() if not d.whole]


def normal_moments(module):
    """Mean and second moment of the output, second moment of the slope, by the trapezoidal rule."""
    z = torch.linspace(-12, 12, 2_400_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    x = z.clone().requires_grad_()
    value = module(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    value = value.detach()
    return [float(torch.trapezoid(f * density, z)) for f in (value, value**2, slope**2)]


@pytest.mark.parametrize("name", sm.list_dials())
def test_the_sharp_side_tends_to_the_limit(name):
    d = sm.find_dial(name)
    z = torch.tensor([-2.3, -0.71, -0.2, 0.2, 0.71, 2.3], dtype=torch.float64)
    sharper = d.sharp + (d.sharp - d.smooth) * 19 if d.sharp > d.smooth else d.sharp / 100
    if name in ("jump_relu", "kinked_linear", "leaky_relu") or d.whole:
        sharper = {"jump_relu": 1e-9, "kinked_linear": 1.0, "leaky_relu": 0.0}.get(name, d.sharp)
    limit = sm.activation(d.limit, **({"bits": 1} if d.limit == "quantised_relu" else {}))
    assert (sm.dial(name, sharper)(z) - limit(z)).abs().max() < 0.02


@pytest.mark.parametrize("name", sm.list_dials())
def test_every_dial_moves_on_a_scale_and_says_where(name):
    d = sm.find_dial(name)
    assert d.moves
    for value in (d.smooth, d.sharp):
        place, facts = d.scales(value), d(value).facts()
        assert place == scales(facts)
        jumps = [abs(b.jump) for b in facts.breakpoints if b.order == -1]
        assert place.value_jump == max(jumps, default=0.0)
        assert place.curvature == facts.curvature
        assert (place.slope_jump == math.inf) == bool(jumps)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("log", [False, True])
def test_equal_steps_on_every_scale_the_dial_moves_on(name, scale, log):
    d = sm.find_dial(name)
    if scale not in d.moves:
        with pytest.raises(ValueError, match=f"dial '{name}' does not move on the scale '{scale}'"):
            d.steps(4, scale)
        return
    if log and min(getattr(d.scales(v), scale) for v in (d.smooth, d.sharp)) <= 0:
        with pytest.raises(ValueError, match="log=True needs places above 0"):
            d.steps(4, scale, log=True)
        return
    count = 3 if name == "sigmoid_staircase" else 5  # each of its settings takes a search for turning points
    values = d.steps(count, scale, log=log)
    places = torch.tensor([getattr(d.scales(v), scale) for v in values], dtype=torch.float64)
    gaps = places.log().diff() if log else places.diff()
    assert (gaps > 0).all()
    torch.testing.assert_close(gaps, gaps[:1].expand(count - 1), rtol=1e-6, atol=0)
    assert (values[0], values[-1]) == (d.smooth, d.sharp)


def test_whole_settings_are_the_nearest_ones():
    assert sm.find_dial("quantised_relu").steps(4, "value_jump", log=True) == [8, 5, 3, 1]
    with pytest.raises(ValueError, match="4 equal steps need more whole settings than 1 to 8 has"):
        sm.find_dial("quantised_relu").steps(4, "value_jump")


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("hold", ["mean", "second_moment", ("mean", "second_moment")])
def test_held_moments_are_the_references(name, hold):
    d = sm.find_dial(name)
    middle = math.sqrt(d.smooth * d.sharp) if d.smooth * d.sharp > 0 else (d.smooth + d.sharp) / 2
    target = activation_facts("relu")
    held = sm.dial(name, middle, hold=hold, reference="relu")
    mean, second, _ = normal_moments(held)
    if "mean" in hold:
        assert mean == pytest.approx(target.mean, abs=1e-5 if name == "jump_relu" else 1e-9)  # the rule meets jumps
    if "second_moment" in hold:
        assert second == pytest.approx(target.second_moment, rel=1e-5)
    assert held.facts().second_moment == pytest.approx(second, rel=1e-5)
    assert scales(held.facts()).slope_jump == pytest.approx(held.scale * d.scales(middle).slope_jump)


def test_the_default_reference_is_what_the_dial_tends_to():
    held = sm.dial("tanh", 3.0, hold="second_moment")
    assert held.facts().second_moment == pytest.approx(1.0, rel=1e-12)  # of sign


@pytest.mark.parametrize("name", [n for n in sm.list_dials() if DIALS[n].rescales])
def test_a_dial_marked_as_a_change_of_scale_is_one_and_refuses_chi(name):
    d = sm.find_dial(name)
    one, other = (d(v) for v in ((1.0, 3.0) if name != "squareplus" else (1.0, 9.0)))
    z = torch.linspace(-4, 4, 401, dtype=torch.float64)
    input_scale = {"squareplus": 1 / 3, "celu": 1 / 3, "jump_relu": 1 / 3}.get(name, 3.0)
    output_scale = 1.0 if name == "tanh" else 1 / input_scale
    torch.testing.assert_close(other(z), output_scale * one(input_scale * z), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=f"holding chi .* would undo the dial '{name}'"):
        sm.dial(name, 1.0, hold="chi")
    with pytest.raises(ValueError, match="would undo"):
        sm.dial(name, 1.0, hold=("mean", "chi"), reference="gelu")


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "kinked_linear"])
def test_chi_is_held_where_that_is_no_change_of_scale(name):
    held = sm.dial(name, 0.3, hold=("chi", "mean"))
    mean, _, chi = normal_moments(held)
    assert chi == pytest.approx(0.5, rel=1e-5)  # of relu
    assert mean == pytest.approx(activation_facts("relu").mean, rel=1e-6)


def test_kinked_linear_keeps_chi_by_itself_at_every_input_scale():
    z = torch.linspace(-40, 40, 400_001, dtype=torch.float64, requires_grad=True)
    density = torch.exp(-((z.detach() / 3) ** 2) / 2) / (3 * math.sqrt(2 * math.pi))
    for kink in (-1.2, 0.0, 0.5, 1.0, math.sqrt(2)):
        (slope,) = torch.autograd.grad(sm.dial("kinked_linear", kink)(z).sum(), z)
        assert float(torch.trapezoid(slope**2 * density, z.detach())) == pytest.approx(0.5, abs=1e-4)


def test_an_affine_activation_keeps_the_contract():
    for name in ("gelu", "staircase", "hardswish"):
        check_activation(Affine(sm.activation(name), 1.7, -0.3))
    module = sm.dial("softplus", 4.0, hold=("mean", "second_moment"))
    assert "Softplus(beta=4)" in repr(module)
    assert not list(module.parameters())
    model = sm.build_model("mlp", module, input_shape=(5,), classes=3, width=8)
    assert len(sm.swap_activations(model, "relu").swap_report.replaced) == 2


@pytest.mark.parametrize(
    ("name", "value", "hold", "message"),
    [
        ("softplus", -1.0, (), "beta must be a positive finite number, got -1.0"),
        ("sigmoid_staircase", 0.0, (), "temperature must be a positive finite number, got 0.0"),
        ("quantised_relu", 0, (), "bits must be a whole number of at least 1, got 0"),
        ("quantised_relu", 2.5, (), "bits must be a whole number of at least 1, got 2.5"),
        ("quantised_relu", math.nan, (), "bits must be a whole number of at least 1, got nan"),
        ("quantised_relu", math.inf, (), "bits must be a whole number of at least 1, got inf"),
        ("staircase", 1e300, (), r"levels must be a whole number of at least 2, got 1e\+300"),
        ("staircase", None, (), "levels must be a whole number of at least 2, got None"),
        ("kinked_linear", 2.0, (), r"kink must lie in \[-1.41421, 1.41421\] \(2 √chi\), got 2.0"),
        ("softplsu", 1.0, (), "unknown dial 'softplsu'; did you mean 'softplus'"),
        ("softplus", 1.0, "median", "unknown moment to hold 'median'"),
        ("elu", 0.5, ("chi", "second_moment"), "chi and second_moment each fix the output's scale"),
        ("quantised_relu", 2, "chi", r"cannot hold chi: quantised_relu\(bits=2\) has 0"),
    ],
)
def test_bad_input(name, value, hold, message):
    with pytest.raises(ValueError, match=message):
        sm.dial(name, value, hold=hold)


def test_moments_that_the_reference_does_not_have():
    with pytest.raises(
        ValueError, match=r"cannot hold mean: of k_winners\(fraction=0.25\) that is not a finite number"
    ):
        sm.dial("softplus", 1.0, hold="mean", reference="k_winners")


def test_bad_steps_and_scales():
    d = sm.find_dial("softplus")
    with pytest.raises(ValueError, match="count must be a whole number of at least 2, got 1"):
        d.steps(1)
    with pytest.raises(ValueError, match="unknown scale 'kink'"):
        d.steps(3, "kink")
    with pytest.raises(TypeError, match="acts on several features at once"):
        scales(activation_facts("maxout"))
    with pytest.raises(TypeError, match="has learnable parameters"):
        Affine(sm.activation("prelu"))
