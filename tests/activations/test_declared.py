"""Declared facts: accepted by certificates when true, refused when samples refute them, and not leaking."""

import dataclasses
import gc

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.activations import declare_facts
from smoothness.activations.declared import _OF_TYPES
from smoothness.activations.facts import piecewise_affine_facts

HALF = piecewise_affine_facts("half", (0.0,), ((0.0, 0.0), (0.5, 0.0)))


def foreign():
    class Half(nn.Module):
        def __init__(self, slope=0.5):
            super().__init__()
            self.slope = slope

        def forward(self, z):
            return torch.where(z > 0, self.slope * z, torch.zeros_like(z))

    return Half


def network(phi):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), phi, nn.Linear(5, 2)).double()


def test_certificates_accept_what_is_declared():
    kind = foreign()
    model, x = network(kind()), torch.zeros(1, 3).double()
    with pytest.raises(TypeError, match=r"activation|cannot be (read|traced)"):
        sm.LipschitzUpperBound(radius=0.5)(model, x)
    declare_facts(kind, HALF)
    found = sm.LipschitzUpperBound(radius=0.5)(model, x)
    halved = network(nn.ReLU())
    halved[2].weight.data /= 2
    torch.testing.assert_close(found.values, sm.LipschitzUpperBound(radius=0.5)(halved, x).values)
    assert sm.activation_facts(kind()).lipschitz == 0.5


def test_a_declaration_stays_where_it_was_made():
    kind = foreign()
    one, other = kind(), kind()
    declare_facts(one, HALF)
    assert sm.activation_facts(one) is HALF
    with pytest.raises(TypeError, match="declare them with"):
        sm.activation_facts(other)
    declare_facts(kind, HALF)

    class Sub(kind):
        pass

    with pytest.raises(TypeError, match="no facts are known for Sub"):
        sm.activation_facts(Sub())
    gc.collect()
    before = len(_OF_TYPES)
    del kind, one, other, Sub
    gc.collect()
    assert len(_OF_TYPES) == before - 1


FALSE = [
    (dataclasses.replace(HALF, slope_max=0.25), "slope_max is 0.25, but slopes reach 0.5"),
    (dataclasses.replace(HALF, function=torch.relu), "the function gives"),
    (piecewise_affine_facts("id", (), ((0.5, 0.0),)), "the function gives"),
    (dataclasses.replace(sm.activation_facts("tanh"), function=HALF.function), "slopes are said to stay in"),
]


@pytest.mark.parametrize(("facts", "message"), FALSE)
def test_false_facts_are_refused(facts, message):
    kind = foreign()
    with pytest.raises(ValueError, match=message):
        declare_facts(kind, facts)
    with pytest.raises(TypeError, match="no facts are known"):
        sm.activation_facts(kind())


def test_bad_declarations():
    class Mixing(nn.Module):
        def forward(self, z):
            return torch.where(z > 0, 0.5 * z, torch.zeros_like(z)) + 0 * z + (z - z.mean(0)).abs().amax() * 1e-3

    with pytest.raises(ValueError, match="not elementwise"):
        declare_facts(Mixing(), HALF)
    with pytest.raises(TypeError, match=r"nn\.Module or its class"):
        declare_facts(torch.relu, HALF)
    with pytest.raises(TypeError, match="facts must be ActivationFacts"):
        declare_facts(foreign(), {"slope_max": 1.0})
    with pytest.raises(TypeError, match="facts of an instance"):
        declare_facts(nn.Linear, HALF)
    with pytest.raises(TypeError, match="of an elementwise activation"):
        declare_facts(foreign(), sm.activation_facts("group_sort"))
