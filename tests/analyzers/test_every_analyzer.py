"""Every public analyzer keeps the contract, on networks that are kinked, smooth and stepped."""

import inspect
from dataclasses import is_dataclass

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import smoothness as sm
from smoothness import analyzers
from smoothness.testing import check_analyzer

INPUTS = torch.rand(4, 9, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 2, 0])
LINF = sm.ThreatModel("linf", 0.1)


def network(kind, seed=0):
    torch.manual_seed(seed)
    if kind == "nearest neighbour":
        return sm.wrap(KNeighborsClassifier(1).fit(INPUTS.flatten(1).numpy(), LABELS.numpy()))
    if kind == "cnn":
        body = [nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(nn.Unflatten(1, (1, 3, 3)), *body, nn.Dropout(), nn.Linear(3, 3))
    return nn.Sequential(nn.Linear(9, 8), sm.activation(kind), nn.Linear(8, 3))


# Each with the networks it is asked on, and whether it takes labels.
ALL = ("relu", "gelu", "step", "cnn")
TABLE = {
    "AttackSuccess": (sm.AttackSuccess(sm.PGD(LINF, steps=3)), ALL, True),
    "AttributionStability": (sm.AttributionStability(samples=2, steps=4), ("relu", "gelu", "cnn"), True),
    "CertifiedRadius": (sm.CertifiedRadius(evaluations=4), ALL, True),
    "CleanPredictions": (sm.CleanPredictions(), ALL, True),
    "Clever": (sm.Clever(batches=4, samples=8), ("relu", "gelu", "cnn"), True),
    "CurvatureUpperBound": (sm.CurvatureUpperBound(), ("gelu",), True),
    "ExactDistance": (sm.ExactDistance(), ("nearest neighbour",), True),
    "GlobalLipschitz": (sm.GlobalLipschitz(), ALL, False),
    "GradientKinks": (sm.GradientKinks(segments=4), ALL, False),
    "GradientVariation": (sm.GradientVariation(segments=2), ALL, False),
    "InputCurvature": (sm.InputCurvature(scale=0.5, directions=2, refinements=1), ALL, True),
    "JacobianNorm": (sm.JacobianNorm(), ALL, True),
    "LinearRegions": (sm.LinearRegions(), ("relu", "step"), False),
    "LipschitzLowerBound": (sm.LipschitzLowerBound(starts=2, steps=5), ALL, False),
    "LipschitzUpperBound": (sm.LipschitzUpperBound(), ALL, False),
    "LocalLinearityError": (sm.LocalLinearityError(restarts=2, steps=4), ALL, True),
    "LocalLipschitz": (sm.LocalLipschitz(starts=2, steps=5), ALL, False),
    "LocalOscillation": (sm.LocalOscillation(radii=(0.1, 0.5), starts=2, steps=4), ALL, False),
    "MaskingAudit": (sm.MaskingAudit(LINF, examples=4, attack=sm.PGD(LINF, steps=3)), ALL, True),
    "MinimalPerturbation": (sm.MinimalPerturbation(), ALL, True),
    "NearestBreak": (sm.NearestBreak(segments=4, radius=9.0), ("relu", "step", "cnn"), False),
    "PlateauFraction": (sm.PlateauFraction(points=8), ALL, False),
    "RobustAccuracyCurve": (sm.RobustAccuracyCurve("linf", (0.05, 0.2)), ALL, True),
    "SmoothnessProbe": (sm.SmoothnessProbe(segments=1), ALL, False),
    "TransferMatrix": (sm.TransferMatrix({"one": network("relu", 1)}, LINF), ALL, True),
}


def is_analyzer(named):
    return inspect.isclass(named) and is_dataclass(named) and "__call__" in vars(named)


def test_every_public_analyzer_has_a_row():
    assert {name for name in analyzers.__all__ if is_analyzer(getattr(analyzers, name))} == TABLE.keys()


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, kinds, _) in TABLE.items() for kind in kinds])
def test_keeps_the_contract(name, kind):
    analyzer, _, labelled = TABLE[name]
    check_analyzer(analyzer, network(kind), INPUTS.clone(), LABELS if labelled else None)
