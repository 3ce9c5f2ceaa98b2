"""Mollified activations beside mpmath quadrature at 25 digits, and their identities."""

import copy
import math
import pickle
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smoothness.activations import activation, activation_facts, list_activations, mollify
from smoothness.activations.base import Activation
from smoothness.activations.mollification.mollify import Mollified
from smoothness.activations.mollification.quadrature import QUADRATURE_ERROR, Panels, Trapezoid
from smoothness.testing import check_activation

# torch scripts its forward-mode rules on first use.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
SIGMAS = (1e-4, 1e-2, 0.3, 1.0, 10.0)
SOME_FAST = [pytest.param(s, marks=() if s in (1e-4, 0.3) else pytest.mark.slow) for s in SIGMAS]
ELEMENTWISE = [name for name in list_activations() if activation_facts(name).elementwise]
PIECEWISE = [name for name in ELEMENTWISE if activation_facts(name).polynomial_pieces is not None]
CLOSED = [*PIECEWISE, "gelu", "elu", "celu", "selu", "erf", "gaussian", "sin", "snake"]
QUADRATURE = [name for name in ELEMENTWISE if name not in CLOSED]
PERIODIC = ["sin", "snake"]


@dataclass(frozen=True)
class Curve:
    """φ at 30 digits: its pieces between breakpoints, and where and over which length it bends by itself."""

    module: Activation
    pieces: tuple
    width: float = 1.0
    positions: tuple = ()
    centres: tuple = (0.0,)
    panels: int = 4


def gate(z):
    return 1 / (1 + mp.exp(-z))


def exponential(name, scale, rate, slope, **parameters):
    pieces = (lambda z: scale * mp.expm1(rate * z), lambda z: slope * z)
    return Curve(activation(name, **parameters), pieces, 1 / rate, (0.0,))


def smooth(module, function, width=1.0, centres=(0.0,)):
    return Curve(module, (function,), width, (), centres)


def wave(module, function):
    return Curve(module, (function,), math.inf, centres=(), panels=20)


def stairs(z):
    return gate(100 * (z - 0.5)) + gate(100 * (z + 0.5)) - 1


