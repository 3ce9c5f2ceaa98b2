"""The enumeration itself, against a grid."""

import pytest
import torch

from smoothness._norms import NORMS, vector_norm
from tests.attacks.exact import exact_distances, tiny_network


@pytest.mark.parametrize("norm", NORMS)
def test_a_grid_finds_the_same_distance(norm):
    model = tiny_network(2, features=2, hidden=4)
    x = 2 * torch.rand(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    line = torch.linspace(-1, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        y, there = model(x).argmax(dim=1), model(grid).argmax(dim=1)
    expected = torch.stack(
        [vector_norm(grid - point, norm)[there != label].amin() for point, label in zip(x, y, strict=True)]
    )
    found = exact_distances(model, x, y, norm, bounds=(-1.0, 1.0))
    assert bool((found <= expected + 1e-9).all())
    torch.testing.assert_close(found, expected, atol=0.011, rtol=0)
