"""Transfer between linear models, where everything has a closed form."""

import math

import pytest
import torch
from torch import nn

from smoothness.analyzers import TransferMatrix
from smoothness.attacks import PGD
from smoothness.testing import check_analyzer
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)


def linear(*rows):
    model = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model


ONE = linear((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0))
TWIN = linear((5.0, 0.0, 0.0, 0.0), (0.0, 5.0, 0.0, 0.0))
OTHER = linear((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))  # looks at other features


def batch():
    x = torch.tensor([[0.6, 0.5, 0.6, 0.5], [0.9, 0.1, 0.9, 0.1], [0.2, 0.6, 0.9, 0.1], [0.55, 0.5, 0.56, 0.5]])
    return x, torch.tensor([0, 0, 0, 0])


def test_scaled_twins_transfer_and_orthogonal_models_do_not():
    found = TransferMatrix({"one": ONE, "other": OTHER}, LINF)({"twin": TWIN, "other": OTHER}, *batch())
    success = found.success
    assert success.coords == {"source": ("one", "other"), "target": ("twin", "other")}
    assert (success.quantity, success.bound) == ("transfer_success", "lower")
    # The third example is misclassified by "one" and its twin.
    assert success.values[:, 0, 0].nan_to_num(-1).tolist() == [1, 0, -1, 1]
    assert success.values[:, 1, 1].nan_to_num(-1).tolist() == [1, 0, 0, 1]
    torch.testing.assert_close(found.alignment.values[:, 0, 0], torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found.alignment.values[:, 0, 1], torch.zeros(4, dtype=torch.float64))
    table = {(row["source"], row["target"]): row for row in success.details["table"]}
    assert table["one", "twin"]["examples"] == 3
    assert table["one", "twin"]["success"] == pytest.approx(2 / 3)
    assert table["one", "twin"]["low"] < 2 / 3 < table["one", "twin"]["high"]
    assert len(success.to_frame()) == 4 * 2 * 2


def test_the_contract_is_kept():
    x, y = batch()
    check_analyzer(TransferMatrix({"one": ONE}, LINF), TWIN, x, y)


def test_examples_misclassified_somewhere_are_not_valid():
    found = TransferMatrix({"one": ONE}, LINF)({"twin": TWIN, "other": OTHER}, *batch()).success
    assert found.valid.tolist() == [True, True, False, True]
    assert found.details["reason"][2].startswith("a source or a target misclassifies it")


def test_noise_turns_a_linear_model_as_often_as_signs_agree():
    # Margin 0.1 against two steps of ±0.1: only (-, +) turns it, a quarter of the draws.
    x = torch.tensor([[0.55, 0.45, 0.5, 0.5]]).repeat(400, 1)
    found = TransferMatrix({"one": ONE}, LINF)(TWIN, x, torch.zeros(400, dtype=torch.long))
    assert bool((found.success.values == 1).all())
    assert float(found.noise.values.mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    assert bool((found.shuffled.values == 1).all())  # the same example everywhere: any perturbation does


def test_shuffled_perturbations_are_those_of_other_examples():
    model = linear((1.0, 0.0), (0.0, 1.0))
    x = torch.tensor([[0.55, 0.5], [0.5, 0.55]])
    found = TransferMatrix({"one": model}, LINF)(model, x, torch.tensor([0, 1]))
    assert found.success.values.flatten().tolist() == [1, 1]
    assert found.shuffled.values.flatten().tolist() == [0, 0]


def test_missing_gradients_have_no_direction():
    class Step(nn.Module):
        def forward(self, x):
            return (x[:, :2] > 0.5).to(x.dtype)

    x = torch.tensor([[0.6, 0.4, 0.5, 0.5]])
    found = TransferMatrix({"one": ONE}, ThreatModel("linf", 0.3))(Step(), x, torch.tensor([0]))
    assert bool(found.alignment.values.isnan().all())
    assert float(found.success.values) == 1


def test_the_batch_size_does_not_matter():
    x, y = batch()
    whole, parts = (TransferMatrix({"one": ONE}, LINF, batch_size=size)(OTHER, x, y) for size in (None, 3))
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.values, two.values, equal_nan=True)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="sources is empty"):
        TransferMatrix({}, LINF)
    with pytest.raises(ValueError, match=r"differs from .*; give both the same"):
        TransferMatrix({"one": ONE}, LINF, attack=PGD(ThreatModel("linf", 0.2)))
