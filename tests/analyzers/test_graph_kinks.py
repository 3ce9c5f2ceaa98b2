"""Kinks of networks with branches, convolutions and pooling: rebuilt from the table, and equal to a bisection."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation
from smoothness.analyzers import GradientKinks, Kinks, graph_pieces, kinks_by_bisection, kinks_on_segments
from smoothness.testing import check_analyzer
from tests.analyzers.kink_networks import network, segments, vertices

DOUBLE = torch.float64


class Residual(nn.Module):
    """Two convolutions around a shortcut, max and average pooling, batch norm."""

    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm1, self.act1 = (
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            activation(act),
        )
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.act2, self.pool = activation(act), nn.MaxPool2d(2, ceil_mode=True)
        self.mean, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(16, 3)
        for norm in (self.norm1, self.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        count = x.size(0)
        x = self.act1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x))
        y += x
        return self.head(self.mean(self.pool(self.act2(y))).view(count, -1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(16, 2)

    def forward(self, x):
        h = F.relu(self.hidden(x))
        return self.head(torch.cat([h * 2 - 0.3, torch.clamp(h, 0, 1).neg()], dim=1))


def cnn(act="relu"):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), activation(act), nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 8, 3), activation(act), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def vector_mlp():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(5, 8), activation("step"), nn.Linear(8, 8), activation("group_sort"), nn.Linear(8, 9), nn.ReLU(),
        nn.Linear(9, 9), activation("maxout", pool=3), nn.Linear(3, 2),
    )  # fmt: skip


def images(count=2, size=10, seed=3):
    return torch.randn(2, count, 1, size, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def assert_rebuilt(model, starts, ends, table: Kinks):
    """f(t) from the first piece and the table equals the model at 300 places."""
    t = torch.linspace(0.001, 0.999, 300, dtype=DOUBLE)
    wide = (-1, *[1] * (starts.ndim - 1))
    for k in range(len(starts)):
        at, jump, value_jump, _ = vertices(table, k)
        first = float(at[0]) if len(at) else 1.0

        def on_line(u, k=k):
            with torch.no_grad():
                return model(starts[k] + u.view(wide) * (ends[k] - starts[k]))

        low, high = on_line(torch.tensor([first / 4, first * 3 / 4], dtype=DOUBLE))
        past = (t[:, None] > at).to(DOUBLE)
        built = low + (t - first / 4)[:, None] * (high - low) / (first / 2)
        built = built + past @ value_jump + (past * (t[:, None] - at)) @ jump
        assert (built - on_line(t)).abs().max() < 1e-9 * (1 + built.abs().max())


ACTIVATIONS = ("relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid", "softshrink", "hardshrink", "tent",
               "kinked_linear", "step", "jump_relu", "staircase")  # fmt: skip


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("make", [Residual, cnn])
def test_rebuilds_the_function(act, make):
    model = make(act).double().eval()
    starts, ends = images(size=6 if make is Residual else 10)
    assert_rebuilt(model, starts, ends, kinks_on_segments(model, starts, ends))


@pytest.mark.parametrize("make", [Functional, vector_mlp])
def test_functions_and_vector_activations(make):
    model = make().double().eval()
    starts, ends = segments(3, 5)
    assert_rebuilt(model, starts, ends, kinks_on_segments(model, starts, ends))


def test_units_and_windows_are_named():
    """A single winner changes: pixel 0 falls, pixel 3 of the same window rises; they meet at t = 1/2."""
    start, end = torch.zeros(2, 1, 1, 2, 4, dtype=DOUBLE).clone()
    start[0, 0, 0, 2], end[0, 0, 1, 3] = 1.0, 1.0
    table = kinks_on_segments(
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Identity()), start[None][0], end[None][0]
    )
    row = table.unit == 1
    assert table.position[row].tolist() == pytest.approx([0.5])
    assert table.jump[row].tolist()[0] == pytest.approx([0.0, 2.0])
    assert table.layers == ("0",)


@pytest.mark.parametrize("act", ["relu", "hardtanh", "jump_relu"])
def test_equals_the_sequential_way(act):
    """The same MLP with and without a wrapper that hides its sequence."""

    class Wrapped(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return self.body(x) + 0.0

    names = [act if act != "hardtanh" else "leaky_relu"] * 2
    model = network([4, 12, 12, 2], names)
    starts, ends = segments(5, 4)
    plain, traced = kinks_on_segments(model, starts, ends), kinks_on_segments(Wrapped(model), starts, ends)
    for name in ("segment", "layer", "unit", "effective"):
        assert torch.equal(getattr(plain, name), getattr(traced, name)), name
    for name in ("position", "jump", "value_jump"):
        assert torch.allclose(getattr(plain, name), getattr(traced, name), atol=1e-10), name


@pytest.mark.parametrize("make", [lambda: Residual("relu"), lambda: cnn("jump_relu"), vector_mlp])
def test_bisection_finds_the_same(make):
    model = make().double().eval()
    starts, ends = segments(2, 5) if make is vector_mlp else images(1)
    exact, found = kinks_on_segments(model, starts, ends), kinks_by_bisection(model, starts, ends, grid=1024)
    for k in range(len(starts)):
        at, jump, value_jump, felt = vertices(exact, k)
        near, other, value, _ = vertices(found, k)
        match = (at[felt][:, None] - near).abs().min(dim=1)
        assert (match.values < 1e-10).float().mean() > 0.99  # two crossings in one cell may be missed
        same = match.values < 1e-10
        assert torch.allclose(jump[felt][same], other[match.indices[same]], atol=1e-8)
        assert torch.allclose(value_jump[felt][same], value[match.indices[same]], atol=1e-8)


@pytest.mark.parametrize("act", ["selu", "hardswish", "relu", "jump_relu", "hardshrink"])
def test_bisection_against_one_sided_differences(act):
    """Jumps of df/dt by Richardson-extrapolated one-sided differences of the values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), activation(act), nn.Linear(6, 6), activation(act), nn.Linear(6, 2)).double()
    starts, ends = (9 * x for x in segments(2, 5))
    table = kinks_by_bisection(model, starts, ends)
    assert len(table) > 0
    weights = torch.tensor([-11 / 6, 3.0, -3 / 2, 1 / 3], dtype=DOUBLE)  # third order
    for k in range(2):
        at, jump, value_jump, _ = vertices(table, k)
        walls = torch.cat([torch.zeros(1), at, torch.ones(1)]).double()
        for i, t in enumerate(at):
            h = min(1e-4, float(min(walls[i + 1] - walls[i], walls[i + 2] - walls[i + 1])) / 8)
            if h < 1e-6:
                continue
            sides = []
            for sign in (1, -1):
                u = t + sign * (1e-12 + h * torch.arange(4, dtype=DOUBLE))
                values = model(starts[k] + u[:, None] * (ends[k] - starts[k])).detach()
                sides.append((values[0], sign * weights @ values / h))
            scale = 1 + sides[0][1].abs().max()
            assert (sides[0][1] - sides[1][1] - jump[i]).abs().max() < 1e-7 * scale
            assert (sides[0][0] - sides[1][0] - value_jump[i]).abs().max() < 1e-8 * scale


