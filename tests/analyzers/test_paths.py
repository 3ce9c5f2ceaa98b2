"""Segments between data points and along attack paths."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import smoothness as sm


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))


X = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_path_is_what_pgd_does(norm):
    """Every point one step of the gradient away from the one before, projected and clipped."""
    model = network()
    threat = sm.ThreatModel(norm, 0.2)
    y = model(X).argmax(dim=1)
    pgd = sm.PGD(threat, steps=4, step_size=0.07, loss="margin", random_start=False, drop_fooled=False)
    for path, x, label in zip(sm.attack_path(pgd, model, X, y), X, y, strict=True):
        assert torch.equal(path[0], x)
        for here, there in pairwise(path):
            leaf = here[None].clone().requires_grad_()
            logits = model(leaf)
            rest = logits.scatter(1, label.view(1, 1), -math.inf)
            (rest.amax() - logits[0, label]).backward()
            step = leaf.grad[0].sign() if norm == "linf" else leaf.grad[0] / leaf.grad[0].norm()
            moved = here + 0.07 * step - x
            away = moved.norm() if norm == "l2" else moved.abs().max()
            moved = moved.clamp(-0.2, 0.2) if norm == "linf" else moved * min(1.0, 0.2 / float(away))
            torch.testing.assert_close(there, (x + moved).clamp(0, 1))


def test_kinks_along_a_path_are_those_of_its_straight_pieces():
    model = network()
    y = model(X).argmax(dim=1)
    paths = sm.attack_path(sm.PGD(sm.ThreatModel("l2", 2.0, bounds=None), steps=3, seed=1), model, X, y)
    found = sm.segments_along(paths)
    assert found.example.tolist() == sorted(found.example.tolist())
    table = sm.kinks_on_segments(model, found.starts, found.ends)
    assert len(table) > 0
    for k in range(len(found)):
        t = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
        line = found.starts[k].double() + t * (found.ends[k] - found.starts[k]).double()
        with torch.no_grad():
            hidden = nn.Sequential(*model[:1]).double()(line)
            states = torch.cat([hidden > 0, model[2].double()(hidden.relu()) > 0], dim=1)
        model.float()
        changes = int((states[1:] != states[:-1]).sum())
        assert changes == int((table.segment == k).sum())
    for example, path in enumerate(paths):
        own = found.example == example
        length = (path[1:] - path[:-1]).double().norm(dim=1)
        torch.testing.assert_close(found.lengths[own], length, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.begins[own], length.cumsum(0) - length, rtol=1e-6, atol=1e-9)


def test_paths_in_one_tensor_and_still_points():
    path = torch.stack([X, X + torch.tensor([0.0, 1, 0, 2, 3])[:, None], X + 1])
    found = sm.segments_along(path)
    assert found.example.tolist() == [0, 1, 2, 3, 3, 4, 4]
    torch.testing.assert_close(found.starts[0], X[0])
    torch.testing.assert_close(found.ends[2], X[2] + 1)
    with pytest.raises(ValueError, match="no path moves"):
        sm.segments_along(torch.stack([X, X]))
    with pytest.raises(ValueError, match="no path moves"):
        sm.segments_along([X[:1]])
    assert sm.segments_along([X[:1], X[:2]]).example.tolist() == [1]  # the first was misclassified from the start
    with pytest.raises(TypeError, match="float"):
        sm.segments_along(torch.zeros(2, 1, 3, dtype=torch.int64))


def test_the_model_is_left_alone_when_an_attack_fails():
    model = network()
    with pytest.raises(ValueError, match="label"):
        sm.attack_path(sm.FGSM(sm.ThreatModel("linf", 0.1)), model, X, torch.full((5,), 9))
    assert not model._forward_pre_hooks


def test_pairs_of_data_points():
    x = torch.cat([X, X[:1]])  # one point twice: never a pair
    y = torch.tensor([0, 1, 0, 1, 2, 0])
    place = {tuple(row.tolist()): k for k, row in enumerate(X)}

    def pairs(**settings):
        found = sm.segments_between(x, 600, seed=3, **settings)
        assert (found.lengths > 0).all()
        assert torch.equal(found.starts, x[found.example])
        return [
            (place[tuple(a.tolist())], place[tuple(b.tolist())]) for a, b in zip(found.starts, found.ends, strict=True)
        ]

    drawn = pairs()
    assert set(drawn) == {(a, b) for a in range(5) for b in range(5) if a != b}
    weight = {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
    whole = sum(weight[a] * weight[b] for a, b in set(drawn))
    for pair in set(drawn):  # five standard deviations of a uniform draw of pairs
        share = weight[pair[0]] * weight[pair[1]] / whole
        assert abs(drawn.count(pair) - 600 * share) < 5 * math.sqrt(600 * share)
    assert set(pairs(labels=y, same_class=True)) == {(0, 2), (2, 0), (1, 3), (3, 1)}
    assert all(y[a] != y[b] for a, b in pairs(labels=y, same_class=False))
    assert drawn == pairs()
    with pytest.raises(ValueError, match="no pair"):
        sm.segments_between(X[:1].repeat(3, 1), 2)
    with pytest.raises(ValueError, match="needs labels"):
        sm.segments_between(x, 2, same_class=True)
    with pytest.raises(ValueError, match="count"):
        sm.segments_between(x, 0)
