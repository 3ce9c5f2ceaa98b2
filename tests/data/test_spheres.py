"""The spheres' closed forms against a numerical search for the nearest point of the boundary."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from smoothness.data import load_dataset


def searched(x, r, norm):
    """Distance from x to the sphere of radius r, by convex duality or by search, without the closed forms."""
    a, inside = np.abs(x), np.linalg.norm(x) < r
    if norm == "linf":  # the nearest corner of the cube moves outwards, or all coordinates shrink towards zero
        move = (lambda t: a + t) if inside else (lambda t: np.maximum(a - t, 0))
        return brentq(lambda t: np.linalg.norm(move(t)) - r, 0, 10, xtol=1e-15)
    if inside:  # the convex norm over the cross-polytope is largest at a vertex
        return min(brentq(lambda t, k=k: np.linalg.norm(a + t * np.eye(len(a))[k]) - r, 0, 10) for k in range(len(a)))
    # The nearest point of a ball, an ordinary convex program: x' >= 0, minimise the sum of what is taken away.
    found = minimize(
        lambda p: (a - p).sum(),
        a * r / np.linalg.norm(a) * 0.9,
        jac=lambda p: -np.ones_like(p),
        bounds=[(0, v) for v in a],
        constraints={"type": "ineq", "fun": lambda p: r * r - p @ p, "jac": lambda p: -2 * p},
        method="SLSQP",
        options={"ftol": 1e-11, "maxiter": 500},
    )
    assert np.linalg.norm(found.x) <= r + 1e-7  # its value is an upper bound up to that
    return found.fun


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_minimal_distances(norm):
    data = load_dataset("spheres", dimensions=6)
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([data.test.inputs[:10].double(), torch.randn(10, 6, generator=generator, dtype=torch.float64)])
    x[-1] = 0
    x[-1, 2] = 2.0  # on an axis
    for point, distance in zip(x.numpy(), data.minimal_distance(x, norm).tolist(), strict=True):
        if norm == "l2":
            foot = point / np.linalg.norm(point) * data.threshold
            assert distance == pytest.approx(np.linalg.norm(point - foot), rel=1e-12)
        else:
            assert distance == pytest.approx(searched(point, data.threshold, norm), rel=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_no_point_within_the_distance_has_the_other_label(norm):
    data = load_dataset("spheres", dimensions=4)
    x = data.test.inputs[:200].double()
    order = {"linf": np.inf, "l1": 1, "l2": 2}[norm]
    step = torch.randn(200, 500, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = step / step.norm(p=order, dim=2, keepdim=True) * data.minimal_distance(x, norm).view(-1, 1, 1)
    moved = (x[:, None] + step * (1 - 1e-9)).flatten(0, 1)
    assert torch.equal(data.best_label(moved), data.best_label(x).repeat_interleave(500))


def test_points_stand_on_their_spheres():
    data = load_dataset("spheres", dimensions=500, inner=1.0, outer=1.3)
    for split in (data.train, data.validation, data.test):
        radius = torch.where(split.labels == 0, 1.0, 1.3)
        torch.testing.assert_close(split.inputs.norm(dim=1), radius, rtol=1e-5, atol=0)
        assert torch.equal(data.best_label(split.inputs), split.labels)
    assert data.test.inputs.mean(dim=0).abs().max() < 0.01  # uniform: no direction is preferred


def test_the_max_norm_distance_falls_as_one_over_root_n():
    dimensions = [10, 40, 160, 640]
    medians = []
    for n in dimensions:
        data = load_dataset("spheres", dimensions=n)
        medians.append(data.minimal_distance(data.test.inputs[::2], "linf").median().item())
    slope = np.polyfit(np.log(dimensions), np.log(medians), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)


def test_bad_options():
    with pytest.raises(ValueError, match=r"outer must exceed inner, got 0\.9 and 1\.0"):
        load_dataset("spheres", outer=0.9)
    with pytest.raises(ValueError, match="dimensions must be a whole number of at least 2"):
        load_dataset("spheres", dimensions=1)
