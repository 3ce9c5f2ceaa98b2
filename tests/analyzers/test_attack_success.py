"""Attack success as a measurement."""

import json

import pytest
import torch
from torch import nn

from smoothness.analyzers.attack_success import AttackSuccess
from smoothness.attacks import FGSM, PGD, Cascade, Noise
from smoothness.models import build_model
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)


class NotANumber(nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > 0.5, torch.nan, 1.0) * x[:, 1:3]


def model_and_batch(activation="relu"):
    model = build_model("mlp", activation, seed=0, input_shape=(6,), classes=3, width=16)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (PGD(LINF), "pgd-ce"),
        (PGD(LINF, loss="margin"), "pgd-margin"),
        (PGD(LINF, surrogate="tanh"), "pgd-ce-tanh"),
        (FGSM(LINF), "fgsm"),
        (FGSM(LINF, loss="margin"), "fgsm-margin"),
        (Noise(LINF, kind="corner"), "noise-corner"),
    ],
)
def test_the_measurement_says_what_the_attack_found(attack, label):
    model, x, y = model_and_batch()
    result, found = attack(model, x, y), AttackSuccess(attack)(model, x, y)
    assert (found.quantity, found.bound, found.unit) == ("attack_success", "lower", "1")
    assert found.coords == {"attack": (label,), "epsilon": (0.1,)}
    assert found.values.shape == (20, 1, 1)
    assert torch.equal(found.values.flatten() == 1, result.success)
    assert torch.equal(found.details["inputs"], result.inputs)
    assert found.details["passes"] == {"forward": result.passes.forward, "backward": result.passes.backward}
    assert found.details["status"] == result.status
    settings = json.loads(json.dumps(found.settings))
    assert settings["attack"] == label
    assert settings["threat"] == {"kind": "ThreatModel", "norm": "linf", "epsilon": 0.1, "bounds": [0.0, 1.0]}
    assert set(vars(attack)) <= set(settings)
    assert len(found.to_frame()) == 20


def test_a_name_and_tensor_bounds_are_kept():
    model, x, y = model_and_batch()
    bounds = (torch.zeros(6), torch.ones(6))
    found = AttackSuccess(PGD(ThreatModel("l2", 0.1, bounds=bounds)), name="mine")(model, x, y)
    assert found.coords["attack"] == ("mine",)
    assert json.loads(json.dumps(found.settings))["threat"]["bounds"] == [[0.0] * 6, [1.0] * 6]


def test_model_failures_are_not_valid():
    x = torch.tensor([[0.9, 0.7, 0.1], [0.1, 0.7, 0.1]])
    found = AttackSuccess(PGD(LINF))(NotANumber(), x, torch.tensor([0, 0]))
    assert found.valid.tolist() == [False, True]
    assert bool(found.values[0].isnan().all())
    assert found.values[1].item() == 0
    assert found.details["reason"] == ["the model's outputs are NaN or infinite", ""]


def test_masked_gradients_are_told():
    model, x, y = model_and_batch("step")
    assert bool(AttackSuccess(PGD(LINF))(model, x, y).details["zero_gradient"].all())
    assert AttackSuccess(Noise(LINF))(model, x, y).details["zero_gradient"] is None


def test_an_attack_of_another_kind_works_and_a_function_is_refused():
    class Own:
        def __init__(self):
            self.threat, self.tries = LINF, 3

        def __call__(self, model, x, y):
            return Noise(LINF, draws=self.tries)(model, x, y)

    model, x, y = model_and_batch()
    found = AttackSuccess(Own())(model, x, y)
    assert found.coords["attack"] == ("own",)
    assert found.settings["tries"] == 3
    with pytest.raises(TypeError, match="attack must be an instance with a threat model"):
        AttackSuccess(PGD)


def test_a_cascade_tells_its_stages():
    model, x, y = model_and_batch()
    found = AttackSuccess(Cascade(ThreatModel("linf", 0.02)))(model, x, y)
    assert found.coords["attack"] == ("cascade-standard",)
    details = found.details
    stages = {stage["stage"]: stage for stage in details["stages"]}
    assert list(stages)[:2] == ["noise", "native"]
    assert set(stages["native"]) == {"stage", "tried", "fooled", "passes", "note"}
    assert sum(stage["fooled"] for stage in details["stages"]) == details["status"].count("fooled")
    low, high = details["robust_accuracy"]
    assert low <= high == 1 - float(found.values.mean())
    assert details["missed"]["highest_share"] > 0
    assert details["why_all"] == ""
    json.dumps([details["stages"], details["missed"], found.settings])
