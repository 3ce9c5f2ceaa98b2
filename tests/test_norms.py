"""Norms, projections and draws against optimisation and closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from smoothness._norms import (
    DUAL,
    NORMS,
    operator_norm,
    project_to_ball,
    random_in_ball,
    steepest_direction,
    vector_norm,
)

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("norm", NORMS)
def test_vector_and_operator_norms_against_numpy(norm):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(7, 4, 5))
    found = operator_norm(torch.from_numpy(matrix), norm)
    expected = [np.linalg.norm(m, ORDERS[norm]) for m in matrix]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    vectors = rng.normal(size=(7, 2, 3))
    expected = [np.linalg.norm(v.ravel(), ORDERS[norm]) for v in vectors]
    np.testing.assert_allclose(vector_norm(torch.from_numpy(vectors), norm), expected, rtol=1e-12)


def test_operator_norm_of_nan_is_nan():
    matrices = torch.eye(2).repeat(2, 1, 1)
    matrices[0, 0, 0] = torch.nan
    assert operator_norm(matrices, "l2").isnan().tolist() == [True, False]


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point(norm):
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    for point, found in zip(points.numpy(), project_to_ball(points, norm, 0.7).numpy(), strict=True):
        excess = partial(_excess, norm)
        best = minimize(
            partial(_squared_distance, point), found * 0.9, method="COBYLA", tol=1e-9, options={"maxiter": 20_000},
            constraints={"type": "ineq", "fun": excess},
        )  # fmt: skip
        assert _squared_distance(point, found) <= best.fun + 1e-6
        assert excess(found) >= -1e-12


def _squared_distance(point, other):
    return ((point - other) ** 2).sum()


def _excess(norm, vector):
    return 0.7 - np.linalg.norm(vector, ORDERS[norm])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NORMS), st.integers(0, 10_000), st.floats(1e-3, 1e3), st.sampled_from(["zero", "small", "big"]))
def test_projection_properties(norm, seed, radius, kind):
    generator = torch.Generator().manual_seed(seed)
    scale = {"zero": 0.0, "small": radius * 1e-3, "big": radius * 1e3}[kind]
    points = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64) * scale
    projected = project_to_ball(points, norm, radius)
    assert projected.shape == points.shape
    assert (vector_norm(projected, norm) <= radius * (1 + 1e-12)).all()
    torch.testing.assert_close(project_to_ball(projected, norm, radius), projected)
    inside = vector_norm(points, norm) <= radius
    assert torch.equal(projected[inside], points[inside])


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_direction_reaches_the_dual_norm(norm):
    gradient = torch.randn(9, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction = steepest_direction(gradient, norm)
    torch.testing.assert_close((gradient * direction).sum(dim=1), vector_norm(gradient, DUAL[norm]))
    assert not steepest_direction(torch.zeros(2, 3), norm).any()


@pytest.mark.parametrize("norm", NORMS)
def test_draws_are_uniform_in_the_ball(norm):
    """Of a uniform draw, the share within half the radius is 2^-d."""
    draws = random_in_ball(torch.zeros(200_000, 3, dtype=torch.float64), norm, 2.0, torch.Generator().manual_seed(0))
    length = vector_norm(draws, norm)
    assert length.max() <= 2.0
    assert (length <= 1.0).double().mean().item() == pytest.approx(1 / 8, abs=0.004)
    assert draws.mean(dim=0).abs().max() < 0.01
