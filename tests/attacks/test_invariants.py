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
