"""Oscillation, certified radius, global constants and CLEVER against closed forms and attacks."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

import smoothness as sm
from smoothness._norms import DUAL, vector_norm
from tests.bounds.random_networks import points_in_ball, random_case
from tests.bounds.reference import linear, lipsdp_network, reference_network

NORMS = ["l2", "linf", "l1"]


@pytest.mark.parametrize("norm", NORMS)
def test_oscillation_of_a_linear_map(norm):
    weight = torch.tensor([[3.0, -1.0, 2.0]])
    x = torch.zeros(2, 3).double()
    found = sm.LocalOscillation(norm=norm, radii=(0.5, 2.0))(nn.Sequential(linear(weight), nn.Identity()), x)
    size = float(vector_norm(weight, DUAL[norm]))
    exact = torch.tensor([[0.5, 2.0]] * 2).double() * size
    torch.testing.assert_close(found.upper.values, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.lower.values, exact, rtol=2e-2, atol=0)
    assert (found.lower.values <= found.upper.values).all()
    assert found.upper.coords == {"radius": (0.5, 2.0)}


def test_oscillation_of_a_step_is_its_jump():
    model = nn.Sequential(linear(torch.ones(1, 1)), sm.activation("step"), linear(torch.tensor([[3.0]])))
    x = torch.tensor([[0.3]]).double()
    found = sm.LocalOscillation(norm="linf", radii=(0.1, 0.2, 0.4, 1.0))(model, x)
    torch.testing.assert_close(found.lower.values, torch.tensor([[0.0, 0.0, 3.0, 3.0]]).double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.upper.values, torch.tensor([[0.0, 0.0, 3.0, 3.0]]).double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_oscillation_holds_on_random_networks(seed):
    case = random_case(40000 + seed)
    of = ("logits", "margin")[seed % 2]
    settings = {"norm": case.norm, "radii": (case.radius / 10, case.radius), "of": of, "bounds": case.bounds}
    found = sm.LocalOscillation(effort="fast", starts=3, steps=8, **settings)(case.model, case.x)
    lower, upper = found.lower.values, found.upper.values
    assert (lower <= upper * (1 + 1e-9) + 1e-12).all(), case.label
    assert (lower.diff(dim=1) >= 0).all()
    assert (upper.diff(dim=1) >= 0).all()
    for row in range(len(case.x)):
        points = points_in_ball(case, row, 200)
        with torch.no_grad():
            here, f = case.model(case.x[row : row + 1]), case.model(points)
        change = f - here
        if of == "margin":
            y = int(here.argmax())
            change = change[:, [y]] - change[:, [j for j in range(3) if j != y]]
            sampled = change.abs().amax()
        else:
            sampled = vector_norm(change, case.norm).amax()
        slack = 1e-12 * (1 + f.abs().amax())
        assert float(sampled) <= float(upper[row, 1]) * (1 + 1e-9) + float(slack), case.label


@pytest.mark.parametrize("norm", NORMS)
def test_certified_radius_of_linear_classifiers_is_the_distance(norm):
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [-1.0, 1.0, 0.0]])
    model = nn.Sequential(linear(weight), nn.Identity())
    x = torch.tensor([[1.0, 0.2, 0.3], [0.0, 1.0, 0.2]]).double()
    y = torch.tensor([0, 0])
    f = model(x).detach()
    rows = weight[[0]] - weight[1:]
    distance = ((f[:, [0]] - f[:, 1:]) / vector_norm(rows, DUAL[norm])).amin(1).clamp_min(0)
    found = sm.CertifiedRadius(norm=norm)(model, x, y)
    torch.testing.assert_close(found.values, distance.double(), rtol=2e-3, atol=0)
    assert (found.values <= distance * (1 + 1e-12)).all()
    assert found.values[1] == 0  # misclassified
    assert found.bound == "lower"


@pytest.mark.parametrize("activation", ["relu", pytest.param("tanh", marks=pytest.mark.slow), "step"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_attack_succeeds_within_the_certified_radius(activation, norm):
    model, x = reference_network(activation)
    inputs = torch.cat([x, x + 0.1])
    y = model(inputs).argmax(1)
    radius = sm.CertifiedRadius(norm=norm, effort="fast")(model, inputs, y).values
    assert (radius > 0).all()
    for row in range(2):
        for points in _ball(inputs[row : row + 1], norm, float(radius[row])):
            assert (model(points).argmax(1) == y[row]).all()
        threat = sm.ThreatModel(norm, float(radius[row]), bounds=None)
        if activation != "step":
            assert not sm.PGD(threat, steps=20)(model, inputs[row : row + 1], y[row : row + 1]).success.any()


def _ball(x, norm, radius):
    g = torch.Generator().manual_seed(0)
    v = torch.randn(2000, x.shape[1], generator=g, dtype=torch.float64)
    v = v.sign() if norm == "linf" else v / vector_norm(v, norm).unsqueeze(1)
    yield x + radius * v * torch.rand(2000, 1, generator=g).double().sqrt()
    yield x + radius * v


def test_more_effort_certifies_more():
    model, x = reference_network("relu")
    y = model(x).argmax(1)
    fast, standard = (sm.CertifiedRadius(effort=effort)(model, x, y).values for effort in ("fast", "standard"))
    assert fast < standard


def test_global_constants():
    model = lipsdp_network()
    local = sm.LipschitzUpperBound(norm="linf", radius=1.0)(model, torch.zeros(1, 2).double())
    whole = sm.GlobalLipschitz("linf")(model)
    assert whole.values.ndim == 0
    assert float(local.values) <= float(whole.values) * (1 + 1e-6)
    margin = sm.GlobalLipschitz("l2", of="margin")(model)
    assert float(margin.values) <= 2**0.5 * float(sm.GlobalLipschitz("l2")(model).values) * (1 + 1e-9)
    step = nn.Sequential(nn.Linear(2, 3), sm.activation("step"), nn.Linear(3, 2))
    found = sm.GlobalLipschitz("l2")(step)
    assert found.values.isinf()
    assert found.details["crossed"] == "1"


def test_global_norm_of_a_padded_strided_convolution_is_exact():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), nn.Flatten()).double()
    columns = model(torch.eye(2 * 25).double().view(50, 2, 5, 5)).detach()
    exact = float(torch.linalg.matrix_norm(columns, ord=2))
    found = sm.GlobalLipschitz("l2", input_shape=(2, 5, 5))(model)
    assert float(found.values) == pytest.approx(exact, rel=1e-8)
    with pytest.raises(ValueError, match="the input shape cannot be read from Sequential; give it"):
        sm.GlobalLipschitz("l2")(model)
    built = sm.build_model("cnn", "relu", input_shape=(1, 8, 8), classes=3, width=2)
    assert sm.GlobalLipschitz("linf", effort="fast")(built).values.isfinite()


def test_clever_on_linear_and_step_models():
    model = nn.Sequential(linear(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), nn.Identity())
    x = torch.tensor([[0.5, 0.5], [0.1, 0.0]]).double()
    found = sm.Clever(norm="l2", radius=0.5, batches=4, samples=8)(model, x)
    torch.testing.assert_close(found.values, torch.tensor([0.5, 0.06]).double(), rtol=1e-6, atol=0)
    assert found.bound == "estimate"
    step = nn.Sequential(nn.Linear(2, 3), sm.activation("step"), nn.Linear(3, 2))
    assert sm.Clever(radius=0.5, batches=3, samples=4)(step.double(), x).values.tolist() == [0.5, 0.5]


def test_clever_is_no_bound_but_near():
    model, x = reference_network("relu")
    y = model(x).argmax(1)
    estimate = float(sm.Clever(norm="l2", radius=1.0, batches=15)(model, x, y).values)
    certified = float(sm.CertifiedRadius(norm="l2", effort="fast")(model, x, y).values)
    assert 0.5 * certified < estimate < 3 * certified


def test_bad_settings():
    for radii, message in (
        ((), "ascending order"),
        ((1.0, 0.1), "ascending order"),
        ((-1.0, 1.0), "radii must be a pos"),
    ):
        with pytest.raises(ValueError, match=message):
            sm.LocalOscillation(radii=radii)
    with pytest.raises(ValueError, match="largest must be a positive finite number"):
        sm.CertifiedRadius(largest=0.0)
    with pytest.raises(ValueError, match="batches"):
        sm.Clever(batches=1)
    for kind, norm in itertools.product((sm.CertifiedRadius, sm.Clever, sm.GlobalLipschitz), ("l3", "")):
        with pytest.raises(ValueError, match="unknown norm"):
            kind(norm=norm)
    with pytest.raises(ValueError, match="at least 2 classes"):
        sm.CertifiedRadius()(nn.Linear(2, 1), torch.zeros(1, 2))


def exact_distance(model, x, y):
    """Smallest max-norm distance at which a ReLU network prefers another class, as a mixed-integer program."""
    (a, b, c) = (layer for layer in model if isinstance(layer, nn.Linear))
    weights = [layer.weight.detach().numpy() for layer in (a, b, c)]
    biases = [layer.bias.detach().numpy() for layer in (a, b, c)]
    d, n = weights[0].shape[1], weights[0].shape[0]
    point, big = x.numpy(), 50.0
    # Variables: x (d), h1 (n), h2 (n), switches of both (2 n), distance.
    total = d + 4 * n + 1
    place = {"x": 0, "h1": d, "h2": d + n, "s1": d + 2 * n, "s2": d + 3 * n}
    rows, low, high = [], [], []

    def add(parts, at_least, at_most):
        row = np.zeros(total)
        for start, values in parts:
            row[start : start + len(values)] += values
        rows.append(row)
        low.append(at_least)
        high.append(at_most)

    for i in range(d):
        add([(i, [1.0]), (total - 1, [-1.0])], -np.inf, point[i])
        add([(i, [1.0]), (total - 1, [1.0])], point[i], np.inf)
    for h, s, source, w, bias in (("h1", "s1", "x", weights[0], biases[0]), ("h2", "s2", "h1", weights[1], biases[1])):
        for i in range(n):
            unit, switch = place[h] + i, place[s] + i
            add([(unit, [1.0]), (place[source], -w[i])], bias[i], np.inf)  # h >= z
            add([(unit, [1.0]), (place[source], -w[i]), (switch, [big])], -np.inf, bias[i] + big)  # h <= z where on
            add([(unit, [1.0]), (switch, [-big])], -np.inf, 0.0)  # h <= 0 where off
    kinds = np.zeros(total)
    kinds[place["s1"] : total - 1] = 1
    limits = Bounds(
        np.concatenate([np.full(d, -20.0), np.zeros(4 * n + 1)]),
        np.concatenate([np.full(d, 20.0), np.full(2 * n, big), np.ones(2 * n), [10.0]]),
    )
    best = np.inf
    for j in range(len(biases[2])):
        if j != y:
            row = np.zeros(total)
            row[place["h2"] : place["h2"] + n] = weights[2][j] - weights[2][y]
            found = milp(
                np.eye(total)[-1],
                constraints=[
                    LinearConstraint(np.array(rows), low, high),
                    LinearConstraint(row, biases[2][y] - biases[2][j], np.inf),
                ],
                integrality=kinds,
                bounds=limits,
            )
            best = min(best, found.fun if found.success else np.inf)
    return best


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_exact_distances_lie_above_the_certified_radius(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    model = nn.Sequential(
        linear(draw(8, 6) / 3, draw(8)),
        nn.ReLU(),
        linear(draw(8, 8) / 3, draw(8)),
        nn.ReLU(),
        linear(draw(3, 8), draw(3)),
    )
    x = draw(2, 6)
    y = model(x).argmax(1)
    certified = sm.CertifiedRadius(norm="linf")(model, x, y).values
    for row in range(2):
        exact = exact_distance(model, x[row], int(y[row]))
        assert 0 < float(certified[row]) <= exact * (1 + 1e-6)
        assert float(certified[row]) > 0.3 * exact
