"""Mollified activations beside mpmath quadrature at 25 digits, and their identities."""

import copy
import math
import pickle
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
from smoothness.activations.mollification.mollify import Mollified
from smoothness.activations.mollification.quadrature import TRAPEZOID_ERROR

# torch scripts its forward-mode rules on first use.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
SIGMAS = (1e-4, 1e-2, 0.3, 1.0, 10.0)
PIECEWISE = [name for name in list_activations() if activation_facts(name).polynomial_pieces is not None]
CLOSED = [*PIECEWISE, "gelu", "elu"]
ANALYTIC = ["silu", "softplus", "tanh", "sigmoid"]
CURVED = {
    "gelu": ([], [lambda z: z * mp.ncdf(z)]),
    "elu": ([0.0], [mp.expm1, lambda z: z]),
    "silu": ([], [lambda z: z / (1 + mp.exp(-z))]),
    "softplus": ([], [lambda z: mp.log1p(mp.exp(z))]),
    "tanh": ([], [mp.tanh]),
    "sigmoid": ([], [lambda z: 1 / (1 + mp.exp(-z))]),
}
HERMITE = [lambda u: 1, lambda u: u, lambda u: u * u - 1]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pieces_of(name):
    if name in CURVED:
        return CURVED[name]
    facts = activation_facts(name)
    return [b.position for b in facts.breakpoints], [
        lambda z, c=c: sum(mp.mpf(v) * z**k for k, v in enumerate(c)) for c in facts.polynomial_pieces
    ]


@cache
def nodes():
    with mp.workdps(25):
        return mp.calculus.quadrature.GaussLegendre(mp.mp).calc_nodes(4, 90)


def oracle(name, z, sigma, order):
    """E[He_m(u) φ(z + σu)] / σ^m by Gauss-Legendre on panels between the breakpoints, at 25 digits."""
    positions, functions = pieces_of(name)
    with mp.workdps(25):
        z, sigma = mp.mpf(z), mp.mpf(sigma)
        panel = 5 if len(functions) > 1 else min(5, max(mp.mpf("0.5"), 2 / sigma))
        count = int(10 / panel)
        cuts = [(mp.mpf(t) - z) / sigma for t in positions]
        cuts = sorted({k * mp.mpf(10) / count for k in range(-count, count + 1)} | {c for c in cuts if abs(c) < 10})
        total = mp.mpf(0)
        for a, b in pairwise(cuts):
            piece = functions[sum(z + sigma * (a + b) / 2 > t for t in positions)]
            for x, w in nodes():
                u = (a + b) / 2 + (b - a) / 2 * x
                total += w * (b - a) / 2 * HERMITE[order](u) * piece(z + sigma * u) * mp.npdf(u)
        return float(total / sigma**order)


def derivatives(module, points):
    """Value, first and second derivative by autograd."""
    z = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    return [t.detach() for t in (value, slope, bend)]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name, sigma):
    module = mollify(name, sigma)
    assert module.method == "closed form"
    positions, _ = pieces_of(name)
    ends = [positions[0], positions[-1]] if positions else [0.0]
    points = [ends[0], ends[0] - 0.7 * sigma, ends[-1] + 1.3 * sigma, ends[0] - 6 * sigma]
    for order, got in enumerate(derivatives(module, points)):
        for z, value in zip(points, got.tolist(), strict=True):
            assert value == pytest.approx(oracle(name, z, sigma, order), rel=1e-10, abs=1e-10 / sigma**order)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", ANALYTIC)