def same_tables(one, other):
    for name in ("segment", "layer", "unit", "effective"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.allclose(one.position, other.position, atol=1e-12)
    assert torch.allclose(one.jump, other.jump, atol=1e-9)
    assert torch.allclose(one.value_jump, other.value_jump, atol=1e-9)


@pytest.mark.parametrize("act", ["relu", "staircase", "k_winners"])
@pytest.mark.parametrize("cap", [2**15, 2**17])
def test_the_cap_divides_the_pieces_and_changes_nothing(monkeypatch, act, cap):
    model = Residual(act).double().eval()
    starts, ends = images(1, size=6)
    whole = kinks_on_segments(model, starts, ends)
    sizes, anew = [], []
    divide, begin = graph_pieces.divide, graph_pieces._Tracing.begin

    def counting(part, room):
        parts = divide(part, room)
        sizes.extend(len(p.pieces.left) for p in parts)
        assert max(len(p.pieces.left) for p in parts) <= room
        return parts

    def beginning(self, spans):
        anew.extend(span for span in spans if span[1] > 0)
        return begin(self, spans)

    monkeypatch.setattr(graph_pieces, "divide", counting)
    monkeypatch.setattr(graph_pieces._Tracing, "begin", beginning)
    monkeypatch.setattr("smoothness.analyzers.kinks._GRAPH_BYTES", cap)
    same_tables(kinks_on_segments(model, starts, ends, max_bytes=1), whole)
    assert sizes
    assert anew or cap > 2**15  # parts that could not wait


@pytest.mark.parametrize("settings", [{}, {"k": 1}, {"k": 5}, {"start_dim": 2}])
def test_k_winners_equal_a_bisection(settings):
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), activation("k_winners", **settings), nn.Conv2d(3, 4, 2), nn.Flatten(),
        activation("k_winners", fraction=0.5), nn.Linear(36, 9), nn.ReLU(), nn.Linear(9, 2),
    ).double()  # fmt: skip
    starts, ends = images(3)
    table = kinks_on_segments(model, starts, ends)
    assert_rebuilt(model, starts, ends, table)
    found = kinks_by_bisection(model, starts, ends)
    # The first layer, whose inputs are continuous: who enters and who leaves is the same.
    mine, theirs = (
        {
            (int(x.segment[i]), int(x.unit[i]), round(float(x.position[i]), 9))
            for i in (x.layer == 0).nonzero().flatten()
        }
        for x in (table, found)
    )
    assert mine == theirs
    assert len(mine) > 10
    assert set(table.position[table.effective].round(decimals=9).tolist()) == set(
        found.position[found.effective].round(decimals=9).tolist()
    )
    assert table.value_jump.abs().max() > 0.01


