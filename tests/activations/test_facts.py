"""Every fact of every elementwise activation against mpmath, a second implementation with 70 digits."""

import copy
import math
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from smoothness.activations import activation, activation_facts, list_activations
from smoothness.activations.catalogue import ACTIVATIONS, own_counterpart
from tests.activations.truth import FAR, TINY, Truth, mp

VECTOR = ("group_sort", "k_winners", "maxout")


def sigmoid(z):
    return 1 / (1 + mp.exp(-z))


def softplus(z):
    return mp.log1p(mp.exp(z))


def line(slope, intercept=0):
    return lambda z: slope * z + intercept


def leaky(name, slope, **parameters):
    return Truth(name, parameters, (line(mp.mpf(slope)), line(1)), (0,))


def kinked_linear(kink, offset, chi):
    s, k, c = mp.sqrt(mp.mpf(chi) - mp.mpf(kink) ** 2 / 4), mp.mpf(kink), mp.mpf(offset)
    parameters = {"kink": kink, "offset": offset, "chi": chi}
    return Truth("kinked_linear", parameters, (line(s - k / 2, c), line(s + k / 2, c)), (0,))


def softplus_of(name, beta, shift=0, **parameters):
    b = mp.mpf(beta)
    return Truth(name, {"beta": beta, **parameters}, (lambda z: (softplus(b * z) - shift) / b,), width=1 / b)


def squareplus(b):
    b = mp.mpf(b)
    return Truth("squareplus", {"b": float(b)}, (lambda z: (z + mp.sqrt(z * z + b)) / 2,), width=mp.sqrt(b))


def smooth_relu(alpha):
    a = mp.mpf(alpha)
    return Truth("smooth_relu", {"alpha": alpha}, (line(0), lambda z: z - mp.log1p(a * z) / a), (0,), 1 / a)


def elu(name, alpha, scale=1, /, **parameters):
    a, s = mp.mpf(alpha), mp.mpf(scale)
    return Truth(name, parameters, (lambda z: s * a * mp.expm1(z), line(s)), (0,))


def celu(alpha):
    a = mp.mpf(alpha)
    return Truth("celu", {"alpha": alpha}, (lambda z: a * mp.expm1(z / a), line(1)), (0,), a)


def gated(name, alpha, beta=0.0, /, **parameters):
    a, b = mp.mpf(alpha), mp.mpf(beta)
    return Truth(name, parameters, (lambda z: z * (sigmoid(a * z) - b) / (1 - b),), width=1 / a)


def tanh(steepness):
    k = mp.mpf(steepness)
    return Truth("tanh", {"steepness": steepness}, (lambda z: mp.tanh(k * z),), width=1 / k)


def sin(frequency):
    f = mp.mpf(frequency)
    return Truth("sin", {"frequency": frequency}, (lambda z: mp.sin(f * z),), width=1 / f, period=2 * mp.pi / f)


def snake(frequency):
    a = mp.mpf(frequency)
    wave = lambda z: z + mp.sin(a * z) ** 2 / a  # noqa: E731
    return Truth("snake", {"frequency": frequency}, (wave,), width=1 / a, period=mp.pi / a)


def tent(width):
    w = mp.mpf(width)
    return Truth("tent", {"width": width}, (line(0), line(1, w), line(-1, w), line(0)), (-w, 0, w))


def hardtanh(low, high):
    pieces = (line(0, mp.mpf(low)), line(1), line(0, mp.mpf(high)))
    return Truth("hardtanh", {"min_val": low, "max_val": high}, pieces, (mp.mpf(low), mp.mpf(high)))


def shrink(name, lambd, keep):
    t = mp.mpf(lambd)
    return Truth(name, {"lambd": lambd}, (line(1, t - keep * t), line(0), line(1, keep * t - t)), (-t, t))


def middles(values):
    return tuple(mp.chop((a + b) / 2) for a, b in pairwise(values))


