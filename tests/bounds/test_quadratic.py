"""The quadratic form against published numbers, closed forms and itself; and a verifier that refuses."""

from fractions import Fraction

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.analyzers.lipschitz_target import ball_around
from smoothness.bounds.forms import Form, assemble, sectors
from smoothness.bounds.interior import best_multipliers, schur_complement, starting_multipliers
from smoothness.bounds.lipschitz import global_sectors
from smoothness.bounds.quadratic import quadratic_constant
from smoothness.bounds.reach import complete_ranges, local_sectors
from smoothness.bounds.reading import read_network
from smoothness.bounds.rows import row_multipliers
from smoothness.bounds.spectra import eigen, largest_eigenvalue
from smoothness.bounds.verify import Verifier, norm_at_most_one
from tests.bounds.reference import linear, lipsdp_network, reference_network


def problem(activation="tanh", radius=0.1, norm="l2", centre=False):
    model, x = reference_network(activation)
    network = read_network(model, x)
    found, at = complete_ranges(network, ball_around(x, norm, radius, None), "fast")
    return network, local_sectors(network, found, at if centre else None)


def random_form(seed, n=12, d=5, m=3, levels=3):
    g = torch.Generator().manual_seed(seed)
    level = torch.arange(n) * levels // n
    below = (level.unsqueeze(1) > level.unsqueeze(0)).double()
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Form(torch.arange(n), level, draw(n, d), 0.5 * draw(n, n) * below, draw(m, d), 0.5 * draw(m, n))


def test_lipsdp_published_number():
    model = lipsdp_network()
    for effort, tolerance in (("standard", 1e-4), ("tight", 1e-6)):
        found = sm.GlobalLipschitz("l2", effort=effort)(model)
        assert float(found.values) == pytest.approx(36.4822, rel=tolerance)
        assert float(found.values) >= 36.4822 * (1 - 1e-5)
    assert found.details["candidates"]["layer product"] == pytest.approx(43.306, rel=1e-4)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_best_multipliers_are_feasible_and_optimal(seed, shared):
    form = random_form(seed)
    form = form if shared else form.rows(slice(0, 1))
    found = best_multipliers(form, shared=shared, tolerance=1e-8)
    assert found.steps < 40
    schur = schur_complement(form, found.t)
    slack = torch.diag(found.w.expand(form.zx.shape[1])) - schur
    assert torch.linalg.eigvalsh(slack)[0] > -1e-8 * found.w.max()
    assert found.w.sum() <= starting_multipliers(form, shared=shared).w.sum() * (1 + 1e-9)
    # The problem is convex: no small change of t improves on the optimum.
    if shared:
        best = float(largest_eigenvalue(schur))
        g = torch.Generator().manual_seed(seed)
        for _ in range(50):
            moved = found.t * (1 + 1e-2 * torch.randn(len(found.t), generator=g, dtype=torch.float64))
            other = schur_complement(form, moved)
            assert other is None or float(largest_eigenvalue(other)) >= best * (1 - 1e-6)


def test_one_unit_has_a_closed_form():
    # o = u with |u| <= |z|, z = 2 Δx: the constant is 2.
    one = torch.ones(1, 1).double()
    form = Form(torch.tensor([0]), torch.tensor([0]), 2 * one, 0 * one, 0 * one, one)
    assert float(best_multipliers(form, shared=True, tolerance=1e-10).w) == pytest.approx(4, rel=1e-6)
    _, w = row_multipliers(form, "l2")
    assert float(w) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_row_multipliers_are_feasible(norm):
    for seed in range(6):
        form = random_form(seed)
        t, w = row_multipliers(form, norm, rounds=2)
        for k in range(len(t)):
            schur = schur_complement(form.rows(slice(k, k + 1)), t[k])
            assert schur is not None
            if norm == "l1":
                torch.testing.assert_close(schur.diagonal(), w[k], rtol=1e-6, atol=0)
            else:
                slack = torch.diag(w[k].expand(5)) - schur
                assert torch.linalg.eigvalsh(slack)[0] > -1e-9 * w[k].max()


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_the_verifier_confirms_the_optimum_and_refuses_less(norm):
    network, found = problem(radius=0.3, norm=norm)
    mix = torch.eye(10).double()[:1]
    verifier = Verifier(network, found, 0, mix)
    form = assemble(network, found, 0, mix)
    if norm == "l1":
        t, w = row_multipliers(form, "l1")
        exact = schur_complement(form, t[0]).diagonal()
        proved = verifier.columns(t[0])
        assert (proved >= exact * (1 - 1e-12)).all()
        torch.testing.assert_close(proved, exact, rtol=1e-7, atol=1e-12)
        assert verifier.columns(1e-9 * t[0]).isinf().all()
        return
    best = best_multipliers(form.reduced() if norm == "l2" else form, shared=norm == "l2", tolerance=1e-7)
    # The smallest w that goes with t: any less must be refused.
    schur, w = schur_complement(form, best.t), best.w.expand(64)
    share = float(largest_eigenvalue(w.rsqrt().unsqueeze(1) * schur * w.rsqrt()))
    assert verifier.holds(best.t, best.w * share * (1 + 1e-7))
    assert not verifier.holds(best.t, best.w * share * (1 - 1e-7))
    assert not verifier.holds(best.t * 1e-9, best.w)
    for broken in (best.t * torch.nan, -best.t, torch.zeros_like(best.t), best.t[:-1]):
        assert not verifier.holds(broken, best.w * 2)
    assert not verifier.holds(best.t, best.w * torch.inf)


