"""Certified radii and attacks on either side of the exact distance, which mixed-integer programs find."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import smoothness as sm
from tests.bounds.milp import nearest


@pytest.mark.parametrize("activation", ["relu", "step", "staircase"])
def test_the_oracle_agrees_with_a_grid_of_the_plane(activation):
    """Brute force on 2-4-3-2 networks: the nearest grid point of the other class is as near, up to the grid."""
    steps = 200
    grid = torch.tensor(list(itertools.product(np.linspace(0, 1, steps + 1), repeat=2)))
    compared = 0
    for seed in range(8):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 4), sm.activation(activation), nn.Linear(4, 3), sm.activation(activation),
                              nn.Linear(3, 2)).double()  # fmt: skip
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(3)
            model[4].bias.sub_(model(grid).mean(dim=0))
            classes = model(grid).argmax(dim=1)
        x = torch.rand(2, dtype=torch.float64)
        label = int(model(x).argmax())
        distances = (grid - x).abs().amax(dim=1)[classes != label]
        exact = nearest(model, activation, x, label, within=1.0)
        if len(distances):
            assert float(distances.min()) >= exact - 1e-9
            assert float(distances.min()) <= exact + 2 / steps
            compared += 1
        else:
            assert exact == np.inf or activation != "relu"
    assert compared >= 4


def trained(activation):
    """A 64-16-16-10 network of the digits, in float64, and test examples."""
    data = sm.load_dataset("digits")
    model = sm.build_model("mlp", activation=activation, seed=0, input_shape=data.input_shape, classes=10, width=16)
    sm.train(model, data, sm.Recipe(epochs=20))
    return model.double(), data.test.inputs.double(), data.test.labels


@pytest.mark.parametrize(("activation", "count"), [("relu", 12), ("step", 12), ("staircase", 3)])
def test_the_exact_distance_lies_between_certified_and_attacked(activation, count):
    """Of the examples that fall soonest: far ones leave too many pieces to a solver."""
    model, x, y = trained(activation)
    free = sm.ThreatModel("linf", None)
    attack = sm.FMN(free) if activation == "relu" else sm.DecisionBoundary(free, queries=3000)
    attacked = sm.MinimalPerturbation("linf", attack=attack)(model, x[:30], y[:30]).values
    rows = [row for row in attacked.argsort().tolist() if attacked[row] > 0][:count]
    radii = [
        sm.CertifiedRadius("linf", effort=effort, bounds=(0.0, 1.0))(model, x[rows], y[rows]).values.tolist()
        for effort in ("fast", "standard")
    ]
    for row, *certified in zip(rows, *radii, strict=True):
        found = float(attacked[row])
        # With some room: attacks end within 2e-6 of the corner, and the solver keeps its constraints to 1e-7 alone.
        exact = nearest(model, activation, x[row], int(y[row]), within=found * 1.01 + 1e-6)
        assert exact <= found * (1 + 1e-6)
        assert all(0 < radius <= exact * (1 + 1e-9) for radius in certified)
        if activation == "relu":  # and near, on both sides
            assert found <= exact * 1.05
            assert certified[1] >= 0.7 * exact
