"""DeepLift against its rescale rule written out by hand, and its refusals."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation, swap_activations
from smoothness.analyzers import AttributionStability
from smoothness.analyzers.deep_lift import deep_lift

captum = pytest.importorskip("captum.attr")


class Residual(nn.Module):
    """f = C (h + φ(B h)) with h = φ(A x)."""

    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.one, self.two = activation(act), activation(act)

    def forward(self, x):
        h = self.one(self.a(x))
        return self.c(h + self.two(self.b(h)))


def by_hand(model, x, base, y):
    """Multipliers as matrices, from the outputs back."""
    out = []
    for point, label in zip(x, y, strict=True):
        z = [model.a(p) for p in (point, base)]
        h = [model.one(p) for p in z]
        u = [model.b(p) for p in h]
        v = [model.two(p) for p in u]
        first = torch.diag((h[0] - h[1]) / (z[0] - z[1])) @ model.a.weight
        second = torch.diag((v[0] - v[1]) / (u[0] - u[1])) @ model.b.weight
        whole = model.c.weight @ (torch.eye(7, dtype=x.dtype) + second) @ first
        out.append(whole[label] * (point - base))
    return torch.stack(out)


@pytest.mark.parametrize("act", ["relu", "gelu", "softplus", "step", "selu", "prelu", "quantised_relu", "sin"])
def test_the_rescale_rule_by_hand(act):
    model = Residual(act).double().eval()
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    base, y = torch.full((5,), 0.1, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    state = copy.deepcopy(model.state_dict())
    kinds = [type(module) for module in model.modules()]
    found = deep_lift(captum, model)(x.clone().requires_grad_(), base.expand_as(x), y).detach()
    truth = by_hand(model, x, base, y).detach()
    # captum takes the gradient where an input moves by less than 1e-10: none does here.
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
    change = (model(x) - model(base[None])).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(found.sum(dim=1), change.detach(), rtol=1e-9, atol=1e-12)
    assert kinds == [type(module) for module in model.modules()]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_convolutions_and_the_analyzer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.AvgPool2d(2),
                          nn.Flatten(), nn.Linear(12, 4), nn.Softplus(), nn.Linear(4, 3)).eval()  # fmt: skip
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = AttributionStability(method="deep_lift", samples=2)(model, x)
    assert (found.completeness_error.values < 1e-12).all()
    assert found.sensitivity.valid.all()
    with torch.no_grad():
        double = copy.deepcopy(model).double()
        assert torch.equal(double(x.double()), double(x.double()))


class Used(nn.Module):
    def __init__(self, run):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.act, self.run = nn.Linear(5, 4), nn.Linear(4, 3), nn.ReLU(), run

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda m, x: m.b(F.relu(m.a(x))), "called as a function"),
        (lambda m, x: m.b(m.act(m.a(x)).relu()), "called as a function"),
        (lambda m, x: m.act(m.b(m.act(m.a(x)))), "called more than once"),
        (lambda m, x: m.b(m.a(x) * m.act(m.a(x))), "multiplies"),
        (lambda m, x: m.b(1.0 / m.a(x)), "divides"),
        (lambda m, x: m.b(m.a(x).softmax(dim=1)), "softmax"),
        (lambda m, x: m.b(m.a(x) if x.sum() > 0 else -m.a(x)), "traced"),
    ],
)
def test_refuses_what_captum_gets_wrong(run, reason):
    with pytest.raises(TypeError, match=reason) as error:
        AttributionStability(method="deep_lift")(Used(run), torch.rand(2, 5))
    assert "integrated_gradients" in str(error.value)


def test_pooling_by_maxima_is_refused():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(TypeError, match="MaxPool2d"):
        AttributionStability(method="deep_lift")(model, torch.rand(2, 1, 4, 4))


def test_functional_activations_are_welcome_once_they_are_modules():
    model = swap_activations(Used(lambda m, x: m.b(F.relu(m.a(x)))), to="gelu")
    found = AttributionStability(method="deep_lift", samples=2)(model, torch.rand(2, 5))
    assert (found.completeness_error.values < 1e-12).all()
