"""What holds for every attack, norm, seed and input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothness._norms import NORMS, vector_norm
from smoothness.attacks import FGSM, PGD, Noise, margin_loss
from smoothness.models import build_model
from smoothness.threat import ThreatModel

MODELS = {
    name: build_model("mlp", name, seed=0, input_shape=(5,), classes=3, width=8) for name in ("relu", "tanh", "step")
}


@settings(deadline=None, max_examples=60)
@given(
    norm=st.sampled_from(NORMS),
    seed=st.integers(0, 10_000),
    epsilon=st.floats(1e-4, 3.0),
    bounded=st.booleans(),
    activation=st.sampled_from(sorted(MODELS)),
    kind=st.sampled_from(["pgd", "pgd-kept", "surrogate", "fgsm", "noise"]),
    double=st.booleans(),
)
def test_points_stay_inside_and_are_never_worse_than_clean(norm, seed, epsilon, bounded, activation, kind, double):
    dtype = torch.float64 if double else torch.float32
    model = MODELS[activation].to(dtype)
    x = torch.rand(8, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x[0], x[1] = x[0].round(), x[1].round()  # corners of the box
    y = torch.arange(8) % 3
    threat = ThreatModel(norm, epsilon, bounds=(0.0, 1.0) if bounded else None)
    attack = {
        "pgd": lambda: PGD(threat, steps=5, seed=seed, restarts=2),
        "pgd-kept": lambda: PGD(threat, steps=5, seed=seed, drop_fooled=False, loss="margin"),
        "surrogate": lambda: PGD(threat, steps=5, seed=seed, surrogate="tanh"),
        "fgsm": lambda: FGSM(threat),
        "noise": lambda: Noise(threat, draws=5, seed=seed),
    }[kind]()
    result = attack(model, x, y)
    assert float((vector_norm(result.inputs.double() - x.double(), norm)).max()) <= epsilon + 1e-6
    if bounded:
        assert float(result.inputs.min()) >= 0
        assert float(result.inputs.max()) <= 1
    with torch.no_grad():
        assert torch.equal(result.success, model(result.inputs).argmax(dim=1) != y)
        assert bool((margin_loss(model(result.inputs), y) >= margin_loss(model(x), y) - 1e-5).all())
    assert bool((result.distance[result.success] <= epsilon + 1e-6).all())


@pytest.mark.parametrize("norm", NORMS)
def test_every_random_start_of_a_constant_model_is_refused_as_success(norm):
    model = torch.nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, 0.0]))
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    result = PGD(ThreatModel(norm, 10.0))(model, x, torch.zeros(6, dtype=torch.long))
    assert result.status == ("survived",) * 6
    assert torch.equal(result.inputs, x)


class Scaled(torch.nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.model(x) * self.factor


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("factor", [1e-25, 1e30])
def test_the_scale_of_the_logits_does_not_stall_the_attack(norm, factor):
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24)
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(dim=1)
    attack = PGD(ThreatModel(norm, {"linf": 0.1, "l2": 0.2, "l1": 0.4}[norm]), loss="margin")
    plain, scaled = attack(model, x, y), attack(Scaled(model, factor), x, y)
    assert scaled.status == plain.status
    assert set(plain.status) == {"fooled", "survived"}


def test_l1_steps_leave_coordinates_at_the_bounds_alone():
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 2.0]]))
        model.bias.copy_(torch.tensor([4.2, 0.0]))
    # Margin 0.2. The steepest coordinate stands at its bound; the other needs 0.1 of the 0.2 allowed.
    x, y = torch.tensor([[1.0, 0.5]]), torch.tensor([0])
    assert PGD(ThreatModel("l1", 0.2), random_start=False)(model, x, y).status == ("fooled",)


@pytest.mark.parametrize("attack", [PGD, FGSM, Noise])
def test_an_example_on_the_boundary_is_attacked(attack):
    model = torch.nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.bias.copy_(torch.tensor([0.0, 0.5]))
    # Both logits are 0.5: the first class is predicted, with margin 0.
    assert attack(ThreatModel("linf", 0.1))(model, torch.tensor([[0.5]]), torch.tensor([0])).status == ("fooled",)


def test_fooled_beats_a_failure_met_on_the_way():
    class FailsAbove(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x - 0.48, 0.48 - x], dim=1) + torch.where(x > 0.55, torch.nan, 0.0)

    x, y = torch.tensor([[0.5], [0.5]]), torch.tensor([0, 0])
    wide, narrow = (Noise(ThreatModel("linf", e), drop_fooled=False)(FailsAbove(), x, y) for e in (0.1, 0.01))
    assert wide.status == ("fooled", "fooled")
    assert wide.success.all()
    assert narrow.status == ("survived", "survived")
