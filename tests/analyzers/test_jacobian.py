"""Jacobian norms against linear maps, central differences and torch.func; liars are caught."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import list_activations, surrogate_gradient
from smoothness.analyzers import JacobianNorm
from smoothness.models import build_model

NORMS = ("l2", "linf", "l1")


@pytest.mark.parametrize("norm", NORMS)
def test_linear_map(norm):
    weight = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
    model = nn.Linear(3, 2)
    model.weight.data.copy_(weight)
    x = torch.randn(4, 3)
    expected = {"l2": torch.linalg.svdvals(weight)[0], "linf": torch.tensor(4.0), "l1": torch.tensor(4.0)}[norm]
    found = JacobianNorm(norm=norm)(model, x)
    torch.testing.assert_close(found.values, expected.expand(4))
    assert found.valid.all()
    assert found.bound == "exact"
    assert found.unit == f"logit / input {norm}"
    difference = weight[0] - weight[1]  # two classes: one pair
    dual = {"l2": difference.norm(), "linf": difference.abs().sum(), "l1": difference.abs().max()}[norm]
    torch.testing.assert_close(JacobianNorm(norm=norm, of="margin")(model, x).values, dual.expand(4))


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", list_activations())
def test_every_activation_against_torch_func(architecture, activation):
    model = build_model(architecture, activation, input_shape=(1, 8, 8), classes=5, seed=2).eval()
    x = torch.rand(6, 1, 8, 8)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: model(p.unsqueeze(0)).squeeze(0)))(x).flatten(2)
    found = JacobianNorm(norm="l2")(model, x)
    torch.testing.assert_close(found.values, torch.linalg.matrix_norm(jacobian, ord=2), rtol=1e-4, atol=1e-6)
    assert found.valid.all(), found.details["reason"]
    if activation in ("step", "staircase"):
        assert not found.values.any()


@pytest.mark.parametrize("activation", list_activations())
def test_float64_against_central_differences(activation):
    model = build_model("mlp", activation, input_shape=(6,), classes=4, width=16).double().eval()
    x = torch.randn(3, 6, dtype=torch.float64)
    h, basis = 1e-6, torch.eye(6, dtype=torch.float64)
    with torch.no_grad():
        columns = [(model(x + h * e) - model(x - h * e)) / (2 * h) for e in basis]
    jacobian = torch.stack(columns, dim=2)
    for norm, expected in (
        ("l2", torch.linalg.matrix_norm(jacobian, ord=2)),
        ("linf", jacobian.abs().sum(dim=2).amax(dim=1)),
        ("l1", jacobian.abs().sum(dim=1).amax(dim=1)),
    ):
        torch.testing.assert_close(JacobianNorm(norm=norm)(model, x).values, expected, rtol=1e-6, atol=1e-8)


def test_margin_uses_labels_or_the_prediction():
    model = build_model("mlp", "tanh", input_shape=(6,), classes=4)
    x = torch.randn(10, 6)
    predicted = model(x).argmax(dim=1)
    measure = JacobianNorm(of="margin")
    assert torch.equal(measure(model, x).values, measure(model, x, predicted).values)
    assert not torch.equal(measure(model, x).values, measure(model, x, (predicted + 1) % 4).values)


class StraightThrough(torch.autograd.Function):
    """A foreign step of the old kind: forward a step, backward the identity."""

    @staticmethod
    def forward(ctx, z):
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Foreign(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


def _foreign(function):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), Foreign(function), nn.Linear(16, 3))


@pytest.mark.parametrize("of", ["logits", "margin"])
def test_liars_are_invalid_with_the_reason(of):
    x = torch.randn(20, 8)
    found = JacobianNorm(of=of)(_foreign(StraightThrough.apply), x)
    assert not found.valid.any()
    assert all("straight-through" in reason for reason in found.details["reason"])
    zeroed = JacobianNorm(of=of)(
        _foreign(lambda z: z.tanh() + (-z.detach() + z) * 0 - z.tanh() + z.tanh().detach()), x
    )
    assert not zeroed.valid.any()  # the gradient is cut, the forward pass is smooth
    own = build_model("mlp", "step", input_shape=(8,), classes=3)
    with surrogate_gradient(own):
        assert not JacobianNorm(of=of)(own, x).valid.any()
    assert JacobianNorm(of=of)(own, x).valid.all()


def test_a_step_without_a_graph_counts_as_zero():
    found = JacobianNorm()(_foreign(lambda z: (z > 0).to(z.dtype)), torch.randn(5, 8))
    assert found.values.tolist() == [0.0] * 5
    assert found.valid.all()


def test_a_step_close_by_is_no_lie_and_a_break_at_the_input_is_named():
    step = build_model("mlp", "step", input_shape=(2,), classes=2, width=1, depth=1)
    for name, value in {"weight": [[1.0, 0.0]], "bias": [-0.5]}.items():
        getattr(step.linear1, name).data.copy_(torch.tensor(value))
    # The step stands at 0.5. At a distance of 1e-7, the first differences reach across it, smaller ones do not.
    x = torch.tensor([[0.3, 0.0], [0.5 - 1e-7, 0.0], [0.5, 0.0]])
    found = JacobianNorm()(step, x)
    assert found.values.tolist() == [0.0, 0.0, 0.0]
    assert found.valid.tolist() == [True, True, False]
    assert "a kink or a jump at the input" in found.details["reason"][2]
    lies = JacobianNorm()(nn.Sequential(step.linear1, Foreign(StraightThrough.apply)), x)
    assert not lies.valid.any()
    assert "straight-through" in lies.details["reason"][0]
    kink = JacobianNorm()(build_model("mlp", "relu", input_shape=(3,), classes=2), torch.zeros(1, 3))
    assert "a kink or a jump at the input" in kink.details["reason"][0]


def test_a_model_that_converts_its_inputs_is_compared_in_its_own_precision():
    class Single(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x.float())

    x = torch.rand(6, 5)
    for activation in ("tanh", "step"):
        model = build_model("mlp", activation, input_shape=(5,), classes=3)
        found = JacobianNorm()(Single(model), x)
        assert found.valid.all(), found.details["reason"]
        assert torch.equal(found.values, JacobianNorm()(model, x).values)
    assert not JacobianNorm()(Single(_foreign(StraightThrough.apply)), torch.rand(6, 8)).valid.any()


def test_batches_modes_and_state():
    model = build_model("cnn", "gelu", input_shape=(1, 8, 8), classes=3).train()
    model.append(nn.Dropout(0.5))
    x = torch.rand(7, 1, 8, 8)
    whole, parts = JacobianNorm()(model, x), JacobianNorm(batch_size=3)(model, x)
    torch.testing.assert_close(whole.values, parts.values)
    assert model.training
    assert model[-1].training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not x.requires_grad


def test_restored_after_an_exception():
    class Breaks(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    model = Breaks().train()
    with pytest.raises(RuntimeError, match="broken"):
        JacobianNorm()(model, torch.rand(2, 3))
    assert model.training


def test_any_floating_output_is_flattened():
    model = nn.Conv2d(1, 2, 3)
    assert JacobianNorm()(model, torch.rand(2, 1, 4, 4)).values.shape == (2,)


def test_nan_outputs_are_invalid():
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    found = JacobianNorm()(Foreign(lambda x: x + torch.where(x[:, :1] > 0, math.nan, 0.0)), x)
    assert found.valid.tolist() == [False, True]
    assert found.details["reason"][0] == "the model's output is NaN or infinite"
    # The branch not taken gives 0 · NaN on the way back: a finite output with a NaN gradient.
    found = JacobianNorm()(Foreign(lambda x: torch.where(x[:, :1] > 0, x * math.nan, x)), x)
    assert found.valid.tolist() == [False, False]
    assert "the Jacobian norm is NaN or infinite" in found.details["reason"][1]


def test_an_overflowing_norm_is_invalid():
    model = Foreign(lambda x: x * 1e30)
    found = JacobianNorm(of="margin")(model, torch.rand(2, 3))
    assert not found.valid.any()
    assert "the Jacobian norm is NaN or infinite" in found.details["reason"][0]
    assert JacobianNorm(of="margin")(model, torch.rand(2, 3, dtype=torch.float64)).valid.all()


def test_bad_arguments():
    model = nn.Linear(3, 2)
    for inputs, error, message in [
        (torch.zeros(0, 3), ValueError, "inputs are empty"),
        (torch.tensor([[1.0, math.nan, 0.0]]), ValueError, "NaN or infinite values in rows 0"),
        (torch.zeros(2, 3, dtype=torch.uint8), TypeError, "for 8-bit images use"),
        (torch.zeros(2, 3, dtype=torch.float16), TypeError, "use inputs.float"),
        (torch.zeros(3), ValueError, "need a batch axis"),
        ([[1.0]], TypeError, "must be a torch.Tensor"),
        (torch.zeros(2, 3, dtype=torch.float64), TypeError, "weights are float32 and the inputs float64"),
    ]:
        with pytest.raises(error, match=message):
            JacobianNorm()(model, inputs)
    with pytest.raises(ValueError, match="unknown norm 'l3'"):
        JacobianNorm(norm="l3")
    with pytest.raises(ValueError, match="unknown of 'margins'; did you mean 'margin'"):
        JacobianNorm(of="margins")
    with pytest.raises(ValueError, match=r"below the model's 2 classes.*rows 1 \(largest 2\)"):
        JacobianNorm(of="margin")(model, torch.zeros(2, 3), torch.tensor([0, 2]))
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        JacobianNorm()(lambda x: x, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"one row of outputs per input, got shape \(2, 0\)"):
        JacobianNorm()(Foreign(lambda x: x[:, :0]), torch.zeros(2, 3))
    with pytest.raises(TypeError, match="must return a tensor"):
        JacobianNorm()(Foreign(lambda x: (x, x)), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least 2 classes"):
        JacobianNorm(of="margin")(nn.Linear(3, 1), torch.zeros(2, 3))
