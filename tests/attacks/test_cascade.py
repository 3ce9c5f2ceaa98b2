"""The cascade: exact truths, one rule for every model, and what it says of itself."""

import pytest
import torch
from torch import nn

from smoothness._norms import DUAL, NORMS, vector_norm
from smoothness.activations import activation
from smoothness.attacks import APGD, FGSM, FMN, PGD
from smoothness.attacks.cascade import Cascade
from smoothness.attacks.cascade_result import CascadeResult, Missed
from smoothness.models import build_model
from smoothness.testing import check_attack
from smoothness.threat import ThreatModel
from tests.attacks.exact_distances import distances, tiny

LINF = ThreatModel("linf", 0.1)


def model_and_batch(name="relu", n=30, seed=0, features=6):
    model = build_model("mlp", name, seed=seed, input_shape=(features,), classes=3, width=24)
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


class Foreign(nn.Module):
    """A model of somebody else's that wraps another."""

    def __init__(self, model, change=lambda outputs: outputs):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifiers_fall_just_beyond_the_closed_form(norm):
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(8, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 8, generator=generator, dtype=torch.float64))
        x = torch.randn(3, 8, generator=generator, dtype=torch.float64)
        logits, y = model(x), model(x).argmax(dim=1)
        apart = vector_norm((model.weight[None] - model.weight[y][:, None]).flatten(0, 1), DUAL[norm]).view(3, 3)
        exact = ((logits.gather(1, y[:, None]) - logits) / apart).scatter(1, y[:, None], torch.inf).amin(dim=1)
    for row in range(3):
        for factor, fooled in ((1.01, True), (0.99, False)):
            attack = Cascade(ThreatModel(norm, factor * float(exact[row]), bounds=None))
            assert bool(attack(model, x[row : row + 1], y[row : row + 1]).success) is fooled


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("kind", ["relu", "step"])
def test_tiny_networks_fall_just_beyond_the_enumerated_distance(kind, norm):
    for seed in range(3):
        model, x, y = tiny(activation(kind), seed)
        exact = distances(model, x, y, norm, kind)
        for row in (exact.isfinite() & (exact > 1e-3)).nonzero().flatten().tolist():
            one = x[row : row + 1], y[row : row + 1]
            assert Cascade(ThreatModel(norm, 1.01 * float(exact[row])), "full")(model, *one).success.all()
            assert not FGSM(ThreatModel(norm, 0.99 * float(exact[row])))(model, *one).success.any()


@pytest.mark.slow
def test_the_contract_is_kept():
    model, x, _ = model_and_batch(n=8)
    check_attack(Cascade(LINF), model, x, torch.arange(8) % 3)


def test_the_answer_says_who_turned_what():
    model, x, y = model_and_batch()
    y[0] = (y[0] + 1) % 3  # misclassified as it is
    found = Cascade(LINF)(model, x, y)
    assert isinstance(found, CascadeResult)
    fooled = [status == "fooled" for status in found.status]
    assert [bool(name) for name in found.broken_by] == fooled
    assert found.status[0] == "clean_error"
    assert sum(stage.fooled for stage in found.stages) == sum(fooled)
    for stage in found.stages:
        assert stage.fooled == found.broken_by.count(stage.name)
        assert stage.fooled <= stage.tried
    assert sum(stage.passes.total for stage in found.stages) <= found.passes.total


def test_later_stages_run_on_a_sample_where_gradients_can_be_relied_on():
    model, x, y = model_and_batch(n=60)
    found = Cascade(ThreatModel("linf", 0.02))(model, x, y)
    left = found.status.count("survived")
    assert found.why_all == ""
    assert found.missed == Missed(left, max(5, -(-left // 10)), 0)
    low, high = found.robust_accuracy
    assert high == left / 60
    assert low == pytest.approx(high - (1 - 0.05 ** (1 / found.missed.sampled)) * (left - found.missed.sampled) / 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "sign", "staircase"])
def test_jumps_get_every_stage_by_measurement_alone(name):
    model, x, y = model_and_batch(name, n=20)
    standard, full = (Cascade(LINF, effort)(model, x, y) for effort in ("standard", "full"))
    assert "the native gradient is exactly zero" in standard.why_all
    assert standard.missed is None
    assert standard.status == full.status
    native = next(stage for stage in full.stages if stage.name == "native")
    assert (native.tried, native.passes.total) == (0, 0)
    assert "exactly zero" in native.note


@pytest.mark.slow
def test_a_name_changes_nothing():
    class GELU(nn.Module):  # a step by another name, without a graph
        def forward(self, z):
            return (z > 0).to(z.dtype)

    own, x, y = model_and_batch("step", n=20)
    foreign = nn.Sequential(*[GELU() if type(m).__name__ == "Step" else m for m in own])
    mine, theirs = (Cascade(LINF, "full")(model, x, y) for model in (own, foreign))
    assert abs(int(mine.success.sum()) - int(theirs.success.sum())) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "effort"), [("relu", "standard"), ("step", "full")])