def test_winners_that_are_zero_do_not_count():
    """Of relu's outputs fewer than k may be positive: then those that are 0 may win or not."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), activation("k_winners", k=6), nn.Linear(8, 2)).double()
    starts, ends = segments(4, 4)
    table = kinks_on_segments(model, 4 * starts, 4 * ends)
    assert_rebuilt(model, 4 * starts, 4 * ends, table)
    plain = kinks_on_segments(nn.Sequential(model[0], model[1], model[3]), 4 * starts, 4 * ends)
    assert len(table) >= len(plain) > 0


def test_what_cannot_be_read_is_named():
    class Gated(nn.Module):
        def forward(self, x):
            return x * torch.relu(x)

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    starts, ends = segments(1, 4)
    cases = [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)), r"'2' \(LayerNorm\).*kinks_by_bisection"),
        (Gated(), "multiplies or divides features"),
        (Branching(), "cannot be traced"),
        (nn.Sequential(nn.Linear(4, 4), activation("k_winners", start_dim=0)), "cannot be read over features"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.GELU(), nn.MaxPool2d(1)), "is curved and a max pooling"),
    ]
    for model, message in cases:
        with pytest.raises(TypeError, match=message):
            kinks_on_segments(model, starts, ends)
    smooth = kinks_by_bisection(nn.Sequential(nn.Linear(4, 8), nn.GELU()), starts, ends)
    assert len(smooth) == 0
    assert smooth.note.startswith("no kinks")


def test_gradient_kinks_of_networks_with_branches_and_curves():
    x = torch.randn(2, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    found = GradientKinks(segments=2, radius=5.0)(Residual("relu"), x)
    assert found.density.coords["layer"] == ("act1", "act2", "pool")
    assert found.density.details["method"] == "exact"
    assert (found.slope_jump.values[:, [0, 2]] > 0).all()
    check_analyzer(GradientKinks(segments=2), Residual("relu"), x)
    curved = nn.Sequential(nn.Flatten(), nn.Linear(49, 16), nn.SELU(), nn.Linear(16, 3))
    found = GradientKinks(segments=2, radius=9.0)(curved, x)
    assert found.density.details["method"] == "bisection"
    assert found.density.values.min() > 0
    with pytest.raises(TypeError, match="kinks_by_bisection"):
        GradientKinks(segments=2, method="exact")(curved, x)


def test_a_single_piece_of_a_wide_layer():
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    model[0].bias.data.fill_(100.0)
    assert len(kinks_on_segments(model, *segments(1, 2))) == 0


def test_a_branch_that_waits_while_another_bends():
    """Pre-activation residual: x stays alive while relu cuts the pieces."""

    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(4, 9), nn.Linear(9, 4)

        def forward(self, x):
            for _ in range(2):
                x = x + self.down(torch.relu(self.up(x)))
            return x

    model = PreActivation().double()
    starts, ends = (3 * x for x in segments(3, 4))
    assert_rebuilt(model, starts, ends, kinks_on_segments(model, starts, ends))


def test_pooling_by_function():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return F.max_pool2d(F.relu(self.conv(x)), 2, stride=1).flatten(1)

    model = Pooled().double()
    starts, ends = images(1, size=5)
    assert_rebuilt(model, starts, ends, kinks_on_segments(model, starts, ends))
