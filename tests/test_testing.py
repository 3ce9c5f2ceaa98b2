"""The contract check passes for the catalogue and catches every falsified fact."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from smoothness.activations import ActivationFacts, Breakpoint, activation, list_activations
from smoothness.testing import check_activation


@pytest.mark.parametrize("name", list_activations())
def test_catalogue_keeps_the_contract(name):
    check_activation(activation(name))


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.GELU(), nn.ELU(0.5), activation("elu", alpha=2.0), activation("staircase", levels=8)],
    ids=repr,
)
def test_variants_keep_the_contract(module):
    check_activation(module)


NUMBERS = [f.name for f in dataclasses.fields(ActivationFacts) if f.type == "float"]


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "step", "elu", "staircase"])
@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("shift", [0.05, -0.05])
def test_every_falsified_number_is_caught(name, field, shift):
    module = activation(name)
    facts = module.facts()
    true = getattr(facts, field)
    lie = (5.0 if shift > 0 else 1.0) if math.isinf(true) else true + shift
    if field == "smoothness_class":
        lie = 3.0
    with pytest.raises(AssertionError, match=field):
        check_activation(module, dataclasses.replace(facts, **{field: lie}))


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "step"])
@pytest.mark.parametrize("field", ["bounded", "monotone"])
def test_every_falsified_flag_is_caught(name, field):
    module = activation(name)
    facts = module.facts()
    with pytest.raises(AssertionError, match=f"claims .*be {field}"):
        check_activation(module, dataclasses.replace(facts, **{field: not getattr(facts, field)}))


def test_breakpoints_missing_invented_or_wrong_are_caught():
    relu = activation("relu")
    facts = relu.facts()
    with pytest.raises(AssertionError, match=r"slope jumps at .*, which is no breakpoint"):
        check_activation(relu, dataclasses.replace(facts, breakpoints=(Breakpoint(3.0, 0, 1.0),)))
    with pytest.raises(AssertionError, match=r"at 0 of order 0 claims a jump of 0.5, seen 1"):
        check_activation(relu, dataclasses.replace(facts, breakpoints=(Breakpoint(0.0, 0, 0.5),)))
    with pytest.raises(AssertionError, match=r"at 1 of order 0 claims a jump of 1, seen"):
        check_activation(relu, dataclasses.replace(facts, breakpoints=(*facts.breakpoints, Breakpoint(1.0, 0, 1.0))))
    step = activation("step")
    with pytest.raises(AssertionError, match="value jumps at"):
        check_activation(step, dataclasses.replace(step.facts(), breakpoints=()))


class _StraightThrough(nn.Module):
    def forward(self, z):
        return z + (torch.ceil(z.clamp(0, 1)) - z).detach()


class _Softmax(nn.Module):
    def forward(self, z):
        return z.softmax(dim=-1)


class _HidesNaN(nn.Module):
    def forward(self, z):
        return (z > 0).to(z.dtype) * z.nan_to_num()


def test_misbehaviour_is_caught():
    with pytest.raises(AssertionError, match="central differences give 0"):
        check_activation(_StraightThrough(), activation("step").facts())
    with pytest.raises(AssertionError, match="not elementwise"):
        check_activation(_Softmax(), activation("sigmoid").facts())
    with pytest.raises(AssertionError, match="NaN in, a number out"):
        check_activation(_HidesNaN(), activation("relu").facts())
    with pytest.raises(TypeError, match="no facts are known"):
        check_activation(nn.Linear(1, 1))
