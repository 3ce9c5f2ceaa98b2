"""Variation of value and gradient: against closed forms, chord sums and the exact kinks."""

import itertools
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import nn

from smoothness.activations import Activation, activation
from smoothness.analyzers import GradientVariation, kinks_on_segments, segment_variation, variation_on_segments
from smoothness.analyzers.chebyshev import antiderivative, coefficients, derivative, evaluate, nodes, variation
from smoothness.analyzers.double import double_model
from smoothness.testing import check_analyzer
from tests.analyzers.test_graph_kinks import Residual, cnn, images

DOUBLE = torch.float64
LEFT, RIGHT = torch.tensor([[-1.0]]), torch.tensor([[3.0]])


def mlp(act, widths=(5, 8, 8, 2), seed=0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, dtype=DOUBLE), activation(act)]
    return nn.Sequential(*layers[:-1])


def segments(count=2, d=5, seed=1):
    return torch.randn(2, count, d, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE) * 3


def test_chebyshev_series():
    x = nodes()
    series = coefficients(torch.stack([x**5 - x, torch.sin(x)], dim=1)[None])
    at = torch.tensor([-0.7, 0.1, 1.0], dtype=DOUBLE)
    assert torch.allclose(evaluate(series, at)[0], torch.stack([at**5 - at, torch.sin(at)], dim=1))
    slope = evaluate(derivative(series), at)[0]
    assert torch.allclose(slope, torch.stack([5 * at**4 - 1, torch.cos(at)], dim=1), atol=1e-11)
    again = derivative(antiderivative(series))[:, :17]
    assert torch.allclose(again, series, atol=1e-13)
    # x^5 - x turns at ±5^(-1/4), with values ∓4/5·5^(-1/4): 4 · that in all, and 0 at both ends.
    assert variation(series[:, :, :1]).item() == pytest.approx(16 / 5 * 5**-0.25)
    both = variation(series).item()
    truth, _ = quad(lambda t: math.hypot(5 * t**4 - 1, math.cos(t)), -1, 1)
    assert both == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("beta", [1.0, 50.0, 1000.0])
def test_softplus_has_the_variation_of_relu(beta):
    """∫ |φ''| over [-1, 3] is σ(3β) - σ(-β); times the length 4 of the segment."""
    found = variation_on_segments(activation("softplus", beta=beta), LEFT, RIGHT)
    truth = 4 * (1 / (1 + math.exp(-3 * beta)) - 1 / (1 + math.exp(min(beta, 700))))
    assert found.slope_curvature.item() == pytest.approx(truth, rel=1e-9)
    assert found.slope_jumps.item() == 0 == found.unresolved.item()
    # Half-height width of σ(1 - σ) around its top: 2 arccosh(√2) · 2 / β, in t a quarter of it.
    top = 2 * math.acosh(math.sqrt(2)) * 2 / beta / 4
    if beta > 10:
        share = found.concentration(torch.tensor([top / 10, top * 0.9, top * 3]))
        assert share[0, 0] == 0
        assert share[0, 2] > 0.9


def test_known_breaks():
    found = variation_on_segments(nn.SELU(), LEFT, RIGHT)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    assert found.slope_jumps.item() == pytest.approx(4 * abs(scale - scale * alpha), rel=1e-9)
    assert found.slope_curvature.item() == pytest.approx(4 * scale * alpha * (1 - math.exp(-1)), rel=1e-9)
    found = variation_on_segments(nn.Hardswish(), torch.tensor([[-4.0]]), torch.tensor([[4.0]]))
    assert found.slope_jumps.item() == pytest.approx(8 * 1.0, rel=1e-9)  # 1/2 at -3 and at 3
    assert found.slope_curvature.item() == pytest.approx(8 * 2.0, rel=1e-9)
    found = variation_on_segments(activation("step"), LEFT, RIGHT)
    assert (found.value_jumps.item(), found.value_slopes.item(), found.slope_jumps.item()) == (1.0, 0.0, 0.0)
    assert found.concentration(torch.ones(1)).isnan().all()


