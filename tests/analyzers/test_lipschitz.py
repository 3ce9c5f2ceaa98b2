"""Both sides of the Lipschitz constant: exact where it is known, and never crossed by a sample."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import smoothness as sm
from smoothness._norms import operator_norm
from smoothness.testing import check_analyzer
from tests.bounds.random_networks import ELEMENTWISE, jacobians, random_case, sampled_constants
from tests.bounds.reference import linear, reference_network

NORMS = ["l2", "linf", "l1"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pairs", ["ball", "centre"])
def test_linear_maps_are_exact(norm, pairs):
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=g, dtype=torch.float64)
    model = nn.Sequential(linear(weight, torch.ones(4)), nn.Identity())
    x = torch.randn(3, 6, generator=g, dtype=torch.float64)
    exact = float(operator_norm(weight.unsqueeze(0), norm))
    found = sm.LocalLipschitz(norm=norm, radius=0.5, pairs=pairs)(model, x)
    torch.testing.assert_close(found.upper.values, torch.full((3,), exact).double(), rtol=1e-7, atol=0)
    torch.testing.assert_close(found.lower.values, torch.full((3,), exact).double(), rtol=1e-2, atol=0)
    assert (found.lower.values <= found.upper.values).all()


def relu_regions(model, x, radius, count=200_000):
    """Jacobians of all activation patterns of a two-dimensional ReLU net met on a fine grid of the ball."""
    side = torch.linspace(-radius, radius, int(count**0.5), dtype=torch.float64)
    grid = x + torch.cartesian_prod(side, side)
    h, patterns = grid, []
    for layer in model:
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            patterns.append(h > 0)
    _, first = torch.cat(patterns, 1).to(torch.int8).unique(dim=0, return_inverse=True)
    chosen = torch.zeros(int(first.max()) + 1, dtype=torch.long).scatter_(0, first, torch.arange(len(first)))
    return jacobians(model, grid[chosen])


@pytest.mark.parametrize("seed", range(4))
def test_enumerated_patterns_lie_inside_the_bracket(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    model = nn.Sequential(
        linear(draw(6, 2), draw(6)), nn.ReLU(), linear(draw(6, 6), draw(6)), nn.ReLU(), linear(draw(2, 6))
    )
    x = draw(1, 2)
    exact = float(operator_norm(relu_regions(model, x, 0.5), "linf").max())
    found = sm.LocalLipschitz(norm="linf", radius=0.5)(model, x)
    assert float(found.lower.values) <= exact * (1 + 1e-9) <= float(found.upper.values) * (1 + 2e-9)
    assert float(found.lower.values) >= 0.95 * exact


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_tight_meets_the_enumeration(seed, norm):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    kind = (nn.ReLU, nn.Hardtanh, lambda: nn.LeakyReLU(0.3))[seed]
    model = nn.Sequential(
        linear(draw(8, 2), draw(8)), kind(), linear(draw(8, 8), draw(8)), kind(), linear(draw(2, 8), draw(2))
    )
    x = draw(1, 2)
    side = torch.linspace(-0.4, 0.4, 401, dtype=torch.float64)
    offsets = torch.cartesian_prod(side, side)
    offsets = offsets[torch.linalg.vector_norm(offsets, ord={"l2": 2, "linf": torch.inf, "l1": 1}[norm], dim=1) <= 0.4]
    sampled = float(operator_norm(jacobians(model, x + offsets), norm).max())
    found = sm.LipschitzUpperBound(norm=norm, radius=0.4, effort="tight")(model, x)
    assert found.details["winner"] == ("affine pieces",)
    assert sampled <= float(found.values) * (1 + 1e-9)
    # Every grid point's piece counts, and a piece between grid points may be steeper by a little.
    assert float(found.values) <= sampled * 1.02


def enumerated_constant(model, x, radius):
    """Max-norm constant of a ReLU network on a max-norm ball: every activation pattern that linear programs allow."""
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in model if isinstance(m, nn.Linear)]
    x = x.numpy()[0]
    box = list(zip(x - radius, x + radius, strict=True))

    def allowed(rows, limits):
        return linprog(np.zeros(len(x)), A_ub=rows, b_ub=limits, bounds=box, method="highs").status == 0

    def steepest(k, matrix, offset, rows, limits):
        weight, bias = layers[k]
        z, shift = weight @ matrix, weight @ offset + bias
        if k == len(layers) - 1:
            return np.abs(z).sum(axis=1).max()
        patterns = [((), rows, limits)]
        for unit, value in zip(z, shift, strict=True):
            patterns = [
                ((*signs, on), more, ends)
                for signs, known, least in patterns
                for on in (0, 1)
                for more, ends in [([*known, -unit if on else unit], [*least, value if on else -value])]
                if allowed(more, ends)
            ]
        return max(
            steepest(k + 1, np.array(on)[:, None] * z, np.array(on) * shift, more, ends) for on, more, ends in patterns
        )

    return steepest(0, np.eye(len(x)), np.zeros(len(x)), [], [])


@pytest.mark.parametrize("seed", range(3))
def test_tight_equals_the_enumeration_by_linear_programs(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    model = nn.Sequential(
        linear(draw(8, 3), draw(8)), nn.ReLU(), linear(draw(8, 8), draw(8)), nn.ReLU(), linear(draw(2, 8), draw(2))
    )
    x = draw(1, 3)
    exact = enumerated_constant(model, x, 0.3)
    found = sm.LocalLipschitz(norm="linf", radius=0.3, effort="tight")(model, x)
    assert float(found.lower.values) <= exact * (1 + 1e-9)
    assert exact * (1 - 1e-9) <= float(found.upper.values) <= exact * (1 + 1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_tight_is_exact_on_sixteen_units(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    w, b, x, radius = draw(16, 2), 0.5 * draw(16), draw(1, 2), 1.0
    model = nn.Sequential(linear(w, b), nn.ReLU(), linear(draw(3, 16), draw(3)))
    # Every region that meets the disc has a corner there: two lines that cross, or a line that meets the circle.
    corners = [x]
    for i, j in itertools.combinations(range(16), 2):
        corners.append(torch.linalg.solve(w[[i, j]], -b[[i, j]]).unsqueeze(0))
    size = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    offset = -(x @ w.T + b).T / size
    half = (radius**2 - offset**2).clamp_min(0).sqrt()
    along = torch.stack([-w[:, 1], w[:, 0]], 1) / size
    corners += [x + offset * w / size + side * half * along for side in (-1, 1)]
    angle = torch.linspace(0, 2 * math.pi, 720, dtype=torch.float64)
    around = 1e-6 * torch.stack([angle.cos(), angle.sin()], 1)
    points = (torch.cat(corners).unsqueeze(1) + around).flatten(0, 1)
    points = points[torch.linalg.vector_norm(points - x, dim=1) < radius]
    patterns = ((points @ w.T + b) > 0).double().unique(dim=0)
    exact = torch.linalg.matrix_norm(model[2].weight.detach() @ (patterns.unsqueeze(2) * w), ord=2).amax()
    found = sm.LipschitzUpperBound(norm="l2", radius=radius, effort="tight")(model, x)
    assert found.details["winner"] == ("affine pieces",)
    assert float(found.values) == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "settings", "most"),
    [
        ("relu", {"radius": 0.1}, 1.125),
        ("tanh", {"radius": 0.1}, 1.345),
        ("gelu", {"radius": 0.1}, 1.11),
        ("softplus", {"radius": 0.1}, 0.76),
        ("relu", {"radius": 1.0}, 2.8),
        ("tanh", {"radius": 1.0}, 3.2),
        ("relu", {"radius": 1.0, "pairs": "centre"}, 2.0),
        ("tanh", {"radius": 1.0, "pairs": "centre"}, 2.29),
        ("relu", {"radius": 0.01, "norm": "linf"}, 5.68),
        pytest.param("relu", {"radius": 0.1, "norm": "linf"}, 16, marks=pytest.mark.slow),
        pytest.param("gelu", {"radius": 0.1, "norm": "linf"}, 20, marks=pytest.mark.slow),
    ],
)
def test_reference_network(activation, settings, most):
    model, x = reference_network(activation)
    found = sm.LocalLipschitz(**{"norm": "l2", **settings})(model, x)
    assert float(found.lower.values) <= float(found.upper.values) <= most
    if activation == "relu" and settings == {"radius": 0.1}:
        assert float(found.upper.values) <= 1.02 * float(found.lower.values)


def check_soundness(seed):
    case = random_case(seed)
    of = ("logits", "margin")[seed % 2]
    for pairs in ("ball", "centre"):
        settings = {"norm": case.norm, "radius": case.radius, "of": of, "pairs": pairs, "bounds": case.bounds}
        effort = ("fast", "standard", "tight")[seed // 2 % 3]
        upper = sm.LipschitzUpperBound(effort=effort, **settings)(case.model, case.x).values
        lower = sm.LipschitzLowerBound(**settings, starts=3, steps=12)(case.model, case.x).values
        assert (lower <= upper * (1 + 1e-9)).all(), (case.label, of, pairs, effort, lower, upper)
        for row in range(len(case.x)):
            steep, ball, centre = sampled_constants(case, row, 200)[of]
            largest = max(steep, ball, centre) if pairs == "ball" else centre
            assert largest <= float(upper[row]) * (1 + 1e-9), (case.label, of, pairs, effort)


@pytest.mark.parametrize("seed", [*range(20000, 20010), 30099])  # 30099: a margin far smaller than its scores
def test_no_sample_exceeds_the_bound(seed):
    check_soundness(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(15))
def test_no_sample_exceeds_the_bound_on_many_networks(block):
    for seed in range(30000 + 20 * block, 30020 + 20 * block):
        check_soundness(seed)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_activation_has_a_bracket(name):
    g = torch.Generator().manual_seed(1)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    model = nn.Sequential(linear(draw(5, 3), draw(5)), sm.activation(name).double(), linear(draw(2, 5), draw(2)))
    found = sm.LocalLipschitz(norm="l2", radius=0.3, starts=2, steps=8)(model, draw(2, 3))
    assert (found.lower.values <= found.upper.values * (1 + 1e-9)).all()
    jumps = any(b.order == -1 for b in sm.activation_facts(name).breakpoints)
    assert jumps or found.upper.values.isfinite().all()


def test_steps_are_infinite_in_the_ball_and_finite_from_the_centre():
    model, x = reference_network("step")
    ball = sm.LipschitzUpperBound(norm="l2", radius=0.1)(model, x)
    assert ball.values.isinf().all()
    assert ball.details["crossed"] == ("1",)
    assert ball.details["winner"] == ("",)
    centre = sm.LipschitzUpperBound(norm="l2", radius=0.1, pairs="centre")(model, x)
    assert centre.values.isfinite().all()
    lower = sm.LipschitzLowerBound(norm="l2", radius=0.1)(model, x)
    assert lower.values > 1e4  # the search finds a jump and closes in on it
    # On the threshold itself nothing is finite, however far the unit's jump is from mattering to the ball's size.
    on = nn.Sequential(linear(torch.ones(1, 1)), sm.activation("step"), linear(torch.ones(1, 1)))
    assert sm.LipschitzUpperBound(pairs="centre")(on, torch.zeros(1, 1).double()).values.isinf().all()
    # No jump in reach: the network is constant.
    assert sm.LipschitzUpperBound(radius=0.1)(on, torch.ones(1, 1).double()).values < 1e-100


def test_witness_pairs_show_what_is_claimed():
    model, x = reference_network("relu")
    for norm, pairs, of in itertools.product(("l2", "linf"), ("ball", "centre"), ("logits", "margin")):
        found = sm.LipschitzLowerBound(norm=norm, radius=0.2, pairs=pairs, of=of, starts=3, steps=10)(model, x)
        a, b = found.details["first"], found.details["second"]
        order = {"l2": 2, "linf": torch.inf}[norm]
        for point in (a, b):
            assert torch.linalg.vector_norm((point - x).flatten(1), ord=order, dim=1) <= 0.2
        change = model(a) - model(b)
        if of == "margin":
            y = int(model(x).argmax())
            margins = [f[:, y] - f[:, [j for j in range(10) if j != y]].amax(1) for f in (model(a), model(b))]
            change = (margins[0] - margins[1]).unsqueeze(1)
        quotient = torch.linalg.vector_norm(change, ord=order, dim=1) / torch.linalg.vector_norm(
            a - b, ord=order, dim=1
        )
        torch.testing.assert_close(found.values, quotient.detach(), rtol=1e-6, atol=0)


def test_clipping_tightens_both_sides():
    model, _ = reference_network("tanh")
    x = torch.full((1, 64), 0.02).double()
    free = sm.LipschitzUpperBound(norm="linf", radius=0.05, effort="fast")(model, x)
    clipped = sm.LipschitzUpperBound(norm="linf", radius=0.05, effort="fast", bounds=(0.0, 1.0))(model, x)
    assert float(clipped.values) < float(free.values)
    assert json.dumps(clipped.settings)


def test_layers_margins_and_efforts():
    model, x = reference_network("tanh")
    layer = sm.LipschitzUpperBound(of="layer:0", radius=0.1)(model, x)
    exact = torch.linalg.matrix_norm(model[0].weight.detach(), ord=2)
    assert float(layer.values) == pytest.approx(float(exact), rel=1e-7)
    assert layer.unit == "feature / input l2"
    fast, standard = (sm.LipschitzUpperBound(radius=0.1, effort=e)(model, x).values for e in ("fast", "standard"))
    assert standard <= fast
    margin = sm.LipschitzUpperBound(radius=0.1, of="margin", effort="fast")(model, x, torch.tensor([3]))
    assert margin.values <= 2**0.5 * fast * (1 + 1e-9)
    f = model(x).flatten()
    others = f[torch.arange(10) != 3]
    torch.testing.assert_close(margin.details["margin"][0], f[3] - others.amax())


def test_batch_sizes_and_precision_change_nothing():
    model, x = reference_network("relu")
    inputs = torch.cat([x, x + 0.05, x - 0.05]).float()
    single = nn.Sequential(*model).float()
    whole = sm.LipschitzUpperBound(radius=0.1)(single, inputs)
    parts = sm.LipschitzUpperBound(radius=0.1, batch_size=2)(single, inputs)
    torch.testing.assert_close(whole.values, parts.values, rtol=1e-6, atol=0)
    assert whole.values.dtype == torch.float64


@pytest.mark.parametrize(
    "analyzer",
    [
        sm.LipschitzUpperBound(radius=0.2),
        sm.LipschitzLowerBound(radius=0.2, starts=2, steps=6),
        sm.LocalLipschitz(radius=0.2, norm="linf", bounds=(0.0, 1.0), starts=2, steps=6),
        sm.LocalOscillation(radii=(0.1, 0.5), starts=2, steps=6),
        sm.CertifiedRadius(effort="fast"),
        sm.Clever(batches=3, samples=4),
        sm.GlobalLipschitz(effort="fast"),
    ],
)
def test_the_contract_of_analyzers(analyzer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(), nn.Linear(6, 3))
    check_analyzer(analyzer, model, torch.rand(3, 4), torch.tensor([0, 1, 2]))


BAD = [
    ({"radius": 0.0}, ValueError, "radius must be a positive finite number, got 0.0"),
    ({"radius": float("nan")}, ValueError, "radius must be a positive finite number, got nan"),
    ({"norm": "l3"}, ValueError, "unknown norm 'l3'"),
    ({"of": "logit"}, ValueError, "unknown of 'logit'; did you mean 'logits'"),
    ({"of": "layer:NAME"}, ValueError, "needs a module's name"),
    ({"pairs": "all"}, ValueError, "unknown pairs 'all'"),
    ({"bounds": (1.0, 0.0)}, ValueError, "bounds must have low below high"),
    ({"batch_size": 0}, ValueError, "batch_size"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
@pytest.mark.parametrize("kind", [sm.LipschitzUpperBound, sm.LipschitzLowerBound, sm.LocalLipschitz])
def test_bad_settings(kind, settings, error, message):
    with pytest.raises(error, match=message):
        kind(**settings)


class Foreign(nn.Module):
    def forward(self, x):
        return (x * torch.sigmoid(x)).cumsum(1)


def test_bad_models_and_inputs():
    upper, lower = sm.LipschitzUpperBound(), sm.LipschitzLowerBound(starts=2, steps=4)
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="LipschitzLowerBound works with any module"):
        upper(Foreign(), x)
    assert (lower(Foreign(), x).values > 0).all()
    with pytest.raises(TypeError, match=r"inputs must be float32 or float64, got torch\.float16"):
        upper(nn.Linear(3, 2), x.half())
    with pytest.raises(ValueError, match="inputs are empty"):
        upper(nn.Linear(3, 2), x[:0])
    with pytest.raises(ValueError, match="outside the threat model's bounds"):
        sm.LipschitzUpperBound(bounds=(1.0, 2.0))(nn.Linear(3, 2), x)
    with pytest.raises(ValueError, match="memory_gib allows 1e-09; raise memory_gib"):
        sm.LipschitzUpperBound(memory_gib=1e-9)(nn.Linear(3, 2), x)
    with pytest.raises(ValueError, match="at least 2 classes"):
        sm.LipschitzUpperBound(of="margin")(nn.Linear(3, 1), x)
    broken = nn.Linear(3, 2)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        upper(broken, x)
    found = lower(broken, x)
    assert not found.valid.any()
    assert found.details["reason"] == ("the model's output is NaN or infinite",) * 2
    with pytest.raises(ValueError, match=r"no layer 'nowhere'"):
        sm.LipschitzLowerBound(of="layer:nowhere")(nn.Linear(3, 2), x)


def test_the_lower_bound_without_a_graph():
    class Detached(nn.Module):
        def forward(self, x):
            return (x.detach() > 0.01).to(x.dtype).cumsum(1)

    found = sm.LipschitzLowerBound(norm="linf", radius=0.1, starts=4, steps=6)(Detached(), torch.zeros(1, 4))
    assert float(found.values) > 100
