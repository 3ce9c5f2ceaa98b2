"""Sparse products are the dense ones."""

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.bounds import products
from smoothness.bounds.products import Product


@pytest.mark.parametrize("sparse", [False, True])
def test_parts_from_both_sides(sparse, monkeypatch):
    monkeypatch.setattr(products, "_MANY", 1 if sparse else 1 << 62)
    g = torch.Generator().manual_seed(0)
    weight = torch.zeros(40, 60, dtype=torch.float64)
    where = torch.randint(2400, (100,), generator=g)
    weight.view(-1)[where] = torch.randn(100, generator=g, dtype=torch.float64)
    product = Product(weight)
    assert product.sparse is sparse
    values, rows = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((3, 60), (2, 5, 40)))
    expected = {
        "plain": weight, "size": weight.abs(), "positive": weight.clamp_min(0), "negative": weight.clamp_max(0),
    }  # fmt: skip
    for name, matrix in expected.items():
        part = getattr(product, name)
        torch.testing.assert_close(product.apply(part, values), values @ matrix.T)
        torch.testing.assert_close(product.back(part, rows), rows @ matrix)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_convolutional_network_has_the_same_bounds(norm, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(100, 3),
    )
    x = torch.rand(3, 1, 12, 12)
    x[0, 0, :4] = 0.0  # at the bounds
    found = {}
    for sparse in (False, True):
        monkeypatch.setattr(products, "_MANY", 1 if sparse else 1 << 62)
        analyzers = [
            sm.CertifiedRadius(norm, effort="fast", bounds=(0.0, 1.0)),
            sm.LipschitzUpperBound(norm, radius=0.05, effort="fast", bounds=(0.0, 1.0)),
            sm.LipschitzUpperBound(norm, radius=0.05, effort="fast", of="margin"),
        ]
        found[sparse] = [analyzer(model, x).values for analyzer in analyzers]
    for dense, sparse in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(dense, sparse, rtol=1e-9, atol=0)