def test_trapezoidal_rule(name, sigma):
    module = mollify(name, sigma)
    assert module.method == "quadrature"
    assert module.error == TRAPEZOID_ERROR
    points = [-3.7, 0.0, 1.3] if sigma != 10.0 else [1.3]
    for order, got in enumerate(derivatives(module, points)):
        if order and sigma < 0.01:
            continue  # the oracle's own rounding is divided by sigma
        for z, value in zip(points, got.tolist(), strict=True):
            expected = oracle(name, z, sigma, order)
            assert abs(value - expected) <= TRAPEZOID_ERROR * max(1, abs(expected))


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_are_those_of_the_activation(name, dtype):
    far = [-1e30, -1e12, -1e4, 1e4, 1e12, 1e30]
    if dtype == torch.float32:
        far = [-1e30, -1e4, 1e4, 1e30]
    z = torch.tensor([-math.inf, *far, math.inf], dtype=dtype, requires_grad=True)
    facts = activation_facts(name)
    for sigma in SIGMAS:
        value = mollify(name, sigma)(z)
        torch.testing.assert_close(value, facts.function(z.detach()), rtol=1e-6, atol=1e-25)
        (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        torch.testing.assert_close(slope, facts.derivative(z.detach()), rtol=1e-6, atol=1e-20)
        (bend,) = torch.autograd.grad(slope.sum(), z)
        torch.testing.assert_close(bend, torch.zeros_like(bend), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["gelu", "elu", *ANALYTIC])
def test_far_tails_of_curved_ones(name):
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([-1e30, -1e4, 1e4, 1e30], dtype=dtype, requires_grad=True)
        for sigma in (1e-4, 0.3, 10.0):
            value = mollify(name, sigma)(z)
            torch.testing.assert_close(value, activation(name)(z), rtol=1e-5, atol=1e-6)
            (slope,) = torch.autograd.grad(value.sum(), z)
            assert slope.isfinite().all()


def test_nan_stays():
    for name in [*CLOSED, *ANALYTIC]:
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
@given(st.sampled_from([*CLOSED, *ANALYTIC]), st.floats(1e-4, 3), st.floats(1e-4, 3))
def test_semigroup(name, sigma, tau):
    twice = mollify(mollify(name, sigma), tau)
    assert twice.sigma == math.hypot(sigma, tau)
    assert type(twice.base) is type(activation(name))
    # Beside a numerical second mollification: Gauss-Hermite on a function that is already smooth at scale σ.
    if tau <= sigma / 2:
        u, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
        z = torch.linspace(-2, 2, 9, dtype=torch.float64)
        again = mollify(name, sigma)(z[:, None] + tau * u) @ (w / math.sqrt(2 * math.pi))
        torch.testing.assert_close(again, twice(z), rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([*CLOSED, *ANALYTIC]), st.floats(1e-4, 10))
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


@pytest.mark.parametrize(
    ("name", "sigma"), [(n, s) for n in CLOSED for s in (1e-2, 0.3, 10.0)] + [(n, 0.5) for n in ANALYTIC]
)
def test_facts(name, sigma):
    module = mollify(name, sigma)
    facts = module.facts()
    assert facts.smoothness_class == math.inf
    assert facts.breakpoints == ()
    assert facts.polynomial_pieces is None
    assert facts.name == f"{activation_facts(name).name}@sigma={sigma:g}"
    positions, _ = pieces_of(name)
    near = [t + k * sigma / 20 for t in (positions or [0.0]) for k in range(-160, 161)]
    z = sorted(set(near) | set(torch.linspace(-90, 90, 1801).tolist()))
    _, slope, bend = derivatives(module, z)
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


@pytest.mark.parametrize("name", ["relu", "step", "hardswish", "tent", "gelu", "elu", "tanh"])
def test_moments(name):
    facts = mollify(name, 0.3).facts()
    module = mollify(name, 0.3)
    assert facts.mean == pytest.approx(oracle(name, 0.0, math.hypot(1, 0.3), 0), abs=1e-10)
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
@pytest.mark.parametrize("name", ["relu", "step", "hardswish", "staircase", "gelu", "elu", "tanh"])
def test_gradcheck(name):
    z = torch.linspace(-3.05, 3.1, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mollify(name, 0.5), z, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(mollify(name, 0.5), z)


@FORWARD_MODE
@pytest.mark.parametrize("base", ["step", "hardswish", "elu", "silu", nn.Mish()], ids=str)
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


@pytest.mark.parametrize("name", ["relu", "step", "sign", "staircase", "leaky_relu", "gelu", "elu"])
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
    for base in ("relu", "tanh", "elu", nn.Mish(), nn.ReLU6()):
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

    selu, scale, alpha = mollify(nn.SELU(), 0.3), 1.0507009873554805, 1.6732632423543772
    assert selu.method == "quadrature"
    torch.testing.assert_close(
        selu(z), scale * mollify(activation("elu", alpha=alpha), 0.3)(z), rtol=1e-12, atol=1e-12
    )
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
    with pytest.raises(TypeError, match=r"facts of Mollified\(PReLU.* are not certified"):
        module.facts()


class Maxout(nn.Module):
    def forward(self, z):
        return z.unflatten(-1, (-1, 2)).amax(dim=-1)


class Shuffled(nn.Module):
    def forward(self, z):
        return z * torch.rand_like(z)


@pytest.mark.parametrize(
    "module",
    [nn.Softmax(-1), nn.LayerNorm(12), nn.GLU(), Maxout(), nn.PReLU(12), nn.LSTM(3, 3), Shuffled(), nn.Linear(12, 12)],
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
