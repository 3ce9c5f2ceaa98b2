"""DDN: closed forms, enumerated networks, bookkeeping."""

import pytest
import torch
from torch import nn

from smoothness._norms import vector_norm
from smoothness.attacks import DDN, PGD
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.exact import exact_distances, tiny_network
from tests.attacks.linear import linear_model, nearest_distance, points

FREE = ThreatModel("l2", bounds=None)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_classifiers_are_solved_exactly(classes, dtype):
    model = linear_model(0, features=20, classes=classes, dtype=dtype)
    x, y = points(model)
    ratio = DDN(FREE)(model, x, y).distance / nearest_distance(model, x, y, "l2")
    assert float(ratio.min()) >= 1 - 1e-5
    assert float(ratio.max()) <= 1.001


def test_tiny_networks_are_solved_as_enumeration_says():
    ratios = []
    for seed in range(3, 6):
        model = tiny_network(seed, hidden=4)
        x = 2 * torch.rand(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
        with torch.no_grad():
            y = model(x).argmax(dim=1)
        ratios.append(DDN(FREE)(model, x, y).distance / exact_distances(model, x, y, "l2"))
    ratio = torch.cat(ratios)
    assert float(ratio.min()) >= 1 - 1e-9
    assert float(ratio.median()) <= 1.001
    assert float((ratio <= 1.01).double().mean()) >= 0.75


def test_the_contract_is_kept():
    model = build_model("mlp", "gelu", seed=0, input_shape=(6,), classes=3, width=16)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    for threat in (ThreatModel("l2"), ThreatModel("l2", 0.1), FREE):
        check_attack(DDN(threat, steps=20), model, x, torch.arange(12) % 3)


def test_epsilon_only_decides_what_counts():
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    free = DDN(ThreatModel("l2"))(model, x, y)
    epsilon = float(free.distance.median())
    held = DDN(ThreatModel("l2", epsilon))(model, x, y)
    assert torch.equal(held.success, free.distance <= epsilon)
    assert torch.equal(held.inputs[held.success], free.inputs[held.success])
    assert torch.equal(held.inputs[~held.success], x[~held.success])
    assert set(held.status) == {"fooled", "survived"}
    pgd = PGD(ThreatModel("l2", epsilon))(model, x, y)
    assert int(held.success.sum()) >= int(pgd.success.sum())


def test_bounds_are_kept_and_matter():
    model = linear_model(1, features=5)
    x = torch.rand(30, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    boxed, free = DDN(ThreatModel("l2"))(model, x, y), DDN(FREE)(model, x, y)
    inside = boxed.inputs[boxed.success]
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert bool((boxed.distance >= free.distance * (1 - 1e-3)).all())
    # Where the unbounded answer lies inside the box it is the answer.
    same = ((free.inputs >= 0) & (free.inputs <= 1)).all(dim=1)
    assert bool(same.any())
    torch.testing.assert_close(boxed.distance[same], free.distance[same], rtol=1e-3, atol=0)


def test_fewer_steps_are_never_exceeded():
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for steps, restarts in ((1, 3), (5, 3), (20, 1), (20, 2), (29, 3), (30, 3)):
        passes = DDN(ThreatModel("l2"), steps, restarts)(model, x, y).passes
        assert passes.backward <= len(x) * (1 + 2 + steps)  # the clean look, one per rival class, the steps


class Bent(nn.Module):
    """Class 0 is left at x_1 = 0.8, though from 0 it looks like 0.5, or at x_2 = 0.6."""

    def forward(self, x):
        first, second = x.unbind(dim=1)
        bent = 2 * first.clamp(max=0.4) + 0.5 * (first - 0.4).clamp(min=0) - 1
        return torch.stack([torch.zeros_like(first), bent, second / 0.6 - 1], dim=1)


def test_a_second_start_finds_what_looked_farther():
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    one, two = (DDN(FREE, restarts=restarts)(Bent(), x, y) for restarts in (1, 2))
    torch.testing.assert_close(one.distance, torch.tensor([0.8], dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(two.distance, torch.tensor([0.6], dtype=torch.float64), rtol=1e-3, atol=0)


def test_steps_without_gradient_need_a_surrogate():
    model = build_model("mlp", "step", seed=1, input_shape=(6,), classes=3, width=64)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    native, surrogate = DDN(ThreatModel("l2"))(model, x, y), DDN(ThreatModel("l2"), surrogate="tanh")(model, x, y)
    assert native.status == ("survived",) * 20
    assert surrogate.status.count("fooled") > 10
    lengths = vector_norm((surrogate.inputs - x).double(), "l2")
    torch.testing.assert_close(surrogate.distance[surrogate.success], lengths[surrogate.success])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDN(ThreatModel("linf")), "DDN needs norm 'l2', got 'linf'; use FMN"),
        (lambda: DDN(FREE, steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda: DDN(FREE, restarts=0), "restarts must be a whole number of at least 1, got 0"),
        (lambda: DDN(FREE, gamma=1.0), "gamma must be below 1, got 1.0"),
        (lambda: DDN(FREE, surrogate="tan"), "unknown surrogate shape 'tan'"),
        (lambda: DDN(FREE, batch_size=0), "batch_size must be a whole number"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