def test_the_batch_size_does_not_matter(name, effort):
    model, x, y = model_and_batch(name, n=16)
    model, x = model.double(), x.double()
    whole, parts = (Cascade(LINF, effort, batch_size=size)(model, x, y) for size in (None, 5))
    assert whole.status == parts.status
    assert whole.broken_by == parts.broken_by
    torch.testing.assert_close(whole.inputs, parts.inputs, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_the_scale_of_the_logits_does_not_matter():
    model, x, y = model_and_batch(n=40)
    plain = Cascade(LINF)(model, x, y)
    for factor in (50.0, 1000.0):
        scaled = Cascade(LINF)(Foreign(model, lambda outputs, factor=factor: factor * outputs), x, y)
        assert int((scaled.success != plain.success).sum()) == 0


def test_a_model_without_gradients_is_attacked_all_the_same():
    model, x, y = model_and_batch(n=6)
    foreign = Foreign(nn.Identity(), lambda x: model(torch.from_numpy(x.numpy())).detach())
    found = Cascade(ThreatModel("linf", 0.3))(foreign, x, y)
    notes = {stage.name: stage.note for stage in found.stages}
    assert notes["native"].startswith("the model has no gradient")
    assert notes["surrogate"] == "no gradients"
    assert int(found.success.sum()) >= int(Cascade(ThreatModel("linf", 0.3))(model, x, y).success.sum()) - 1


@pytest.mark.slow
def test_labels_alone_are_enough():
    model, x, y = model_and_batch(n=6)
    best = Cascade(LINF)(model, x, y).success
    one_hot = Foreign(model, lambda outputs: nn.functional.one_hot(outputs.argmax(dim=1), 3).float())
    for labels in (one_hot, Foreign(model, lambda outputs: outputs.argmax(dim=1))):
        found = Cascade(LINF, "full")(labels, x, y)
        assert int(found.success.sum()) >= int(best.sum()) - 1
        assert next(stage for stage in found.stages if stage.name == "boundary").tried > 0


def test_failing_outputs_are_model_failures():
    model, x, y = model_and_batch(n=12)
    x[0, 0], x[1:, 0] = 0.9, 0.2
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    broken = Foreign(nn.Identity(), lambda x: torch.where(x[:, :1] > 0.5, torch.nan, 1.0) * model(x))
    found = Cascade(LINF)(broken, x, y)
    assert found.status[0] == "model_failure"
    assert not found.success[0]
    assert "model_failure" not in found.status[1:]
    assert found.robust_accuracy[1] == found.status.count("survived") / 11


def test_a_source_is_used():
    class Detached(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x.detach())

    model, x, y = model_and_batch(n=10, features=40)
    found = Cascade(ThreatModel("linf", 0.05), source=model)(Detached(model), x, y)
    assert "transfer" in found.broken_by


def test_settings_are_checked():
    with pytest.raises(ValueError, match="unknown effort 'ful'; did you mean 'full'"):
        Cascade(LINF, "ful")
    with pytest.raises(TypeError, match=r"source must be an nn\.Module or None, got str"):
        Cascade(LINF, source="relu")
    with pytest.raises(ValueError, match="needs a radius"):
        Cascade(ThreatModel("linf"))


def test_attacks_that_need_gradients_say_which_apply_without():
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

    model, x, y = model_and_batch(n=3)
    leaves_torch = Foreign(nn.Identity(), lambda x: model(torch.from_numpy(x.numpy())).detach())
    no_backward = Foreign(model, NoBackward.apply)
    for foreign in (leaves_torch, no_backward):
        for attack in (PGD(LINF), APGD(LINF), FMN(LINF)):
            with pytest.raises(RuntimeError, match=r"the model has no gradient .*attacks that need none apply: Noise"):
                attack(foreign, x, y)
        assert Cascade(ThreatModel("linf", 1e-3))(foreign, x, y).status == ("survived",) * 3
