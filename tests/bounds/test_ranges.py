"""Lines, ranges and slopes hold for every activation: sampled densely, none may be crossed."""

import pytest
import torch

import smoothness as sm
from smoothness.analyzers.lipschitz_target import ball_around
from smoothness.bounds.balls import Ball
from smoothness.bounds.ranges import Interval
from smoothness.bounds.reach import complete_ranges, output_range
from smoothness.bounds.reading import read_network
from smoothness.bounds.relaxations import line_bounds
from smoothness.bounds.slopes import unit_slopes
from tests.bounds.random_networks import ELEMENTWISE, points_in_ball, random_case


def intervals(count=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    ends = 3 * torch.randn(2, count, generator=g, dtype=torch.float64)
    ends[:, ::7] = ends[:, ::7].round()  # also on breakpoints
    ends[1, ::10] = ends[0, ::10]
    return ends.amin(0), ends.amax(0)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lines_enclose_every_activation(name):
    facts = sm.activation_facts(name)
    lower, upper = intervals()
    lines = line_bounds(facts, lower, upper)
    share = torch.linspace(0, 1, 401, dtype=torch.float64).unsqueeze(1)
    z = torch.minimum(torch.maximum(lower + share * (upper - lower), lower), upper)
    values = facts.function(z)
    assert (lines.low_slope * z + lines.low_offset <= values + 1e-15).all()
    assert (values - 1e-15 <= lines.high_slope * z + lines.high_offset).all()
    # Not worse than the constants at the middle of the interval.
    low, high = facts.value_range(lower, upper)
    middle = (lower + upper) / 2
    assert (lines.low_slope * middle + lines.low_offset >= low - 1e-9).all()
    assert (lines.high_slope * middle + lines.high_offset <= high + 1e-9).all()


def test_relu_lines_are_the_triangle():
    lines = line_bounds(
        sm.activation_facts("relu"), torch.tensor([-1.0, -3.0]).double(), torch.tensor([3.0, 1.0]).double()
    )
    torch.testing.assert_close(lines.high_slope, torch.tensor([0.75, 0.25]).double())
    torch.testing.assert_close(lines.high_offset, torch.tensor([0.75, 0.75]).double())
    torch.testing.assert_close(lines.low_slope, torch.tensor([1.0, 0.0]).double())


def test_infinite_intervals_get_constants():
    infinite = torch.tensor([torch.inf]).double()
    lines = line_bounds(sm.activation_facts("tanh"), -infinite, infinite)
    assert lines.low_slope == 0
    assert lines.low_offset == pytest.approx(-1)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_centre_slopes_hold_for_any_centre_in_the_enclosure(name):
    facts = sm.activation_facts(name)
    lower, upper = intervals(seed=1)
    wide = upper - lower > 1e-3
    lower, upper = lower[wide].unsqueeze(0), upper[wide].unsqueeze(0)
    at = Interval(lower + 0.4 * (upper - lower), lower + 0.45 * (upper - lower))
    low, high = unit_slopes(facts, Interval(lower, upper), at)
    for share in torch.linspace(0, 1, 21):
        z = torch.minimum(torch.maximum(at.lower + share * (at.upper - at.lower), at.lower), at.upper)
        for other in torch.linspace(0, 1, 57):
            s = torch.minimum(torch.maximum(lower + other * (upper - lower), lower), upper)
            apart = (s - z).abs() > 1e-6
            secant = (facts.function(s) - facts.function(z)) / torch.where(apart, s - z, 1.0)
            assert (~apart | ((low <= secant + 1e-9) & (secant - 1e-9 <= high))).all()


@pytest.mark.parametrize("seed", range(30))
def test_no_sampled_value_leaves_its_range(seed):
    case = random_case(1000 + seed)
    network = read_network(case.model, case.x[:1])
    ball = ball_around(case.x, case.norm, case.radius, case.bounds)
    found, at = complete_ranges(network, ball, "standard")
    outputs = output_range(network, found, at)
    for row in range(len(case.x)):
        points = points_in_ball(case, row, 200, seed).flatten(1)
        before, f = network.run(points)
        size = 1 + max(float(z.abs().amax()) for z in (*before, f))
        for z, interval in zip(before, found.before, strict=True):
            slack = 1e-13 * size
            assert (z >= interval.lower[row] - slack).all(), case.label
            assert (z <= interval.upper[row] + slack).all(), case.label
        here = network.run(case.x[row : row + 1].flatten(1))[1]
        assert (f - here >= outputs.lower[row] - 1e-12 * size).all(), case.label
        assert (f - here <= outputs.upper[row] + 1e-12 * size).all(), case.label


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_reach_is_the_dual_norm(norm):
    g = torch.tensor([[3.0, -4.0]]).double()
    ball = Ball(torch.zeros(1, 2).double(), norm, torch.tensor([[0.5]]).double())
    lower, upper = ball.reach(g)
    exact = 0.5 * {"l2": 5.0, "linf": 7.0, "l1": 4.0}[norm]
    assert upper == pytest.approx(exact)
    assert lower == pytest.approx(-exact)
    clipped = Ball(ball.centre, norm, ball.radius, torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    assert clipped.reach(g)[1] == pytest.approx(min(exact, 1.5))
