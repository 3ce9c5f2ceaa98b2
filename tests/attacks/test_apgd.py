"""APGD: losses, schedule, closed forms, bookkeeping."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smoothness._norms import DUAL, NORMS, project_to_ball, vector_norm
from smoothness.attacks import APGD, PGD, margin_loss
from smoothness.attacks._climb import checkpoints
from smoothness.attacks._l1 import project_to_l1_box, sparse_direction
from smoothness.attacks.losses import OBJECTIVES, Aim
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.exact import exact_distances, tiny_network
from tests.attacks.linear import linear_model, points

LINF = ThreatModel("linf", 0.1)
LOSSES = sorted(OBJECTIVES)


def network(activation="relu", features=6, dtype=torch.float64, classes=4):
    return build_model("mlp", activation, seed=4, input_shape=(features,), classes=classes, width=24).to(dtype)


def batch(model, n=30, features=6, dtype=torch.float64):
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3  # some clean errors
    return x, y


def written_out(loss, logits, labels, targets, scale):
    """The published formulas, by sorting."""
    top = logits.sort(dim=1, descending=True).values
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    target = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    return {
        "ce": nn.functional.cross_entropy(logits * scale, labels, reduction="none"),
        "margin": margin_loss(logits, labels),
        "dlr": margin_loss(logits, labels) / (top[:, 0] - top[:, 2]),
        "dlr-targeted": (target - true) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2),
    }[loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_the_published_ones_and_their_directions_the_gradients(loss):
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels, targets = torch.arange(40) % 6, (torch.arange(40) + 2) % 6
    scale = torch.rand(40, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    expected = written_out(loss, logits, labels, targets, scale)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    values, ascent = OBJECTIVES[loss](logits.detach(), labels.unsqueeze(1), Aim(scale, targets.unsqueeze(1)))
    if loss == "ce":
        values = nn.functional.softplus(values)  # the value is log Σ exp(f_j) - f_y, which never saturates
    torch.testing.assert_close(values, expected.detach())
    unit = partial(nn.functional.normalize, eps=1e-9)
    torch.testing.assert_close(unit(ascent, dim=1), unit(gradient, dim=1))
    moving = gradient.abs().amax(dim=1) > 1e-12  # "dlr" is constant where the true class is third
    assert bool(((ascent * gradient).sum(dim=1) > 0)[moving].all())
    assert int(moving.sum()) > 30


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["dlr", "dlr-targeted"])
def test_few_classes(loss, classes):
    model = linear_model(0, classes=classes)
    x, y = points(model)
    threat = ThreatModel("linf", 0.1, bounds=None)
    found, expected = (APGD(threat, loss=name, drop_fooled=False)(model, x, y) for name in (loss, "margin"))
    assert torch.equal(found.success, expected.success)
    assert 0 < int(found.success.sum()) < 40


def test_checkpoints_are_the_published_ones():
    places = [0.0, 0.22]
    while places[-1] < 1:
        places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
    assert list(checkpoints(100, "l2")) == [round(100 * place) for place in places[1:-1]]
    for steps in range(1, 30):
        found = checkpoints(steps, "linf")
        assert all(0 < place < steps for place in found)
        assert all(b - a == found[b] for a, b in itertools.pairwise(found))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.01, 4.0), scale=st.floats(0.01, 10.0))
def test_the_projection_onto_ball_and_box_is_the_nearest_point(seed, radius, scale):
    generator = torch.Generator().manual_seed(seed)
    offset = scale * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    lowest, highest = (torch.rand(5, 7, generator=generator, dtype=torch.float64).round(decimals=1) for _ in "ab")
    found = project_to_l1_box(offset, -lowest, highest, radius)
    assert bool((found <= highest).all() and (found >= -lowest).all())
    assert float(vector_norm(found, "l1").max()) <= radius + 1e-9
    # Nearest: the residual makes an angle of 90° or more with the way to any other point of the set.
    for _ in range(20):
        other = torch.randn(5, 7, generator=generator, dtype=torch.float64).clamp(-lowest, highest)
        other = other * (radius / vector_norm(other, "l1").clamp_min(1e-12)).clamp_max(1).unsqueeze(1)
        assert bool((((offset - found) * (other - found)).sum(dim=1) <= 1e-9 * scale).all())
    wide = torch.full_like(offset, torch.inf)
    torch.testing.assert_close(project_to_l1_box(offset, -wide, wide, radius), project_to_ball(offset, "l1", radius))


def test_sparse_steps_take_the_largest_coordinates():
    gradient = torch.tensor([[[3.0, -4.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    step = sparse_direction(gradient, torch.tensor([2, 2]))
    assert torch.equal(step, torch.tensor([[[0.5, -0.5], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_linear_classifiers_reach_the_closed_form(norm, loss):
    model = linear_model(3, classes=5)
    x, y = points(model)
    epsilon = {"linf": 0.15, "l2": 0.5, "l1": 1.0}[norm]
    result = APGD(ThreatModel(norm, epsilon, bounds=None), loss=loss)(model, x, y)
    with torch.no_grad():
        logits, difference = model(x), model.weight.unsqueeze(0) - model.weight[y].unsqueeze(1)
        reach = vector_norm(difference.flatten(0, 1), DUAL[norm]).view(len(x), -1)
        losses = logits - logits.gather(1, y.unsqueeze(1)) + epsilon * reach
    worst = losses.scatter(1, y.unsqueeze(1), -torch.inf).amax(dim=1)
    assert not bool((result.success & (worst < -1e-9)).any())
    missed = (worst > 0.02) & ~result.success
    assert int(missed.sum()) <= (0 if loss == "dlr-targeted" else 2)  # the leading rival need not be the nearest
    assert 5 < int(result.success.sum()) < 38


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_networks_as_enumeration_says(norm):
    missed = 0
    for seed in (3, 4):
        model = tiny_network(seed, hidden=4)
        x = 2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
        with torch.no_grad():
            y = model(x).argmax(dim=1)
        exact = exact_distances(model, x, y, norm, bounds=(-1.0, 1.0))
        epsilon = float(exact.median())
        threat = ThreatModel(norm, epsilon * 1.01, bounds=(-1.0, 1.0))
        found = APGD(threat, steps=50, loss="dlr-targeted", restarts=4)(model, x, y)
        assert not bool((found.success & (exact > epsilon * 1.01 + 1e-9)).any())
        missed += int((~found.success & (exact <= epsilon)).sum())
    assert missed <= 1  # of six that can be fooled


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_logits_does_not_matter(norm, loss):
    class Scaled(nn.Module):
        def __init__(self, model, factor):
            super().__init__()
            self.model, self.factor = model, factor

        def forward(self, x):
            return self.model(x) * self.factor

    model = network(dtype=torch.float32)
    x, y = batch(model, n=40, dtype=torch.float32)
    attack = APGD(ThreatModel(norm, {"linf": 0.1, "l2": 0.2, "l1": 0.4}[norm]), steps=30, loss=loss)
    plain = attack(model, x, y)
    assert {"fooled", "survived"} <= set(plain.status)
    for factor in (1e-20, 1e-3, 50.0, 1000.0, 1e20):
        assert attack(Scaled(model, factor), x, y).status == plain.status


@pytest.mark.parametrize("norm", NORMS)
def test_at_least_as_strong_as_plain_steps(norm):
    model = network("softplus")
    x, y = batch(model, n=80)
    threat = ThreatModel(norm, {"linf": 0.08, "l2": 0.2, "l1": 0.4}[norm])
    own, plain = APGD(threat, steps=40)(model, x, y), PGD(threat, steps=40)(model, x, y)
    assert int(own.success.sum()) >= int(plain.success.sum())


@pytest.mark.parametrize(
    "attack",
    [
        *(APGD(LINF, steps=30, loss=loss) for loss in LOSSES),
        APGD(LINF, steps=30, drop_fooled=False, restarts=2),
        APGD(LINF, steps=30, drop_fooled=True, restarts=2),
        APGD(ThreatModel("l2", 0.2), steps=30, surrogate="tanh"),
        APGD(ThreatModel("l1", 0.4), steps=30, loss="dlr"),
    ],
    ids=lambda attack: f"{attack.label}-{attack.threat.norm}",
)
def test_batches_do_not_matter(attack):
    model = network()
    x, y = batch(model)
    whole = attack(model, x, y)
    for size in (1, 7):
        part = type(attack)(**{**vars(attack), "batch_size": size})(model, x, y)
        torch.testing.assert_close(part.inputs, whole.inputs, atol=1e-6, rtol=0)
        assert part.status == whole.status


def test_dropping_early_or_late_gives_the_same_points_and_saves_passes():
    model = network()
    x, y = batch(model, n=60)
    early, late, kept = (APGD(LINF, steps=30, drop_fooled=how)(model, x, y) for how in (True, "auto", False))
    torch.testing.assert_close(early.inputs, late.inputs, atol=1e-6, rtol=0)
    assert early.status == late.status == kept.status
    assert early.passes.total <= late.passes.total < kept.passes.total
    right = 60 - kept.status.count("clean_error")
    assert kept.passes == (60 + 32 * right, 60 + 30 * right)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_the_contract_is_kept(norm, loss):
    model = network("gelu", dtype=torch.float32)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    check_attack(APGD(ThreatModel(norm, 0.1), steps=10, loss=loss, target_classes=2), model, x, torch.arange(12) % 4)


@settings(deadline=None, max_examples=40)
@given(
    norm=st.sampled_from(NORMS),
    seed=st.integers(0, 10_000),
    epsilon=st.floats(1e-4, 3.0),
    bounded=st.booleans(),
    activation=st.sampled_from(["relu", "tanh", "step"]),
    loss=st.sampled_from(LOSSES),
    double=st.booleans(),
)
def test_points_stay_inside_and_are_never_worse_than_clean(norm, seed, epsilon, bounded, activation, loss, double):
    dtype = torch.float64 if double else torch.float32
    model = network(activation, features=5, dtype=dtype)
    x = torch.rand(8, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x[0], x[1] = x[0].round(), x[1].round()  # corners of the box
    y = torch.arange(8) % 4
    threat = ThreatModel(norm, epsilon, bounds=(0.0, 1.0) if bounded else None)
    result = APGD(threat, steps=8, loss=loss, seed=seed, target_classes=2, drop_fooled=bool(seed % 2))(model, x, y)
    assert float((vector_norm(result.inputs.double() - x.double(), norm)).max()) <= epsilon + 1e-6
    if bounded:
        assert float(result.inputs.min()) >= 0
        assert float(result.inputs.max()) <= 1
    with torch.no_grad():
        assert torch.equal(result.success, model(result.inputs).argmax(dim=1) != y)
        assert bool((margin_loss(model(result.inputs), y) >= margin_loss(model(x), y) - 1e-5).all())


def test_a_step_without_a_graph_counts_as_zero_gradient():
    class ForeignStep(nn.Module):
        def forward(self, z):
            return (z > 0).to(z.dtype)

    model = nn.Sequential(nn.Linear(6, 6), ForeignStep(), nn.Linear(6, 4))
    x, y = batch(model, dtype=torch.float32)
    for loss in LOSSES:
        result = APGD(LINF, steps=5, loss=loss)(model, x, y)
        assert bool(result.zero_gradient.all())
        assert result.passes.backward == 0


def test_failing_outputs_are_neither_robust_nor_successes():
    class FailsAbove(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x) + torch.where(x[:, :1] > 0.6, torch.nan, 0.0)

    model = network()
    x, y = batch(model)
    for norm, loss in itertools.product(NORMS, LOSSES):
        result = APGD(ThreatModel(norm, 0.1), steps=10, loss=loss)(FailsAbove(model), x, y)
        failed = torch.tensor([status == "model_failure" for status in result.status])
        assert bool(failed[x[:, 0] > 0.6].all())
        assert not bool(failed[x[:, 0] < 0.45].any())
        assert not bool((result.success & failed).any())
        assert bool(result.inputs.isfinite().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(ThreatModel("l2")), "needs a radius, got epsilon=None"),
        (lambda: APGD(LINF, steps=0), "steps must be a whole number"),
        (lambda: APGD(LINF, loss="dlr-t"), "unknown loss 'dlr-t'; did you mean 'dlr'"),
        (lambda: APGD(LINF, target_classes=0), "target_classes must be a whole number"),
        (lambda: APGD(LINF, loss="dlr-targeted", targeted=True), "chooses its own targets; .* use loss='dlr'"),
        (lambda: APGD(LINF, drop_fooled="never"), "drop_fooled must be True, False or 'auto'"),
        (lambda: APGD(LINF, surrogate="tan"), "unknown surrogate shape 'tan'"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels():
    assert APGD(LINF, loss="dlr-targeted").label == "apgd-dlr-targeted"
    assert APGD(LINF, loss="margin", surrogate="tanh").label == "apgd-margin-tanh"
