"""Ranges on intervals against sampling, exact arithmetic, brute force and closed forms."""

import math
from dataclasses import replace

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothness.activations import activation, activation_facts, list_activations
from smoothness.activations.facts import piecewise_polynomial_facts
from smoothness.activations.intervals.ranges import secant_range, slope_range, value_range
from smoothness.activations.mollification.mollify import mollify
from tests.activations.interval_checks import (
    FORMULAS,
    MAX,
    VARIANTS,
    draw,
    exact_violations,
    largest_slope,
    looseness,
    sampled_excess,
)

ELEMENTWISE = [name for name in list_activations() if activation_facts(name).elementwise]
FACTS = {name: activation_facts(name) for name in ELEMENTWISE}
FACTS |= {label: activation(name, **parameters).facts() for label, (name, parameters) in VARIANTS.items()}
MOLLIFIED = [("step", 1e-3), ("staircase", 0.1), ("relu", 1e-4), ("hardswish", 0.3), ("gelu", 1.0), ("tent", 1.0)]
FACTS |= {f"{name}@{sigma:g}": mollify(name, sigma).facts() for name, sigma in MOLLIFIED}
# A curved tail, a curved piece after a jump, an unbounded slope.
FACTS["odd pieces"] = piecewise_polynomial_facts(
    "odd pieces", (-1.0, 2.0), ((0.5,), (0.0, 0.25, -0.5), (1.0, 0.0, 0.125))
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several processes of several threads each are slower than one of each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def ranges(facts, at, lower, upper):
    return value_range(facts, lower, upper), slope_range(facts, lower, upper), secant_range(facts, at, lower, upper)


@pytest.mark.parametrize("name", FACTS)
def test_adversarial_intervals_are_enclosed(name):
    check_enclosed(name, count=5_000, exact=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_many_adversarial_intervals_are_enclosed(name):
    check_enclosed(name, count=100_000, exact=100)


def check_enclosed(name, count, exact):
    facts = FACTS[name]
    at, lower, upper = draw(facts, count, seed=7)
    found = ranges(facts, at, lower, upper)
    assert all((low <= high).all() for low, high in found)
    excess, rows, samples = sampled_excess(facts, *found, at, lower, upper, seed=8)
    assert max(excess) <= 0
    formula = FORMULAS.get(name)
    if formula or (facts.smoothness_class < 0 and facts.polynomial_pieces is not None):
        chosen = [*rows[:exact].tolist(), *range(exact)]
        assert exact_violations(facts, formula, chosen, found, at, samples) == (0, 0.0)


@pytest.mark.parametrize("name", FACTS)
def test_tight_to_1e_6(name):
    facts = FACTS[name]
    at, lower, upper = draw(facts, 300, seed=9)
    assert max(looseness(facts, ranges(facts, at, lower, upper), at, lower, upper)) <= 1e-6 * largest_slope(facts)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(FACTS)), st.lists(st.floats(-20, 20), min_size=4, max_size=4, unique=True))
def test_smaller_intervals_have_smaller_ranges(name, points):
    a, b, c, d = (tensor(z) for z in sorted(points))
    facts = FACTS[name]
    slack = 1e-6 * largest_slope(facts)
    for inner, outer in zip(ranges(facts, b, b, c), ranges(facts, b, a, d), strict=True):
        assert outer[0] <= inner[0] + slack
        assert inner[1] <= outer[1] + slack
    slope, secant = slope_range(facts, a, d), secant_range(facts, b, a, d)
    assert slope[0] <= secant[0] + slack
    assert secant[1] <= slope[1] + slack


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_and_shapes(name, dtype):
    lower, upper = torch.randn(4, 1, 3, dtype=dtype) - 2, torch.randn(5, 1, dtype=dtype).abs() + 3
    for low, high in ranges(FACTS[name], torch.zeros(3, dtype=dtype) + 0.3, lower, upper):
        assert low.shape == high.shape == (4, 5, 3)
        assert low.dtype == high.dtype == dtype


