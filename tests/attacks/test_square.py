"""Random search: the truth on linear models, plateaus, draws that depend on nothing but the seed."""

import pytest
import torch
from torch import nn

from smoothness._norms import vector_norm
from smoothness.attacks import Square
from smoothness.attacks._windows import Canvas
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points
from tests.attacks.step_cells import can_be_fooled, step_network


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_models_fall_where_the_closed_form_says(norm):
    model = linear_model(0)
    x, y = points(model, n=60)
    distance = nearest_distance(model, x, y, norm)
    epsilon = float(distance.median())
    found = Square(ThreatModel(norm, epsilon, bounds=None), queries=1500)(model, x, y)
    assert not (found.success & (distance > epsilon * (1 + 1e-6))).any()
    assert found.success[distance < epsilon * (0.999 if norm == "linf" else 0.8)].all()
    assert found.passes.backward == 0


def test_images_are_searched_with_squares():
    flat = linear_model(1, features=2 * 6 * 5, dtype=torch.float32)
    x, y = points(flat, n=40)
    distance = nearest_distance(flat, x, y, "linf")
    epsilon = float(distance.median())
    model = nn.Sequential(nn.Flatten(), flat)
    found = Square(ThreatModel("linf", epsilon, bounds=None), queries=2000)(model, x.view(-1, 2, 6, 5), y)
    assert not (found.success & (distance > epsilon * 1.001)).any()
    assert found.success[distance < 0.95 * epsilon].all()


def test_nothing_is_fooled_that_cannot_be():
    model = step_network(1)
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    found = Square(ThreatModel("linf", 0.3), queries=500)(model, x, y).success
    assert not (found & ~can_be_fooled(model, x, y, 0.3, bounds=(0.0, 1.0), inside=0.0)).any()
    assert bool(found.any())


@pytest.mark.parametrize("shape", [(7,), (2, 6, 5), (3, 4), (1, 1, 8)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("bounds", ["box", "none", "per feature"])
def test_points_stay_inside(shape, norm, bounds):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(shape, generator=generator) * 0.2
    limits = {"box": (0.0, 1.0), "none": None, "per feature": (low, low + 0.7)}[bounds]
    x = low + 0.7 * torch.rand(6, *shape, generator=generator)
    model = nn.Sequential(nn.Flatten(), build_model("mlp", "step", input_shape=(low.numel(),), classes=3, width=16))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    found = Square(ThreatModel(norm, 0.4, bounds=limits), queries=40)(model, x, y)
    assert float(vector_norm(found.inputs - x, norm).max()) <= 0.4 + 1e-6
    if limits is not None:
        assert bool(((found.inputs >= limits[0] - 1e-6) & (found.inputs <= limits[1] + 1e-6)).all())


@pytest.mark.parametrize("shape", [(6,), (1, 5, 5)])
def test_the_contract(shape):
    model = build_model("mlp", "step", seed=0, input_shape=shape, classes=3, width=8)
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 3
    check_attack(Square(ThreatModel("linf", 0.2), queries=60), model, x, y)


def test_chunks_and_restarts():
    model = build_model("mlp", "step", seed=1, input_shape=(1, 5, 5), classes=4, width=16).double()
    x = torch.rand(20, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    for norm, epsilon in (("linf", 0.05), ("l2", 0.2)):
        threat = ThreatModel(norm, epsilon)
        whole, parts = (Square(threat, queries=60, batch_size=size)(model, x, y) for size in (None, 6))
        torch.testing.assert_close(whole.inputs, parts.inputs, atol=1e-6, rtol=0)
        assert whole.status == parts.status
        again = Square(threat, queries=60, restarts=3)(model, x, y)
        assert bool((again.success >= whole.success).all())
        assert again.passes.forward > whole.passes.forward
        assert not torch.equal(Square(threat, queries=60, seed=1)(model, x, y).inputs, whole.inputs)


def test_fooled_examples_cost_no_more_queries():
    model = linear_model(0, dtype=torch.float32)
    x, y = points(model, n=50)
    everything = float(nearest_distance(model, x, y, "linf").max())
    found = Square(ThreatModel("linf", 3 * everything, bounds=None), queries=1000)(model, x, y)
    assert bool(found.success.all())
    assert found.passes.forward < 50 * 100


def test_plateaus_are_crossed():
    class Rungs(nn.Module):
        """The true class loses a rung of its lead whenever another feature passes 0.55."""

        def forward(self, x):
            rungs = (x.flatten(1) > 0.55).to(x.dtype).mean(dim=1, keepdim=True)
            return torch.cat([0.9 - rungs, rungs - 0.9], dim=1)

    x = torch.full((10, 1, 6, 6), 0.5)
    found = Square(ThreatModel("linf", 0.06), queries=1000)(Rungs(), x, torch.zeros(10, dtype=torch.long))
    assert bool(found.success.all())


def test_targeted_reaches_the_class():
    model = linear_model(2, classes=3)
    x, y = points(model)
    wanted = (y + 1) % 3
    found = Square(ThreatModel("linf", 3.0, bounds=None), queries=300, targeted=True)(model, x, wanted)
    assert int(found.success.sum()) > 20
    assert torch.equal(model(found.inputs).argmax(dim=1) == wanted, found.success)


def test_windows_have_the_share_asked_for():
    canvas = Canvas(torch.zeros(3, 2, 8, 8), torch.Generator().manual_seed(0))
    window = canvas.window(0.25)
    assert len(window) == 16
    assert len(set(window.tolist())) == 16
    rows, columns = window // 8, window % 8
    assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 3
    flat = Canvas(torch.zeros(3, 40), torch.Generator().manual_seed(0))
    assert len(set(flat.window(0.25).tolist())) == 10
    assert len(flat.window(1e-9)) == 1
    for norm, size in (("linf", 0.5), ("l2", 0.5)):
        for inputs in (torch.zeros(3, 2, 8, 8), torch.zeros(3, 40)):
            offsets = Canvas(inputs, torch.Generator().manual_seed(0)).stripes(norm, 0.5)
            torch.testing.assert_close(vector_norm(offsets, norm), torch.full((3,), size))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Square(ThreatModel("l1", 0.1)), "takes norm 'linf' or 'l2', got 'l1'; use EvolutionGradient"),
        (lambda: Square(ThreatModel("l2")), "needs a radius"),
        (lambda: Square(ThreatModel("l2", 0.1), queries=0), "queries must be"),
        (lambda: Square(ThreatModel("l2", 0.1), p_init=0.0), r"p_init must lie in \(0, 1\], got 0.0"),
        (lambda: Square(ThreatModel("l2", 0.1), p_init=True), "p_init must lie"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
