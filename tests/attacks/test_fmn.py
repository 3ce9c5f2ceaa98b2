"""FMN and DeepFool in the three norms: closed forms, enumerated networks, invariants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smoothness._norms import NORMS, vector_norm
from smoothness.attacks import DDN, FMN, PGD, DeepFool
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.exact import exact_distances, tiny_network
from tests.attacks.linear import linear_model, nearest_distance, points

MODELS = {
    name: build_model("mlp", name, seed=0, input_shape=(5,), classes=3, width=8) for name in ("relu", "tanh", "step")
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_classifiers_are_solved_exactly(norm, classes, dtype):
    model = linear_model(1, features=20, classes=classes, dtype=dtype)
    x, y = points(model)
    ratio = FMN(ThreatModel(norm, bounds=None))(model, x, y).distance / nearest_distance(model, x, y, norm)
    assert float(ratio.min()) >= 1 - 1e-5
    assert float(ratio.max()) <= 1.001


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_networks_are_solved_as_enumeration_says(norm):
    ratios = []
    for seed in range(3, 6):
        model = tiny_network(seed, hidden=4)
        x = 2 * torch.rand(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
        with torch.no_grad():
            y = model(x).argmax(dim=1)
        found = FMN(ThreatModel(norm, bounds=(-1.0, 1.0)))(model, x, y).distance
        exact = exact_distances(model, x, y, norm, bounds=(-1.0, 1.0))
        reachable = exact.isfinite()
        ratios.append(found[reachable] / exact[reachable])
    ratio = torch.cat(ratios)
    assert float(ratio.min()) >= 1 - 1e-9
    assert float(ratio.median()) <= 1.001
    assert float((ratio <= 1.01).double().mean()) >= 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_the_contract_is_kept(norm):
    model = build_model("mlp", "gelu", seed=0, input_shape=(6,), classes=3, width=16)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    for threat in (ThreatModel(norm), ThreatModel(norm, 0.1), ThreatModel(norm, bounds=None)):
        check_attack(FMN(threat, steps=20), model, x, torch.arange(12) % 3)


@settings(deadline=None, max_examples=60)
@given(
    norm=st.sampled_from(NORMS),
    seed=st.integers(0, 10_000),
    epsilon=st.none() | st.floats(1e-3, 3.0),
    bounded=st.booleans(),
    activation=st.sampled_from(sorted(MODELS)),
    kind=st.sampled_from(["fmn", "fmn-surrogate", "ddn", "deepfool", "targeted"]),
    double=st.booleans(),
)
def test_points_stay_inside(norm, seed, epsilon, bounded, activation, kind, double):
    dtype = torch.float64 if double else torch.float32
    model = MODELS[activation].to(dtype)
    x = torch.rand(8, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x[0], x[1] = x[0].round(), x[1].round()  # corners of the box
    y = torch.arange(8) % 3
    bounds = (0.0, 1.0) if bounded else None
    threat = ThreatModel("l2" if kind == "ddn" else norm, epsilon, bounds=bounds)
    attack = {
        "fmn": lambda: FMN(threat, steps=18),
        "fmn-surrogate": lambda: FMN(threat, steps=5, surrogate="tanh"),
        "ddn": lambda: DDN(threat, steps=18),
        "deepfool": lambda: DeepFool(threat, steps=5),
        "targeted": lambda: FMN(threat, steps=18, targeted=True),
    }[kind]()
    result = attack(model, x, y)
    assert bool(result.inputs.isfinite().all())
    if epsilon is not None:
        assert float(vector_norm(result.inputs.double() - x.double(), threat.norm).max()) <= epsilon + 1e-6
    if bounded:
        assert float(result.inputs.min()) >= 0
        assert float(result.inputs.max()) <= 1
    with torch.no_grad():
        prediction = model(result.inputs).argmax(dim=1)
    assert torch.equal(result.success, (prediction == y) if kind == "targeted" else (prediction != y))
    assert torch.equal(result.inputs[~result.success], x[~result.success])


@pytest.mark.parametrize(
    "attack",
    [FMN(ThreatModel(norm), steps=40) for norm in NORMS]
    + [DDN(ThreatModel("l2"), steps=40), DeepFool(ThreatModel("l2"))],
    ids=lambda attack: f"{attack.label}-{attack.threat.norm}",
)
def test_batches_do_not_matter(attack):
    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(30) % 3
    whole = attack(model, x, y)
    for size in (1, 7):
        part = type(attack)(**{**vars(attack), "batch_size": size})(model, x, y)
        torch.testing.assert_close(part.inputs, whole.inputs, atol=1e-6, rtol=0)
        assert part.status == whole.status


@pytest.mark.parametrize("norm", NORMS)
def test_no_farther_than_a_fixed_radius_that_works(norm):
    model = build_model("mlp", "softplus", seed=0, input_shape=(6,), classes=3, width=24).double()
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    distance = FMN(ThreatModel(norm))(model, x, y).distance
    epsilon = float(distance.median()) * 0.99
    strong = PGD(ThreatModel(norm, epsilon), loss="margin", restarts=4)(model, x, y)
    assert not bool((strong.success & (distance > epsilon * 1.01)).any())


def test_failing_outputs_are_neither_robust_nor_successes():
    class FailsAbove(nn.Module):
        def __init__(self, model, limit):
            super().__init__()
            self.model, self.limit = model, limit

        def forward(self, x):
            return self.model(x) + torch.where(x[:, :1] > self.limit, torch.nan, 0.0)

    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24)
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for attack in (FMN(ThreatModel("l2")), DDN(ThreatModel("l2")), DeepFool(ThreatModel("l2"))):
        result = attack(FailsAbove(model, 0.6), x, y)
        failed = torch.tensor([status == "model_failure" for status in result.status])
        assert bool(failed[x[:, 0] > 0.6].all())
        assert not bool((result.success & failed).any())
        assert bool((result.distance[failed] == torch.inf).all())
        assert bool(result.inputs.isfinite().all())


@pytest.mark.parametrize("factor", [1e-20, 1e20])
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_logits_does_not_matter(norm, factor):
    class Scaled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x) * factor

    model = build_model("mlp", "relu", seed=0, input_shape=(6,), classes=3, width=24)
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for attack in (FMN(ThreatModel(norm)), DeepFool(ThreatModel(norm))):
        plain, scaled = attack(model, x, y), attack(Scaled(model), x, y)
        assert scaled.status == plain.status
        torch.testing.assert_close(scaled.distance, plain.distance, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_more_starts_never_exceed_the_steps(norm):
    model = build_model("mlp", "relu", seed=0, input_shape=(5,), classes=3, width=8)
    x = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    for steps, restarts in ((1, 2), (33, 2), (40, None)):
        passes = FMN(ThreatModel(norm), steps, restarts)(model, x, y).passes
        assert passes.backward <= len(x) * (1 + 2 + steps)  # the clean look, one per rival class, the steps


def test_at_least_one_start_is_asked_for():
    with pytest.raises(ValueError, match="restarts must be a whole number of at least 1, got 0"):
        FMN(ThreatModel("linf"), restarts=0)
