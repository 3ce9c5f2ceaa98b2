"""The black-box probe: the order of every activation without its facts, and the kinks of random networks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from smoothness.activations import activation, activation_facts, list_activations
from smoothness.analyzers import SmoothnessProbe, kinks_on_segments
from smoothness.analyzers.line_probe import _by_history, probe_line
from smoothness.testing import check_analyzer

ELEMENTWISE = [name for name in list_activations() if activation_facts(name).elementwise]


def on_segment(model, start, end):
    def function(t):
        with torch.no_grad():
            return model(start + torch.from_numpy(t)[:, None] * (end - start)).reshape(len(t), -1).numpy()

    return function


def order(found):
    return min((b.order for b in found.breaks), default=math.inf)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_order_of_every_activation(name):
    truth = activation_facts(name).smoothness_class
    model = activation(name).double().eval()
    ends = torch.tensor([[-7.3]], dtype=torch.float64), torch.tensor([[7.9]], dtype=torch.float64)
    alone = probe_line(on_segment(model, *ends), 1000)
    assert order(alone) == truth
    assert len(alone.breaks) == len(activation_facts(name).breakpoints)
    torch.manual_seed(3)
    widths = (4, 8, 8, 3)
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), activation(name))]
    model = nn.Sequential(*layers[:-1]).double().eval()
    ends = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(5)).double() * 4
    inside = probe_line(on_segment(model, *ends), 1000)
    assert order(inside) == truth
    assert alone.evaluations <= 1000
    assert inside.evaluations <= 1000
    if truth == math.inf:
        assert not inside.breaks


def random_relu(widths, seed):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        linear.weight.data = torch.randn(outputs, inputs) * (2 / inputs) ** 0.5
        linear.bias.data = torch.randn(outputs) * 0.3
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double(), torch.randn(2, 1, widths[0], dtype=torch.float64) * 2


@pytest.mark.parametrize("widths", [(8, 16, 16, 3), (16, 32, 32, 1), (64, 24, 24, 24, 10), (16, 64, 64, 64, 1)])
def test_finds_the_kinks_of_random_networks(widths):
    kinks = found_kinks = false = 0
    for seed in range(20):
        model, (start, end) = random_relu(widths, seed)
        table = kinks_on_segments(model, start, end)
        truth = table.position[table.effective].unique().numpy()
        found = probe_line(on_segment(model, start, end), 1000)
        assert found.evaluations <= 1000
        places = np.array([b.position for b in found.breaks])
        assert all(b.order == 0 for b in found.breaks)
        apart = np.abs(truth[:, None] - places)
        kinks += len(truth)
        found_kinks += int((apart.min(axis=1) < 1e-8).sum())
        false += int((apart.min(axis=0) > 1e-8).sum())
    assert found_kinks >= 0.995 * kinks
    assert false == 0


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        (lambda t: np.maximum(np.abs(t - 0.3), 0.2) + 1e-3 * (t > 0.9), -1.0),
        (lambda t: np.where(t < 0.5, np.abs(t - 0.3), np.cos(t)), -1.0),
        (lambda t: np.where(t < 0.5, np.abs(t - 0.3), 0.2 + (t - 0.5) + (t - 0.5) ** 2), 0.0),
        (lambda t: np.abs(t - 0.3) ** 1.5, 0.5),
        (lambda t: np.abs(t - 0.3) ** 0.5, -0.5),
        (lambda t: np.sign(t - 0.3) * np.abs(t - 0.3) ** 2.5, 1.5),
        (lambda t: np.sin(9 * t) + 1e-2 * np.abs(t - 0.3), 0.0),
        (lambda t: np.exp(-(((t - 0.4) / 0.05) ** 2)), math.inf),
    ],
)
def test_exponents(function, truth):
    found = probe_line(lambda t: function(t)[:, None], 1000)
    assert order(found) == pytest.approx(truth, abs=0.1)


def test_two_bends_that_keep_the_end_lines_apart():
    """Both kinks lie on one side of the place where the outer lines meet, whose own value fits one of them."""
    found = probe_line(lambda t: np.interp(t, [0, 0.25, 0.252, 0.75, 1], [0, 0, 0.05, 0.05 - 0.249, 0])[:, None], 1000)
    assert [b.position for b in found.breaks] == pytest.approx([0.25, 0.252, 0.75], abs=1e-12)


def test_a_spent_budget_leaves_only_true_kinks():
    model, (start, end) = random_relu((16, 64, 64, 64, 1), 0)
    table = kinks_on_segments(model, start, end)
    truth = table.position[table.effective].numpy()
    found = probe_line(on_segment(model, start, end), 450)
    assert found.exhausted
    assert found.evaluations <= 450
    assert 0 < len(found.breaks) < len(truth)
    assert max(np.abs(truth - b.position).min() for b in found.breaks) < 1e-8


def test_size_and_position():
    found = probe_line(lambda t: np.stack([np.where(t > 0.7, 3.0, 0.0) + t, np.abs(t - 0.3)], axis=1), 1000).breaks
    assert [b.order for b in found] == [0.0, -1.0]
    assert found[0].position == pytest.approx(0.3, abs=1e-12)
    assert found[0].size == pytest.approx(2.0)
    assert abs(found[1].position - 0.7) <= found[1].width
    assert found[1].size == pytest.approx(3.0, abs=0.01)


def test_sharp_smooth_bends_are_kinks_from_afar():
    x = torch.zeros(1, 1)
    far = SmoothnessProbe(radius=2.0)(activation("softplus", beta=1e6), x)
    near = SmoothnessProbe(radius=1e-5)(activation("softplus", beta=1e6), x)
    assert far.order.values.item() == 0
    assert near.order.values.item() == math.inf
    (_, found), *_ = far.order.details["table"][0]
    assert found.scales[0] > 1e-6


def test_a_plateau_before_a_jump_is_no_rounding_of_infinity():
    """Fourth differences of 0 at the coarse levels, then a jump between two points of a finer grid."""
    found = _by_history(0.5, 2.0**-12, (0.0, 0.0, 1.0))
    assert found.order == -1
    steps = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), activation("step"), nn.Flatten(), nn.LazyLinear(3))
    torch.manual_seed(0)
    x = torch.rand(2, 1, 12, 12)
    steps(x)
    for parameter in steps.parameters():
        nn.init.normal_(parameter)
    order = SmoothnessProbe(segments=1, radius=1.0)(steps, x).order  # more jumps than the budget tells apart
    assert order.values.tolist() == [-1, -1]


def test_backward_passes_do_not_matter():
    class StraightThrough(nn.Module):
        def forward(self, z):
            return (z > 0.2).to(z) + (z - z.detach())

    class NoGraph(nn.Module):
        def forward(self, z):
            return torch.from_numpy(np.sign(z.detach().numpy() - 0.2))

    for model in (StraightThrough(), NoGraph()):
        found = SmoothnessProbe(segments=1)(model, torch.zeros(1, 1))
        assert found.order.values.item() == -1
        assert found.breaks.values.tolist() == [[0.5, 0.0, 0.0]]
        (_, place), *_ = found.order.details["table"][0]
        assert abs(abs(place.position) - 0.2) < 2e-3


def test_models_in_float32():
    class Narrow(nn.Module):
        def forward(self, z):
            return torch.relu(z.float() * 3 - 0.5)

    found = SmoothnessProbe(segments=1)(Narrow(), torch.zeros(1, 1))
    assert found.order.values.item() == 0
    smooth = SmoothnessProbe(segments=1)(nn.Sequential(Narrow(), nn.Tanh())[1:], torch.zeros(1, 1))
    assert smooth.order.values.item() == math.inf


def test_layers_bad_input_and_contract():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(2, 4)
    assert SmoothnessProbe(of="layer:0")(model, x).order.values.tolist() == [math.inf, math.inf]
    found = SmoothnessProbe(of="layer:1", radius=2.0)(model, x)
    assert found.order.values.tolist() == [0.0, 0.0]
    assert "third" in found.order.details["cannot_exclude"]
    for settings in ({"segments": 0}, {"radius": 0.0}, {"budget": 299}, {"of": "margin"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            SmoothnessProbe(**settings)
    check_analyzer(SmoothnessProbe(segments=1), model, x)
    model[0].weight.data[0] = math.nan
    found = SmoothnessProbe()(model, x)
    assert not found.order.valid.any()
    assert "NaN" in found.order.details["reason"][0]


def test_points_in_parts():
    torch.manual_seed(0)
    sizes = []
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    whole = SmoothnessProbe(segments=1)(model, x)
    assert max(sizes) == 257
    sizes.clear()
    parts = SmoothnessProbe(segments=1, batch_size=10)(model, x)
    assert max(sizes) == 10
    assert parts.order.values.tolist() == whole.order.values.tolist()
    with pytest.raises(ValueError, match="batch_size"):
        SmoothnessProbe(batch_size=0)


def test_large_inputs_are_not_held_all_at_once():
    sizes = []

    class Mean(nn.Module):
        def forward(self, pictures):
            sizes.append(len(pictures))
            return pictures.flatten(1)[:, ::1000].relu().mean(dim=1, keepdim=True)

    SmoothnessProbe(segments=1, budget=300)(Mean(), torch.zeros(1, 3, 224, 224))
    assert max(sizes) == 2**22 // (3 * 224 * 224)
