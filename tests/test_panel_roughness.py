"""What a panel says of roughness: on every kind of network, with the kind of each number, and why where it cannot."""

import importlib
import json
import math

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.panel import roughness

X = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
NAMES = ("Variation on segments", "Plateaus", "Curvature", "Probe, from values alone", "Stability of explanations")


def cnn(activation: str = "relu", channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), sm.activation(activation), nn.Flatten(), nn.Linear(16 * channels, 3)
    )


def panel(model: nn.Module) -> sm.Panel:
    return sm.analyze(model, X, model(X).argmax(dim=1))


def rows(found: sm.Panel) -> dict[tuple[str, str], dict]:
    return {(row["section"], row["name"]): row for row in json.loads(found.to_json())["summary"]}


def test_kinks_through_convolutions_and_all_sections():
    found = panel(cnn())
    density = found.measurements["kink_density"]
    direct = sm.GradientKinks(1, 0.5, 0, "margin", keep_table=False)(cnn(), X[:10]).density
    assert torch.equal(density.values, direct.values)
    assert float(density.values.sum()) > 0
    assert {section for section, _ in rows(found)} >= set(NAMES)
    assert not {"kinks and jumps", "variation", "plateaus", "probe"} & set(dict(found.left_out))
    assert all(check.passed for check in found.checks)


def test_every_number_says_what_it_is_worth():
    said = rows(panel(cnn()))
    kinds = {
        ("Curvature", "at the point ÷ slope, median"): "lower bound",
        ("Curvature", "over 0.25 ÷ slope, median"): "estimate",
        ("Plateaus", "flat by its values"): "estimate",
        ("Probe, from values alone", "roughest break found"): "estimate",
        ("Stability of explanations", "largest change in the ball, median"): "lower bound",
        ("Stability of explanations", "completeness error, median"): "exact",
        ("Variation on segments", "gradient variation in kinks, mean"): "estimate",
    }
    assert {key: said[key]["kind"] for key in kinds} == kinds


@pytest.mark.parametrize(("activation", "order"), [("relu", 0), ("gelu", math.inf), ("step", -1)])
def test_three_scales_stand_apart(activation, order):
    said = rows(panel(cnn(activation)))
    probe = said["Probe, from values alone", "roughest break found"]
    assert probe["value"] == ("inf" if math.isinf(order) else order)
    assert probe["note"].count("by the activations' facts") == 1
    flat = said["Plateaus", "flat by its values"]["value"]
    bend = said["Curvature", "at the point ÷ slope, median"]
    jumps = said["Variation on segments", "… in jumps"]["value"]
    if activation == "step":
        assert flat > 0.9
        assert jumps == 1
        kinks = said["Variation on segments", "gradient variation in kinks, mean"]
        assert "the value jumps" in kinks["note"]
    else:
        assert flat == jumps == 0
    assert (bend["value"] is None or bend["value"] == 0) == (activation != "gelu")
    assert ("not smoothness" in bend["note"]) == (bend["value"] == 0)


def test_step_networks_have_no_explanations_to_compare():
    said = rows(panel(cnn("step")))["Stability of explanations", "largest change in the ball, median"]
    assert said["value"] is None
    assert "8 of 8 without a value: the attribution is 0 everywhere" in said["note"]


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_a_backward_pass_that_is_not_the_forwards_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(36, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.two(Straight.apply(self.one(x.flatten(1))))

    said = rows(panel(Net()))
    assert "values and gradients disagree" in said["Plateaus", "gradient exactly 0 in the ball"]["note"]


def test_what_takes_too_long_is_said(monkeypatch):
    monkeypatch.setattr(roughness, "KINKS", 3)
    left = dict(panel(cnn()).left_out)
    assert "a panel follows up to 3" in left["variation"]
    monkeypatch.setattr(roughness, "UNITS", 50)
    found = panel(cnn())
    left = dict(found.left_out)
    for what in ("kinks and jumps", "plateaus", "curvature at the point", "probe", "explanations"):
        assert "a panel looks at up to 50" in left[what]
    assert "kinks were not counted" in left["variation"]
    assert not {section for section, _ in rows(found)} & set(NAMES)


def test_without_captum(monkeypatch):
    def refuse(name, *rest):
        if name.startswith("captum"):
            raise ModuleNotFoundError("No module named 'captum'", name="captum")
        return original(name, *rest)

    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", refuse)
    found = panel(cnn())
    assert "smoothness[attribution]" in dict(found.left_out)["explanations"]
    assert "flat_fraction" in found.measurements


def test_many_layers_are_summed_up_and_lines_fit():
    torch.manual_seed(0)
    layers = [part for _ in range(8) for part in (nn.Linear(36, 36), nn.ReLU())]
    found = panel(nn.Sequential(nn.Flatten(), *layers, nn.Linear(36, 3)))
    names = [name for section, name in rows(found) if section == "Plateaus" and "saturated" in name]
    assert names == ["saturated units, mean of 8 layers"]
    assert max(map(len, str(found).splitlines())) <= 80