def smooth_relu(alpha):
    pieces = (lambda _: mp.mpf(0), lambda z: z - mp.log1p(alpha * z) / alpha)
    return Curve(activation("smooth_relu", alpha=alpha), pieces, 1 / alpha, (0.0,))


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
BETA = 0.10000000149011612  # float32's 0.1
CURVES = {
    "elu": exponential("elu", 1, 1, 1),
    "celu": exponential("celu", 1, 1, 1),
    "celu(alpha=0.05)": exponential("celu", mp.mpf(0.05), 1 / mp.mpf(0.05), 1, alpha=0.05),
    "celu(alpha=20)": exponential("celu", 20, mp.mpf(1) / 20, 1, alpha=20.0),
    "selu": exponential("selu", mp.mpf(SCALE) * mp.mpf(ALPHA), 1, mp.mpf(SCALE)),
    "gelu": smooth(activation("gelu"), lambda z: z * mp.ncdf(z)),
    "erf": smooth(activation("erf"), mp.erf),
    "gaussian": smooth(activation("gaussian"), lambda z: mp.exp(-z * z)),
    "sin": wave(activation("sin"), mp.sin),
    "sin(frequency=3)": wave(activation("sin", frequency=3.0), lambda z: mp.sin(3 * z)),
    "snake": wave(activation("snake"), lambda z: z + mp.sin(z) ** 2),
    "snake(frequency=2)": wave(activation("snake", frequency=2.0), lambda z: z + mp.sin(2 * z) ** 2 / 2),
    "silu": smooth(activation("silu"), lambda z: z * gate(z)),
    "swish": smooth(activation("swish"), lambda z: z * gate(z)),
    "swish(beta=50)": smooth(activation("swish", beta=50.0), lambda z: z * gate(50 * z), 1 / 50),
    "swish(beta=0.05)": smooth(activation("swish", beta=0.05), lambda z: z * gate(mp.mpf(0.05) * z), 20.0),
    "psilu": smooth(activation("psilu"), lambda z: z * gate(z)),
    "psilu(alpha=2.5)": smooth(activation("psilu", alpha=2.5), lambda z: z * gate(2.5 * z), 0.4),
    "pssilu": smooth(activation("pssilu"), lambda z: z * (gate(z) - mp.mpf(BETA)) / (1 - mp.mpf(BETA))),
    "mish": smooth(activation("mish"), lambda z: z * mp.tanh(mp.log1p(mp.exp(z)))),
    "gelu_tanh": smooth(
        activation("gelu_tanh"), lambda z: z * gate(mp.sqrt(8 / mp.pi) * (z + mp.mpf("0.044715") * z**3))
    ),
    "softplus": smooth(activation("softplus"), lambda z: mp.log1p(mp.exp(z))),
    "softplus(beta=100)": smooth(activation("softplus", beta=100.0), lambda z: mp.log1p(mp.exp(100 * z)) / 100, 0.01),
    "softplus(threshold=3)": Curve(
        activation("softplus", beta=2.0, threshold=3.0),
        (lambda z: mp.log1p(mp.exp(2 * z)) / 2, lambda z: z),
        0.5,
        (1.5,),
    ),
    "centred_softplus": smooth(activation("centred_softplus"), lambda z: mp.log1p(mp.exp(z)) - mp.log(2)),
    "logsigmoid": smooth(activation("logsigmoid"), lambda z: -mp.log1p(mp.exp(-z))),
    "squareplus": smooth(activation("squareplus"), lambda z: (z + mp.sqrt(z * z + 4)) / 2),
    "squareplus(b=1e-4)": smooth(
        activation("squareplus", b=1e-4), lambda z: (z + mp.sqrt(z * z + mp.mpf(1e-4))) / 2, 0.01
    ),
    "smooth_relu": smooth_relu(1.0),
    "smooth_relu(alpha=1000)": smooth_relu(1000.0),
    "sigmoid": smooth(activation("sigmoid"), gate),
    "tanh": smooth(activation("tanh"), mp.tanh),
    "tanh(steepness=100)": smooth(activation("tanh", steepness=100.0), lambda z: mp.tanh(100 * z), 0.01),
    "arctan": smooth(activation("arctan"), mp.atan),
    "softsign": Curve(activation("softsign"), (lambda z: z / (1 - z), lambda z: z / (1 + z)), 1.0, (0.0,)),
    "tanhshrink": smooth(activation("tanhshrink"), lambda z: z - mp.tanh(z)),
    "sigmoid_staircase": smooth(
        activation("sigmoid_staircase", levels=3, temperature=0.01), stairs, 0.01, (-0.5, 0.5)
    ),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def curve_of(name):
    if name in CURVES:
        return CURVES[name]
    facts = activation_facts(name)
    pieces = tuple(lambda z, c=c: sum(mp.mpf(v) * z**k for k, v in enumerate(c)) for c in facts.polynomial_pieces)
    return Curve(activation(name), pieces, math.inf, tuple(b.position for b in facts.breakpoints), ())


@cache
def nodes():
    with mp.workdps(30):
        return mp.calculus.quadrature.GaussLegendre(mp.mp).calc_nodes(4, 105)


@cache
def oracle(name, z, sigma):
    """E[He_m(u) φ(z + σu)] / σ^m for m = 0, 1, 2: Gauss-Legendre at 30 digits, between the breakpoints.

    Panels are equal in u, and shrink towards where φ bends by itself.
    """
    curve = curve_of(name)
    with mp.workdps(30):
        z, sigma = mp.mpf(z), mp.mpf(sigma)
        count = math.ceil(math.log2(4 * sigma / curve.width)) if curve.width < math.inf else 0
        steps = [curve.width * mp.mpf(2) ** k for k in range(-1, max(0, count))] if count else []
        bends = [mp.mpf(c) + s * step for c in curve.centres for s in (-1, 0, 1) for step in steps]
        cuts = {(mp.mpf(t) - z) / sigma for t in (*curve.positions, *bends)}
        cuts |= {k * mp.mpf(11) / curve.panels for k in range(-curve.panels, curve.panels + 1)}
        totals = [mp.mpf(0)] * 3
        for a, b in pairwise(sorted(c for c in cuts if abs(c) <= 11)):
            piece = curve.pieces[sum(z + sigma * (a + b) / 2 > t for t in curve.positions)]
            for x, w in nodes():
                u = (a + b) / 2 + (b - a) / 2 * x
                mass = w * (b - a) / 2 * mp.npdf(u) * piece(z + sigma * u)
                totals = [t + mass * h for t, h in zip(totals, (1, u, u * u - 1), strict=True)]
        return tuple(float(t / sigma**m) for m, t in enumerate(totals))


def derivatives(module, points):
    """Value, first and second derivative by autograd."""
    z = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    return [t.detach() for t in (value, slope, bend)]


@pytest.mark.parametrize("sigma", SOME_FAST)
@pytest.mark.parametrize("name", [*CLOSED, *(n for n in CURVES if n.split("(")[0] in CLOSED and "(" in n)])
def test_closed_forms(name, sigma):
    curve = curve_of(name)
    module = mollify(curve.module, sigma)
    assert module.method == "closed form"
    ends = [curve.positions[0], curve.positions[-1]] if curve.positions else [0.0]
    points = [ends[0], ends[0] - 0.7 * sigma, ends[-1] + 1.3 * sigma, ends[0] - 6 * sigma]
    for order, got in enumerate(derivatives(module, points)):
        for z, value in zip(points, got.tolist(), strict=True):
            assert value == pytest.approx(oracle(name, z, sigma)[order], rel=1e-10, abs=1e-10 / sigma**order)


@pytest.mark.parametrize("sigma", SOME_FAST)
@pytest.mark.parametrize("name", [n for n in CURVES if n.split("(")[0] in QUADRATURE])
def test_quadratures(name, sigma):
    curve = CURVES[name]
    module = mollify(curve.module, sigma)
    assert module.method == "quadrature"
    assert module.error == QUADRATURE_ERROR
    bend = (*curve.positions, *curve.centres)[0]
    points = [bend, bend + 0.4 * curve.width, bend - 1.3 * sigma]
    if sigma in (1e-2, 1.0):
        points.append(-3.7)
    for order, got in enumerate(derivatives(module, points)):
        for z, value in zip(points, got.tolist(), strict=True):
            expected = oracle(name, z, sigma)[order]
            size = max(1, abs(expected), math.hypot(sigma, curve.width) ** -order)
            assert abs(value - expected) <= QUADRATURE_ERROR * size


def test_every_elementwise_activation_has_a_verified_route():
    for name in ELEMENTWISE:
        assert name in PIECEWISE or name in CURVES
        assert mollify(name, 0.3).method == ("closed form" if name in CLOSED else "quadrature")


@pytest.mark.parametrize("name", ["tanh", "mish", "sigmoid_staircase", "squareplus"])
def test_both_quadratures_agree(name):
    """The trapezoidal rule and graded panels share no code; they take over from each other at a width of σ."""
    own = CURVES[name].module
    strip = {"tanh": math.pi / 2, "mish": 0.75 * math.pi, "sigmoid_staircase": math.pi / 100, "squareplus": 2.0}[name]
    z = torch.linspace(-3, 3, 31, dtype=torch.float64)
    for sigma in (strip / 0.1, strip / 0.19):
        module = mollify(own, sigma)
        assert isinstance(module._rule, Panels)
        trapezoid = Trapezoid(own.forward, sigma, strip)
        for order, got in enumerate(derivatives(module, z.tolist())):
            torch.testing.assert_close(got, trapezoid(z), rtol=1e-13, atol=1e-13 / sigma**order)
            trapezoid = trapezoid.derivative


@pytest.mark.parametrize("name", ["softsign", "smooth_relu", "softplus(threshold=3)"])
@pytest.mark.parametrize("share", [0.5, 3.0])
def test_derivatives_of_pieces_with_their_jumps_are_stein_s(name, share):
    """Derivatives of φ itself plus deltas, beside Stein's identity on φ alone, up to the fifth."""
    curve = CURVES[name]
    sigma = share * curve.width
    rule = mollify(curve.module, sigma)._rule
    stein = replace(rule, native=0, jumps=(), panels=72)
    z = torch.linspace(-3, 3, 25, dtype=torch.float64) * curve.width
    for order in range(6):
        torch.testing.assert_close(rule(z), stein(z), rtol=1e-11, atol=1e-12 / sigma**order)
        rule, stein = rule.derivative, stein.derivative


def test_strips_end_at_the_nearest_singularity():
    """The gates of mish and gelu_tanh have their poles where we say, and none nearer to the real axis."""
    with mp.workdps(25):
        pole = mp.log(2) / 2 + 0.75j * mp.pi
        assert abs((1 + mp.exp(pole)) ** 2 + 1) < 1e-20
    odd = math.pi / 2 / math.sqrt(2 / math.pi)
    poles = [z for k in range(20) for z in np.roots([0.044715, 0, 1, -1j * odd * (2 * k + 1)])]
    assert mollify("gelu_tanh", 0.3)._rule.strip == pytest.approx(min(abs(z.imag) for z in poles), rel=1e-12)
    assert mollify("mish", 0.3)._rule.strip == pytest.approx(float(abs(mp.im(pole))), rel=1e-12)


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_are_those_of_the_activation(name, dtype):
    far = [-1e30, -1e12, -1e4, 1e4, 1e12, 1e30]
    if dtype == torch.float32:
        far = [-1e30, -1e4, 1e4, 1e30]
    if name == "relu_squared":
        far = far[1:-1]  # no overflow
    z = torch.tensor([-math.inf, *far, math.inf], dtype=dtype, requires_grad=True)
    facts = activation_facts(name)
    for sigma in SIGMAS:
        value = mollify(name, sigma)(z)
        torch.testing.assert_close(value, facts.function(z.detach()), rtol=1e-6, atol=1e-25)
        (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        torch.testing.assert_close(slope, facts.derivative(z.detach()), rtol=1e-6, atol=1e-20)
        (bend,) = torch.autograd.grad(slope.sum(), z)
        expected = torch.where(z > 0, 2.0, 0.0) if name == "relu_squared" else torch.zeros_like(bend)
        torch.testing.assert_close(bend, expected.to(dtype), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if n not in (*PIECEWISE, *PERIODIC)])
def test_far_tails_of_curved_ones(name):
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([-1e30, -1e4, 1e4, 1e30], dtype=dtype, requires_grad=True)
        for sigma in (1e-4, 0.3, 10.0):
            value = mollify(name, sigma)(z)
            torch.testing.assert_close(value, activation(name)(z), rtol=1e-5, atol=1e-6)
            (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
            assert slope.isfinite().all()
            if dtype == torch.float64:
                (bend,) = torch.autograd.grad(slope.sum(), z)
                torch.testing.assert_close(bend, torch.zeros_like(bend), rtol=0, atol=1e-7)


def test_nan_stays():
    for name in ELEMENTWISE:
        assert mollify(name, 0.1)(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_suprema_of_step_and_relu(sigma):
    top = 1 / (sigma * math.sqrt(2 * math.pi))
    assert mollify("step", sigma).facts().slope_max == pytest.approx(top, rel=1e-12)
    assert mollify("relu", sigma).facts().curvature == pytest.approx(top, rel=1e-12)
    z = (torch.linspace(-9, 9, 20001, dtype=torch.float64) * sigma).tolist()
    assert float(derivatives(mollify("step", sigma), z)[1].max()) == pytest.approx(top, rel=1e-9)
    assert float(derivatives(mollify("relu", sigma), z)[2].max()) == pytest.approx(top, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ELEMENTWISE), st.floats(1e-4, 3), st.floats(1e-4, 3))
def test_semigroup(name, sigma, tau):
    twice = mollify(mollify(name, sigma), tau)
    assert twice.sigma == math.hypot(sigma, tau)
    assert type(twice.base) is type(activation(name))
    assert twice.method == mollify(name, sigma).method
    # Beside a numerical second mollification: Gauss-Hermite on a function that is already smooth at scale σ.
    if tau <= sigma / 2:
        u, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
        z = torch.linspace(-2, 2, 9, dtype=torch.float64)
        again = mollify(name, sigma)(z[:, None] + tau * u) @ (w / math.sqrt(2 * math.pi))
        torch.testing.assert_close(again, twice(z), rtol=1e-9, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(ELEMENTWISE), st.floats(1e-4, 10))
def test_smoothing_keeps_bounds_and_order_and_never_steepens(name, sigma):
    base, module = activation_facts(name), mollify(name, sigma)
    z = torch.linspace(-9, 9, 301, dtype=torch.float64)
    value, slope, _ = derivatives(module, z.tolist())
    if base.monotone:
        assert (value.diff() >= -1e-13).all()
        assert (slope >= -1e-13).all()
    if base.bounded:
        reached = activation(name)(torch.linspace(-50, 50, 20001, dtype=torch.float64))
        assert value.min() >= reached.min() - 1e-13
        assert value.max() <= reached.max() + 1e-13
    assert float(slope.abs().max()) <= base.lipschitz + 1e-12
    facts = module.facts()
    assert facts.lipschitz <= base.lipschitz + 1e-12
    assert facts.curvature <= base.curvature + 1e-12
    assert facts.monotone == base.monotone
    assert facts.bounded == base.bounded


STEEP = [n for n in CURVES if "(" in n and n.split("(")[0] not in PERIODIC]
QUICK = ["silu", "tanh(steepness=100)"]


def facts_cases():
    """Closed forms and some quadratures; the rest when there is time."""
    yield from ((n, s) for n in CLOSED if n not in PERIODIC for s in (1e-2, 10.0))
    for name in dict.fromkeys([*QUADRATURE, *STEEP]):
        for sigma in (1e-2, 0.5, 10.0):
            yield pytest.param(name, sigma, marks=() if name in QUICK and sigma == 10.0 else pytest.mark.slow)


@pytest.mark.parametrize(("name", "sigma"), list(facts_cases()))
def test_facts(name, sigma):
    curve = curve_of(name)
    module = mollify(curve.module, sigma)
    facts = module.facts()
    assert facts.smoothness_class == math.inf
    assert facts.breakpoints == ()
    assert facts.polynomial_pieces is None
    assert facts.name == f"{curve.module.facts().name}@sigma={sigma:g}"
    near = [t + k * sigma / 20 for t in curve.positions or [0.0] for k in range(-160, 161)]
    blurred = math.hypot(sigma, curve.width) / 20
    near += [t + k * blurred for t in curve.centres for k in range(-200, 201)]
    z = sorted({*near, *torch.linspace(-90, 90, 361).tolist(), *(s * 10.0**k for s in (-1, 1) for k in range(2, 7))})
    _, slope, bend = derivatives(module, z)
    if name == "relu_squared":
        assert (facts.slope_min, facts.slope_max, facts.lipschitz) == (0, math.inf, math.inf)
        assert (facts.curvature, facts.slope_variation) == (2, math.inf)
        return
    close = 1e-3 * max(1, facts.lipschitz)
    assert facts.slope_min - 1e-12 <= slope.min() <= facts.slope_min + close
    assert facts.slope_max * (1 + 1e-12) + 1e-12 >= slope.max() >= facts.slope_max - close
    assert facts.curvature * (1 + 1e-12) >= bend.abs().max() >= 0.99 * facts.curvature
    assert float(slope.diff().abs().sum()) == pytest.approx(facts.slope_variation, rel=2e-3, abs=1e-3)
    for order, turns in ((1, facts.value_turns), (2, facts.slope_turns)):
        if turns:
            beside = derivatives(module, [t + s * 1e-3 * sigma for t in turns for s in (-1, 1)])[order].reshape(-1, 2)
            felt = beside.abs().amin(dim=1) > 1e-11 / sigma
            assert (beside[felt].prod(dim=1) < 0).all()
    grid = torch.tensor(z, dtype=torch.float64)
    torch.testing.assert_close(facts.function(grid), module(grid))
    torch.testing.assert_close(facts.derivative(grid), slope)
    torch.testing.assert_close(torch.func.vmap(facts.function)(grid[::100]), module(grid[::100]))


@pytest.mark.parametrize("name", PERIODIC)
def test_facts_of_waves(name):
    """Against sampling over one period; the total bending is infinite."""
    for sigma in (1e-4, 0.3, 1.0):
        module = mollify(name, sigma)
        facts = module.facts()
        assert facts.period == activation_facts(name).period
        z = torch.linspace(0, facts.period, 20001, dtype=torch.float64)
        value, slope, bend = derivatives(module, z.tolist())
        assert facts.slope_min == pytest.approx(float(slope.min()), abs=1e-7)
        assert facts.slope_max == pytest.approx(float(slope.max()), abs=1e-7)
        assert facts.curvature == pytest.approx(float(bend.abs().max()), rel=1e-6)
        for seen, turns in ((slope, facts.value_turns), (bend, facts.slope_turns)):
            changes = (seen[1:] * seen[:-1] < 0).nonzero().flatten()
            inner = [t for t in turns if 1e-3 < t < facts.period - 1e-3]
            found = [x for x in z[changes].tolist() if 1e-3 < x < facts.period - 1e-3]
            assert found == pytest.approx(inner, abs=1e-3)
        torch.testing.assert_close(facts.function(z), value)
        torch.testing.assert_close(facts.derivative(z), slope)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 1.0])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_contract(name, sigma):
    check_activation(mollify(name, sigma))


