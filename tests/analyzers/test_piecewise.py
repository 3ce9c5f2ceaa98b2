"""Which models the exact method reads, and what it says of the others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from smoothness.activations import Activation, ActivationFacts, activation
from smoothness.activations.facts import piecewise_affine_facts
from smoothness.analyzers.kinks import kinks_on_segments
from tests.analyzers.kink_networks import (
    DOUBLE,
    network,
    segments,
    vertices,
)


def test_float32_model_is_measured_in_float64_and_left_alone() -> None:
    model = network([4, 8, 8, 2], ["relu", "relu"]).float().train()
    before = copy.deepcopy(model.state_dict())
    starts, ends = (points.float() for points in segments(5, 4))
    table = kinks_on_segments(model, starts, ends)
    twin = kinks_on_segments(copy.deepcopy(model).double(), starts.double(), ends.double())
    assert table.jump.dtype == DOUBLE
    assert torch.equal(table.jump, twin.jump)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_nested_models_with_every_affine_module() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.BatchNorm1d(6),
        nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout()),
        nn.Identity(),
        nn.Sequential(nn.Linear(9, 8), nn.LeakyReLU(0.2), nn.BatchNorm1d(8, affine=False)),
    ).double()
    model(torch.randn(50, 2, 3, dtype=DOUBLE) * 3 + 1)
    model.eval()
    starts, ends = torch.randn(2, 4, 2, 3, dtype=DOUBLE) * 2
    model.train()
    table = kinks_on_segments(model, starts, ends)
    model.eval()
    assert table.layers == ("2.3", "4.1")
    t = torch.linspace(0, 1, 1003, dtype=DOUBLE)[1:-1]
    for segment in range(4):
        at = vertices(table, segment)[0]
        first = float(at[0])

        def on_line(t: Tensor, k: int = segment) -> Tensor:
            return model(starts[k] + t[:, None, None] * (ends[k] - starts[k])).detach()

        probe = on_line(torch.tensor([first / 4, first * 3 / 4], dtype=DOUBLE))
        slope = (probe[1] - probe[0]) / (first / 2)
        past = (t[:, None] - at).clamp_min(0)
        built = probe[0] + (t - first / 4)[:, None] * slope + past @ vertices(table, segment)[1]
        torch.testing.assert_close(built, on_line(t), rtol=0, atol=1e-9)


def test_a_shared_activation_counts_as_two_layers() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 8), relu, nn.Linear(8, 8), relu, nn.Linear(8, 1))
    assert kinks_on_segments(model, *segments(2, 3)).layers == ("1", "3")


@pytest.mark.parametrize("name", ["gelu", "tanh", "softplus", "elu"])
def test_smooth_networks_have_an_empty_table_that_says_why(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 8), activation(name), nn.Linear(8, 2))
    table = kinks_on_segments(model, *segments(4, 3))
    assert len(table) == 0
    assert table.jump.shape == (0, 2)
    assert table.note == "no kinks: every activation has a continuous slope"
    assert table.piece_counts("raw").tolist() == [1] * 4


def test_linear_networks_have_an_empty_table() -> None:
    table = kinks_on_segments(nn.Sequential(nn.Linear(3, 2)), *segments(2, 3))
    assert table.note == "no kinks: the network has no activation"


def test_an_affine_activation_has_no_kink() -> None:
    class Same(Activation):
        def forward(self, z: Tensor) -> Tensor:
            return z

        def facts(self) -> ActivationFacts:
            return piecewise_affine_facts("same", (), ((1.0, 0.0),))

    model = nn.Sequential(nn.Linear(3, 8), Same(), nn.Linear(8, 5), nn.ReLU())
    table = kinks_on_segments(model.double(), *segments(6, 3))
    assert set(table.layer.tolist()) == {1}


def test_modules_that_cannot_be_read_are_named() -> None:
    starts, ends = segments(2, 3)

    cases: list[tuple[nn.Module, str]] = [
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), r"'1' \(LayerNorm\).*the exact method reads"),
        (nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.Softmax(1))), r"'0.1' \(Softmax\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)), "depends on its batch"),
        (nn.Sequential(nn.Flatten(0), nn.ReLU()), "mixes examples"),
        (nn.Sequential(nn.Linear(3, 3), nn.PReLU(3)), "activation '1': no facts"),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.GELU()), r"activation '2' \(gelu\) is curved and '1' \(relu\)"),
        (nn.Sequential(nn.Linear(3, 3), activation("elu", alpha=2.0)), r"activation '1' \(elu\(alpha=2\)\) is curved"),
    ]
    for model, message in cases:
        with pytest.raises(TypeError, match=message):
            kinks_on_segments(model, starts, ends)


def test_bad_segments_are_refused() -> None:
    model = network([3, 4, 1], ["relu"])
    starts, ends = segments(2, 3)
    with pytest.raises(ValueError, match="starts: inputs hold NaN or infinite values in rows 1"):
        kinks_on_segments(model, starts.index_fill(0, torch.tensor(1), torch.nan), ends)
    with pytest.raises(ValueError, match="ends: inputs are empty"):
        kinks_on_segments(model, starts, ends[:0])
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(1, 3\)"):
        kinks_on_segments(model, starts, ends[:1])
    with pytest.raises(ValueError, match=r"equal in rows \[1\]"):
        kinks_on_segments(model, starts, torch.stack([ends[0], starts[1]]))
    with pytest.raises(ValueError, match="takes 3 features, got 4"):
        kinks_on_segments(model, *segments(2, 4))
    with pytest.raises(ValueError, match=r"begin the model with nn.Flatten\(\)"):
        kinks_on_segments(model, starts[:, None], ends[:, None])
    with pytest.raises(ValueError, match="max_bytes must be a whole number"):
        kinks_on_segments(model, starts, ends, max_bytes=0)
    with pytest.raises(ValueError, match="unknown kind 'all'"):
        kinks_on_segments(model, starts, ends).piece_counts("all")  # type: ignore[arg-type]
    model[0].weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"module '0' \(Linear\) holds NaN"):
        kinks_on_segments(model, starts, ends)


def test_overflow_is_an_error() -> None:
    model = network([3, 4, 4, 1], ["relu", "relu"])
    for linear in model[::2]:
        linear.weight.data *= 1e150
    with pytest.raises(ValueError, match="exceed the range of float64"):
        kinks_on_segments(model, *segments(2, 3))
