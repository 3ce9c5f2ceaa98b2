"""The relaxed Jacobian against sampling, a fine grid, and what it is for."""

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.analyzers.lipschitz_target import ball_around
from smoothness.bounds import linear_jacobians
from smoothness.bounds.linear_jacobians import relaxed_jacobian_constant
from smoothness.bounds.ranges import Interval
from smoothness.bounds.reach import complete_ranges, local_sectors
from smoothness.bounds.reading import read_network
from tests.bounds.random_networks import ELEMENTWISE, Case, points_in_ball, random_case, sampled_constants
from tests.bounds.reference import reference_network


def relaxed(model, x, norm, radius, *, bounds=None, pairs="ball", mix=None):
    with torch.no_grad():
        network, ball = read_network(model, x[:1]), ball_around(x, norm, radius, bounds)
        found, at = complete_ranges(network, ball, "fast")
        sectors = local_sectors(network, found, at)
        return relaxed_jacobian_constant(
            network, ball, found, at, sectors, pairs=pairs, mix=mix, separate=mix is not None
        )


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lines_enclose_the_derivative(name):
    facts = sm.activation_facts(name)
    g = torch.Generator().manual_seed(0)
    ends = 3 * torch.randn(2, 40, generator=g, dtype=torch.float64)
    lower, upper = ends.amin(dim=0, keepdim=True), ends.amax(dim=0, keepdim=True)
    lower[0, :5] = upper[0, :5]  # points
    z = lower + torch.rand(1, 40, generator=g, dtype=torch.float64) * (upper - lower)
    centre, slope, error = linear_jacobians._derivative_lines(facts, Interval(lower, upper), z)
    at = lower + (upper - lower) * torch.rand(500, 40, generator=g, dtype=torch.float64)
    away = (facts.derivative(at) - centre - slope * (at - z)).abs()
    assert (away <= error + 1e-13).all()
    if facts.curvature < 20:  # smooth: a short range leaves an error of second order, but for the cuts
        near = Interval(z - 1e-3, z + 1e-3)
        _, _, small = linear_jacobians._derivative_lines(facts, near, z)
        assert float(small.amax()) <= 1e-3 * facts.curvature / 16 + 1e-6