def test_slopes_at_infinity_are_exact():
    for name in ("squareplus", "smooth_relu", "arctan", "softsign"):  # tails fall off as powers of z
        facts = mollify(name, 0.3).facts()
        assert facts.slope_min == 0
        assert facts.slope_max == (1 if name in ("squareplus", "smooth_relu") else max(facts.slope_max, 0.5))
        if facts.slope_max == 1:
            assert facts.slope_variation == 1
    assert mollify("pssilu", 0.3).facts().slope_min < -0.1 / 0.9


def test_sigma_to_zero_is_the_activation():
    for name in ELEMENTWISE:
        z = torch.linspace(-4, 4, 41, dtype=torch.float64) + 0.013
        own = activation(name).double().eval()
        torch.testing.assert_close(mollify(name, 1e-8)(z), own(z).detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["relu", "step", "hardswish", "tent", "gelu", "elu", "tanh", "selu", "softsign", "sin"]
)
def test_moments(name):
    facts = mollify(name, 0.3).facts()
    module = mollify(name, 0.3)
    assert facts.mean == pytest.approx(oracle(name, 0.0, math.hypot(1, 0.3))[0], abs=1e-10)
    u = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    mass = torch.exp(-u * u / 2) / math.sqrt(2 * math.pi) * (u[1] - u[0])
    value, slope, _ = derivatives(module, u.tolist())  # the trapezoidal rule is exact to rounding here
    assert facts.mean == pytest.approx(float((mass * value).sum()), abs=1e-12)
    assert facts.second_moment == pytest.approx(float((mass * value**2).sum()), abs=1e-12)
    assert facts.slope_second_moment == pytest.approx(float((mass * slope**2).sum()), abs=1e-12)
    assert facts.at_zero == float(module(torch.zeros((), dtype=torch.float64)))