def rounding(name, values, **parameters):
    """The nearest of ascending values."""
    return Truth(name, parameters, tuple(line(0, v) for v in values), middles(values))


def levels(count):
    return [mp.mpf(2 * k) / (count - 1) - 1 for k in range(count)]


def sigmoid_staircase(count, temperature):
    t, thresholds = mp.mpf(temperature), middles(levels(count))
    soft = lambda z: mp.mpf(2) / (count - 1) * sum(sigmoid((z - c) / t) for c in thresholds) - 1  # noqa: E731
    parameters = {"levels": count, "temperature": temperature}
    return Truth("sigmoid_staircase", parameters, (soft,), width=t, centres=thresholds)


def float32(value):
    """As a parameter of a module is stored."""
    return float(np.float32(value))


SELU_ALPHA, SELU_SCALE = "1.6732632423543772848170429916717", "1.0507009873554804934193349852946"
ROOT = mp.sqrt(2 / mp.pi)
CASES = [
    # lines and rectifiers
    Truth("identity", {}, (line(1),)),
    Truth("relu", {}, (line(0), line(1)), (0,)),
    *(leaky("leaky_relu", s, negative_slope=s) for s in (0.01, 0.2, -0.5, 1.0)),
    *(leaky("prelu", float32(s), init=s) for s in (0.25, -0.3, 1.0)),
    leaky("rrelu", mp.mpf(11) / 48),
    leaky("rrelu", 0.5, lower=0.25, upper=0.75),
    Truth("relu6", {}, (line(0), line(1), line(0, 6)), (0, 6)),
    Truth("relu_squared", {}, (line(0), lambda z: z**2), (0,)),
    *(kinked_linear(*p) for p in ((1.0, 0.0, 0.5), (-0.7, 0.3, 0.5), (0.0, 0.0, 0.5), (1.2, -1.0, 2.0))),
    # smooth rectifiers
    *(softplus_of("softplus", beta) for beta in (1.0, 3.0, 0.2, 1000.0)),
    Truth("softplus", {"beta": 1.0, "threshold": 20.0}, (softplus, line(1)), (20,), centres=(0, 20)),
    *(softplus_of("centred_softplus", beta, mp.log(2)) for beta in (1.0, 3.0, 100.0)),
    *(squareplus(b) for b in (4.0, 0.01, 50.0)),
    *(smooth_relu(alpha) for alpha in (1.0, 100.0, 0.1)),
    Truth("logsigmoid", {}, (lambda z: -softplus(-z),)),
    # exponential
    *(elu("elu", alpha, alpha=alpha) for alpha in (1.0, 2.0, 0.3)),
    *(celu(alpha) for alpha in (1.0, 0.1, 5.0)),
    elu("selu", SELU_ALPHA, SELU_SCALE),
    # gated
    Truth("gelu", {}, (lambda z: z * mp.erfc(-z / mp.sqrt(2)) / 2,)),
    Truth("gelu_tanh", {}, (lambda z: z / 2 * (1 + mp.tanh(ROOT * (z + mp.mpf("0.044715") * z**3))),)),
    gated("silu", 1),
    *(gated("swish", beta, beta=beta) for beta in (1.0, 0.3, 40.0)),
    Truth("mish", {}, (lambda z: z * mp.tanh(softplus(z)),)),
    *(gated("psilu", float32(alpha), alpha=alpha) for alpha in (1.0, 2.5)),
    *(gated("pssilu", float32(a), float32(b), alpha=a, beta=b) for a, b in ((1.0, 0.1), (2.0, 0.3), (1.0, 0.7))),
    gated("pssilu", 1, 0, beta=0.0),
    # sigmoidal
    Truth("sigmoid", {}, (sigmoid,)),
    *(tanh(k) for k in (1.0, 50.0, 0.3)),
    Truth("arctan", {}, (mp.atan,)),
    Truth("erf", {}, (mp.erf,)),
    Truth("softsign", {}, (lambda z: z / (1 - z), lambda z: z / (1 + z)), (0,)),
    # hard
    *(hardtanh(*p) for p in ((-1.0, 1.0), (-0.5, 2.0), (1.0, 3.0))),
    Truth("hardsigmoid", {}, (line(0), lambda z: (z + 3) / 6, line(0, 1)), (-3, 3)),
    Truth("hardswish", {}, (line(0), lambda z: z * (z + 3) / 6, line(1)), (-3, 3)),
    # shrinkage
    *(shrink("softshrink", lambd, keep=0) for lambd in (0.5, 1.3)),
    *(shrink("hardshrink", lambd, keep=1) for lambd in (0.5, 1.3)),
    Truth("tanhshrink", {}, (lambda z: z - mp.tanh(z),)),
    # waves and bumps
    *(sin(f) for f in (1.0, 5.0, 0.4)),
    *(snake(f) for f in (1.0, 3.0, 0.7)),
    Truth("gaussian", {}, (lambda z: mp.exp(-(z**2)),)),
    *(tent(w) for w in (1.0, 1.5)),
    # steps
    Truth("step", {}, (line(0), line(0, 1)), (0,)),
    rounding("sign", [mp.mpf(-1), mp.mpf(1)]),
    *(rounding("staircase", levels(n), levels=n) for n in (5, 2, 8)),
    *(sigmoid_staircase(*p) for p in ((5, 0.05), (5, 0.5), (5, 0.01), (4, 0.1), (3, 1.0))),
    *(rounding("quantised_relu", [mp.mpf(k) / (2**b - 1) for k in range(2**b)], bits=b) for b in (2, 1, 3)),
    *(Truth("jump_relu", {"height": h}, (line(0), line(1)), (mp.mpf(h),)) for h in (0.5, 0.25, 0.0)),
]


