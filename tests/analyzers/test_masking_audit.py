"""Planted masks are found, honest models are left alone, and figures are judged by more attacks."""

import functools

import pytest
import torch
from torch import nn

from smoothness.analyzers import MaskingAudit
from smoothness.analyzers.masking_evidence import Lead, differs_from_itself, saturation
from smoothness.attacks import FGSM, PGD, Cascade
from smoothness.data import load_dataset
from smoothness.models import build_model
from smoothness.testing import check_analyzer
from smoothness.threat import ThreatModel
from smoothness.training import Adversarial, Recipe, train

LINF, NARROW = ThreatModel("linf", 0.1), ThreatModel("linf", 0.01)


class Changed(nn.Module):
    """Somebody's model around another: both ends may be changed."""

    def __init__(self, model, before=lambda x: x, after=lambda outputs: outputs):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x):
        return self.after(self.model(self.before(x)))


def noisy(x):
    return x + 0.05 * torch.randn(x.shape, generator=noisy.draws)


noisy.draws = torch.Generator().manual_seed(0)

MASKS = {
    "temperature": lambda model: Changed(model, after=lambda outputs: outputs / 1e-3),
    "zero gradient": lambda model: Changed(model, before=lambda x: x.detach() + 0 * x),
    "random": lambda model: Changed(model, before=noisy),
    "saturated": lambda model: Changed(model, after=lambda outputs: torch.tanh(100 * outputs)),
    "clamped": lambda model: Changed(model, after=lambda outputs: (1000 * outputs).clamp(-1, 1)),
    "one hot": lambda model: Changed(model, after=lambda outputs: ((1000 * outputs).softmax(dim=1) + 1e-12).log()),
}


def small(name="relu", n=24, features=20):
    model = build_model("mlp", name, seed=0, input_shape=(features,), classes=3, width=32)
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("temperature", "the gradient of plain cross-entropy underflows for 100 %"),
        ("zero gradient", "the gradient is exactly zero for 100 %"),
        ("random", "two forward passes of the same inputs differ"),
    ],
)
def test_planted_masks_are_found(mask, said):
    model, x, y = small(n=6)
    if mask == "temperature":
        model = Changed(model, after=lambda outputs: 100 * outputs)  # margins of an untrained model are small
    audit = MaskingAudit(ThreatModel("linf", 0.01), attack=PGD(NARROW, steps=2))(MASKS[mask](model), x, y)
    assert audit.masked
    assert said in "; ".join(audit.reasons)
    assert audit.trustworthy is (mask != "random")


def test_an_honest_model_is_left_alone():
    model, x, y = small()
    audit = MaskingAudit(ThreatModel("linf", 0.02), attack=Cascade(ThreatModel("linf", 0.02)))(model, x, y)
    assert not audit.masked
    assert audit.trustworthy
    evidence, figure = audit.gradient_masked.details["evidence"], audit.figure_trustworthy.details
    assert evidence.examples == 24
    assert (evidence.zero, evidence.vanished, evidence.contradicted) == (0, 0, 0)
    assert figure["interval"][0] < figure["figure"] <= figure["interval"][1]
    assert set(audit.gradient_masked.details["successes"]) == {
        "native", "noise", "surrogate", "continuation", "black-box",
    }  # fmt: skip


def test_a_figure_that_other_attacks_beat_is_not_trusted():
    model, x, y = small("step", n=12)
    audit = MaskingAudit(LINF, attack=PGD(LINF))(model, x, y)
    assert audit.masked
    assert not audit.trustworthy
    assert "attacks alone turn" in "; ".join(audit.figure_trustworthy.details["reasons"])


def test_the_subsample_is_fixed_by_the_seed():
    model, x, y = small(n=30)
    rows = [
        MaskingAudit(ThreatModel("linf", 1e-4), examples=8, seed=seed, attack=PGD(NARROW, steps=2))(model, x, y)
        .gradient_masked.details["rows"]
        .tolist()
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]
    assert len(set(rows[0])) == 8


