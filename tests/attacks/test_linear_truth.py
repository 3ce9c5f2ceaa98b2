"""On linear classifiers the best perturbation is known: the attacks must reach it."""

import pytest
import torch
from torch import nn

from smoothness._norms import DUAL, NORMS, vector_norm
from smoothness.attacks import FGSM, PGD, margin_loss
from smoothness.threat import ThreatModel


def linear_model(seed, features=12, classes=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(features, classes, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, features, generator=generator, dtype=dtype))
        model.bias.copy_(torch.randn(classes, generator=generator, dtype=dtype) / 4)
    return model


def points(model, n=40, seed=0):
    x = torch.randn(n, model.in_features, generator=torch.Generator().manual_seed(seed), dtype=model.weight.dtype)
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def worst_loss(model, x, y, norm, epsilon):
    """max over rivals of (f_j - f_y)(x) + epsilon · |w_j - w_y|_dual: the closed form, any number of classes."""
    with torch.no_grad():
        logits, weight = model(x), model.weight
        difference = weight.unsqueeze(0) - weight[y].unsqueeze(1)
        reach = vector_norm(difference.flatten(0, 1), DUAL[norm]).view(len(x), -1)
        losses = logits - logits.gather(1, y.unsqueeze(1)) + epsilon * reach
        return losses.scatter(1, y.unsqueeze(1), -torch.inf).amax(dim=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_classes_reach_the_closed_form(norm, loss, seed):
    model = linear_model(seed)
    x, y = points(model, seed=seed)
    for epsilon in (0.05, 0.4):
        attack = PGD(
            ThreatModel(norm, epsilon, bounds=None), steps=80, step_size=epsilon, loss=loss, drop_fooled=False
        )
        result = attack(model, x, y)
        expected = worst_loss(model, x, y, norm, epsilon)
        with torch.no_grad():
            reached = margin_loss(model(result.inputs), y)
        torch.testing.assert_close(reached, expected, atol=1e-4, rtol=0)
        clear = expected.abs() > 1e-4
        assert torch.equal(result.success[clear], expected[clear] > 0)
        assert bool((result.distance[result.success] <= epsilon + 1e-9).all())


@pytest.mark.parametrize("norm", NORMS)
def test_many_classes_never_beat_the_closed_form_and_come_close(norm):
    model = linear_model(3, classes=5)
    x, y = points(model)
    attack = PGD(
        ThreatModel(norm, 0.3, bounds=None), steps=60, step_size=0.15, loss="margin", restarts=8, drop_fooled=False
    )
    with torch.no_grad():
        reached = margin_loss(model(attack(model, x, y).inputs), y)
    expected = worst_loss(model, x, y, norm, 0.3)
    assert bool((reached <= expected + 1e-9).all())
    assert float((expected - reached).median()) < 1e-4


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_full_step_is_exact_with_two_classes(norm, dtype):
    model = linear_model(5, dtype=dtype)
    x, y = points(model)
    result = FGSM(ThreatModel(norm, 0.2, bounds=None))(model, x, y)
    with torch.no_grad():
        reached = margin_loss(model(result.inputs), y)
    torch.testing.assert_close(reached, worst_loss(model, x, y, norm, 0.2), atol=1e-5, rtol=0)


def test_the_box_is_used_up_to_its_edge():
    model = linear_model(7)
    x = torch.rand(30, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
        toward = (model.weight[1 - y] - model.weight[y]).sign()
        expected = margin_loss(model((x + 0.3 * toward).clamp(0, 1)), y)
        result = PGD(ThreatModel("linf", 0.3), drop_fooled=False)(model, x, y)
        torch.testing.assert_close(margin_loss(model(result.inputs), y), expected, atol=1e-9, rtol=0)


def test_bounds_may_differ_from_feature_to_feature():
    model = linear_model(8, features=2)
    low, high = torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([[0.9, 0.45], [-0.9, 0.1]], dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for norm in NORMS:
        found = PGD(ThreatModel(norm, 0.4, bounds=(low, high)), drop_fooled=False)(model, x, y).inputs
        assert bool(((found >= low) & (found <= high)).all())


def test_large_logits_do_not_stall_cross_entropy():
    model = linear_model(9, dtype=torch.float32)
    x, y = points(model)
    scaled = linear_model(9, dtype=torch.float32)
    with torch.no_grad():
        scaled.weight.mul_(1e4)
        scaled.bias.mul_(1e4)
    threat = ThreatModel("linf", 0.2, bounds=None)
    assert not bool(PGD(threat)(scaled, x, y).zero_gradient.any())
    assert torch.equal(PGD(threat)(scaled, x, y).success, PGD(threat)(model, x, y).success)


def test_scale_of_the_inputs_does_not_break_the_ball():
    model = linear_model(10, dtype=torch.float32)
    x = 1000 * torch.rand(30, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for norm in NORMS:
        result = PGD(ThreatModel(norm, 0.1, bounds=(0.0, 1000.0)), drop_fooled=False)(model, x, y)
        distance = vector_norm(result.inputs.double() - x.double(), norm)
        assert float(distance.max()) <= 0.1 + 1e-6
