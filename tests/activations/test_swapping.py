"""Swapping changes activations and nothing else."""

import pytest
import torch
from torch import nn

from smoothness.activations import activation, swap_activations
from smoothness.models import build_model


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.act = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(inplace=True)
        self.again = self.act

    def forward(self, x):
        return self.again(self.two(self.act(self.one(x))))


def test_equals_a_network_built_with_the_activation():
    relu, gelu = (build_model("cnn", a, input_shape=(1, 8, 8), classes=3, seed=4) for a in ("relu", "gelu"))
    x = torch.rand(5, 1, 8, 8)
    swapped = swap_activations(relu, to="gelu")
    assert torch.equal(swapped(x), gelu(x))
    assert [name for name, _, _ in swapped.swap_report.replaced] == ["activation1", "activation2", "activation3"]


def test_original_unchanged_and_weights_equal():
    model = Shared().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    swapped = swap_activations(model, to=lambda: nn.Tanh())
    assert isinstance(model.act, nn.ReLU)
    assert isinstance(swapped.act, nn.Tanh)
    assert swapped.act is swapped.again
    assert swapped.training
    for name, value in swapped.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() != model.state_dict()[name].data_ptr()


def test_where_and_instances():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Tanh()))
    swapped = swap_activations(model, to=activation("softplus", beta=2.0), where=lambda _, m: isinstance(m, nn.ReLU))
    assert repr(swapped[0]) == "Softplus(beta=2)"
    assert swapped[0] is not swapped[2][0]
    assert isinstance(swapped[2][1], nn.Tanh)
    assert swapped.swap_report.left == (("2.1", "not chosen by `where`"),)


def test_a_bare_activation():
    assert repr(swap_activations(nn.ReLU(), to="tanh")) == "Tanh()"


def test_nothing_to_swap():
    with pytest.raises(ValueError, match="found no activation module"):
        swap_activations(nn.Linear(1, 1), to="gelu")
    with pytest.raises(ValueError, match="seen and left: 0"):
        swap_activations(nn.Sequential(nn.ReLU()), to="gelu", where=lambda *_: False)
    with pytest.raises(ValueError, match="unknown activation"):
        swap_activations(nn.ReLU(), to="gelo")
