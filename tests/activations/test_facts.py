"""Every fact against mpmath, a second implementation at 30 digits."""

import math
from itertools import pairwise

import mpmath as mp
import pytest
import torch
from torch import nn

from smoothness.activations import activation, activation_facts, list_activations

mp.mp.dps = 30


def _quantised_relu(z, bits=2):
    top = mp.mpf(2**bits - 1)
    return max(0, min(top, mp.ceil(z * top - mp.mpf("0.5")))) / top


def _staircase(z, levels=5):
    rank = mp.ceil((z + 1) * mp.mpf(levels - 1) / 2 - mp.mpf("0.5"))
    return 2 * max(0, min(levels - 1, rank)) / mp.mpf(levels - 1) - 1


CASES = {
    "relu": ({}, lambda z: max(z, 0)),
    "leaky_relu": ({"negative_slope": 0.2}, lambda z: z if z > 0 else mp.mpf(0.2) * z),
    "elu": ({}, lambda z: z if z > 0 else mp.expm1(z)),
    "gelu": ({}, lambda z: z * mp.ncdf(z)),
    "silu": ({}, lambda z: z / (1 + mp.exp(-z))),
    "softplus": ({"beta": 3.0}, lambda z: mp.log1p(mp.exp(3 * z)) / 3),
    "tanh": ({}, mp.tanh),
    "sigmoid": ({}, lambda z: 1 / (1 + mp.exp(-z))),
    "step": ({}, lambda z: mp.mpf(1) if z > 0 else mp.mpf(0)),
    "staircase": ({}, _staircase),
    "sign": ({}, lambda z: mp.mpf(1) if z > 0 else mp.mpf(-1)),
    "quantised_relu": ({}, _quantised_relu),
    "jump_relu": ({"height": 0.25}, lambda z: z if z > 0.25 else mp.mpf(0)),
    "hardtanh": ({"min_val": -0.5, "max_val": 2.0}, lambda z: max(mp.mpf(-0.5), min(mp.mpf(2), z))),
    "relu6": ({}, lambda z: max(mp.mpf(0), min(mp.mpf(6), z))),
    "hardsigmoid": ({}, lambda z: max(mp.mpf(0), min(mp.mpf(6), z + 3)) / 6),
    "hardswish": ({}, lambda z: z * max(mp.mpf(0), min(mp.mpf(6), z + 3)) / 6),
    "tent": ({"width": 1.5}, lambda z: max(mp.mpf(0), mp.mpf(1.5) - abs(z))),
}
STEPS = ("step", "staircase", "sign", "quantised_relu")
CONTINUOUS = [name for name in CASES if name not in (*STEPS, "jump_relu")]


