"""Models that do not fit their inputs meet a clear error, everywhere they are called."""

import pytest
import torch
from torch import nn

from smoothness.analyzers import AttackSuccess, CleanPredictions, JacobianNorm
from smoothness.attacks import FGSM, PGD, Noise
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)
CALLERS = [
    PGD(LINF), FGSM(LINF), Noise(LINF), AttackSuccess(PGD(LINF)), CleanPredictions(), JacobianNorm(),
    JacobianNorm(of="margin"),
]  # fmt: skip
X, Y = torch.full((3, 4), 0.5), torch.tensor([0, 1, 2])


class Returns(nn.Module):
    def __init__(self, convert):
        super().__init__()
        self.linear, self.convert = nn.Linear(4, 3), convert

    def forward(self, x):
        return self.convert(self.linear(x))


@pytest.mark.parametrize("caller", CALLERS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Linear(4, 3), X.double(), r"float32 and the inputs float64; use model.to\(torch.float64\) or inputs.to"),
        (nn.Linear(4, 3).double(), X, r"float64 and the inputs float32; use model.to\(torch.float32\) or inputs.to"),
        (nn.Linear(4, 3).half(), X, r"float16 and the inputs float32; use model.to\(torch.float32\)$"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()), X.double(), "use model.to"),
        (Returns(lambda z: z.half()), X, r"float32 or float64 scores, got float16; .* outputs.float\(\)"),
        (Returns(lambda z: z.long()), X, "float32 or float64 scores, got int64"),
        (Returns(lambda z: (z, z)), X, "must return a tensor"),
        (lambda x: x, X, r"model must be an nn\.Module, got function"),
    ],
)
def test_types_are_checked(caller, model, x, message):
    if isinstance(model, nn.Module):
        model.train()
    with pytest.raises(TypeError, match=message):
        caller(model, x, Y)
    if isinstance(model, nn.Module):
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_models_own_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PGD(LINF)(nn.Linear(5, 3), X, Y)
