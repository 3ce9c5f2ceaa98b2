"""Surrogates of function calls and of modules that nobody told us about."""

import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation, surrogate_gradient
from smoothness.activations.surrogates.foreign import probe_module


class Functional(nn.Module):
    """Calls activation functions in several ways, one of them in place."""

    def __init__(self, inplace=False):
        super().__init__()
        self.one, self.two, self.inplace = nn.Linear(4, 6), nn.Linear(6, 3), inplace

    def forward(self, x):
        z = self.one(x)
        h = z.relu_() if self.inplace else F.relu(z)
        return self.two(h)


class NoGraph(nn.Module):
    """A foreign hard step: the result has no graph."""

    def forward(self, z):
        return (z > 0.25).to(z.dtype)


class OldStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.sign()

    @staticmethod
    def backward(ctx, gradient):
        return 100 * gradient


class Liar(nn.Module):
    def forward(self, z):
        return OldStraightThrough.apply(z)


def _gradient(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    weights = torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)  # a plain sum is blind after LayerNorm
    return torch.autograd.grad((out * weights).sum(), x)[0] / (1 if out.shape != x.shape or x.ndim > 1 else weights)


@pytest.mark.parametrize("inplace", [False, True])
def test_function_calls_follow_the_surrogate(inplace):
    torch.manual_seed(0)
    model, x = Functional(inplace).double(), torch.randn(5, 4, dtype=torch.float64)
    expected = model(x)
    reference = nn.Sequential(model.one, activation("relu"), model.two)
    for shape in ("identity", "gaussian", "mollified"):
        with surrogate_gradient(reference, shape, width=0.5):
            wanted = _gradient(reference, x)
        with surrogate_gradient(model, shape, width=0.5):
            assert torch.equal(model(x), expected)
            torch.testing.assert_close(_gradient(model, x), wanted)
    torch.testing.assert_close(_gradient(model, x), _gradient(reference, x))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_where_chooses_among_calls():
    model, x = Functional(), torch.randn(5, 4)
    seen = []
    with surrogate_gradient(model, "identity", where=lambda name, module: seen.append((name, repr(module))) or False):
        gradient = _gradient(model, x)
    assert seen == [("relu", "ReLU()")]
    assert torch.equal(gradient, _gradient(model, x))


def test_calls_of_other_threads_and_after_an_exception():
    model, x, found = Functional(), torch.randn(5, 4), []
    native = _gradient(model, x)
    with surrogate_gradient(model, "identity"):
        thread = threading.Thread(target=lambda: found.append(_gradient(model, x)))
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.randn(5, 7))
        assert not torch.equal(_gradient(model, x), native)
    assert torch.equal(found[0], native)
    assert torch.equal(_gradient(model, x), native)
    F.relu(torch.zeros(1))


def test_transformer_encoder_layer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().eval()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    native, value = _gradient(layer, x), layer(x.clone().requires_grad_())
    with surrogate_gradient(layer, "identity"):
        assert torch.equal(layer(x.clone().requires_grad_()), value)
        assert not torch.allclose(_gradient(layer, x), native)
    torch.testing.assert_close(_gradient(layer, x), native)


@pytest.mark.parametrize(("module", "position", "jump"), [(NoGraph(), 0.25, 1.0), (Liar(), 0.0, 2.0)])
@pytest.mark.parametrize("shape", ["gaussian", "tanh", "mollified"])
def test_foreign_steps_are_probed_and_blurred(module, position, jump, shape):
    (breakpoint_,) = probe_module(module).breakpoints
    assert (breakpoint_.order, round(breakpoint_.jump, 6)) == (-1, jump)
    assert breakpoint_.position == pytest.approx(position, abs=1e-9)
    z = torch.linspace(-1, 1, 9, dtype=torch.float64)
    own, width = activation("step"), 0.5
    with surrogate_gradient(own, shape, width=width):
        expected = jump * _gradient(own, z - position)
    with surrogate_gradient(module, shape, width=width):
        assert torch.equal(module(z), type(module)()(z))
        torch.testing.assert_close(_gradient(module, z), expected, atol=1e-6, rtol=1e-6)


def test_mollified_shape_is_the_mollified_derivative():
    z, sigma = torch.linspace(-2, 2, 9, dtype=torch.float64), 0.3
    for name in ("step", "relu"):
        module = activation(name)
        with surrogate_gradient(module, "mollified", width=sigma):
            found = _gradient(module, z)
        density = torch.exp(-((z / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        torch.testing.assert_close(found, density if name == "step" else torch.special.ndtr(z / sigma))
    gelu = activation("gelu")
    with surrogate_gradient(gelu, "mollified", width=sigma):
        assert not torch.allclose(_gradient(gelu, z), torch.func.vmap(torch.func.grad(lambda s: F.gelu(s)))(z))


class Normalise(nn.Module):
    def forward(self, x):
        return (x - 0.5) / 0.25


class Mixes(nn.Module):
    def forward(self, x):
        return x - x.mean()


def test_what_is_no_activation_is_left_alone():
    for module in (Normalise(), Mixes(), nn.Flatten(), nn.Identity(), nn.Linear(2, 2), nn.Sequential(nn.ReLU())):
        assert probe_module(module) is None
    model = nn.Sequential(Normalise(), nn.Linear(4, 4), activation("step"))
    x = torch.randn(3, 4)
    plain = nn.Sequential(nn.Identity(), model[1], model[2])
    with surrogate_gradient(model, "identity"), surrogate_gradient(plain, "identity"):
        torch.testing.assert_close(_gradient(model, x), 4 * _gradient(plain, x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, while it looks at the inputs
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_under_torch_compile():
    model, x = nn.Sequential(nn.Linear(4, 6), activation("step"), nn.Linear(6, 3)), torch.randn(5, 4)
    with surrogate_gradient(model, "gaussian", width=1.0):
        expected = _gradient(model, x)
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(_gradient(compiled, x), expected)