def test_every_activation_has_a_case():
    assert sorted(CASES) == list_activations()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values(name, dtype):
    parameters, function = CASES[name]
    z = torch.linspace(-9.03, 8.97, 61, dtype=dtype)
    expected = torch.tensor([float(function(mp.mpf(float(v)))) for v in z], dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(activation(name, **parameters)(z), expected, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_moments(name):
    parameters, function = CASES[name]
    facts = activation(name, **parameters).facts()
    edges = [-mp.inf, *sorted({-4, 0, 4, *(b.position for b in facts.breakpoints)}), mp.inf]

    def expectation(integrand):
        return float(mp.quad(lambda u: integrand(u) * mp.npdf(u), edges))

    assert facts.mean == pytest.approx(expectation(function), abs=1e-9)
    assert facts.second_moment == pytest.approx(expectation(lambda u: function(u) ** 2), abs=1e-9)
    if facts.smoothness_class == -1:  # differences across a jump are no slope
        slope = expectation(lambda u: u > 0.25) if name == "jump_relu" else 0
    else:
        slope = expectation(lambda u: mp.diff(function, u, h=mp.mpf("1e-10")) ** 2)
    assert facts.slope_second_moment == pytest.approx(slope, abs=1e-6)
    assert facts.at_zero == pytest.approx(float(function(mp.mpf(0))), abs=1e-15)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_slopes_and_curvature(name):
    parameters, function = CASES[name]
    facts = activation(name, **parameters).facts()
    # A grid that avoids the breakpoints; extremes lie within 1e-4 of a grid point.
    grid = [mp.mpf(k) / 100 + mp.mpf("0.005") for k in range(-1200, 1200)]
    if name == "hardswish":  # its slope is extreme beside the breakpoints
        grid = sorted([*grid, *(mp.mpf(t) + s * mp.mpf("1e-5") for t in (-3, 3) for s in (-1, 1))])
    slopes = [mp.diff(function, z, h=mp.mpf("1e-12")) for z in grid]
    rounding = 1e-15  # of a slope such as 1/6
    assert facts.slope_min - rounding <= min(slopes) <= facts.slope_min + 3e-5
    assert facts.slope_max + rounding >= max(slopes) >= facts.slope_max - 3e-5
    assert facts.lipschitz == max(abs(facts.slope_min), abs(facts.slope_max))
    variation = sum(abs(b - a) for a, b in pairwise(slopes))
    assert float(variation) == pytest.approx(facts.slope_variation, abs=1e-3)
    if facts.smoothness_class >= 1:
        bending = max(abs(mp.diff(function, z, 2, h=mp.mpf("1e-9"))) for z in grid)
        assert facts.curvature * (1 + 1e-9) >= bending >= facts.curvature * 0.99
    else:
        assert facts.curvature == math.inf


@pytest.mark.parametrize("name", CASES)
def test_breakpoints(name):
    parameters, function = CASES[name]
    facts = activation(name, **parameters).facts()
    h = mp.mpf("1e-9")
    for b in facts.breakpoints:
        t, order = mp.mpf(b.position), b.order
        if order == -1:
            right, left = function(t + h), function(t - h)
        elif order == 0:
            right, left = (function(t + h) - function(t)) / h, (function(t) - function(t - h)) / h
        else:
            right, left = (mp.diff(function, t + s * mp.mpf("1e-6"), 2, h=h) for s in (1, -1))
        assert float(right - left) == pytest.approx(b.jump, abs=1e-5)
    assert facts.smoothness_class == min((b.order for b in facts.breakpoints), default=math.inf)


def test_kinked_elu():
    facts = activation("elu", alpha=2.0).facts()
    assert facts.smoothness_class == 0
    assert facts.breakpoints[0].jump == -1.0
    assert facts.slope_variation == 3.0  # rises from 0 to 2 on the left, falls to 1 at the kink


def test_two_levels_are_the_sign():
    z = torch.tensor([-0.1, 0.0, 0.1])
    assert activation("staircase", levels=2)(z).tolist() == [-1, -1, 1]
    assert activation("staircase", levels=2).facts().breakpoints[0].jump == 2


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 17])
def test_staircase_jumps_at_its_thresholds(levels):
    step = activation("staircase", levels=levels)
    t = torch.tensor(step.thresholds, dtype=torch.float64)
    above = step(torch.nextafter(t + 1e-12, t + 1)) - step(t - 1e-12)
    torch.testing.assert_close(above, torch.full_like(t, 2 / (levels - 1)))


@pytest.mark.parametrize("name", STEPS)
def test_steps_have_zero_gradient_and_keep_nan(name):
    z = torch.tensor([-1.0, 0.0, 0.25, 3.0, math.nan], requires_grad=True)
    out = activation(name)(z)
    (gradient,) = torch.autograd.grad(out[:4].sum(), z)
    assert gradient.tolist() == [0.0] * 5
    assert out[4].isnan()
    jacobian = torch.func.vmap(torch.func.jacrev(activation(name)))(torch.randn(3, 2))
    assert (jacobian == 0).all()


@pytest.mark.parametrize(
    "module",
    [
        *(nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(1.0), nn.ELU(0.5), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid()),
        *(nn.Hardtanh(), nn.Hardtanh(-0.3, 2.0), nn.ReLU6(), nn.Hardsigmoid(), nn.Hardswish()),
        *(nn.Threshold(0.5, 0.0), nn.Threshold(0.0, 0.0)),
    ],
    ids=repr,
)
def test_torch_counterparts(module):
    from smoothness.activations.catalogue import own_counterpart

    own = own_counterpart(module)
    z = torch.randn(1000, dtype=torch.float64)
    assert torch.equal(own(z), module(z))
    assert activation_facts(module) == own.facts()


def test_unknown_names_and_parameters():
    with pytest.raises(ValueError, match=r"unknown activation 'geluu'; did you mean 'gelu'"):
        activation("geluu")
    with pytest.raises(ValueError, match="no parameter 'b'; it takes beta"):
        activation("softplus", b=2)
    with pytest.raises(ValueError, match="beta must be a positive finite number, got -1"):
        activation("softplus", beta=-1)
    with pytest.raises(ValueError, match="levels must be a whole number of at least 2, got 1"):
        activation("staircase", levels=1)
    with pytest.raises(TypeError, match="no facts are known for Linear"):
        activation_facts(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="no facts are known for GELU"):
        activation_facts(nn.GELU("tanh"))
    with pytest.raises(TypeError, match="no facts are known for Threshold"):
        activation_facts(nn.Threshold(0.5, 2.0))