@pytest.mark.parametrize("name", FACTS)
def test_float32_is_rounded_outward(name):
    at, lower, upper = (z.float().clamp(-3e38, 3e38) for z in draw(FACTS[name], 500, seed=3))
    lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    wide = ranges(FACTS[name], at.double(), lower.double(), upper.double())
    for (low, high), (exact_low, exact_high) in zip(ranges(FACTS[name], at, lower, upper), wide, strict=True):
        assert (low.double() <= exact_low).all()
        assert (exact_high <= high.double()).all()
        assert (torch.nextafter(low, torch.tensor(math.inf)).double() >= exact_low).all()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_own_forward_stays_inside(name):
    lower = torch.randn(2000, dtype=torch.float64) * 3
    upper = lower + torch.rand(2000, dtype=torch.float64)
    low, high = value_range(FACTS[name], lower, upper)
    module = activation(name).eval().double()
    for share in (0.0, 0.31, 1.0):
        value = module(lower + share * (upper - lower) if share < 1 else upper)
        assert ((low <= value) & (value <= high)).all()


def test_affine_pieces_are_exact():
    assert slope_range(FACTS["relu"], tensor(-2, 0, -1), tensor(0, 3, 1))[0].tolist() == [0, 1, 0]
    assert slope_range(FACTS["relu"], tensor(-2, 0, -1), tensor(0, 3, 1))[1].tolist() == [0, 1, 1]
    low, high = value_range(FACTS["relu"], tensor(-2, -1), tensor(-1, 4))
    assert (low.tolist(), high.tolist()) == ([0, 0], [0, 4])
    low, high = secant_range(FACTS["relu"], tensor(1, -1), tensor(0, -3), tensor(2, 0))
    assert low.tolist() == high.tolist() == [1, 0]


def test_jumps_count_from_their_threshold_to_before_upper():
    step, below = FACTS["step"], math.nextafter(0, -1)
    lower, upper = tensor(-1, 0, -1, 0, below, -1), tensor(1, 1, 0, 0, 0, below)
    assert value_range(step, lower, upper)[1].tolist() == [1, 1, 0, 0, 0, 0]
    low, high = slope_range(step, lower, upper)
    assert low.tolist() == [0] * 6
    assert high.tolist() == [math.inf, math.inf, 0, 0, 0, 0]
    falling = piecewise_polynomial_facts("falling", (1.0,), ((2.0,), (0.5,)))
    assert slope_range(falling, tensor(0), tensor(3))[0].item() == -math.inf
    assert secant_range(falling, tensor(0), tensor(0), tensor(3))[0].item() == pytest.approx(-1.5)


def test_secants_of_a_step_are_finite_off_its_threshold():
    low, high = secant_range(
        FACTS["step"], tensor(-0.5, 0.25, 0, 0, 1e-300), tensor(-2, -1, -1, -1, -1), tensor(2, 2, 2, 0, 1)
    )
    assert low.tolist() == [0, 0, 0, 0, 0]
    assert high[:2].tolist() == pytest.approx([2, 4])
    assert high[2:4].tolist() == [math.inf, 0]
    assert high[4].item() == pytest.approx(1e300)
    right = secant_range(FACTS["step"], tensor(0), tensor(0), tensor(2))
    assert (right[0].item(), right[1].item()) == (pytest.approx(0.5), math.inf)


def test_tangents_in_closed_form():
    """From far left the steepest secant of tanh is a tangent; mpmath solves tanh'(s)(s - z) = tanh(s) - tanh(z)."""
    for z in (-3.0, -1.0, -0.1, 1e-5, 0.7, 6.0):
        s = mp.findroot(
            lambda s, z=z: (1 - mp.tanh(s) ** 2) * (s - z) - mp.tanh(s) + mp.tanh(z), (-2 * z, 0), solver="bisect"
        )
        low, high = secant_range(FACTS["tanh"], tensor(z), tensor(-math.inf), tensor(math.inf))
        assert low.item() == 0
        assert high.item() == pytest.approx(float(1 - mp.tanh(s) ** 2), abs=1e-7)