@pytest.mark.parametrize("entries", [1.0, 1e9])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_outputs_are_verified_one_by_one(norm, entries, monkeypatch):
    monkeypatch.setattr("smoothness.bounds.verify._ENTRIES", entries)  # one at a time, and all at once
    network, found = problem(radius=0.3, norm=norm)
    form, verifier = assemble(network, found, 0), Verifier(network, found, 0)
    t, w = row_multipliers(form.reduced() if norm == "l2" else form, norm)
    w = w.expand(-1, 64).clone()
    for k in range(len(w)):  # the smallest w of each
        root = w[k].rsqrt()
        w[k] *= largest_eigenvalue(root.unsqueeze(1) * schur_complement(form.rows(slice(k, k + 1)), t[k]) * root)
    above, below = w * (1 + 1e-7), w * (1 - 1e-7)
    assert verifier.hold(t, above).all()
    assert not verifier.hold(t, below).any()
    mixed = torch.where((torch.arange(10) % 2 == 0).unsqueeze(1), above, below)
    assert verifier.hold(t, mixed).tolist() == [k % 2 == 0 for k in range(10)]
    order = torch.tensor([7, 2, 4])
    assert verifier.hold(t[order], mixed[order], order).tolist() == [False, True, True]
    assert not verifier.hold(t[order], above[order], order.flip(0)).all()  # of other outputs
    above[3], t[5], t[6, 0] = torch.inf, torch.nan, -1.0
    assert verifier.hold(t, above).tolist() == [k not in (3, 5, 6) for k in range(10)]
    assert not verifier.hold(t[:, :-1], above).any()


def test_nothing_is_proved_by_unusable_multipliers():
    model = nn.Sequential(linear(0.1 * torch.eye(2)), nn.Tanh(), linear(0.1 * torch.eye(2)))
    network = read_network(model, torch.zeros(1, 2))
    found = sectors([(torch.zeros(1, 2).double(), torch.ones(1, 2).double())])
    verifier, one = Verifier(network, found, 0), torch.ones(2, 2).double()
    assert verifier.hold(one, one).all()  # much more than is needed
    for broken in (torch.inf, torch.nan, 0.0, -1.0):
        bad = torch.stack([one[0], broken * one[1]])
        assert verifier.hold(bad, one).tolist() == [True, False]
        assert verifier.hold(one, bad).tolist() == [True, False]


def test_errors_of_the_entries_count():
    network, found = problem(radius=0.3)
    form = assemble(network, found, 0)
    t, w = row_multipliers(form.reduced(), "l2")
    for name in ("loud_square", "o_error"):
        verifier = Verifier(network, found, 0)
        assert verifier.hold(t, w * 1.001).all()
        setattr(verifier, name, getattr(verifier, name) + 0.1)
        assert not verifier.hold(t, w * 1.001).any()
    for broken in (torch.inf, torch.nan):
        rows = torch.eye(3).double() / 2
        assert norm_at_most_one(rows, torch.tensor(0.0))
        rows[0, 0] = broken
        assert not norm_at_most_one(rows, torch.tensor(0.0))
        assert not norm_at_most_one(torch.eye(3).double() / 2, torch.tensor(broken))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_moving_row_multipliers_pays(activation):
    network, found = problem(activation, norm="linf")
    form = assemble(network, found, 0)
    (_, w), (_, some), (_, least) = (row_multipliers(form, "linf", rounds=1, share=s) for s in (1.0, 0.3, 0.05))
    before, after, top = (part.sum(dim=1).sqrt() for part in (least, w, some))
    assert (top <= before * (1 + 1e-9)).all()
    assert (top < before * 0.99).sum() == 2  # three were moved, of which `least` has moved one
    assert float((after / before).median()) < 0.97
    assert float(after.amax()) == pytest.approx(float(top.amax()), rel=1e-9)


def test_the_verifier_allows_for_rounding():
    # The note's example: for [[-ρ, 10], [10, -1]] ρ = 100 is exact; a hair below is false, though only by rounding.
    one = torch.ones(1, 1).double()
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)).double()
    model[0].weight.data, model[2].weight.data = 10 * one, one
    network = read_network(model, torch.zeros(1, 1))
    found = sectors([(torch.zeros(1, 1).double(), 2 * one)])  # h = z + u
    verifier = Verifier(network, found, 0)
    t = torch.tensor([2.0]).double()
    form = assemble(network, found, 0)
    exact = float(schur_complement(form, t))
    assert not verifier.holds(t, torch.tensor([exact], dtype=torch.float64))
    assert verifier.holds(t, torch.tensor([exact * (1 + 1e-11)], dtype=torch.float64))


