"""Curvature against dense Hessians, closed forms and the definition at a finite distance."""

import itertools
import math

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import InputCurvature
from smoothness.testing import check_analyzer

DOUBLE = torch.float64


def mlp(act="softplus", widths=(6, 16, 16, 3), seed=0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation(act)]
    return nn.Sequential(*layers[:-1])


def points(n=5, d=6, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def hessians(model, x, weights):
    model = model.double()

    def one(row, w):
        return torch.autograd.functional.hessian(lambda z: (model(z[None])[0] * w).sum(), row, vectorize=True)

    return torch.stack([one(row, w) for row, w in zip(x, weights, strict=True)])


@pytest.mark.parametrize("act", ["softplus", "gelu", "tanh"])
def test_equals_the_dense_hessian(act):
    model, x = mlp(act), points()
    labels = torch.tensor([0, 1, 2, 0, 1])
    found = InputCurvature(tolerance=1e-9)(model, x, labels)
    outputs = model.double()(x)
    others = outputs.scatter(1, labels[:, None], -math.inf).argmax(1)
    weights = torch.eye(3, dtype=DOUBLE)[labels] - torch.eye(3, dtype=DOUBLE)[others]
    truth = torch.linalg.eigvalsh(hessians(model, x, weights)).abs().amax(dim=1)
    assert torch.allclose(found.curvature.values, truth, rtol=1e-8)
    each = [torch.linalg.eigvalsh(hessians(model, x, w.expand(5, 3))).abs().amax(dim=1) for w in torch.eye(3).double()]
    found = InputCurvature(of="logits", tolerance=1e-9)(model, x)
    assert torch.allclose(found.curvature.values, torch.stack(each).amax(dim=0), rtol=1e-8)
    jacobian = torch.stack([torch.autograd.functional.jacobian(model, row) for row in x])
    assert torch.allclose(found.slope.values, jacobian.norm(dim=2).amax(dim=1))


def test_certificate_in_many_dimensions():
    model, x = mlp(widths=(40, 64, 64, 2)), points(6, 40)
    found = InputCurvature(of="logits")(model, x)
    assert bool(found.curvature.details["converged"].all())
    assert int(found.curvature.details["steps"].max()) < 40
    truth = torch.stack([torch.linalg.eigvalsh(hessians(model, x, w.expand(6, 2))).abs().amax(dim=1)
                         for w in torch.eye(2).double()]).amax(dim=0)  # fmt: skip
    assert torch.allclose(found.curvature.values, truth, rtol=1e-6)
    assert (found.curvature.values <= truth * (1 + 1e-12)).all()
    early = InputCurvature(of="logits", max_steps=2)(model, x).curvature
    assert not early.details["converged"].any()
    assert early.valid.all()
    assert (early.values <= truth).all()


def test_units_of_scale():
    """Logits times c: curvature times c, normalised curvature the same."""
    model, x = mlp(), points()
    before = InputCurvature()(model, x)
    model[-1].weight.data.mul_(3.0)
    model[-1].bias.data.mul_(3.0)
    after = InputCurvature()(model, x)
    assert torch.allclose(after.curvature.values, 3 * before.curvature.values)
    assert torch.allclose(after.normalised.values, before.normalised.values)


def test_kinks_have_no_hessian_but_bend_at_a_distance():
    x = torch.tensor([[0.0], [0.3]])
    hessian = InputCurvature(of="logits")(nn.ReLU(), x)
    assert hessian.curvature.valid.tolist() == [False, True]  # no derivative at the kink itself
    assert "a kink" in hessian.curvature.details["reason"][0]
    assert float(hessian.curvature.values[1]) == float(hessian.normalised.values[1]) == 0.0
    # relu at its kink: (h - 0 + 0) / h²; at 0.3 with h = 0.5: (0.8 - 0.6) / 0.25.
    found = InputCurvature(of="logits", scale=0.5)(nn.ReLU(), x)
    assert torch.allclose(found.curvature.values, torch.tensor([2.0, 0.8], dtype=DOUBLE))
    assert torch.allclose(found.slope.values, torch.tensor([0.5, 0.8], dtype=DOUBLE))
    # A step at distance 0.3 < h: |1 - 2 + 0| / h².
    found = InputCurvature(of="logits", scale=0.5)(activation("step"), x[1:])
    assert torch.allclose(found.curvature.values, torch.tensor([4.0], dtype=DOUBLE))


def test_small_scale_meets_the_hessian():
    model, x = mlp(), points(2)
    exact = InputCurvature()(model, x).curvature.values
    found = InputCurvature(scale=1e-3, directions=4, refinements=60)(model, x).curvature.values
    assert torch.allclose(found, exact, rtol=1e-3)


def test_refuses_what_has_no_derivatives():
    class Hard(nn.Module):
        def forward(self, z):
            return (z > 0).double()

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    class Square(nn.Module):
        def forward(self, z):
            return Once.apply(z)

    with pytest.raises(TypeError, match=r"module '1' \(Hard\) gives no gradient.*scale"):
        InputCurvature()(nn.Sequential(nn.Linear(2, 3), Hard(), nn.Linear(3, 2)).double(), points(2, 2))
    found = InputCurvature(of="logits")(Square(), points(2, 2))
    assert not found.curvature.valid.any()
    assert "second differences" in found.curvature.details["reason"][0]
    step = nn.Sequential(nn.Linear(2, 3), Hard(), nn.Linear(3, 2)).double()
    assert InputCurvature(scale=3.0)(step, points(2, 2)).curvature.valid.all()


def test_bad_input():
    for settings in ({"of": "class"}, {"scale": 0.0}, {"tolerance": -1.0}, {"max_steps": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            InputCurvature(**settings)
    with pytest.raises(ValueError, match="at least 2 outputs"):
        InputCurvature()(nn.Linear(2, 1), points(2, 2))
    with pytest.raises(ValueError, match="empty"):
        InputCurvature()(nn.Linear(2, 2), torch.zeros(0, 2))

    class Narrow(nn.Module):
        def forward(self, z):
            return z.float()

    with pytest.raises(TypeError, match="float32 for float64 inputs"):
        InputCurvature()(Narrow(), points(2, 2))


def test_nan_models_are_not_valid():
    model = mlp()
    model[0].weight.data[0] = math.nan
    for scale in (None, 0.1):
        found = InputCurvature(scale=scale)(model, points())
        assert not any(bool(m.valid.any()) for m in found)
        assert "NaN" in found.curvature.details["reason"][0]


@pytest.mark.parametrize("settings", [{}, {"of": "logits", "batch_size": 2}, {"scale": 0.1}])
def test_contract(settings):
    check_analyzer(InputCurvature(**settings), mlp(), points().float())


def test_curvature_that_changes_over_short_distances():
    """sin(ω x) at |x| = 200: second differences see the Hessian within 1 / ω alone, a millionth of |x|."""

    class Wave(nn.Module):
        def forward(self, z):
            return torch.sin(3000.0 * z[:, :1]) / 9e6

    x = torch.zeros(2, 2, dtype=torch.float64)
    x[:, 0], x[:, 1] = torch.tensor([0.3, 0.7]), 200.0
    found = InputCurvature(of="logits")(Wave(), x).curvature
    assert found.valid.all()
    torch.testing.assert_close(found.values, torch.sin(3000.0 * x[:, 0]).abs())
