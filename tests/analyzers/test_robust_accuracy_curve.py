"""Curves against closed forms, and against attacks that do not fit each other."""

import pytest
import torch
from torch import nn

from smoothness.analyzers import RobustAccuracyCurve
from smoothness.attacks import PGD, Cascade, Noise
from smoothness.models import build_model
from smoothness.testing import check_analyzer
from smoothness.threat import ThreatModel


def two_classes(margins):
    """f(x) = (x_0, x_1): the linf distance is half of the margin."""
    x = torch.tensor([[0.5 + m / 2, 0.5 - m / 2] for m in margins], dtype=torch.float64)
    return nn.Identity(), x, torch.zeros(len(margins), dtype=torch.long)


def test_the_curve_is_that_of_the_closed_form():
    model, x, y = two_classes([0.1, 0.3, 0.5, -0.1])
    found = RobustAccuracyCurve("linf", (0.2, 0.01, 0.1))(model, x, y)
    assert found.coords == {"epsilon": (0.01, 0.1, 0.2)}
    assert (found.quantity, found.bound, found.unit) == ("robust_accuracy", "upper", "1")
    assert found.values.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert [point["robust_accuracy"] for point in found.details["curve"]] == [0.75, 0.5, 0.25]
    for point in found.details["curve"]:
        assert point["by_distance"] == point["by_radius"] == point["robust_accuracy"]
        assert point["low"] <= point["robust_accuracy"] <= point["high"]
    assert [pair["p"] for pair in found.details["monotone"]] == [1.0, 1.0]
    assert len(found.to_frame()) == 12


def test_the_contract_is_kept():
    check_analyzer(RobustAccuracyCurve("linf", (0.05, 0.2)), *two_classes([0.1, 0.3, 0.5, -0.1]))


def test_successes_are_carried_forward_and_the_raw_runs_told():
    class Fickle(Noise):  # finds nothing at larger radii
        def __call__(self, model, x, y):
            return PGD(ThreatModel("linf", self.threat.epsilon if self.threat.epsilon < 0.2 else 1e-6))(model, x, y)

    model, x, y = two_classes([0.1, 0.15, 0.9])
    far = PGD(ThreatModel("linf", 1e-6))  # in place of a minimal-norm attack: finds nothing either
    found = RobustAccuracyCurve("linf", (0.1, 0.2), attack=Fickle, nearest=far)(model, x, y)
    assert found.values.tolist() == [[0, 0], [0, 0], [1, 1]]
    curve, (pair,) = found.details["curve"], found.details["monotone"]
    assert [point["by_radius"] for point in curve] == [pytest.approx(1 / 3), 1.0]
    assert [point["only_radius"] for point in curve] == [2, 0]
    assert (pair["lost"], pair["gained"], pair["p"]) == (2, 0, 0.25)


def test_networks_with_jumps_need_the_cascade():
    model = build_model("mlp", "step", seed=0, input_shape=(6,), classes=3, width=24)
    x = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    gradients, cascade = (
        RobustAccuracyCurve("linf", (0.3,), attack=attack)(model, x, y).details["curve"][0]["by_radius"]
        for attack in (PGD, Cascade)
    )
    assert cascade < gradients


def test_failing_outputs_are_not_valid():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0.5, torch.nan, 1.0) * x[:, 1:3]

    x = torch.tensor([[0.9, 0.7, 0.1], [0.1, 0.7, 0.1]])
    found = RobustAccuracyCurve("linf", (0.05,))(Broken(), x, torch.tensor([0, 0]))
    assert found.valid.tolist() == [False, True]
    assert found.values[1].item() == 1


def test_settings_are_checked():
    with pytest.raises(ValueError, match="epsilons is empty"):
        RobustAccuracyCurve("linf", ())
    with pytest.raises(ValueError, match="epsilons must be a positive finite number"):
        RobustAccuracyCurve("linf", (0.1, -0.1))