def test_no_more_turns_than_the_activation_has():
    for sigma in (1e-4, 0.3, 10.0):
        assert mollify("relu", sigma).facts().slope_turns == ()
        assert len(mollify("gelu", sigma).facts().slope_turns) == 2
        assert len(mollify("gelu", sigma).facts().value_turns) == 1
        assert len(mollify("hardswish", sigma).facts().slope_turns) == 2
        assert len(mollify("tent", sigma).facts().value_turns) == 1
        assert len(mollify("step", sigma).facts().slope_turns) == 1
        assert len(mollify("staircase", sigma).facts().slope_turns) <= 7


@FORWARD_MODE
@pytest.mark.parametrize(
    "name", ["relu", "step", "hardswish", "staircase", "gelu", "selu", "tanh", "snake", "softsign"]
)
def test_gradcheck(name):
    z = torch.linspace(-3.05, 3.1, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mollify(name, 0.5), z, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(mollify(name, 0.5), z)


@FORWARD_MODE
@pytest.mark.parametrize("base", ["step", "hardswish", "celu", "silu", "sin", "softsign", "pssilu"])
def test_function_transforms(base):
    module = mollify(base, 0.5)
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, slope, bend = (t.reshape(3, 4) for t in derivatives(module, z.flatten().tolist()))
    torch.testing.assert_close(torch.func.vmap(module)(z), value)
    torch.testing.assert_close(torch.func.vmap(module, in_dims=1, out_dims=1)(z), value)
    grad = torch.func.grad(module)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(grad))(z), slope)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(torch.func.grad(grad)))(z), bend)
    hessian = torch.func.hessian(lambda row: module(row).sum())(z[0])
    torch.testing.assert_close(hessian, torch.diag(bend[0]))
    jacobian = torch.func.jacrev(module)(z[0])
    torch.testing.assert_close(jacobian, torch.diag(slope[0]))
    _, tangent = torch.func.jvp(module, (z,), (torch.ones_like(z),))
    torch.testing.assert_close(tangent, slope)


