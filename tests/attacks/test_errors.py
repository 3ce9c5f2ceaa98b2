"""Bad input meets a clear error, and a bug in a step is caught by the last check."""

import pytest
import torch
from torch import nn

from smoothness.attacks import FGSM, PGD, Noise
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)
X, Y = torch.full((3, 4), 0.5), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("attack", [PGD(LINF), FGSM(LINF), Noise(LINF)], ids=lambda a: a.label)
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X.clone().fill_(float("nan")), Y, ValueError, "inputs hold NaN or infinite values in rows 0, 1, 2"),
        (X[:0], Y[:0], ValueError, "inputs are empty"),
        (X, Y + 5, ValueError, "labels must be below the model's 3 classes; too large in rows 0, 1, 2"),
        (X, Y - 1, ValueError, "labels must be at least 0"),
        (X, Y[:2], ValueError, r"labels must have shape \(3,\)"),
        (X, Y.float(), TypeError, "labels must be integer class indices"),
        ((X * 255).to(torch.uint8), Y, TypeError, r"for 8-bit images use inputs.float\(\) / 255"),
        (X * 255, Y, ValueError, "inputs lie outside the threat model's bounds"),
        (X.half(), Y, TypeError, "inputs must be float32 or float64"),
    ],
)
def test_inputs_are_checked(attack, x, y, error, message):
    with pytest.raises(error, match=message):
        attack(nn.Linear(4, 3), x, y)


@pytest.mark.parametrize("attack", [PGD(LINF), Noise(LINF)], ids=lambda a: a.label)
def test_outputs_are_checked(attack):
    with pytest.raises(ValueError, match=r"the model must return shape \(3, classes\)"):
        attack(nn.Flatten(0), X, Y)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function; pass smoothness\.wrap"):
        attack(lambda x: x, X, Y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(ThreatModel("l2")), r"needs a radius, got epsilon=None; use ThreatModel\('l2', epsilon=...\)"),
        (lambda: FGSM(ThreatModel("l2")), "needs a radius"),
        (lambda: Noise(ThreatModel("l2")), "needs a radius"),
        (lambda: PGD(LINF, steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda: PGD(LINF, step_size=-1.0), "step_size must be a positive finite number, got -1.0"),
        (lambda: PGD(LINF, loss="margn"), "unknown loss 'margn'; did you mean 'margin'"),
        (lambda: PGD(LINF, surrogate="tan"), "unknown surrogate shape 'tan'; did you mean 'tanh'"),
        (lambda: PGD(LINF, surrogate_width=0.0), "surrogate_width must be a positive"),
        (lambda: PGD(LINF, restarts=2, random_start=False), "would repeat the same run; use random_start=True"),
        (lambda: PGD(LINF, drop_fooled="never"), "drop_fooled must be True, False or 'auto'"),
        (lambda: PGD(LINF, batch_size=0), "batch_size must be a whole number"),
        (lambda: Noise(LINF, draws=0), "draws must be a whole number"),
        (lambda: Noise(LINF, kind="corners"), "unknown kind 'corners'; did you mean 'corner'"),
        (lambda: Noise(ThreatModel("l2", 0.1), kind="corner"), "needs norm 'linf', got 'l2'; use kind='uniform'"),
    ],
)
def test_settings_are_checked_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_threat_must_be_a_threat_model():
    for make in (PGD, FGSM, Noise):
        with pytest.raises(TypeError, match="threat must be a ThreatModel, got float"):
            make(0.1)


def test_a_surrogate_needs_activation_modules():
    with pytest.raises(ValueError, match="found no activation module"):
        PGD(LINF, surrogate="tanh")(nn.Linear(4, 3), X, Y)


def test_leaving_the_bounds_is_an_error(monkeypatch):
    monkeypatch.setattr(ThreatModel, "limits", lambda self, x: (x - 9, x + 9))
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4))
        model.bias.copy_(torch.tensor([0.1, 0.0, 0.0]))
    with pytest.raises(RuntimeError, match="leave the ball or the bounds"):
        Noise(ThreatModel("l2", 5.0), draws=10, drop_fooled=False)(model, X, Y)
