"""Labels alone: distances of linear models, step networks, models without scores."""

import math

import pytest
import torch
from torch import nn

from smoothness._norms import NORMS, vector_norm
from smoothness.attacks import DecisionBoundary
from smoothness.attacks._labels import LabelModel
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points
from tests.attacks.step_cells import can_be_fooled, step_network


class Answers(nn.Module):
    """What a model says, in some form that is no score."""

    def __init__(self, model, form):
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x):
        labels = self.model(x).argmax(dim=1)
        one_hot = nn.functional.one_hot(labels, 3)
        return {"labels": labels, "int32": labels.int(), "one-hot": one_hot, "float": one_hot.to(x.dtype)}[self.form]


@pytest.mark.parametrize(("norm", "factor"), [("linf", 1.05), ("l2", 1.05), ("l1", 1.6)])
def test_distances_of_linear_models(norm, factor):
    model = linear_model(0)
    x, y = points(model, n=20)
    found = DecisionBoundary(ThreatModel(norm, bounds=None), queries=3000)(model, x, y)
    exact = nearest_distance(model, x, y, norm)
    assert bool(found.success.all())
    assert bool((found.distance >= exact * (1 - 1e-6)).all())
    assert float((found.distance / exact).median()) < factor
    assert found.passes.backward == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_settles_what_lies_inside(norm):
    model = linear_model(1)
    x, y = points(model, n=30)
    exact = nearest_distance(model, x, y, norm)
    epsilon = float(exact.median())
    found = DecisionBoundary(ThreatModel(norm, epsilon, bounds=None), queries=2000)(model, x, y)
    assert not (found.success & (exact > epsilon * (1 + 1e-6))).any()
    assert found.success[exact < 0.8 * epsilon].all()
    assert torch.equal(found.inputs[~found.success], x[~found.success])


@pytest.mark.parametrize("form", ["labels", "int32", "one-hot", "float"])
def test_labels_are_enough(form):
    model = linear_model(0, features=5, classes=3, dtype=torch.float32)
    x, y = points(model, n=12)
    threat = ThreatModel("linf", bounds=None)
    plain = DecisionBoundary(threat, queries=500)(model, x, y)
    bare = DecisionBoundary(threat, queries=500)(Answers(model, form), x, y)
    assert bare.status == plain.status == ("fooled",) * 12
    torch.testing.assert_close(bare.distance, plain.distance)


def test_step_networks_by_cell_enumeration():
    model = step_network(1)
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    found = DecisionBoundary(ThreatModel("linf", 0.3), queries=1000)(model, x, y).success
    assert not (found & ~can_be_fooled(model, x, y, 0.3, bounds=(0.0, 1.0), inside=0.0)).any()
    sure = can_be_fooled(model, x, y, 0.2, bounds=(0.0, 1.0), inside=1e-2)
    assert int(sure.sum()) >= 3
    assert int((sure & ~found).sum()) <= 2


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_inside_bounds_per_feature(norm):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 3, 3, generator=generator) * 0.2
    x = low + 0.7 * torch.rand(6, 2, 3, 3, generator=generator)
    model = build_model("mlp", "step", input_shape=(2, 3, 3), classes=3, width=16)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    found = DecisionBoundary(ThreatModel(norm, bounds=(low, low + 0.7)), queries=300)(model, x, y)
    assert bool(((found.inputs >= low - 1e-6) & (found.inputs <= low + 0.7 + 1e-6)).all())
    assert bool(found.success.any())
    reached = found.success
    torch.testing.assert_close(vector_norm(found.inputs - x, norm)[reached].double(), found.distance[reached])


def test_the_contract():
    model = build_model("mlp", "relu", seed=0, input_shape=(5,), classes=3, width=8)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 3
    check_attack(DecisionBoundary(ThreatModel("linf", 0.2), queries=300), model, x, y)
    check_attack(DecisionBoundary(ThreatModel("l2"), queries=300), model, x, y)


def test_chunks():
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=4, width=16).double()
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(dim=1)
    whole, parts = (DecisionBoundary(ThreatModel("l2"), queries=400, batch_size=b)(model, x, y) for b in (None, 5))
    torch.testing.assert_close(whole.inputs, parts.inputs, atol=1e-6, rtol=0)
    assert whole.status == parts.status


class Island(nn.Module):
    """Class 1 only near one point, which chance will not meet."""

    def forward(self, x):
        return ((x - 0.9).abs().amax(dim=1) < 0.05).long()


def test_starts_find_what_chance_does_not():
    x, y = torch.full((3, 10), 0.5), torch.zeros(3, dtype=torch.long)
    threat = ThreatModel("linf")
    assert DecisionBoundary(threat, queries=300)(Island(), x, y).status == ("survived",) * 3
    starts = torch.stack([torch.full((10,), 0.9), torch.full((10,), 0.1)])
    found = DecisionBoundary(threat, queries=300, starts=starts)(Island(), x, y)
    assert found.status == ("fooled",) * 3
    assert float(found.distance.max()) < 0.37
    targeted = DecisionBoundary(threat, queries=300, starts=starts, targeted=True)(Island(), x, y + 1)
    assert targeted.status == ("fooled",) * 3


def test_queries_are_kept_to():
    model = linear_model(0, dtype=torch.float32)
    x, y = points(model, n=10)
    for queries in (50, 500):
        found = DecisionBoundary(ThreatModel("l2", bounds=None), queries=queries)(model, x, y)
        assert found.passes.forward <= 10 * (queries + 300)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda z: z[:, 0], r"integer labels \(3,\) or scores \(3, classes\), got shape \(3,\) of torch.float32"),
        (lambda z: (z, z), "integer labels .* got tuple"),
        (lambda z: z[:2].argmax(dim=1), r"got shape \(2,\)"),
    ],
)
def test_other_outputs_are_refused(convert, message):
    class Odd(nn.Module):
        def forward(self, x):
            return convert(x)

    with pytest.raises(TypeError, match=message):
        DecisionBoundary(ThreatModel("l2"))(Odd(), torch.rand(3, 4), torch.tensor([0, 1, 0]))


def test_failures_are_no_labels():
    class Fails(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.where(x < 0.3, torch.nan, 0.5 + 0 * x)], dim=1)

    assert LabelModel(Fails(), torch.tensor([0])).forward(torch.tensor([[0.1]])).isnan().all()
    found = DecisionBoundary(ThreatModel("l2"), queries=200)(
        Fails(), torch.tensor([[0.1], [0.9]]), torch.tensor([0, 0])
    )
    assert found.status[0] == "model_failure"
    assert found.status[1] == "fooled"
    assert math.isclose(float(found.distance[1]), 0.4, rel_tol=1e-2)


def test_settings_are_checked():
    with pytest.raises(TypeError, match="threat must be a ThreatModel"):
        DecisionBoundary("linf")
    with pytest.raises(ValueError, match="queries must be"):
        DecisionBoundary(ThreatModel("l2"), queries=0)
    with pytest.raises(ValueError, match=r"starts must have the inputs' shape \(4,\), got \(5,\)"):
        DecisionBoundary(ThreatModel("l2"), starts=torch.rand(2, 5))(
            nn.Linear(4, 2), torch.rand(2, 4), torch.tensor([0, 1])
        )
