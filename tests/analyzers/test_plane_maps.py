"""Maps of a plane against closed forms and the exact regions."""

import pytest
import torch
from torch import nn

from smoothness.activations import activation
from smoothness.analyzers import linear_regions
from smoothness.analyzers.plane_maps import plane_map

E1, E2 = torch.eye(2)


class Bowl(nn.Module):
    def forward(self, x):
        return (x[:, :1] ** 2 + 3 * x[:, :1] * x[:, 1:] - 2 * x[:, 1:] ** 2) / 2


def test_quadratic_has_constant_curvature():
    found = plane_map(Bowl(), torch.zeros(2), E1, E2, of="logits", resolution=40)
    top = torch.linalg.eigvalsh(torch.tensor([[1.0, 1.5], [1.5, -2.0]])).abs().max()
    assert torch.allclose(found.curvature, top.double().expand(40, 40), atol=1e-8)
    v, u = torch.meshgrid(found.v, found.u, indexing="ij")
    assert torch.allclose(found.slope, torch.hypot(u + 1.5 * v, 1.5 * u - 2 * v), atol=1e-10)
    assert torch.allclose(found.value, Bowl()(torch.stack([u, v], 2).view(-1, 2)).view(40, 40))


def test_piecewise_affine_slopes_are_those_of_the_regions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1))
    found = plane_map(model, torch.zeros(2), E1, E2, of="logits", resolution=60)
    exact = torch.linalg.vector_norm(linear_regions(model, torch.zeros(2), E1, E2).slopes[:, 0], dim=1)
    near = (found.slope.flatten()[:, None] - exact).abs().min(dim=1).values
    assert (near < 1e-9).double().mean() > 0.7  # all but the cells on kinks
    assert (found.classes == (found.value > 0).long()).all()


def test_plateaus():
    torch.manual_seed(0)
    step = nn.Sequential(nn.Linear(2, 6), activation("step"), nn.Linear(6, 3))
    found = plane_map(step, torch.zeros(2), E1, E2, resolution=60)
    assert found.plateau.double().mean() > 0.5
    assert (found.slope[found.plateau] == 0).all()
    smooth = nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 3))
    assert not plane_map(smooth, torch.zeros(2), E1, E2, resolution=60).plateau.any()


def test_bad_input():
    with pytest.raises(ValueError, match="collinear"):
        plane_map(Bowl(), torch.zeros(2), E1, E1)
    with pytest.raises(ValueError, match="at least 2 outputs"):
        plane_map(Bowl(), torch.zeros(2), E1, E2)
    with pytest.raises(ValueError, match="resolution"):
        plane_map(Bowl(), torch.zeros(2), E1, E2, resolution=1)
