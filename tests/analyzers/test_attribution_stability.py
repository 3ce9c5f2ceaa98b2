"""Attribution stability against closed forms, scipy and captum's own metrics."""

import math
import sys

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import AttributionStability
from smoothness.analyzers.attribution_stability import _spearman, _top_overlap
from smoothness.testing import check_analyzer

METHODS = ("saliency", "integrated_gradients", "smooth_grad", "deep_lift")


def mlp(act="softplus", seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), activation(act), nn.Linear(16, 3))


def points(n=4):
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(1))


def test_ranks_and_overlaps():
    one, other = torch.randint(0, 5, (2, 3, 20), generator=torch.Generator().manual_seed(0)).double()
    truth = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert torch.allclose(_spearman(one, other), torch.tensor(truth).double())
    a = torch.tensor([[5.0, 4.0, 1.0, 0.0]])
    b = torch.tensor([[5.0, 0.0, 4.0, 1.0]])
    assert _top_overlap(a, b, 2).tolist() == [0.5]


def test_unsound_methods_and_bad_settings_are_refused():
    with pytest.raises(ValueError, match="'lrp' knows a few activations by exact type"):
        AttributionStability(method="lrp")
    for settings in ({"method": "lime"}, {"radius": 0.0}, {"top": 1.5}, {"samples": 0}, {"steps": 1}, {"norm": "l9"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            AttributionStability(**settings)


def test_without_captum_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "smoothness\[attribution\]"'):
        AttributionStability()(mlp(), points())


@pytest.mark.parametrize("method", METHODS)
def test_linear_models_are_steady_and_faithful(method):
    pytest.importorskip("captum")
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    found = AttributionStability(method=method)(model, points())
    if method in ("saliency", "smooth_grad"):  # the others move with x itself
        assert (found.sensitivity.values < 1e-12).all()
        assert torch.allclose(found.rank_correlation.values, torch.ones(4).double())
        assert (found.top_overlap.values == 1).all()
        assert not found.completeness_error.valid.any()
    else:
        assert (found.completeness_error.values < 1e-8).all()
    assert (found.infidelity.values < 1e-15).all()


def test_saliency_against_captums_metrics():
    pytest.importorskip("captum")
    from captum.attr import Saliency
    from captum.metrics import infidelity, sensitivity_max

    from smoothness._norms import random_in_ball

    model, x = mlp().double(), points().double()
    y = model(x).argmax(dim=1)
    found = AttributionStability(method="saliency", samples=5, norm="l2", radius=0.3)(model, x)
    offsets = random_in_ball(torch.zeros(5, 6).double(), "l2", 0.3, torch.Generator().manual_seed(0))
    saliency = Saliency(model)
    x.requires_grad_()
    queue = iter(offsets)

    def perturb(inputs):
        return (inputs.detach() + next(queue)).requires_grad_()

    theirs = sensitivity_max(saliency.attribute, x, perturb, n_perturb_samples=5, max_examples_per_batch=4, target=y,
                             abs=False, norm_ord=2)  # fmt: skip
    assert torch.allclose(found.sensitivity.values, theirs.detach())
    queue = iter(offsets)

    def noise(inputs, baselines=None):
        v = next(queue).expand_as(inputs)
        return v, inputs - v

    theirs = infidelity(model, noise, x, saliency.attribute(x, target=y, abs=False), target=y, n_perturb_samples=5,
                        max_examples_per_batch=4)  # fmt: skip
    assert torch.allclose(found.infidelity.values, theirs.detach())


def test_completeness_error_shrinks_with_the_steps():
    pytest.importorskip("captum")
    few, many = (AttributionStability(steps=n)(mlp(), points()).completeness_error.values for n in (4, 64))
    assert (few < 1e-6).all()
    assert (many < 1e-8).all()  # captum keeps the weights of the rule in float32

    # A jump is never integrated: the error is its size.
    class Jump(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1) + 2.0 * (x[:, 0] > 0.5), 0 * x.sum(1)], dim=1)

    x = torch.full((1, 6), 0.8)
    found = AttributionStability(steps=64)(Jump(), x)
    assert found.completeness_error.values.item() == pytest.approx(2.0)


@pytest.mark.parametrize("method", METHODS)
def test_contract_and_random_state(method):
    pytest.importorskip("captum")
    check_analyzer(AttributionStability(method=method, samples=2, steps=4, batch_size=3), mlp(), points())
    check_analyzer(
        AttributionStability(method=method, samples=2, steps=4), mlp(), points(), torch.tensor([0, 1, 2, 0])
    )


def test_plateaus_and_missing_gradients():
    pytest.importorskip("captum")

    class Hard(nn.Module):
        def forward(self, z):
            return (z > 0).to(z)

    found = AttributionStability(samples=2)(mlp("step"), points())
    assert not found.sensitivity.valid.any()
    assert "0 everywhere" in found.sensitivity.details["reason"][0]
    with pytest.raises(TypeError, match=r"module '1' \(Hard\) gives no gradient"):
        AttributionStability()(nn.Sequential(nn.Linear(6, 4), Hard(), nn.Linear(4, 2)), points())
    model = mlp()
    model[0].weight.data[0] = math.nan
    found = AttributionStability(samples=2)(model, points())
    assert not any(bool(m.valid.any()) for m in found)