@pytest.mark.parametrize("name", ["sin", "sin(7)", "snake", "snake(3)"])
def test_waves_repeat_far_out(name):
    """Whole periods away ranges are the same but for the drift, to the rounding of the points."""
    facts = FACTS[name]
    at, lower, upper = (z.clamp(-20, 20) for z in draw(facts, 400, seed=4))
    for n in (-1, 3, 1_000_003, -(2**25)):
        shift = n * facts.period
        drift = 0.0 if facts.bounded else shift
        tolerance = 1e-6 * largest_slope(facts)
        near, far = ranges(facts, at, lower, upper), ranges(facts, *(z + shift for z in (at, lower, upper)))
        for k, (a, b) in enumerate(zip(near, far, strict=True)):
            for x, y in zip(a, b, strict=True):
                assert ((y - x - (drift if k == 0 else 0.0)).abs() <= tolerance + 1e-12 * y.abs()).all()


def test_waves_beyond_their_reach_are_bounded_globally():
    far = tensor(1e200), tensor(2e200)
    assert [float(z) for z in value_range(FACTS["sin"], *far)] == pytest.approx([-1, 1], abs=1e-6)
    assert [float(z) for z in slope_range(FACTS["snake"], *far)] == pytest.approx([0, 2])
    assert [float(z) for z in secant_range(FACTS["sin"], tensor(0), *far)] == pytest.approx([0, 0], abs=1e-14)
    with pytest.raises(TypeError, match="need a period and no breakpoints"):
        value_range(replace(FACTS["tent"], period=1.0), *far)


@pytest.mark.parametrize("name", [name for name in list_activations() if name not in ELEMENTWISE])
def test_activations_of_several_features_are_refused(name):
    facts, zero = activation_facts(name), tensor(0)
    for function, points in ((value_range, 2), (slope_range, 2), (secant_range, 3)):
        message = (
            rf"{function.__name__} needs an elementwise activation; {name}\(.*\) acts on several features at once"
        )
        with pytest.raises(TypeError, match=message):
            function(facts, *[zero] * points)


def test_learnable_parameters_count_as_they_are():
    module = activation("prelu", init=0.25)
    with torch.no_grad():
        module.weight.fill_(0.5)
    assert slope_range(module.facts(), tensor(-2), tensor(-1))[0].item() == 0.5


@pytest.mark.parametrize("side", [-1, 1])
def test_tangents_far_out_on_a_tail_of_unbounded_slope(side):
    """From -a the least secant of 1e10 z, then z², is 2s at s = √(a² + 1e10 a) - a; mirrored, it is on the left."""
    pieces = ((0.0, 1e10), (0.0, 0.0, 1.0)) if side > 0 else ((0.0, 0.0, -1.0), (0.0, 1e10))
    facts = piecewise_polynomial_facts("steep tail", (0.0,), pieces)
    ends = sorted((side * 1.0, side * 1e11))
    low, high = secant_range(facts, tensor(-side * 1e10), *map(tensor, ends))
    assert 1e8 <= low.item() <= 2 * (math.sqrt(2) - 1) * 1e10
    assert high.item() == pytest.approx((1e22 + 1e20) / 1.1e11)


def test_infinite_end_points_take_limits():
    everything = tensor(-math.inf), tensor(math.inf)
    assert [float(z) for z in value_range(FACTS["softplus"], *everything)] == pytest.approx([0, math.inf], abs=1e-12)
    assert [float(z) for z in value_range(FACTS["gelu"], *everything)] == pytest.approx(
        [-0.16997120747990367, math.inf]
    )
    assert [float(z) for z in value_range(FACTS["tanh"], *everything)] == pytest.approx([-1, 1])
    low, high = slope_range(FACTS["gelu"], *everything)
    facts = FACTS["gelu"]
    assert (low.item(), high.item()) == (pytest.approx(facts.slope_min), pytest.approx(facts.slope_max))
    assert [float(z) for z in secant_range(FACTS["relu"], tensor(-1), *everything)] == pytest.approx([0, 1])
    same = secant_range(FACTS["softplus"], tensor(0), tensor(math.inf), tensor(math.inf))
    assert [float(z) for z in same] == pytest.approx([1, 1])