def test_verdicts_are_global_measurements():
    model, x, y = small(n=4)
    audit = MaskingAudit(ThreatModel("linf", 1e-4), attack=PGD(NARROW, steps=2))(model, x, y)
    for found, quantity in zip(audit, ("gradient_masked", "figure_trustworthy"), strict=True):
        frame = found.to_frame()
        assert frame[["example", "quantity"]].to_numpy().tolist() == [[-1, quantity]]
        assert (found.bound, found.unit) == ("estimate", "1")


def test_the_contract_is_kept():
    model, x, y = small(n=4)
    check_analyzer(MaskingAudit(NARROW, attack=PGD(NARROW, steps=2)), model, x, y)


def test_a_model_without_gradients_is_masked_by_its_error():
    model, x, y = small(n=4)
    numpy = Changed(nn.Identity(), before=lambda x: torch.from_numpy(x.numpy()), after=lambda x: model(x).detach())
    audit = MaskingAudit(ThreatModel("linf", 1e-3), attack=Cascade(ThreatModel("linf", 1e-3)))(numpy, x, y)
    assert audit.masked
    assert audit.reasons[0].startswith("the model has no gradient")
    assert set(audit.gradient_masked.details["left_out"]) == {"native", "surrogate", "continuation"}


def test_saturation_has_a_closed_form():
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5], [-0.5]]))
    x, y = torch.tensor([[1.0], [20.0], [200.0]]), torch.tensor([0, 0, 0])
    vanished, saturated, scale = saturation(model, x, y, 2)
    assert vanished == pytest.approx(1 / 3)  # exp(-200) is below float32's smallest number, exp(-20) is not
    assert saturated == pytest.approx(2 / 3)  # 1 + exp(-20) is 1 in float32
    assert scale == pytest.approx(20 / 2**0.5)
    assert saturation(model.double(), x.double(), y, 3)[:2] == (0, pytest.approx(1 / 3))


def test_leads_need_points_and_chance():
    assert Lead(12, 1, 100, 0.002).counts
    assert not Lead(4, 0, 100, 0.06).counts
    assert not Lead(30, 24, 100, 0.3).counts
    assert Lead(0, 0, 0, 1.0).lead == 0


def test_dropout_in_evaluation_mode_is_not_random():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 2))
    assert not differs_from_itself(model, torch.rand(4, 3))
    assert differs_from_itself(Changed(model, before=noisy), torch.rand(4, 3))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="attack must have a seed, for its second run"):
        MaskingAudit(LINF, attack=FGSM(LINF))
    with pytest.raises(ValueError, match="examples must be a whole number"):
        MaskingAudit(LINF, examples=0)


@functools.cache
def trained(name, adversarial=False, architecture="mlp"):
    data = load_dataset("digits")
    sizes = {"width": 256} if architecture == "mlp" else {}
    model = build_model(architecture, name, seed=0, input_shape=data.input_shape, classes=10, **sizes)
    adversary = Adversarial(LINF, steps=5) if adversarial else None
    train(model, data, Recipe(epochs=15 if adversarial else 40, adversarial=adversary))
    sample = data.test.balanced(100)
    return model, sample.inputs, sample.labels


@pytest.mark.slow
@pytest.mark.parametrize("mask", [*MASKS, "step", "k_winners"])
def test_planted_masks_of_trained_models_are_found(mask):
    model, x, y = trained("relu" if mask in MASKS else mask)
    masked = MASKS[mask](model) if mask in MASKS else model
    assert MaskingAudit(LINF, attack=PGD(LINF))(masked, x, y).masked


HONEST = ["relu", "gelu", "softplus", "tanh", "elu", "silu", "leaky_relu", "sigmoid", "mish"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "adversarial", "architecture"),
    [
        *((name, False, "mlp") for name in HONEST),
        ("relu", False, "cnn"),
        *((name, True, "mlp") for name in ("relu", "gelu", "softplus", "tanh", "elu")),
    ],
)
def test_honest_models_are_left_alone(name, adversarial, architecture):
    model, x, y = trained(name, adversarial, architecture)
    audit = MaskingAudit(LINF, attack=PGD(LINF))(model, x, y)
    assert not audit.masked, audit.reasons


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "sign", "staircase", "quantised_relu", "k_winners"])
def test_full_effort_gives_figures_to_trust_also_where_gradients_are_masked(name):
    audit = MaskingAudit(LINF)(*trained(name))
    assert audit.masked
    assert audit.trustworthy, audit.reasons
