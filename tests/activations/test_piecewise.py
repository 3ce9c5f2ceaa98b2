"""Piecewise polynomial activations and their facts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothness.activations import activation, activation_facts, list_activations
from smoothness.activations.facts import Breakpoint, autograd_slope, piecewise_polynomial_facts

PIECEWISE = [name for name in list_activations() if activation_facts(name).polynomial_pieces is not None]


@pytest.mark.parametrize("name", PIECEWISE)
def test_function_and_derivative_of_the_facts_are_the_modules(name):
    module, facts = activation(name).eval(), activation_facts(name)
    z = torch.cat([torch.linspace(-9.03, 8.97, 4001, dtype=torch.float64), torch.tensor([-1e30, 1e30]).double()])
    torch.testing.assert_close(facts.function(z), module(z), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(facts.derivative(z), autograd_slope(module, z), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", PIECEWISE)
def test_at_a_breakpoint_the_value_is_the_left_one(name):
    module, facts = activation(name).eval(), activation_facts(name)
    exact = [b.position for b in facts.breakpoints if (b.position * 64).is_integer()]
    t = torch.tensor(exact, dtype=torch.float64)
    left = torch.nextafter(t, t - 1)
    torch.testing.assert_close(module(t), module(left), rtol=0, atol=1e-14)
    torch.testing.assert_close(facts.function(t), module(t), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", PIECEWISE)
def test_limits_at_infinity(name):
    facts = activation_facts(name)
    ends = facts.function(torch.tensor([-math.inf, math.inf], dtype=torch.float64))
    far = facts.function(torch.tensor([-1e300, 1e300], dtype=torch.float64))
    assert not ends.isnan().any()
    assert torch.equal(ends.isinf(), far.abs() > 1e290)
    assert torch.equal(ends[ends.isfinite()], far[ends.isfinite()])


def test_hardswish():
    facts = activation_facts("hardswish")
    assert facts.breakpoints == (Breakpoint(-3.0, 0, -0.5), Breakpoint(3.0, 0, -0.5))
    assert (facts.slope_min, facts.slope_max, facts.lipschitz, facts.slope_variation) == (-0.5, 1.5, 1.5, 3.0)
    assert facts.value_turns == (-1.5,)
    assert facts.slope_turns == ()
    assert not facts.monotone
    assert facts.affine_pieces is None


def test_jump_relu_without_a_jump_is_relu():
    jumping, relu = activation_facts("jump_relu"), activation("jump_relu", height=0).facts()
    assert jumping.breakpoints == (Breakpoint(0.5, -1, 0.5),)
    assert relu.breakpoints == activation_facts("relu").breakpoints
    assert relu.second_moment == activation_facts("relu").second_moment


def test_a_cubic_spline():
    # z³/6 cut into a bump: the quadratic B-spline's integral, smooth up to a jump of the third derivative.
    facts = piecewise_polynomial_facts(
        "spline", (0.0, 1.0, 2.0), ((0.0,), (0.0, 0.0, 0.0, 1.0), (2.0, -6.0, 6.0, -1.0), (10.0, -18.0, 12.0, -2.0))
    )
    assert [b.order for b in facts.breakpoints] == [2, 2, 2]
    assert [b.jump for b in facts.breakpoints] == [6.0, -12.0, -6.0]
    assert facts.slope_turns == (2.0,) or facts.slope_turns == ()
    assert facts.smoothness_class == 2
    assert facts.curvature == math.inf  # the last piece is a cubic
    assert facts.slope_max == 6.0
    assert facts.slope_min == -math.inf


def test_positions_where_nothing_jumps_are_dropped():
    facts = piecewise_polynomial_facts("line", (0.0, 1.0), ((1.0, 2.0), (1.0, 2.0, 0.0), (1.0, 2.0)))
    assert facts.breakpoints == ()
    assert facts.polynomial_pieces == ((1.0, 2.0),)
    assert facts.smoothness_class == math.inf
    assert facts.curvature == 0.0


@given(st.floats(-3, 3), st.floats(0.1, 3))
def test_hardtanh_of_any_range(low, span):
    facts = activation("hardtanh", min_val=low, max_val=low + span).facts()
    assert [b.jump for b in facts.breakpoints] == [1.0, -1.0]
    assert facts.smoothness_class == 0
    assert facts.bounded
    assert facts.monotone
    assert facts.at_zero == min(max(low, 0.0), low + span)


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"min_val and max_val must be finite and ascend, got 1\.0 and 1\.0"):
        activation("hardtanh", min_val=1.0, max_val=1.0)
    with pytest.raises(ValueError, match="height must be finite and at least 0, got -1"):
        activation("jump_relu", height=-1)
    with pytest.raises(ValueError, match="width must be a positive finite number, got 0"):
        activation("tent", width=0)
    with pytest.raises(ValueError, match="bits must be a whole number of at least 1, got 0"):
        activation("quantised_relu", bits=0)
    with pytest.raises(ValueError, match="positions must ascend"):
        piecewise_polynomial_facts("twice", (1.0, 1.0), ((0.0,), (1.0,), (2.0,)))
    with pytest.raises(ValueError, match="1 breakpoints need 2 pieces, got 1"):
        piecewise_polynomial_facts("short", (1.0,), ((0.0,),))
