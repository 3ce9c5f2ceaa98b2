"""Threat models and measurements."""

import math

import pytest
import torch

from smoothness.measurement import Bracket, Measurement
from smoothness.threat import ThreatModel


def test_keys_are_stable_and_tell_threats_apart():
    assert ThreatModel("linf", 8 / 255).key() == "6d563ff6cb16fc3e"
    threats = [
        ThreatModel("linf", 8 / 255),
        ThreatModel("l2", 8 / 255),
        ThreatModel("linf", 4 / 255),
        ThreatModel("linf", None),
        ThreatModel("linf", 8 / 255, bounds=None),
        ThreatModel("linf", 8 / 255, bounds=(-1.0, 1.0)),
        ThreatModel("linf", 8 / 255, bounds=(torch.zeros(3), torch.ones(3))),
        ThreatModel("linf", 8 / 255, bounds=(torch.zeros(3, 1), torch.ones(3, 1))),
    ]
    assert len({threat.key() for threat in threats}) == len(threats)
    assert ThreatModel("linf", 0.1, (0, 1)).key() == ThreatModel("linf", 0.1, (torch.zeros(()), 1.0)).key()


def test_limits_and_membership():
    threat = ThreatModel("linf", 0.2, bounds=(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.5])))
    x = torch.tensor([[0.1, 0.4]])
    low, high = threat.limits(x)
    torch.testing.assert_close(low, torch.tensor([[0.0, 0.2]]))
    torch.testing.assert_close(high, torch.tensor([[0.3, 0.5]]))
    threat.check_inside(x)
    with pytest.raises(ValueError, match=r"outside the threat model's bounds in rows \[1\]"):
        threat.check_inside(torch.tensor([[0.5, 0.0], [0.5, 0.6]]))
    ThreatModel("l2", 1.0, bounds=None).check_inside(torch.tensor([[1e9]]))
    unbounded = ThreatModel("l2", None, bounds=None).limits(x)
    assert unbounded[0].isneginf().all()
    assert unbounded[1].isposinf().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l3", 0.1), "unknown norm 'l3'"),
        (("linf", 0.0), "epsilon must be a positive finite number, got 0.0"),
        (("linf", math.nan), "epsilon must be a positive finite number"),
        (("linf", 0.1, (1.0, 0.0)), "low below high"),
        (("linf", 0.1, (0.0, math.nan)), "low below high"),
        (("linf", 0.1, (0.0,)), r"bounds must be \(low, high\)"),
    ],
)
def test_bad_threats(arguments, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel(*arguments)


def test_frame_has_a_row_per_example_and_coordinate():
    measurement = Measurement(
        "robust_accuracy",
        torch.tensor([[1.0, 0.0], [0.5, math.nan]]),
        unit="1",
        bound="upper",
        coords={"epsilon": (0.1, 0.2)},
        valid=torch.tensor([True, False]),
    )
    frame = measurement.to_frame()
    assert list(frame.columns) == ["example", "quantity", "epsilon", "value", "bound", "unit", "valid"]
    assert frame["example"].tolist() == [0, 0, 1, 1]
    assert frame["epsilon"].tolist() == [0.1, 0.2, 0.1, 0.2]
    assert frame["value"].tolist()[:3] == [1.0, 0.0, 0.5]
    assert frame["valid"].tolist() == [True, True, False, False]


def test_global_quantities_have_example_minus_one():
    scalar = Measurement("clean_accuracy", torch.tensor(0.5), unit="1", bound="exact")
    assert scalar.to_frame()["example"].tolist() == [-1]
    layers = Measurement("norm", torch.tensor([1.0, 2.0]), "1", "upper", coords={"layer": ("a", "b")})
    assert not layers.per_example
    assert layers.to_frame()[["example", "layer", "value"]].to_numpy().tolist() == [[-1, "a", 1.0], [-1, "b", 2.0]]


def test_two_coordinates_vary_last_first():
    values = torch.arange(12.0).reshape(2, 2, 3)
    coords = {"attack": ("a", "b"), "epsilon": (1, 2, 3)}
    frame = Measurement("m", values, "1", "lower", coords=coords).to_frame()
    row = frame[(frame["example"] == 1) & (frame["attack"] == "a") & (frame["epsilon"] == 3)]
    assert row["value"].item() == values[1, 0, 2]


def test_detached_on_the_cpu():
    values = torch.ones(2, requires_grad=True) * 2
    measurement = Measurement("m", values, "1", "exact")
    assert not measurement.values.requires_grad
    assert measurement.valid.tolist() == [True, True]
    assert Bracket(measurement, measurement).upper is measurement


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bound": "lowr"}, "unknown bound 'lowr'; did you mean 'lower'"),
        ({"coords": {"epsilon": (1, 2)}}, r"values of shape \(3,\) do not end in the coordinates'"),
        ({"valid": torch.ones(2, dtype=torch.bool)}, r"valid must have shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_measurements(changes, message):
    with pytest.raises(ValueError, match=message):
        Measurement(**{"quantity": "m", "values": torch.zeros(3), "unit": "1", "bound": "exact", **changes})
