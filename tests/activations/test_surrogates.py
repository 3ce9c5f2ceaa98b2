"""Forward identical to the bit; backward the blurred derivative, checked by convolution."""

import threading

import pytest
import torch
from torch import nn

from smoothness.activations import activation, list_activations, surrogate_gradient
from smoothness.activations.surrogates import KERNELS, SHAPES


def _slope(module, z, shape, width):
    z = z.clone().requires_grad_()
    with surrogate_gradient(module, shape, width=width):
        (slope,) = torch.autograd.grad(module(z).sum(), z)
    return slope


@pytest.mark.parametrize("shape", KERNELS)
def test_kernels_have_unit_mass_and_their_integral(shape):
    kernel, integral = KERNELS[shape]
    u = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    tail = 2 * 0.5 / 400 / torch.pi * 2 if shape == "arctan" else 1e-3  # the Cauchy kernel's heavy tail
    assert torch.trapezoid(kernel(u), u).item() == pytest.approx(1, abs=tail)
    summed = torch.cumulative_trapezoid(kernel(u), u) + integral(u[0])
    torch.testing.assert_close(summed, integral(u[1:]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", list_activations())
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_identical_to_the_bit(name, shape):
    module = activation(name).eval()  # rrelu draws its slopes in training
    z = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 0.25, -0.75, 1e30, -1e30])]).requires_grad_()
    expected = module(z)
    with surrogate_gradient(module, shape):
        grafted = module(z)
        assert torch.equal(grafted, expected)
        assert torch.autograd.grad(grafted.sum(), z)[0].isfinite().all()
    assert not module._forward_hooks


@pytest.mark.parametrize(("name", "parameters"), [("relu", {}), ("leaky_relu", {"negative_slope": 0.3}), ("step", {}),
                                                  ("staircase", {"levels": 4}), ("elu", {"alpha": 2.0})])  # fmt: skip
@pytest.mark.parametrize("shape", ["gaussian", "tanh", "triangular"])
def test_backward_blurs_jumps_and_kinks(name, parameters, shape):
    """The rough part of φ' convolved with the kernel, by brute force on a fine grid."""
    module, width = activation(name, **parameters), 0.3
    facts = module.facts()
    z = torch.linspace(-2, 2, 41, dtype=torch.float64)
    slope = _slope(module, z, shape, width)
    s = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    kernel = KERNELS[shape][0]
    expected = torch.zeros_like(z)
    for k, point in enumerate(z):
        weight = kernel((point - s) / width) / width
        rough = sum(b.jump * (s > b.position).double() for b in facts.breakpoints if b.order == 0)
        at_point = torch.autograd.grad(module(q := point.clone().requires_grad_()), q)[0]
        at_point = at_point - sum(b.jump * float(point > b.position) for b in facts.breakpoints if b.order == 0)
        blurred = torch.trapezoid(rough * weight, s) if isinstance(rough, torch.Tensor) else 0.0
        jumps = sum(b.jump * kernel((point - b.position) / width) / width for b in facts.breakpoints if b.order == -1)
        expected[k] = at_point + blurred + jumps
    torch.testing.assert_close(slope, expected, atol=2e-3, rtol=0)


def test_smooth_activations_keep_their_gradient():
    z = torch.linspace(-3, 3, 50, dtype=torch.float64)
    for name in ("gelu", "silu", "softplus", "tanh", "sigmoid", "elu"):
        module = activation(name)
        own = torch.autograd.grad(module(q := z.clone().requires_grad_()).sum(), q)[0]
        torch.testing.assert_close(_slope(module, z, "tanh", 0.25), own)


def test_nesting_the_inner_wins_and_the_outer_returns():
    module, z = activation("step"), torch.zeros(1)
    with surrogate_gradient(module, "identity"):
        assert _slope(module, z, "gaussian", 1.0).item() == pytest.approx((2 * torch.pi) ** -0.5)
        q = z.clone().requires_grad_()
        assert torch.autograd.grad(module(q).sum(), q)[0].item() == 1
    q = z.clone().requires_grad_()
    assert torch.autograd.grad(module(q).sum(), q)[0].item() == 0


def test_restored_after_an_exception():
    model = nn.Sequential(nn.Linear(2, 2), activation("step"))
    with pytest.raises(RuntimeError, match="inside"), surrogate_gradient(model):
        raise RuntimeError("inside")
    assert not model[1]._forward_hooks


def test_other_threads_see_the_true_gradient():
    module, seen = activation("step"), []

    def other():
        q = torch.zeros(1, requires_grad=True)
        seen.append(torch.autograd.grad(module(q).sum(), q)[0].item())

    with surrogate_gradient(module, "identity"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [0.0]


def test_under_torch_func():
    module = activation("step")
    with surrogate_gradient(module, "gaussian", width=1.0):
        slopes = torch.func.vmap(torch.func.grad(lambda z: module(z).sum()))(torch.zeros(3, 1))
    torch.testing.assert_close(slopes, torch.full((3, 1), (2 * torch.pi) ** -0.5))


def test_bad_arguments():
    step = activation("step")
    with (
        pytest.raises(ValueError, match="unknown surrogate shape 'tan'; did you mean 'tanh'"),
        surrogate_gradient(step, "tan"),
    ):
        pass
    with pytest.raises(ValueError, match="width must be a positive finite number"), surrogate_gradient(step, width=0):
        pass
    with pytest.raises(ValueError, match="found no activation module"), surrogate_gradient(nn.Linear(1, 1)):
        pass