@pytest.mark.parametrize("act", ["gelu", "elu", "selu", "hardswish", "softsign"])
def test_against_quadrature(act):
    """∫ |g''| by scipy on every piece between its breaks, g'' by double backward."""
    model, (starts, ends) = mlp(act, widths=(5, 4, 3, 1)), segments(1)
    found = variation_on_segments(model, starts, ends)
    step = (ends - starts)[0]

    def curvature(t):
        s = torch.tensor(t, dtype=DOUBLE, requires_grad=True)
        (slope,) = torch.autograd.grad(model((starts[0] + s * step)[None]).sum(), s, create_graph=True)
        return float(torch.autograd.grad(slope, s)[0])

    def crossing(part, position, t, unit):
        def away(s):
            return part(starts + s * step)[0, unit].item() - position

        return brentq(away, float(t), float(t) + 5e-5, xtol=1e-15)

    grid = torch.linspace(0, 1, 20001, dtype=DOUBLE)
    x = starts + grid[:, None] * step
    kinks = [0.0, 1.0]
    for layer in (1, 3):
        z = model[:layer](x).detach()
        for b in activation(act).facts().breakpoints:
            row, unit = ((z[1:] > b.position) != (z[:-1] > b.position)).nonzero(as_tuple=True)
            kinks += [crossing(model[:layer], b.position, grid[i], int(u)) for i, u in zip(row, unit, strict=True)]
    kinks.sort()
    pieces = [quad(lambda t: abs(curvature(t)), a, b, limit=200, epsabs=1e-8)[0] for a, b in itertools.pairwise(kinks)]
    assert found.slope_curvature.item() == pytest.approx(sum(pieces), rel=1e-6)
    assert found.closure.max() < 1e-9


def states_of(model):
    """A function of points: on which side of each breakpoint every unit is, and which member of each window wins."""

    def states(x):
        seen = []

        def keep(module, inputs, _):
            z = inputs[0].detach()
            if isinstance(module, nn.MaxPool2d):
                pool = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
                seen.append(nn.functional.max_pool2d(z, *pool, return_indices=True)[1].flatten(1))
            else:
                seen.extend((z > b.position).long().flatten(1) for b in module.facts().breakpoints)

        watched = [m for m in model.modules() if isinstance(m, (Activation, nn.MaxPool2d))]
        hooks = [m.register_forward_hook(keep) for m in watched]
        with torch.no_grad():
            model(x)
        for hook in hooks:
            hook.remove()
        return torch.cat([torch.zeros(len(x), 1), *seen], dim=1)

    return states


