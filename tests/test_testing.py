"""The contract check passes for the catalogue and catches every falsified fact."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from smoothness.activations import ActivationFacts, Breakpoint, activation, list_activations
from smoothness.testing import check_activation


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than they save when tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", list_activations())
def test_catalogue_keeps_the_contract(name):
    check_activation(activation(name))


@pytest.mark.parametrize(
    "module",
    [
        *(nn.ReLU(), nn.GELU(), nn.ELU(0.5), nn.Softplus(), nn.CELU(0.3), nn.PReLU(init=0.3)),
        *(activation("elu", alpha=2.0), activation("staircase", levels=8), activation("softplus", beta=1000)),
        *(activation("tanh", steepness=50), activation("sigmoid_staircase", temperature=0.01)),
        *(activation("sin", frequency=0.1), activation("snake", frequency=3), activation("smooth_relu", alpha=100)),
        *(activation("pssilu", alpha=2.0, beta=0.3), activation("leaky_relu", negative_slope=1.0)),
        *(activation("maxout", pool=7), activation("group_sort", size=8), activation("k_winners", k=3)),
    ],
    ids=repr,
)
def test_variants_keep_the_contract(module):
    check_activation(module)


NUMBERS = [f.name for f in dataclasses.fields(ActivationFacts) if f.type == "float"]
FAST = ("relu", "arctan")
BROAD = (
    "gelu",
    "step",
    "sin",
    "tanh",
    "elu",
    "staircase",
    "snake",
    "mish",
    "hardshrink",
    "selu",
    "sigmoid_staircase",
    "softsign",
    "prelu",
)
BROADER = ("celu", "squareplus", "hardswish")
SAMPLE = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in (*BROAD, *BROADER))]


def _refuses(module, match, **lie):
    with pytest.raises(AssertionError, match=match):
        check_activation(module, dataclasses.replace(module.facts(), **lie))


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("field", NUMBERS)
def test_every_falsified_number_is_caught(name, field):
    module = activation(name)
    true = getattr(module.facts(), field)
    lies = (5.0, 1.0) if math.isinf(true) else (true + 0.05, true - 0.05, math.nan)
    for lie in (3.0,) if field == "smoothness_class" else lies:
        _refuses(module, field, **{field: lie})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in list_activations() if activation(n).elementwise and n not in (*FAST, *BROAD, *BROADER)]
)
def test_a_falsified_number_of_every_other_entry_is_caught(name):
    module = activation(name)
    for field in NUMBERS:
        true = getattr(module.facts(), field)
        lie = 3.0 if field == "smoothness_class" else 5.0 if math.isinf(true) else true + 0.05
        _refuses(module, field, **{field: lie})


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("arctan", {"slope_max": math.inf, "lipschitz": math.inf}),
        ("softplus", {"slope_variation": math.inf}),
        ("smooth_relu", {"slope_variation": math.inf}),
        ("relu_squared", {"curvature": math.inf}),
        ("gelu", {"curvature": math.inf}),
        ("sin", {"curvature": math.inf}),
        ("relu_squared", {"slope_min": -math.inf}),
        ("tanh", {"lipschitz": math.inf}),
    ],
)
def test_infinity_is_refused_where_nothing_grows(name, lie):
    _refuses(activation(name), "|".join(lie), **lie)


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("field", ["bounded", "monotone"])
def test_every_falsified_flag_is_caught(name, field):
    module = activation(name)
    _refuses(module, f"claims .*be {field}", **{field: not getattr(module.facts(), field)})


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        *(("relu", "slope"), ("step", "value"), ("hardshrink", "value"), ("selu", "slope"), ("prelu", "slope")),
        *((name, "curvature") for name in ("softsign", "celu", "relu_squared", "smooth_relu")),
    ],
)
def test_a_missing_breakpoint_is_caught(name, sees):
    module = activation(name)
    _refuses(module, rf"the {sees} jumps at .*, which is no breakpoint", breakpoints=module.facts().breakpoints[1:])


@pytest.mark.parametrize("name", ["relu", "step", "softsign", "hardshrink", "arctan"])
def test_invented_and_wrong_breakpoints_are_caught(name):
    module = activation(name)
    true = module.facts().breakpoints
    for order in (-1, 0, 1):
        _refuses(module, r"breakpoint at 1 of order", breakpoints=(*true, Breakpoint(1.0, order, 1.0)))
    for b in true[:1]:
        for lie in (Breakpoint(b.position, b.order, b.jump + 0.05), Breakpoint(b.position, b.order + 1, b.jump)):
            _refuses(module, "breakpoint at .* claims a jump of", breakpoints=(lie, *true[1:]))
        moved = Breakpoint(b.position + 0.01, b.order, b.jump)
        _refuses(module, "which is no breakpoint", breakpoints=(moved, *true[1:]))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *((name, "value_turns") for name in ("gelu", "sin", "mish", "hardswish", "gaussian")),
        *((name, "slope_turns") for name in ("gelu", "sin", "snake", "arctan", "sigmoid_staircase")),
    ],
)
def test_turning_points_missing_invented_or_moved_are_caught(name, field):
    module = activation(name)
    true = getattr(module.facts(), field)
    _refuses(module, f"{field} misses", **{field: true[1:]})
    _refuses(module, f"{field} has", **{field: (*true, 2.9)})
    _refuses(module, f"{field} has", **{field: (*true[1:], true[0] + 0.01)})
    _refuses(module, f"{field} misses", **{field: (*true, true[0])})


def test_turning_points_at_a_breakpoint_are_refused():
    _refuses(activation("tent"), r"value_turns has 0, which is a breakpoint", value_turns=(0.0,))


@pytest.mark.parametrize("name", ["sin", "snake"])
def test_falsified_periods_are_caught(name):
    module = activation(name)
    facts = module.facts()
    _refuses(module, "period is", period=facts.period / 2)
    _refuses(module, "period is", period=facts.period * 1.01)
    _refuses(module, "turns misses", period=facts.period * 2)
    _refuses(module, "turns misses", period=None)
    _refuses(module, r"must lie in \[0", slope_turns=tuple(t + facts.period for t in facts.slope_turns))
    _refuses(activation("gelu"), "period is", period=1.0)


def test_formulas_of_the_facts_that_are_not_the_modules_are_caught():
    relu, gelu = activation("relu"), activation("gelu")
    _refuses(gelu, "function differs from the module", function=torch.nn.functional.silu)
    _refuses(gelu, "derivative differs from the module", derivative=torch.sigmoid)
    _refuses(relu, "polynomial_pieces differs", polynomial_pieces=((0.0,), (0.0, 1.1)))
    _refuses(relu, "polynomial_pieces must be one more", polynomial_pieces=((0.0,),))


def test_one_feature_and_several_are_told_apart():
    for name in ("relu", "tanh"):
        nothing = dict.fromkeys(("function", "derivative", "polynomial_pieces")) | {
            **dict.fromkeys(("breakpoints", "value_turns", "slope_turns"), ()),
            "slope_variation": math.nan,
        }
        _refuses(activation(name), "own input alone", elementwise=False, **nothing)
        _refuses(activation(name), "applies to elementwise activations only", elementwise=False)
    for name in ("k_winners", "maxout", "group_sort"):
        _refuses(activation(name), "not elementwise", elementwise=True)


@pytest.mark.parametrize("name", ["k_winners", "maxout", "group_sort"])
def test_falsified_facts_of_several_features_are_caught(name):
    module = activation(name)
    facts = module.facts()
    lies = {"smoothness_class": 1.0, "slope_min": 0.05, "slope_max": 0.95, "at_zero": 0.05, "curvature": 5.0}
    lies |= {"lipschitz": 0.99 if math.isfinite(facts.lipschitz) else 5.0, "slope_variation": 1.0}
    lies |= {"breakpoints": (Breakpoint(0.0, 0, 1.0),), "slope_turns": (0.0,), "period": 1.0}
    if not math.isnan(facts.mean):
        lies |= {m: getattr(facts, m) + 0.05 for m in ("mean", "second_moment", "slope_second_moment")}
    for field, lie in lies.items():
        _refuses(module, field, **{field: lie})
    for field in ("bounded", "monotone"):
        _refuses(module, f"claims .*be {field}", **{field: not getattr(facts, field)})
    _refuses(module, "smoothness_class", smoothness_class=0.0 if facts.smoothness_class == -1 else -1.0)


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
