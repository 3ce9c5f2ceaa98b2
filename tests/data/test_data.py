"""Splits, sources, and the Gaussians whose truth is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from smoothness.data import load_dataset


@pytest.mark.parametrize(("name", "sizes"), [("fashion", (7000, 1000, 2000)), ("digits", (1197, 200, 400))])
def test_image_sets(name, sizes):
    data = load_dataset(name)
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    for split in (data.train, data.validation, data.test):
        assert split.inputs.dtype == torch.float32
        assert 0 <= split.inputs.min() < split.inputs.max() <= 1
        assert sorted(set(split.labels.tolist())) == list(range(10))
    assert data.validation.labels.bincount().unique().numel() == 1
    rows = [{bytes(x.numpy().tobytes()) for x in s.inputs} for s in (data.train, data.test)]
    assert len(rows[0] & rows[1]) <= 1  # hardly an image in both


def test_versions_tell_content_apart():
    assert load_dataset("digits").version == load_dataset("digits").version
    assert load_dataset("gaussians").version != load_dataset("gaussians", seed=1).version


def test_balanced_sample():
    sample = load_dataset("fashion").test.balanced(100)
    assert sample.labels.bincount().tolist() == [10] * 10
    with pytest.raises(ValueError, match="count must be from 1 to 2000, got 0"):
        load_dataset("fashion").test.balanced(0)


def test_gaussians_best_classifier():
    data = load_dataset("gaussians", dimensions=30, separation=3.0, test=20_000)
    share = (data.best_label(data.test.inputs) == data.test.labels).double().mean().item()
    assert share == pytest.approx(data.best_accuracy, abs=0.01)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_gaussians_minimal_distance_by_linear_programming(norm):
    data = load_dataset("gaussians", dimensions=5)
    x = data.test.inputs[:5].double()
    w = data.direction.numpy()
    for point, distance in zip(x.numpy(), data.minimal_distance(x, norm), strict=True):
        d = len(w)
        if norm == "linf":  # minimise t, |delta_i| <= t, w (x + delta) = 0
            cost, ub = (
                np.r_[np.zeros(d), 1],
                np.vstack([np.c_[np.eye(d), -np.ones(d)], np.c_[-np.eye(d), -np.ones(d)]]),
            )
            best = linprog(cost, ub, np.zeros(2 * d), np.r_[w, 0][None], [-w @ point], bounds=(None, None)).fun
        else:  # delta = p - q with p, q >= 0
            best = linprog(np.ones(2 * d), A_eq=np.r_[w, -w][None], b_eq=[-w @ point]).fun
        assert best == pytest.approx(distance.item(), rel=1e-6)


def test_gaussians_l2_distance_is_the_projection():
    data = load_dataset("gaussians", dimensions=5)
    x = data.test.inputs[:5].double()
    foot = x - (x @ data.direction)[:, None] * data.direction
    torch.testing.assert_close(data.minimal_distance(x, "l2"), (x - foot).norm(dim=1))


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="unknown data set 'fashon'; did you mean 'fashion'"):
        load_dataset("fashon")
    with pytest.raises(ValueError, match="has no option 'n'; it takes dimensions"):
        load_dataset("gaussians", n=3)
    with pytest.raises(ValueError, match="dimensions must be a whole number"):
        load_dataset("gaussians", dimensions=0)