def test_shapes_types_and_layouts():
    module = mollify("hardswish", 0.2)
    for shape in ((), (0,), (3, 1, 2), (70_000,)):
        z = torch.randn(shape)
        assert module(z).shape == z.shape
        torch.testing.assert_close(module(z), module(z.double()).float(), rtol=1e-4, atol=2e-6)
    z = torch.randn(300, 400).T
    torch.testing.assert_close(module(z), module(z.contiguous()))
    assert module(torch.randn(4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_float32(name):
    z = torch.linspace(-5, 5, 2001)
    for sigma in (1e-2, 0.3, 1.0):
        value, slope, _ = derivatives(mollify(name, sigma), z.double().tolist())
        single = z.clone().requires_grad_()
        out = mollify(name, sigma)(single)
        (gradient,) = torch.autograd.grad(out.sum(), single)
        torch.testing.assert_close(out.double(), value, rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(gradient.double(), slope, rtol=2e-4, atol=2e-5 / sigma)


def test_many_breakpoints_are_summed_within_reach():
    for sigma in (1e-4, 1e-3, 1e-2, 1.0):
        module = mollify(activation("quantised_relu", bits=6), sigma)
        z = torch.linspace(-0.2, 1.2, 501, dtype=torch.float64)
        thresholds = torch.tensor(activation("quantised_relu", bits=6).thresholds, dtype=torch.float64)
        expected = torch.special.ndtr((z[:, None] - thresholds) / sigma).sum(dim=1) / 63
        torch.testing.assert_close(module(z), expected, rtol=1e-12, atol=1e-12)


def test_module_is_a_plain_one():
    for base in (*ELEMENTWISE, nn.ReLU6(), Power()):
        module = mollify(base, 0.1)
        z = torch.randn(5)
        assert module.state_dict() == {}
        assert list(module.parameters()) == []
        assert [name for name, _ in module.named_modules()] == [""]  # the base is not seen by swapping
        assert torch.equal(copy.deepcopy(module)(z), module(z))
        assert torch.equal(pickle.loads(pickle.dumps(module))(z), module(z))
        assert module.double()(z.double()).dtype == torch.float64
        assert module.training


def test_names():
    assert repr(mollify("relu", 0.1)) == "Mollified(ReLU(), sigma=0.1)"
    assert repr(mollify("tanh", 0.1)) == "Mollified(Tanh(), sigma=0.1, method='quadrature', error=1e-13)"
    assert mollify("relu", 0.1).facts().name == "relu@sigma=0.1"
    assert mollify(nn.LeakyReLU(0.2), 0.5).facts().name == "leaky_relu(negative_slope=0.2)@sigma=0.5"
    assert activation_facts(mollify("gelu", 0.5)).smoothness_class == math.inf


def test_zero_sigma_is_the_activation():
    assert repr(mollify("relu", 0)) == "ReLU()"
    base = nn.PReLU()
    copied = mollify(base, 0.0)
    assert type(copied) is nn.PReLU
    assert copied is not base
    mollified = mollify("step", 0.5)
    assert mollify(mollified, 0).sigma == 0.5


class Floor(nn.Module):
    def forward(self, z):
        return z.floor()


class Power(nn.Module):
    def forward(self, z):
        return z.abs() ** 1.5


class Doubled(nn.Module):
    """A jump at 0.3 without a graph, beside a kink at -0.7."""

    def forward(self, z):
        return torch.where(z.detach() > 0.3, 2.0, (z.detach() + 0.7).abs())


def test_foreign_modules():
    z = torch.linspace(-3, 3, 25, dtype=torch.float64)
    for sigma in (1e-2, 0.3, 1.0):
        floor = mollify(Floor(), sigma)
        jumps = torch.arange(-40, 40, dtype=torch.float64)
        expected = torch.special.ndtr((z[:, None] - jumps) / sigma).sum(dim=1) - 41
        torch.testing.assert_close(floor(z), expected, rtol=0, atol=1e-11)
        density = torch.exp(-(((z[:, None] - jumps) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        torch.testing.assert_close(derivatives(floor, z.tolist())[1], density.sum(dim=1), rtol=0, atol=1e-10)
        assert floor.method == "estimate"  # it jumps beyond the range probed, too

    power = mollify(Power(), 0.3)
    assert power.method == "quadrature"
    moment = 0.3**1.5 * 2**0.75 * math.gamma(1.25) / math.sqrt(math.pi)
    assert float(power(torch.zeros(1).double())) == pytest.approx(moment, abs=1e-9)

    wrapped = mollify(nn.Sequential(nn.SELU()), 0.3)
    assert wrapped.method == "quadrature"
    torch.testing.assert_close(wrapped(z), mollify("selu", 0.3)(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mollify(nn.Softplus(), 0.3)(z), mollify("softplus", 0.3)(z), rtol=0, atol=1e-8)


def test_foreign_module_without_a_graph():
    z = torch.linspace(-3, 3, 25, dtype=torch.float64)
    module = mollify(Doubled(), 0.3)
    assert module.method == "quadrature"
    cdf, pdf = torch.special.ndtr, lambda x: torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def hinge(t):
        x = (z - t) / 0.3
        return 0.3 * (x * cdf(x) + pdf(x))

    expected = -(z + 0.7) + 2 * hinge(-0.7) - hinge(0.3) + (2 - 1.0) * cdf((z - 0.3) / 0.3)
    torch.testing.assert_close(module(z), expected, rtol=0, atol=1e-9)
    slope = derivatives(module, z.tolist())[1]
    step = 1e-5
    differences = (module(z + step) - module(z - step)) / (2 * step)
    torch.testing.assert_close(slope, differences, rtol=0, atol=1e-8)


def test_foreign_parameters_are_frozen_copies():
    base = nn.PReLU()
    module = mollify(base, 0.3)
    z = torch.tensor([-2.0, 1.0], requires_grad=True)
    before = module(z)
    before.sum().backward()
    assert base.weight.grad is None
    assert base.weight.requires_grad
    with torch.no_grad():
        base.weight.fill_(3.0)
    assert torch.equal(module(z), before)
    with pytest.raises(TypeError, match=r"facts of Mollified\(Power.* are not certified"):
        mollify(Power(), 0.3).facts()


@pytest.mark.parametrize("name", ["prelu", "psilu", "pssilu"])
def test_learnable_ones_are_frozen_copies(name):
    base = activation(name)
    module = mollify(base, 0.3)
    z = torch.tensor([-2.0, 1.0], requires_grad=True)
    before = module(z)
    before.sum().backward()
    assert all(p.grad is None and p.requires_grad for p in base.parameters())
    with torch.no_grad():
        next(base.parameters()).fill_(0.7)
    assert torch.equal(module(z), before)
    assert not torch.allclose(mollify(base, 0.3)(z), before)
    assert mollify(base, 0.3).facts().name == f"{base.facts().name}@sigma=0.3"


def test_psilu_of_zero_is_a_line():
    base = activation("psilu")
    with torch.no_grad():
        base.alpha.fill_(0.0)
    module = mollify(base, 0.3)
    assert module.method == "closed form"
    assert (module.facts().slope_min, module.facts().slope_max, module.facts().curvature) == (0.5, 0.5, 0)
    with torch.no_grad():
        base.alpha.fill_(-2.0)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    mirrored = -mollify(activation("psilu", alpha=2.0), 0.3)(-z)
    torch.testing.assert_close(mollify(base, 0.3)(z), mirrored, rtol=1e-13, atol=1e-13)


class Maxout(nn.Module):
    def forward(self, z):
        return z.unflatten(-1, (-1, 2)).amax(dim=-1)


class Shuffled(nn.Module):
    def forward(self, z):
        return z * torch.rand_like(z)


@pytest.mark.parametrize(
    "module",
    [
        *map(activation, ("k_winners", "maxout", "group_sort")),
        nn.Softmax(-1),
        nn.LayerNorm(12),
        nn.GLU(),
        Maxout(),
        nn.PReLU(12),
        nn.LSTM(3, 3),
        Shuffled(),
        nn.Linear(12, 12),
    ],
    ids=lambda m: type(m).__name__,
)
def test_vector_activations_are_refused(module):
    with pytest.raises(TypeError, match="mollify needs an elementwise activation"):
        mollify(module, 0.1)


def test_bad_input():
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"sigma must be a finite number of at least 0, got {sigma}"):
            mollify("relu", sigma)
    with pytest.raises(TypeError, match="sigma must be a number, got str '1'"):
        mollify("relu", "1")
    with pytest.raises(TypeError, match=r"activation must be a name or an nn\.Module, got function"):
        mollify(lambda z: z, 0.1)
    with pytest.raises(ValueError, match="unknown activation 'rellu'"):
        mollify("rellu", 0.1)
    assert isinstance(mollify("relu", 1), Mollified)


@pytest.mark.parametrize("name", ["gelu", "relu6", "tent", "elu", "hardtanh", "leaky_relu"])
def test_no_piece_is_lost_where_the_distance_underflows(name):
    """(z - t)/σ may be 0 for z > t: the piece and its term must still agree on the side."""
    module = mollify(name, 10.0)
    z = torch.tensor([-5e-324, 0.0, 5e-324], dtype=torch.float64, requires_grad=True)
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(value, value[1].expand(3), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slope, slope[1].expand(3), rtol=1e-14, atol=1e-14)