@pytest.mark.parametrize("act", ["gelu", "elu", "selu", "hardswish"])
@pytest.mark.parametrize("make", [cnn, Residual])
def test_convolutions_and_residual_networks_against_quadrature(make, act):
    """Breaks by halving a grid of states; ∫ |g''| between them by scipy, g'' by double backward; jumps beside them."""
    model = make(act).double().eval()
    starts, ends = images(1, size=10 if make is cnn else 5)
    step = 0.3 * (ends - starts)[0]
    weights = torch.zeros(1, 2 if make is cnn else 3, dtype=DOUBLE)
    weights[0, 0], weights[0, 1] = 1.0, -1.0
    found = variation_on_segments(model, starts, starts + step, weights=weights)
    states = states_of(model)

    def slopes(t):
        s = torch.tensor(t, dtype=DOUBLE, requires_grad=True)
        (slope,) = torch.autograd.grad((model(starts + s * step) * weights).sum(), s, create_graph=True)
        return slope, s

    def slope(t):
        return float(slopes(t)[0].detach())

    def curvature(t):
        first, s = slopes(t)
        return float(torch.autograd.grad(first, s)[0]) if first.requires_grad else 0.0

    t = torch.linspace(0, 1, 4001, dtype=DOUBLE)
    table = torch.cat([states(starts + some[:, None, None, None] * step) for some in t.split(500)])
    (cells,) = (table[1:] != table[:-1]).any(dim=1).nonzero(as_tuple=True)
    low, high, before = t[cells], t[cells + 1], table[cells]
    for _ in range(44):
        middle = (low + high) / 2
        same = (states(starts + middle[:, None, None, None] * step) == before).all(dim=1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    breaks = [0.0, *((low + high) / 2).tolist(), 1.0]
    assert len(breaks) > (2 if act == "gelu" else 5)
    pieces = [
        quad(lambda t: abs(curvature(t)), a, b, limit=200, epsabs=1e-8, epsrel=1e-9)[0] for a, b in pairwise(breaks)
    ]
    jumps = [abs(slope(b + 1e-9) - slope(b - 1e-9)) for b in breaks[1:-1]]
    assert found.slope_curvature.item() == pytest.approx(sum(pieces), rel=1e-6)
    # At 1e-9 beside a break g' has moved by 1e-9 · g'': summed over the breaks, 1e-6 of the whole at most.
    assert found.slope_jumps.item() == pytest.approx(sum(jumps), rel=1e-6, abs=1e-6 * sum(pieces))
    rises = [quad(lambda t: abs(slope(t)), a, b, limit=200, epsabs=1e-9)[0] for a, b in pairwise(breaks)]
    assert found.value_slopes.item() == pytest.approx(sum(rises), rel=1e-6)
    assert found.closure.max() < 1e-9


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "hardtanh", "jump_relu", "staircase"])
def test_equals_the_exact_kinks(act, monkeypatch):
    model, (starts, ends) = mlp(act), segments(4)
    found = variation_on_segments(model, starts, ends)
    monkeypatch.setattr("smoothness.analyzers.segment_variation._exact_crossings", lambda *_: None)
    bisected = variation_on_segments(model, starts, ends, grid=512)
    table = kinks_on_segments(model, starts, ends)
    for name, jumps in (("slope_jumps", table.jump), ("value_jumps", table.value_jump)):
        sizes = jumps.norm(dim=1) * table.share
        exact = torch.zeros(4, dtype=DOUBLE).index_add(0, table.segment, sizes)
        assert torch.allclose(getattr(found, name), exact, rtol=1e-8, atol=1e-12)
        assert torch.allclose(getattr(bisected, name), exact, rtol=1e-8, atol=1e-12)
    assert found.slope_curvature.max() <= 1e-12 * (1 + found.slope_jumps.max())


def test_chord_sums_in_several_outputs():
    model, (starts, ends) = mlp("selu"), segments(2)
    found = variation_on_segments(model, starts, ends)
    t = torch.linspace(0, 1, 200_001, dtype=DOUBLE)
    for k in range(2):
        x = (starts[k] + t[:, None] * (ends[k] - starts[k])).requires_grad_()
        columns = [torch.autograd.grad(c.sum(), x, retain_graph=True)[0] @ (ends[k] - starts[k]) for c in model(x).T]
        chords = torch.stack(columns, dim=1).diff(dim=0).norm(dim=1).sum().item()
        assert (found.slope_jumps + found.slope_curvature)[k].item() == pytest.approx(
            chords, rel=1e-4
        )  # a kink and bends in one chord
        values = model(x).detach().diff(dim=0).norm(dim=1).sum().item()
        assert found.value_slopes[k].item() == pytest.approx(values, rel=1e-6)


def test_concentration_tells_sharp_from_soft():
    x, scales = torch.zeros(3, 5), (1e-3, 0.1, 1.0)
    shares = {}
    for name, make in {
        "relu": lambda: activation("relu"),
        "sharp": lambda: activation("softplus", beta=500.0),
        "soft": lambda: activation("softplus"),
    }.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 16), make(), nn.Linear(16, 2))
        found = GradientVariation(scales=scales, segments=4)(model, x)
        shares[name] = found.concentration.values.mean(dim=0)
    assert torch.allclose(shares["relu"], torch.ones(3, dtype=DOUBLE))
    assert shares["sharp"][0] < 0.1
    assert shares["sharp"][1] > 0.9
    assert shares["soft"][1] == 0


