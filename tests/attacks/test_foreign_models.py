"""Networks of other houses: steps without a graph, with a wrong one, and models that give labels alone."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import surrogate_gradient
from smoothness.activations.surrogates.foreign import probe_module
from smoothness.attacks import (
    APGD,
    FGSM,
    PGD,
    Continuation,
    DecisionBoundary,
    EvolutionGradient,
    Noise,
    Square,
    Transfer,
)
from smoothness.models import build_model
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.15)


class NoGraph(nn.Module):
    def forward(self, z):
        return (z > 0).to(z.dtype)


class _Zero(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class _Wrong(_Zero):
    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class ZeroBackward(nn.Module):
    def forward(self, z):
        return _Zero.apply(z)


class WrongBackward(nn.Module):
    def forward(self, z):
        return _Wrong.apply(z)


class StraightThrough(nn.Module):
    def forward(self, z):
        return z + ((z > 0).to(z.dtype) - z).detach()


FOREIGN = [NoGraph, ZeroBackward, WrongBackward, StraightThrough]


def own_and_data(features=8, n=60):
    own = build_model("mlp", "step", seed=0, input_shape=(features,), classes=4, width=32).double()
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        return own, x, own(x).argmax(dim=1)


def with_steps(own, step):
    return nn.Sequential(*(step() if type(layer).__name__ == "Step" else layer for layer in own))


@pytest.mark.parametrize("step", FOREIGN)
@pytest.mark.parametrize(
    "attack",
    [
        PGD(LINF, surrogate="tanh"),
        APGD(LINF, surrogate="gaussian", surrogate_width=0.5),
        PGD(LINF, surrogate="mollified", surrogate_width=0.5),
        Continuation(LINF, steps=8),
        EvolutionGradient(LINF, steps=10),
        Square(LINF, queries=100),
    ],
    ids=lambda a: a.label,
)
def test_they_fare_like_our_own_modules(step, attack):
    own, x, y = own_and_data()
    ours, theirs = attack(own, x, y), attack(with_steps(own, step), x, y)
    # Ours counts z > 0 as they do, and the weights are the same; straight-through rounds its sum.
    assert int((ours.success != theirs.success).sum()) <= (2 if step is StraightThrough else 0)
    assert int(ours.success.sum()) > 20


def test_missing_gradients_count_as_zero():
    own, x, y = own_and_data()
    found = PGD(LINF, random_start=False)(with_steps(own, NoGraph), x, y)
    assert found.zero_gradient.all()
    assert found.passes.backward == 0
    through = PGD(LINF, surrogate="tanh")(with_steps(own, NoGraph), x, y)
    assert not through.zero_gradient.all()


def test_a_mollified_surrogate_of_a_foreign_step_is_a_closed_form():
    class Staircase(nn.Module):
        def forward(self, z):
            return (z > -0.5).to(z.dtype) + 2 * (z > 0.25).to(z.dtype) + 0.5 * z

    probed = probe_module(Staircase())
    expected = torch.tensor([(0.0, 0.5), (1.0, 0.5), (3.0, 0.5)])
    torch.testing.assert_close(torch.tensor(probed.affine_pieces), expected, atol=1e-6, rtol=0)
    z = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    step = Staircase()
    with surrogate_gradient(step, "mollified", width=0.3):
        (slope,) = torch.autograd.grad(step(z).sum(), z)
    normal = torch.distributions.Normal(0.0, 0.3)
    with torch.no_grad():
        exact = 0.5 + (normal.log_prob(z + 0.5)).exp() + 2 * normal.log_prob(z - 0.25).exp()
    torch.testing.assert_close(slope, exact, atol=1e-6, rtol=1e-6)


def test_a_mollified_surrogate_of_another_foreign_function_comes_from_a_table():
    class Jumping(nn.Module):
        def forward(self, z):
            return torch.sin(z) + (z > 0.5).to(z.dtype)

    jumping = Jumping()
    assert probe_module(jumping).affine_pieces is None
    z = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    with surrogate_gradient(jumping, "mollified", width=0.4):
        (slope,) = torch.autograd.grad(jumping(z).sum(), z)
    with torch.no_grad():
        exact = math.exp(-0.08) * z.cos() + torch.distributions.Normal(0.5, 0.4).log_prob(z).exp()
    torch.testing.assert_close(slope, exact, atol=0.05, rtol=0)
    away = (z - 0.5).abs() > 2
    torch.testing.assert_close(slope[away], exact[away], atol=1e-3, rtol=0)


class Labels(nn.Module):
    def __init__(self, model, form):
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x):
        labels = self.model(x).argmax(dim=1)
        return labels if self.form == "labels" else nn.functional.one_hot(labels, 4)


@pytest.mark.parametrize("form", ["labels", "one-hot"])
def test_labels_alone_are_for_the_decision_boundary(form):
    own, x, y = own_and_data(n=20)
    model = Labels(own, form)
    attacks = [PGD(LINF), FGSM(LINF), Noise(LINF), Square(LINF), EvolutionGradient(LINF), Continuation(LINF)]
    for attack in [*attacks, Transfer(LINF, own)]:
        with pytest.raises(TypeError, match=r"float64 scores, got int64; .* DecisionBoundary works on labels alone"):
            attack(model, x, y)
    found = DecisionBoundary(LINF, queries=1000)(model, x, y)
    with torch.no_grad():
        assert torch.equal(own(found.inputs).argmax(dim=1) != y, found.success)
    assert int(found.success.sum()) > 5
