"""Random points of the ball."""

import torch
from torch import nn

from smoothness._norms import vector_norm
from smoothness.attacks import Noise
from smoothness.threat import ThreatModel


def two_classes(bias):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
        model.bias.copy_(torch.tensor([bias, 0.0]))
    return model


def test_corners_are_corners():
    x, y = torch.full((20, 3), 0.5), torch.zeros(20, dtype=torch.long)
    result = Noise(ThreatModel("linf", 0.1), draws=3, kind="corner", drop_fooled=False)(two_classes(9.0), x, y)
    offsets = (result.inputs - x).abs()
    moved = offsets.amax(dim=1) > 0
    assert int(moved.sum()) > 10
    torch.testing.assert_close(offsets[moved], torch.full_like(offsets[moved], 0.1))


def test_every_corner_is_met_in_the_end():
    # Only one corner of eight crosses the boundary: 1.5 + 0.3 > 1.75.
    x, y = torch.full((50, 3), 0.5), torch.zeros(50, dtype=torch.long)
    result = Noise(ThreatModel("linf", 0.1), draws=100, kind="corner")(two_classes(1.75), x, y)
    assert bool(result.success.all())
    few = Noise(ThreatModel("linf", 0.1), draws=1, kind="corner", seed=1)(two_classes(1.75), x, y)
    assert 0 < int(few.success.sum()) < 20  # an eighth of 50 expected


def test_uniform_draws_fill_the_ball():
    x, y = torch.full((400, 3), 0.5), torch.zeros(400, dtype=torch.long)
    for norm in ("linf", "l2", "l1"):
        result = Noise(ThreatModel(norm, 0.2), draws=1, drop_fooled=False)(two_classes(1.5), x, y)
        # The boundary passes through the centre: half of the draws cross it.
        assert 150 < int(result.success.sum()) < 250
        distance = vector_norm(result.inputs - x, norm)[result.success]
        assert float(distance.max()) > 0.18
        assert result.passes.backward == 0
        assert result.zero_gradient is None