def test_monotone_slopes_stay_non_negative():
    for name in ("softplus", "sigmoid", "tanh", "elu"):
        assert slope_range(FACTS[name], tensor(-500, 30), tensor(-40, 600))[0].min() >= 0
        assert secant_range(FACTS[name], tensor(-300, 40), tensor(-500, 30), tensor(-40, 600))[0].min() >= 0


def test_autograd_and_inference_mode():
    z = torch.zeros(2, requires_grad=True)
    assert not slope_range(FACTS["gelu"], z, z + 1)[0].requires_grad
    with torch.inference_mode():
        inside = slope_range(FACTS["gelu"], torch.zeros(2), torch.ones(2))
    assert torch.equal(inside[0], slope_range(FACTS["gelu"], torch.zeros(2), torch.ones(2))[0])


def test_empty_scalar_and_mixed_arguments():
    assert value_range(FACTS["gelu"], torch.zeros(0), torch.zeros(0))[0].shape == (0,)
    assert secant_range(FACTS["tent"], torch.zeros(0), torch.zeros(0), torch.zeros(0))[0].shape == (0,)
    assert value_range(FACTS["relu"], -1.0, 2.0)[1].dtype == torch.float64
    assert value_range(FACTS["relu"], torch.zeros(()), 2.0)[1].dtype == torch.float32
    assert value_range(FACTS["relu"], torch.zeros(()), tensor(2.0))[1].dtype == torch.float64
    assert value_range(FACTS["leaky_relu"], tensor(-MAX), tensor(MAX))[1].item() == MAX


def test_bad_arguments():
    facts = FACTS["gelu"]
    with pytest.raises(ValueError, match=r"got lower = 2\.0 and upper = 1\.0 at flat index 1"):
        value_range(facts, tensor(0, 2), tensor(1, 1))
    with pytest.raises(ValueError, match=r"upper holds NaN \(1 of 2 values\)"):
        slope_range(facts, tensor(0, 2), tensor(1, math.nan))
    with pytest.raises(ValueError, match="at holds NaN"):
        secant_range(facts, tensor(math.nan), tensor(0), tensor(1))
    with pytest.raises(ValueError, match="at must be finite"):
        secant_range(facts, tensor(math.inf), tensor(0), tensor(1))
    with pytest.raises(TypeError, match=r"lower must be float32 or float64, got torch\.int64; use lower\.float"):
        value_range(facts, torch.tensor([0]), tensor(1))
    with pytest.raises(TypeError, match="neither polynomial_pieces nor function and derivative"):
        value_range(replace(facts, function=None), tensor(0), tensor(1))


def test_methods_of_the_facts():
    facts, (at, lower, upper) = FACTS["gelu"], draw(FACTS["gelu"], 50, seed=1)
    methods = facts.value_range(lower, upper), facts.slope_range(lower, upper), facts.secant_range(at, lower, upper)
    for (low, high), (expected_low, expected_high) in zip(methods, ranges(facts, at, lower, upper), strict=True):
        assert torch.equal(low, expected_low)
        assert torch.equal(high, expected_high)


@pytest.mark.parametrize("name", ["gelu", "tanh", "silu"])
def test_slack_loosens_secants_outward_by_no_more(name):
    g = torch.Generator().manual_seed(0)
    at, lower = 3 * torch.randn(2, 400, generator=g, dtype=torch.float64)
    upper = lower + 3 * torch.rand(400, generator=g, dtype=torch.float64)
    low, high = secant_range(FACTS[name], at, lower, upper)
    loose_low, loose_high = secant_range(FACTS[name], at, lower, upper, slack=0.03)
    assert bool((loose_low <= low + 1e-12).all())
    assert bool((loose_high >= high - 1e-12).all())
    off = torch.cat([low - loose_low, loose_high - high])
    assert 1e-4 < float(off.max()) <= 0.03 * FACTS[name].slope_max + 1e-7
