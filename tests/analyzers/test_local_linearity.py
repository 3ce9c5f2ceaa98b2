"""The local linearity error against closed forms."""

import math

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import LocalLinearityError
from smoothness.testing import check_analyzer

DOUBLE = torch.float64


class Bowl(nn.Module):
    """x² weighted by 1, 2, 3, ...: the error is |v|² weighted, whatever x."""

    def forward(self, x):
        return (x**2 * torch.arange(1, x.shape[1] + 1).to(x)).sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("norm", "truth"), [("l2", 3 * 0.25), ("linf", 6 * 0.25), ("l1", 3 * 0.25)])
def test_quadratic(norm, truth):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = LocalLinearityError(norm=norm, radius=0.5, of="logits", steps=100, restarts=16)(Bowl(), x)
    assert (found.values <= truth * (1 + 1e-12)).all()
    assert (found.values >= truth * 0.999).all()
    offset = found.details["offset"]
    assert torch.allclose(found.values, Bowl()(offset)[:, 0])


def test_kinks_and_steps():
    x = torch.tensor([[0.1], [-0.2], [1.0]])
    found = LocalLinearityError(radius=0.5, of="logits")(nn.ReLU(), x)
    assert torch.allclose(found.values, torch.tensor([0.4, 0.3, 0.0], dtype=DOUBLE), atol=1e-6)
    found = LocalLinearityError(radius=0.5, of="logits")(activation("step"), x)
    assert found.values.tolist() == [1.0, 1.0, 0.0]
    assert LocalLinearityError(of="logits")(nn.Linear(2, 1), torch.ones(1, 2)).values.max() < 1e-12


def test_bad_input_and_contract():
    with pytest.raises(ValueError, match="radius"):
        LocalLinearityError(radius=0.0)
    with pytest.raises(ValueError, match="unknown norm"):
        LocalLinearityError(norm="l3")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    check_analyzer(LocalLinearityError(batch_size=2), model, torch.rand(5, 4))
    model[0].weight.data[0] = math.nan
    found = LocalLinearityError()(model, torch.rand(5, 4))
    assert not found.valid.any()
    assert "NaN" in found.details["reason"][0]