@pytest.mark.parametrize("pairs", ["ball", "centre"])
def test_never_below_samples(pairs):
    finite = 0
    for seed in range(120):
        case = random_case(seed)
        value = relaxed(case.model, case.x, case.norm, case.radius, bounds=case.bounds, pairs=pairs)
        for row, bound in enumerate(value.tolist()):
            steep, ball_pairs, centre_pairs = sampled_constants(case, row, 200)["logits"]
            largest = max(steep, ball_pairs, centre_pairs) if pairs == "ball" else centre_pairs
            assert largest <= bound * (1 + 1e-9), case.label
            finite += bound < float("inf")
    assert finite > 100


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_one_input_against_a_grid(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    x = torch.tensor([[0.3]], dtype=torch.float64)
    grid = torch.linspace(0.28, 0.32, 4001, dtype=torch.float64).unsqueeze(1).requires_grad_()
    (slopes,) = torch.autograd.grad(model(grid).sum(), grid)
    exact, value = float(slopes.abs().max()), float(relaxed(model, x, norm, 0.02))
    assert exact <= value <= exact * 1.005


@pytest.mark.parametrize(("radius", "share"), [(4e-3, 0.3), (1e-3, 0.2)])
def test_closer_than_intervals_for_small_radii(radius, share):
    model, x = reference_network("softplus")
    jacobian = torch.autograd.functional.jacobian(model, x).reshape(10, 64)
    here = float(jacobian.abs().sum(dim=1).max())
    found = sm.LipschitzUpperBound(norm="linf", radius=radius)(model, x).details["candidates"]
    excess, by_intervals = float(found["relaxed Jacobian"]) - here, float(found["Jacobian"]) - here
    assert 0 < excess < share * by_intervals


def test_it_wins_where_it_should():
    model, x = reference_network("tanh")
    found = sm.LipschitzUpperBound(norm="l1", radius=0.1)(model, x)
    assert found.details["winner"] == ("relaxed Jacobian",)
    assert float(found.values) <= 1.35 < float(found.details["candidates"]["quadratic form"])


def test_margins_and_cost():
    model, x = reference_network("gelu")
    mix = torch.zeros(1, 1, 10, dtype=torch.float64)
    mix[0, 0, 3], mix[0, 0, 5] = 1.0, -1.0
    one = nn.Sequential(*model[:-1], nn.Linear(128, 1)).double()
    with torch.no_grad():
        one[-1].weight.copy_(model[-1].weight[3:4] - model[-1].weight[5:6])
        one[-1].bias.zero_()
    torch.testing.assert_close(
        relaxed(model, x, "linf", 0.01, mix=mix), relaxed(one, x, "linf", 0.01), rtol=1e-9, atol=0
    )
    wide = nn.Sequential(nn.Linear(4000, 600), nn.Tanh(), nn.Linear(600, 10)).double()
    assert relaxed(wide, torch.zeros(1, 4000, dtype=torch.float64), "l2", 0.1).isinf().all()


def sampled_ball(norm, d, seed=0):
    """A ball around 0 of radius 0.7, and 2,000 points of it, (d, 2000)."""
    case = Case("", None, torch.zeros(1, d, dtype=torch.float64), norm, 0.7, None)
    return linear_jacobians._OneBall(ball_around(case.x, norm, 0.7, None), 0), points_in_ball(case, 0, 2000, seed).T


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_products_and_norms_of_enclosures(norm):
    """Each step alone, without slack from the others: samples come near what is claimed, and not above."""
    one, delta = sampled_ball(norm, 2)
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    zero = torch.zeros(1, 4, dtype=torch.float64)
    gradient = linear_jacobians._Enclosure(draw(1, 4), draw(1, 4, 2), draw(1, 4).abs())
    z = linear_jacobians._Enclosure(zero[0], draw(4, 2), draw(4).abs())
    centre, slope, error = draw(4), draw(4), draw(4).abs()
    for share in (0.0, 1.0):  # without and with the errors
        parts = [linear_jacobians._Enclosure(p.value, p.slope, share * p.error) for p in (gradient, z)]
        found = linear_jacobians._times_derivative(*parts, (centre, slope, share * error), one)
        closest = 0.0
        for signs in torch.cartesian_prod(*[torch.tensor([-share, share]).double()] * 3):
            g_values = gradient.value[0, :, None] + gradient.slope[0] @ delta + signs[0] * gradient.error[0, :, None]
            moved = z.slope @ delta + signs[1] * z.error[:, None]
            exact = g_values * (centre[:, None] + slope[:, None] * moved + signs[2] * error[:, None])
            away = (exact - found.value[0, :, None] - found.slope[0] @ delta).abs()
            assert (away <= found.error[0, :, None] * (1 + 1e-9)).all()
            closest = max(closest, float((away / found.error[0, :, None]).amax()))
        assert closest > 0.5
    a, b = draw(3, 5), draw(3, 5, 2)
    rows = a[:, :, None] + b @ delta
    sums = linear_jacobians._absolute_sums(linear_jacobians._Enclosure(a, b, 0 * a), one)
    claims = [(sums, rows.abs().sum(dim=1))]
    if norm == "l2":
        claims.append((linear_jacobians._lengths(a, b, one), rows.norm(dim=1)))
    for claimed, seen in claims:
        assert (seen.amax(dim=1) <= claimed * (1 + 1e-9)).all()
        assert (seen.amax(dim=1) >= 0.6 * claimed).all()


def test_pre_activations_are_enclosed():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 3), nn.Softplus(), nn.Linear(3, 2)).double()
    x, radius = torch.tensor([[0.2]], dtype=torch.float64), 0.5
    with torch.no_grad():
        network, ball = read_network(model, x), ball_around(x, "linf", radius, None)
        found, at = complete_ranges(network, ball, "fast")
        one = linear_jacobians._OneBall(ball, 0)
        planes = linear_jacobians._pre_activations(network, one, found, at, local_sectors(network, found, at), 0)
        delta = torch.linspace(-radius, radius, 2001, dtype=torch.float64).unsqueeze(1)
        for plane, here, values in zip(planes, found.values, network.run(x + delta)[0], strict=True):
            away = (values - here - delta @ plane.slope.T).abs().amax(dim=0)
            assert (away <= plane.error + 1e-14).all()
        assert (away > 0.05 * plane.error).all()
        assert (plane.error > 1e-3).all()