def test_layers_and_jumps():
    model = mlp("step").float()
    found = GradientVariation(of="layer:1", segments=2, radius=3.0)(model, torch.zeros(2, 5))
    assert found.value_variation.unit == "feature / input l2"
    assert torch.equal(found.value_variation.values, found.value_jump_part.values)
    assert (found.value_variation.values > 0).all()
    assert not found.kink_part.valid.any()
    assert "infinite" in found.kink_part.details["reason"][0]
    linear = GradientVariation(of="layer:0", segments=2)(model, torch.zeros(2, 5))
    assert (linear.kink_part.values == 0).all()
    assert "does not vary" in linear.concentration.details["reason"][0]


def test_a_layer_before_one_that_works_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    linear = GradientVariation(of="layer:0", segments=2)(model, torch.zeros(2, 5))
    assert (linear.kink_part.values == 0).all()


def test_false_derivatives_do_not_close():
    class StraightThrough(nn.Module):
        def forward(self, z):
            return (z > 0).to(z) + (z - z.detach())

    model = nn.Sequential(nn.Linear(3, 8), StraightThrough(), nn.Linear(8, 2))
    found = GradientVariation(radius=5.0)(model, torch.zeros(2, 3))
    assert not found.kink_part.valid.any()
    assert "do not add up" in found.value_variation.details["reason"][0]


def test_bad_input_and_contract():
    for settings in ({"segments": 0}, {"radius": -1.0}, {"of": "layer:"}, {"scales": (0.0,)}, {"grid": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            GradientVariation(**settings)
    with pytest.raises(ValueError, match="unknown layer '9'"):
        GradientVariation(of="layer:9")(mlp("relu"), torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"equal in rows \[0\]"):
        variation_on_segments(nn.ReLU(), LEFT, LEFT)
    with pytest.raises(ValueError, match="one shape"):
        variation_on_segments(nn.ReLU(), LEFT, RIGHT.repeat(2, 1))
    check_analyzer(GradientVariation(segments=2, batch_size=2), mlp("relu").float(), torch.rand(3, 5))
    model = mlp("tanh").float()
    model[0].weight.data[0] = math.nan
    found = GradientVariation(segments=2)(model, torch.rand(3, 5))
    assert not any(bool(m.valid.any()) for m in found)
    assert "NaN" in found.kink_part.details["reason"][0]


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "staircase"])
def test_affine_pieces_need_the_slopes_at_their_ends_alone(name, monkeypatch):
    torch.manual_seed(0)
    act = partial(activation, name)
    layers = [nn.Conv2d(1, 3, 3, stride=2), act(), nn.Conv2d(3, 4, 3, padding=1)]
    model = nn.Sequential(*layers, act(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).double()
    starts, ends = torch.randn(2, 4, 1, 10, 10, dtype=torch.float64)
    points = []
    at = segment_variation._Followed.at
    monkeypatch.setattr(
        segment_variation._Followed, "at", lambda self, segment, t: points.append(len(t)) or at(self, segment, t)
    )
    short = variation_on_segments(model, starts, ends)
    spent = sum(points)
    monkeypatch.setattr(segment_variation, "_affine_panels", lambda *given: segment_variation._panels(*given[:-1]))
    whole = variation_on_segments(model, starts, ends)
    assert spent <= 2 * int(short.pieces.sum()) + 1  # one for the shape of nothing
    assert spent < sum(points[1:]) / 6
    for part in ("value_jumps", "value_slopes", "slope_jumps", "slope_curvature", "unresolved", "closure", "pieces"):
        torch.testing.assert_close(getattr(short, part), getattr(whole, part), rtol=1e-9, atol=1e-9)
    assert not short.slope_curvature.any()


def test_an_affine_piece_whose_ends_disagree_is_interpolated():
    start = torch.zeros(1, 1, dtype=DOUBLE)
    follow = segment_variation._Followed(double_model(nn.Softplus(), start, of="logits"), start, start + 1, None)
    piece = torch.zeros(1, dtype=torch.long), torch.zeros(1).double(), torch.ones(1).double()
    _, slopes = follow.at(piece[0].repeat(2), torch.tensor([0.0, 1.0]).double())
    panels = segment_variation._affine_panels(follow, *piece, (slopes[:1], slopes[1:]))
    assert variation(panels.series).item() == pytest.approx((slopes[1] - slopes[0]).item(), rel=1e-9)
