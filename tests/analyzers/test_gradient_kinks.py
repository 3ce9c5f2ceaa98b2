"""Kink densities against closed forms in one dimension and finite differences of the real model."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from smoothness.activations import activation
from smoothness.analyzers.gradient_kinks import GradientKinks

DOUBLE = torch.float64


def network(name: str, inputs: int = 4, outputs: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, 12), activation(name), nn.Linear(12, 12), activation(name), nn.Linear(12, outputs)
    ).double()


def inputs(count: int = 5, dimension: int = 4) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def test_one_dimension_in_closed_form() -> None:
    # Slopes jump by 2 at 0 and by 1 at 1/2; in 1-D every segment is [x - radius, x + radius].
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    model[0].weight.data, model[0].bias.data = torch.ones(2, 1, dtype=DOUBLE), torch.tensor([0, -0.5], dtype=DOUBLE)
    model[2].weight.data = torch.tensor([[2.0, 1.0], [0.0, 0.0]], dtype=DOUBLE)
    model[2].bias.data = torch.tensor([0.0, -1.0], dtype=DOUBLE)
    x = torch.tensor([[0.25], [1.25], [9.0]], dtype=DOUBLE)
    for of in ("margin", "logits"):
        found = GradientKinks(segments=8, radius=1.0, of=of)(model, x)
        torch.testing.assert_close(found.density.values, torch.tensor([[1.0], [0.5], [0.0]], dtype=DOUBLE))
        torch.testing.assert_close(found.slope_jump.values, torch.tensor([[1.5], [0.5], [0.0]], dtype=DOUBLE))
        assert found.value_jump.values.abs().max() == 0
        assert found.density.details["standard_error"].abs().max() < 1e-12
    half = GradientKinks(segments=8, radius=0.5)(model, x)
    torch.testing.assert_close(half.density.values, torch.tensor([[2.0], [0.0], [0.0]], dtype=DOUBLE))
    torch.testing.assert_close(half.slope_jump.values, torch.tensor([[3.0], [0.0], [0.0]], dtype=DOUBLE))


def test_one_step_in_one_dimension() -> None:
    model = nn.Sequential(nn.Linear(1, 1), activation("step"), nn.Linear(1, 2)).double()
    model[0].weight.data.fill_(4.0), model[0].bias.data.zero_()
    model[2].weight.data, model[2].bias.data = torch.tensor([[3.0], [-1.0]], dtype=DOUBLE), torch.zeros(2).double()
    x = torch.tensor([[0.1]], dtype=DOUBLE)
    margin = GradientKinks(segments=4, radius=0.25)(model, x)
    assert margin.value_jump.values.item() == pytest.approx(4 / 0.5)
    assert margin.slope_jump.values.item() == 0
    assert margin.density.values.item() == pytest.approx(1 / 0.5)
    assert margin.density.details["margin"].tolist() == [4.0]
    logits = GradientKinks(segments=4, radius=0.25, of="logits")(model, x)
    assert logits.value_jump.values.item() == pytest.approx(math.sqrt(10) / 0.5)


@pytest.mark.parametrize("of", ["margin", "logits"])
def test_slope_jumps_are_the_variation_of_the_directional_derivative(of: str) -> None:
    model, x, radius = network("relu"), inputs(3), 1.5
    found = GradientKinks(segments=6, radius=radius, of=of)(model, x)
    table = found.density.details["table"]
    order = model(x).topk(2, dim=1).indices
    directions = torch.Generator().manual_seed(0)
    for example in range(3):
        total = 0.0
        for u in torch.randn(6, 4, generator=directions, dtype=DOUBLE):
            s = torch.linspace(-radius, radius, 20_001, dtype=DOUBLE)
            f = model(x[example] + s[:, None] * u / u.norm()).detach()
            if of == "margin":
                f = (f[:, order[example, 0]] - f[:, order[example, 1]])[:, None]
            # A kink inside a cell splits its jump over two adjacent differences of one sign.
            total += float(torch.linalg.vector_norm(f.diff(dim=0).diff(dim=0), dim=1).sum() / (s[1] - s[0]))
        expected = total / (6 * 2 * radius)
        assert float(found.slope_jump.values[example].sum()) == pytest.approx(expected, rel=2e-3)
        rows = (table.segment // 6 == example) & table.effective
        density = float(found.density.values[example].sum())
        assert density == pytest.approx(float(table.share[rows].sum()) / (6 * 2 * radius))


def test_units_follow_the_scales() -> None:
    model, x = network("leaky_relu"), inputs()
    plain = GradientKinks(segments=8)(model, x)
    louder = copy.deepcopy(model)
    louder[4].weight.data *= 5
    louder[4].bias.data *= 5
    loud = GradientKinks(segments=8)(louder, x)
    torch.testing.assert_close(loud.density.values, plain.density.values)
    torch.testing.assert_close(loud.slope_jump.values, 5 * plain.slope_jump.values)
    wider = copy.deepcopy(model)
    wider[0].weight.data /= 2
    wide = GradientKinks(segments=8, radius=2.0)(wider, 2 * x)
    torch.testing.assert_close(wide.density.values, plain.density.values / 2)
    torch.testing.assert_close(wide.slope_jump.values, plain.slope_jump.values / 4)


def test_value_jumps_halve_when_the_input_is_stretched() -> None:
    model, x = network("staircase"), inputs()
    plain = GradientKinks(segments=8)(model, x)
    assert plain.value_jump.values.max() > 0
    assert plain.slope_jump.values.max() == 0
    model[0].weight.data /= 2
    wide = GradientKinks(segments=8, radius=2.0)(model, 2 * x)
    torch.testing.assert_close(wide.value_jump.values, plain.value_jump.values / 2)


def test_coincident_units_share_their_vertex() -> None:
    model, x = network("relu"), inputs()
    single = GradientKinks(segments=8)(model, x)
    double = copy.deepcopy(model)
    double[0] = nn.Linear(4, 24, dtype=DOUBLE)
    double[2] = nn.Linear(24, 12, dtype=DOUBLE)
    for k, factor in ((0, 1.0), (2, 0.5)):
        double[k].bias.data = model[k].bias.data if k else model[k].bias.data.repeat(2)
        double[k].weight.data = model[k].weight.data.repeat(*((1, 2) if k else (2, 1))) * factor
    twice = GradientKinks(segments=8)(double, x)
    for a, b in zip(single, twice, strict=True):
        torch.testing.assert_close(a.values, b.values)


def test_measurements_say_what_they_are() -> None:
    model, x = network("relu"), inputs()
    found = GradientKinks(segments=4, seed=3)(model, x, torch.zeros(5, dtype=torch.int64))
    units = ["kinks / input l2", "logit / input l2 per input l2", "logit / input l2"]
    assert [m.unit for m in found] == units
    assert [m.quantity for m in found] == ["kink_density", "slope_jump", "value_jump"]
    for m in found:
        assert m.bound == "estimate"
        assert m.coords == {"layer": ("1", "3")}
        assert m.values.shape == m.details["standard_error"].shape == (5, 2)
        assert m.settings["segments"] == 4
        assert m.settings["seed"] == 3
        assert m.valid.all()
        assert m.to_frame().shape[0] == 10
    assert found.density.details["table"].segments == 20
    assert found.density.details["note"] == ""


def test_standard_error_covers_the_long_run_mean() -> None:
    model, x = network("relu"), inputs(2)
    few = GradientKinks(segments=50, keep_table=False)(model, x).slope_jump
    many = GradientKinks(segments=3000, seed=9, keep_table=False)(model, x).slope_jump
    error = few.details["standard_error"]
    assert ((few.values - many.values).abs() < 4 * error).all()
    assert (error / few.values < 0.2).all()


def test_smooth_networks_measure_exactly_zero() -> None:
    found = GradientKinks(segments=4)(network("gelu"), inputs())
    for m in found:
        assert m.bound == "exact"
        assert m.valid.all()
        assert torch.equal(m.values, torch.zeros(5, 2, dtype=DOUBLE))
        assert m.details["note"] == "no kinks: every activation has a continuous slope"


def test_batches_do_not_matter() -> None:
    model, x = network("relu"), inputs(7)
    whole = GradientKinks(segments=5)(model, x)
    parts = GradientKinks(segments=5, batch_size=3)(model, x)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-10, atol=1e-12)
    tables = [found.density.details["table"] for found in (whole, parts)]
    assert torch.equal(tables[0].segment, tables[1].segment)
    assert tables[0].segments == tables[1].segments == 35


def test_images_float32_and_no_traces_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)).train()
    x, before, state = torch.rand(4, 1, 3, 4), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = GradientKinks(segments=8)(model, x)
    assert found.density.values.max() > 0
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_one_output_has_no_margin_but_logits() -> None:
    model, x = network("relu", outputs=1), inputs()
    with pytest.raises(ValueError, match=r'at least 2 outputs, got 1; use GradientKinks\(of="logits"\)'):
        GradientKinks()(model, x)
    found = GradientKinks(segments=1, of="logits", keep_table=False)(model, x)
    assert found.density.details["standard_error"].isnan().all()
    assert "table" not in found.density.details
    assert "pair" not in found.density.details


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segments": 0}, "segments must be a whole number"),
        ({"radius": -1.0}, "radius must be a positive finite number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"of": "layer"}, "unknown of 'layer'"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientKinks(**settings)  # type: ignore[arg-type]
