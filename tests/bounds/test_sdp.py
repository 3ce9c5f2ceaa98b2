"""The quadratic form's optimum against a solver of semidefinite programs, written down anew."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import nn

import smoothness as sm
from tests.bounds.reference import linear, lipsdp_network


def lipsdp_neuron(weights, alpha, beta):
    """LipSDP-neuron of Fazlyab et al. 2019 (arXiv 1906.04893) with slopes in [alpha, beta], layer after layer."""
    sizes = [weights[0].shape[1], *(w.shape[0] for w in weights[:-1])]
    ends = np.cumsum([0, *sizes])
    part = lambda k: np.eye(ends[-1])[ends[k] : ends[k + 1]]  # noqa: E731
    z = np.vstack([w @ part(k) for k, w in enumerate(weights[:-1])])
    h = np.vstack([part(k) for k in range(1, len(sizes))])
    output = weights[-1] @ part(len(sizes) - 1)
    t, rho = cp.Variable(len(z), nonneg=True), cp.Variable()
    # (h - α z)ᵀ T (β z - h), symmetric
    low, high = h - alpha * z, beta * z - h
    scaled = cp.diag(t)
    form = low.T @ scaled @ high + high.T @ scaled @ low + output.T @ output - rho * part(0).T @ part(0)
    problem = cp.Problem(cp.Minimize(rho), [(form + form.T) / 2 << 0])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return float(rho.value) ** 0.5


def weights_of(model):
    return [module.weight.detach().numpy() for module in model if isinstance(module, nn.Linear)]


def test_published_network():
    model = lipsdp_network()
    solved = lipsdp_neuron(weights_of(model), 0.0, 1.0)
    assert solved == pytest.approx(36.482, abs=1e-3)
    for effort, tolerance in (("standard", 1e-4), ("tight", 1e-5)):
        found = sm.GlobalLipschitz("l2", effort=effort)(model)
        assert float(found.details["candidates"]["quadratic form"]) == pytest.approx(solved, rel=tolerance)


@pytest.mark.parametrize(("activation", "sizes"), [("tanh", (5, 14, 14, 4)), ("gelu", (8, 10, 9, 8, 3))])
def test_random_networks(activation, sizes):
    g = torch.Generator().manual_seed(len(sizes))
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [linear(torch.randn(fan_out, fan_in, generator=g) / fan_in**0.5, torch.randn(fan_out, generator=g))]
        layers += [sm.activation(activation)]
    model = nn.Sequential(*layers[:-1])
    facts = sm.activation_facts(activation)
    solved = lipsdp_neuron(weights_of(model), facts.slope_min, facts.slope_max)
    found = sm.GlobalLipschitz("l2")(model)
    assert float(found.details["candidates"]["quadratic form"]) == pytest.approx(solved, rel=1e-4)
