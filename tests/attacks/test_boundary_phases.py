"""The parts of the attack by labels alone: slopes by halving, blocks put back; closed forms throughout."""

import pytest
import torch
from torch import nn

from smoothness.attacks import DecisionBoundary
from smoothness.attacks._facet import Facet
from smoothness.attacks._facets import walk_facets
from smoothness.attacks._search import Search
from smoothness.attacks._starting import queue_of
from smoothness.attacks._walk import Walk, Walkers
from smoothness.threat import ThreatModel
from tests.attacks.linear import linear_model, nearest_distance, points


def walkers(model, x, y, queries=10_000, bounds=None):
    search = Search(model, x, y, ThreatModel("l2", bounds=bounds), None)
    batch = search.batch(torch.arange(len(x)), None)
    return Walkers(search, batch, Walk.beginning(search, batch), queries)


def test_slopes_by_halving():
    model = linear_model(3, features=40)
    x, y = points(model, n=6)
    group = walkers(model, x, y)
    weight = (model.weight[1] - model.weight[0]).detach() * torch.where(y == 0, 1.0, -1.0).unsqueeze(1)
    gap = (model(x)[:, 1] - model(x)[:, 0]).detach().abs()
    slope = weight / gap.unsqueeze(1)
    aside = torch.randn(6, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 10
    offset = slope / slope.square().sum(dim=1, keepdim=True) + aside
    on_boundary = offset / (offset * slope).sum(dim=1, keepdim=True)
    group.take(x + on_boundary * (1 + 1e-9), torch.ones(6, dtype=torch.bool))
    facet, everything = Facet.unknown(group), torch.arange(40).expand(6, 40)
    errors = []
    for _ in range(12):
        facet.ask(group, everything)
        errors.append(float((facet.slope - slope).abs().max() / slope.abs().max()))
        assert bool((facet.low <= slope + 1e-6).all())
        assert bool((slope - 1e-6 <= facet.high).all())
    assert errors[-1] < 0.02 * errors[0]
    assert bool((group.walk.spent == 12 * 40).all())
    draws = torch.Generator().manual_seed(0)
    assert float(facet.contradicted(group, draws, 16).max()) == 0
    facet.low, facet.high = facet.low + slope.abs().max(), facet.high + slope.abs().max()  # another facet's
    assert float(facet.contradicted(group, draws, 16).min()) > 0.2


@pytest.mark.parametrize(("norm", "factor"), [("l2", 1.01), ("linf", 1.01), ("l1", 1.1)])
def test_linear_models_in_the_box(norm, factor):
    model = linear_model(5, features=60, classes=3, dtype=torch.float32)
    x = torch.rand(16, 60, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    exact = nearest_distance(model, x, y, norm)
    inside = exact < (0.3 if norm != "l1" else 0.4)  # so near that no bound is met
    found = DecisionBoundary(ThreatModel(norm), queries=5000)(model, x, y)
    ratio = (found.distance / exact)[inside & found.success]
    assert len(ratio) >= 5
    assert float(ratio.min()) >= 1 - 1e-5
    assert float(ratio.median()) < factor


class Boxes(nn.Module):
    """Class 1 inside any of some boxes that bound a few features each."""

    def __init__(self, seed, features=80, boxes=4, sides=3):
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.features = torch.stack([torch.randperm(features, generator=draws)[:sides] for _ in range(boxes)])
        self.low = 0.6 + 0.2 * torch.rand(boxes, sides, generator=draws)

    def forward(self, x):
        return (x[:, self.features] >= self.low).all(dim=2).any(dim=1).long()

    def distance(self, x):
        missing = (self.low - x[:, self.features]).clamp_min(0)
        return missing.square().sum(dim=2).sqrt().amin(dim=1).double()


def test_boxes_are_reached_at_their_corners():
    model = Boxes(0)
    x = torch.rand(12, 80, generator=torch.Generator().manual_seed(1)) * 0.5
    starts = torch.rand(60, 80, generator=torch.Generator().manual_seed(2))
    assert int(model(starts).sum()) >= 5
    found = DecisionBoundary(ThreatModel("l2"), queries=3000, starts=starts)(
        model, x, torch.zeros(12, dtype=torch.long)
    )
    ratio = found.distance / model.distance(x)
    assert float(ratio.min()) >= 1 - 1e-6
    assert float(ratio.median()) < 1.001


def test_starts_of_every_class_are_tried():
    model = linear_model(1, features=8, classes=4, dtype=torch.float32)
    x, y = points(model, n=5)
    starts, classes = points(model, n=200, seed=3)
    group = walkers(model, x, y, queries=5000)
    queue = queue_of(group, starts, torch.Generator())
    with torch.no_grad():
        reached = model(queue.points.flatten(0, 1)).argmax(dim=1).view(5, -1)
    assert queue.points.shape[1] == 32
    assert len(set(classes.tolist())) == 4
    for row, label in zip(reached, y, strict=True):
        assert int(label) not in row.tolist()
        assert len(set(row.tolist())) >= 2
    first, there = queue.next()
    assert bool(there.all())
    assert bool((group.length(first - x).unsqueeze(1) <= queue.distances).all())


def test_batches_do_not_change_the_walk():
    model = linear_model(2, features=30, classes=3)
    x, y = points(model, n=7)
    threat = ThreatModel("l2", bounds=None)
    whole, parts = (DecisionBoundary(threat, 2500, batch_size=size)(model, x, y) for size in (None, 2))
    torch.testing.assert_close(whole.distance, parts.distance, rtol=1e-6, atol=0)


@pytest.mark.parametrize("beaten", [True, False])
def test_facets_give_back_what_another_walk_beats(beaten):
    model = linear_model(7, features=60)
    x, y = points(model, n=5)
    group = walkers(model, x, y, queries=6000)
    queue = queue_of(group, None, torch.Generator().manual_seed(0))
    group.take(*queue.next())
    group.walk.least = group.walk.least * (1e-3 if beaten else 1)
    left = walk_facets(group, queue, torch.Generator().manual_seed(1))
    early = sum(int((part.walk.spent < 0.3 * 6000).sum()) for part in left)
    assert early == 5 if beaten else early <= 2  # else an example ends early only without starts left