def _id(truth):
    return "-".join([truth.name, *(f"{key}={value:g}" for key, value in truth.parameters.items())])


def _params(cases):
    """Two of each name always, the rest in the slow suite."""
    seen = Counter()
    for truth in cases:
        seen[truth.name] += 1
        yield pytest.param(truth, id=_id(truth), marks=pytest.mark.slow if seen[truth.name] > 2 else ())


all_cases = pytest.mark.parametrize("truth", list(_params(CASES)))


@cache
def _facts(key):
    (truth,) = (t for t in CASES if _id(t) == key)
    return _module(truth).facts()


def _module(truth):
    return activation(truth.name, **truth.parameters).eval()


def _close(expected, rel=1e-9, absolute=1e-12):
    return pytest.approx(expected, rel=rel, abs=absolute)


def _floats(values):
    return [float(v) for v in values]


def test_every_elementwise_activation_has_a_case():
    assert sorted({*VECTOR, *(t.name for t in CASES)}) == list_activations()
    assert sorted(name for name, kind in ACTIVATIONS.items() if not kind.elementwise) == sorted(VECTOR)


def _points(truth):
    """Round about the centres at the width of the bend, and further out; away from breakpoints."""
    centres = {*truth.centres, *truth.positions}
    near = {float(c + truth.width * k) for c in centres for k in (-7.3, -1.9, -0.61, -0.004, 0.003, 0.57, 2.1, 6.7)}
    return sorted({*near, *np.linspace(-9.03, 8.97, 13).tolist(), -33.3, 31.7})


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_slopes(truth, dtype):
    z = torch.tensor(_points(truth), dtype=dtype)
    expected = torch.tensor([_both(truth, v) for v in z.tolist()], dtype=torch.float64).T
    z.requires_grad_()
    module, facts = _module(truth).to(dtype), _facts(_id(truth))
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    eps, steep = torch.finfo(dtype).eps, max(1.0, 1 / float(truth.width))
    at = z.detach().double()
    rounding = eps * (1 + at.abs() * steep)  # of the argument of φ, in widths
    assert ((value - expected[0]).abs() <= 8 * eps * (1 + expected[0].abs()) + 2 * rounding / steep).all()
    assert ((slope - expected[1]).abs() <= 32 * eps * (1 + expected[1].abs()) + 2 * rounding * slope.abs().max()).all()
    if dtype == torch.float64:
        torch.testing.assert_close(facts.function(at), value.detach(), rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(facts.derivative(at), slope, rtol=1e-13, atol=1e-14 * steep)


def _both(truth, z):
    z, h = mp.mpf(z), mp.mpf("1e-25")
    piece = truth.piece(z)
    return float(piece(z)), float((piece(z + h) - piece(z - h)) / (2 * h))


@all_cases
def test_moments(truth):
    facts = _facts(_id(truth))
    assert (facts.mean, facts.second_moment, facts.slope_second_moment) == _close(tuple(_floats(truth.moments())))
    assert facts.at_zero == _close(float(truth(mp.mpf(0))), absolute=1e-15)


@all_cases
def test_slopes_curvature_and_turning_points(truth):
    facts, jumps = _facts(_id(truth)), truth.jumps
    slopes, orders = truth.path(1), [order for _, order, _ in jumps]
    assert (facts.slope_min, facts.slope_max) == _close((float(min(slopes)), float(max(slopes))))
    steepest = math.inf if -1 in orders else float(max(map(abs, slopes)))
    assert facts.lipschitz == _close(steepest)
    rough = min(orders, default=math.inf) < 1
    assert facts.curvature == _close(math.inf if rough else float(max(map(abs, truth.path(2)))))
    periodic = truth.period is not None
    assert facts.slope_variation == _close(math.inf if periodic else float(_variation(slopes)))
    assert facts.monotone == (min(slopes) > -TINY and all(jump > 0 for _, order, jump in jumps if order == -1))
    assert facts.value_turns == _close(tuple(_floats(truth.turns(1))))
    assert facts.slope_turns == _close(tuple(_floats(truth.turns(2))), absolute=1e-7)  # between steps φ'' is tiny
    if periodic:
        assert facts.period == _close(float(truth.period))
        step = truth(mp.mpf(1) + truth.period) - truth(mp.mpf(1))
        assert facts.bounded == (abs(step) < TINY)
    else:
        assert facts.period is None
        assert facts.bounded == (max(abs(truth(-FAR)), abs(truth(FAR))) < 1e6)


def _variation(path):
    return sum(abs(b - a) for a, b in pairwise(path) if a != b)


@all_cases
def test_breakpoints(truth):
    facts = _facts(_id(truth))
    expected = [(float(t), order, float(jump)) for t, order, jump in truth.jumps]
    assert [b.order for b in facts.breakpoints] == [order for _, order, _ in expected]
    assert [b.position for b in facts.breakpoints] == _close([t for t, _, _ in expected])
    assert [b.jump for b in facts.breakpoints] == _close([jump for _, _, jump in expected])
    assert facts.smoothness_class == min((order for _, order, _ in expected), default=math.inf)


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


@pytest.mark.parametrize("name", ["step", "staircase", "sign", "quantised_relu"])
def test_steps_have_zero_gradient_and_keep_nan(name):
    z = torch.tensor([-1.0, 0.0, 0.25, 3.0, math.nan], requires_grad=True)
    out = activation(name)(z)
    (gradient,) = torch.autograd.grad(out[:4].sum(), z)
    assert gradient.tolist() == [0.0] * 5
    assert out[4].isnan()
    jacobian = torch.func.vmap(torch.func.jacrev(activation(name)))(torch.randn(3, 2))
    assert (jacobian == 0).all()


TORCHS = [
    *(nn.CELU(), nn.CELU(0.3), nn.ELU(), nn.ELU(0.7), nn.GELU(), nn.GELU("tanh"), nn.Hardshrink(), nn.Hardshrink(0.3)),
    *(nn.Hardsigmoid(), nn.Hardswish(), nn.Hardtanh(), nn.Hardtanh(-0.3, 2.0), nn.Identity(), nn.LeakyReLU()),
    *(nn.LeakyReLU(0.3), nn.LogSigmoid(), nn.Mish(), nn.PReLU(), nn.PReLU(init=0.3), nn.RReLU(), nn.RReLU(0.1, 0.2)),
    *(nn.ReLU(), nn.ReLU6(), nn.SELU(), nn.SiLU(), nn.Sigmoid(), nn.Softplus(), nn.Softplus(beta=2)),
    *(nn.Softplus(threshold=50), nn.Softshrink(), nn.Softshrink(0.3), nn.Softsign(), nn.Tanh(), nn.Tanhshrink()),
    *(nn.Threshold(0.5, 0.0), nn.Threshold(0.0, 0.0)),
]


@pytest.mark.parametrize("module", TORCHS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_counterparts_agree_to_the_bit(module, dtype):
    """Values, signs of zeros and NaN; the slope but for torch's own rounding of 1/6 and 1/alpha to float32."""
    theirs, own = copy.deepcopy(module).eval().to(dtype), own_counterpart(module).eval().to(dtype)
    t = torch.tensor([b.position for b in own.facts().breakpoints], dtype=dtype)
    special = torch.tensor([0.0, -0.0, 1e30, -1e30, math.inf, -math.inf, math.nan, 20, 40, 45, 50], dtype=dtype)
    z = torch.cat(
        [6 * torch.randn(2001, dtype=dtype), t, torch.nextafter(t, t + 1), torch.nextafter(t, t - 1), special]
    )
    assert torch.equal(own(z).nan_to_num(7.0, 8.0, 9.0), theirs(z).nan_to_num(7.0, 8.0, 9.0))
    assert torch.equal(own(z).nan_to_num().signbit(), theirs(z).nan_to_num().signbit())
    z = z[:2001].clone().requires_grad_()
    slopes = [torch.autograd.grad(f(z).sum(), z)[0] for f in (own, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-7)
    assert activation_facts(module) == own_counterpart(module).facts()


def test_torchs_own_roughness_is_stated():
    facts = activation_facts(nn.Softplus())
    (jump,) = facts.breakpoints
    t = torch.tensor([20.0, math.nextafter(20.0, 21.0)], dtype=torch.float64)
    assert (jump.position, jump.order, facts.smoothness_class) == (20.0, -1, -1)
    assert nn.Softplus()(t).diff().item() == pytest.approx(jump.jump, rel=1e-4)
    assert jump.jump == pytest.approx(-2.061153620314381e-09, rel=1e-9)
    assert activation_facts(nn.Softplus(threshold=50)).smoothness_class == math.inf
    assert [(b.position, b.jump) for b in activation_facts(nn.ReLU6()).breakpoints] == [(0.0, 1.0), (6.0, -1.0)]
    left, right = activation_facts(nn.Hardshrink()).breakpoints
    ends = torch.tensor([left.position, -0.5, right.position, math.nextafter(0.5, 1)], dtype=torch.float64)
    assert nn.Hardshrink()(ends).tolist() == [left.position, 0.0, 0.0, math.nextafter(0.5, 1)]


@pytest.mark.parametrize(
    "module",
    [nn.Linear(1, 1), nn.Threshold(0.5, 2.0), nn.PReLU(3), nn.ELU(0.0), nn.CELU(-1.0), nn.Softshrink(0.0)],
    ids=repr,
)
def test_what_has_no_counterpart_has_no_facts(module):
    with pytest.raises(TypeError, match=f"no facts are known for {type(module).__name__}"):
        activation_facts(module)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown activation 'geluu'; did you mean 'gelu'"):
        activation("geluu")
    with pytest.raises(ValueError, match="no parameter 'b'; it takes beta"):
        activation("softplus", b=2)
