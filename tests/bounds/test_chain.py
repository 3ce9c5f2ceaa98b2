"""The form of a chain, eliminated layer by layer: against the same form as one matrix, and against samples."""

import math

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.analyzers.lipschitz_target import ball_around
from smoothness.bounds.chain import chain_multipliers, chain_of
from smoothness.bounds.forms import assemble
from smoothness.bounds.interior import best_multipliers, schur_complement
from smoothness.bounds.reach import complete_ranges, local_sectors
from smoothness.bounds.reading import read_network
from smoothness.bounds.spectra import largest_eigenvalue
from smoothness.bounds.verify_chain import chain_constant, unit_constants
from tests.bounds.random_networks import Case, jacobians, points_in_ball
from tests.bounds.reference import lipsdp_network, reference_network


def problem(activation, radius):
    model, x = reference_network(activation)
    network = read_network(model, x)
    found, _ = complete_ranges(network, ball_around(x, "l2", radius, None), "fast")
    return network, local_sectors(network, found, None)


@pytest.mark.parametrize(("activation", "radius"), [("tanh", 0.3), ("relu", 0.1), ("gelu", 1.0)])
def test_the_chain_is_the_quadratic_form(activation, radius):
    network, local = problem(activation, radius)
    chain, form = chain_of(network, local, 0), assemble(network, local, 0)
    t = chain_multipliers(chain, 40)
    own = torch.cat(chain.radius) > 0
    exact = math.sqrt(float(largest_eigenvalue(schur_complement(form, torch.cat(t)[own]))))
    proved = chain_constant(chain.weights, chain.centre, chain.radius, t)
    assert exact <= proved <= exact * (1 + 1e-6)
    # The multipliers come close to the best ones of the interior-point method.
    best = best_multipliers(form.reduced(), shared=True, tolerance=1e-6)
    assert math.sqrt(float(best.w)) * (1 - 1e-6) <= proved <= 1.03 * math.sqrt(float(best.w))
    assert chain_constant(chain.weights, chain.centre, chain.radius, [1e-9 * part for part in t]) == math.inf


@pytest.mark.parametrize(("activation", "radius"), [("tanh", 0.3), ("relu", 1.0)])
def test_constants_of_every_unit(activation, radius):
    network, local = problem(activation, radius)
    chain = chain_of(network, local, 0)
    t = chain_multipliers(chain, 4)
    found = unit_constants(chain.weights, chain.centre, chain.radius, t)
    own = torch.cat(chain.radius) > 0
    for k in range(0, 10, 3):
        # The same multipliers at the best scale, in the whole form of this output alone.
        form = assemble(network, local, 0, torch.eye(10).double()[[k]])
        values = []
        for scale in torch.logspace(-2, 3, 400, base=10).double() * float(found[k]) ** 2 / float(found.amax()) ** 2:
            schur = schur_complement(form, scale * torch.cat(t)[own])
            values += [] if schur is None else [float(largest_eigenvalue(schur))]
        assert math.sqrt(min(values)) <= float(found[k]) * (1 + 1e-9)
        assert float(found[k]) <= 1.3 * math.sqrt(min(values))


def test_only_chains_are_chains():
    network, local = problem("relu", 0.1)
    assert chain_of(network, local, 0, torch.eye(10).double()[:3]).weights[-1].shape == (3, 128)

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.phi = nn.Linear(3, 3), nn.Linear(3, 2), nn.Tanh()

        def forward(self, x):
            return self.second(x + self.phi(self.first(x)))

    network = read_network(Skip(), torch.zeros(1, 3))
    found, _ = complete_ranges(network, ball_around(torch.zeros(1, 3), "l2", 1.0, None), "fast")
    assert chain_of(network, local_sectors(network, found, None), 0) is None


def test_the_lipsdp_table():
    model = lipsdp_network()
    network = read_network(model, torch.zeros(1, 2))
    found, _ = complete_ranges(network, ball_around(torch.zeros(1, 2).double(), "l2", math.inf, None), "fast")
    chain = chain_of(network, local_sectors(network, found, None), 0)
    value = chain_constant(chain.weights, chain.centre, chain.radius, chain_multipliers(chain, 60))
    assert 36.4822 * (1 - 1e-5) <= value <= 36.4822 * 1.03


@pytest.mark.parametrize("of", ["logits", "margin"])
def test_a_convolutional_network_gets_a_tight_constant(of):
    model = sm.build_model("cnn", "tanh", seed=0, input_shape=(1, 12, 12), classes=4).double()
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = {"norm": "l2", "radius": 0.1, "of": of}
    upper = sm.LipschitzUpperBound(**settings)(model, x)
    others = {k: float(v) for k, v in upper.details["candidates"].items() if k != "quadratic form"}
    assert upper.details["winner"] == ("quadratic form",)
    assert float(upper.values) < 0.8 * min(others.values())
    steep = jacobians(model, points_in_ball(Case("", model, x, "l2", 0.1, None), 0, 200))
    if of == "logits":
        sampled = torch.linalg.matrix_norm(steep, ord=2).amax()
    else:
        y = int(model(x).argmax())
        sampled = max((steep[:, y] - steep[:, j]).norm(dim=1).amax() for j in range(4) if j != y)
    assert float(sampled) <= float(upper.values) <= 2.5 * float(sampled)