def test_certain_units_are_eliminated():
    network, found = problem("relu", 0.01)
    form = assemble(network, found, 0)
    assert 0 < len(form.units) < 10
    # All certain: the network is affine on the ball, and the constant its Jacobian's norm.
    network, found = problem("relu", 1e-6)
    assert len(assemble(network, found, 0).units) == 0
    model, x = reference_network("relu")
    exact = sm.JacobianNorm("l2")(model, x).values
    assert quadratic_constant(network, found, 0, "l2").value == pytest.approx(float(exact), rel=1e-8)


def test_reduction_of_the_input_changes_nothing():
    form = random_form(0, d=40)
    small = form.reduced()
    assert small.zx.shape[1] == 15
    full, less = (best_multipliers(f, shared=True, tolerance=1e-8).w for f in (form, small))
    torch.testing.assert_close(full, less, rtol=1e-6, atol=0)


def test_global_slopes():
    model, x = reference_network("gelu")
    found = global_sectors(read_network(model, x))
    facts = sm.activation_facts("gelu")
    assert float((found.centre[0] + found.radius[0]).amax()) == pytest.approx(facts.slope_max)
    assert float((found.centre[0] - found.radius[0]).amin()) == pytest.approx(facts.slope_min)


def test_eigenvalues_of_what_is_not_finite():
    matrices = torch.eye(3).double().repeat(3, 1, 1)
    matrices[1, 0, 0] = torch.inf
    matrices[2] *= 1e-300
    assert largest_eigenvalue(matrices).tolist() == [1.0, torch.inf, pytest.approx(1e-300)]
    assert eigen(matrices)[0][:, -1].tolist() == [1.0, torch.inf, pytest.approx(1e-300)]


def exactly_definite(network, found, t, w):
    """Whether diag(w, t) - Vᵀ diag(t) V - Oᵀ O is positive definite, in rational arithmetic."""
    rational = lambda tensor: [[Fraction(v) for v in row] for row in tensor.tolist()]  # noqa: E731
    first, last = (rational(affine.sources[0][1]) for affine in network.maps)
    centre, radius = ([Fraction(v) for v in part[0][0].tolist()] for part in (found.centre, found.radius))
    d, n = len(first[0]), len(first)
    v = [[*row, *([Fraction(0)] * n)] for row in first]
    o = [
        [
            *(sum(row[k] * centre[k] * first[k][i] for k in range(n)) for i in range(d)),
            *(row[k] * radius[k] for k in range(n)),
        ]
        for row in last
    ]
    t, w = [Fraction(x) for x in t.tolist()], [Fraction(x) for x in w.expand(d).tolist()]
    matrix = [
        [
            (Fraction(0) if i != j else [*w, *t][i])
            - sum(t[k] * v[k][i] * v[k][j] for k in range(n))
            - sum(row[i] * row[j] for row in o)
            for j in range(d + n)
        ]
        for i in range(d + n)
    ]
    for k in range(d + n):
        if matrix[k][k] <= 0:
            return False
        for i in range(k + 1, d + n):
            share = matrix[i][k] / matrix[k][k]
            matrix[i] = [a - share * b for a, b in zip(matrix[i], matrix[k], strict=True)]
    return True


def test_what_is_confirmed_holds_in_rational_arithmetic():
    confirmed = 0
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        first, last = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((3, 2), (2, 3)))
        model = nn.Sequential(linear(first), nn.Tanh(), linear(last))
        network = read_network(model, torch.zeros(1, 2))
        alpha = torch.rand(1, 3, generator=g, dtype=torch.float64)
        found = sectors([(alpha, alpha + torch.rand(1, 3, generator=g, dtype=torch.float64))])
        verifier, form = Verifier(network, found, 0), assemble(network, found, 0)
        best = best_multipliers(form, shared=True, tolerance=1e-6)
        w = largest_eigenvalue(schur_complement(form, best.t)).reshape(1)
        for k in (-16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 64, 1024, 2**20):
            near = w * (1 + k * 2.0**-53)
            if verifier.holds(best.t, near):
                confirmed += 1
                assert exactly_definite(network, found, best.t, near)
    assert confirmed > 60


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e15, 1e-25, 1e60])
def test_multipliers_found_in_float32_do_or_are_found_again(size):
    # Of outputs as small or large as float32 cannot hold too.
    network, found = problem("gelu", norm="linf")
    mix = size * torch.eye(10, dtype=torch.float64)
    quick = quadratic_constant(network, found, 0, "linf", mix=mix, separate=True, effort="fast")
    form, verifier = assemble(network, found, 0, mix), Verifier(network, found, 0, mix)
    assert len(form.units) >= 100
    t, w = row_multipliers(form, "linf", rounds=1, share=0.25)
    assert verifier.hold(t, w * (1 + 1e-9)).all()
    assert quick.value == pytest.approx(float(w.sum(dim=1).amax().sqrt()), rel=1e-4)
    assert verifier.hold(quick.multipliers, quick.weights * (1 + 1e-5)).all()
