"""Exact distances of classical classifiers against brute force, and what cannot be measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import smoothness as sm
from smoothness.attacks import PGD


def points(features: int = 3, count: int = 40, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    x = draws.random((count, features)).astype(np.float32).astype(float)
    return x, np.digitize(x.sum(axis=1), np.quantile(x.sum(axis=1), np.arange(1, classes) / classes))


def measured(model: object, x: np.ndarray, norm: str, bounds: tuple[float, float] | None) -> tuple[np.ndarray, object]:
    inputs, labels = torch.from_numpy(x[:8]), torch.from_numpy(model.predict(x[:8]))  # type: ignore[attr-defined]
    found = sm.ExactDistance(norm, bounds=bounds)(model, inputs, labels)  # type: ignore[arg-type]
    assert found.bound == "exact"
    assert found.details["reason"] == [""] * 8
    changed = model.predict(found.details["inputs"].numpy())  # type: ignore[attr-defined]
    assert (changed != labels.numpy()).all()  # the witness
    offset = found.details["inputs"].numpy() - x[:8]
    lengths = np.linalg.norm(offset, {"l2": 2, "linf": np.inf, "l1": 1}[norm], axis=1)
    assert lengths == pytest.approx(found.values.numpy(), rel=2e-5, abs=2e-6)
    return found.values.numpy(), labels.numpy()


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC])
def test_linear_l2_against_a_general_solver(kind: type, bounds: tuple[float, float] | None) -> None:
    x, y = points()
    model = kind(C=10).fit(x, y)
    values, labels = measured(model, x, "l2", bounds)
    for row, label, value in zip(x, labels, values, strict=False):
        truth = []
        for rival in set(range(3)) - {int(label)}:
            slope = model.coef_[rival] - model.coef_[label]
            shift = model.intercept_[rival] - model.intercept_[label]
            solved = minimize(
                lambda z, row=row: ((z - row) ** 2).sum(), row, jac=lambda z, row=row: 2 * (z - row),
                bounds=[bounds] * 3 if bounds else None, method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
                constraints={"type": "ineq", "fun": lambda z, s=slope, b=shift: s @ z + b,
                             "jac": lambda z, s=slope: s},
            )  # fmt: skip
            truth += [np.sqrt(solved.fun)] if solved.success else []
        assert value == pytest.approx(min(truth), rel=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_linear_without_bounds_is_the_margin_over_the_dual_norm(norm: str) -> None:
    x, y = points()
    model = LogisticRegression(C=10).fit(x, y)
    values, labels = measured(model, x, norm, None)
    scores = model.decision_function(x[:8])
    for place, label in enumerate(labels):
        rivals = [k for k in range(3) if k != label]
        dual = [np.linalg.norm(model.coef_[k] - model.coef_[label], {"linf": 1, "l1": np.inf}[norm]) for k in rivals]
        gaps = [scores[place, label] - scores[place, k] for k in rivals]
        assert values[place] == pytest.approx(min(np.divide(gaps, dual)), rel=1e-9)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_nearest_neighbour_l2_against_a_general_solver_on_every_cell(bounds: tuple[float, float] | None) -> None:
    x, y = points()
    model = KNeighborsClassifier(1).fit(x, y)
    values, labels = measured(model, x, "l2", bounds)
    for row, label, value in zip(x[:3], labels, values, strict=False):
        truth = []
        for target in x[y != label]:
            slopes = target - x[y == label]
            gaps = (target @ target - (x[y == label] ** 2).sum(axis=1)) / 2
            solved = minimize(
                lambda z, row=row: ((z - row) ** 2).sum(), target, jac=lambda z, row=row: 2 * (z - row),
                bounds=[bounds] * 3 if bounds else None, method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
                constraints={"type": "ineq", "fun": lambda z, s=slopes, g=gaps: s @ z - g},
            )  # fmt: skip
            truth += [np.sqrt(solved.fun)] if solved.success else []
        assert value == pytest.approx(min(truth), rel=1e-6)


def test_nearest_neighbour_linf_of_two_points() -> None:
    model = KNeighborsClassifier(1).fit([[0.0, 0.0], [1.0, 0.5]], [0, 1])  # boundary: x + y/2 = 5/8
    found = sm.ExactDistance("linf")(model, torch.tensor([[0.1, 0.2]]), torch.tensor([0]))
    assert float(found.values) == pytest.approx((0.625 - 0.2) / 1.5, rel=1e-7)


TREES = {
    "tree": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "forest": lambda: RandomForestClassifier(5, max_depth=3, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=2, max_depth=2, random_state=0),
}


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("kind", TREES)
def test_trees_against_every_cell_of_the_grid_of_thresholds(kind: str, norm: str) -> None:
    x, y = points(2, 30)
    model = TREES[kind]().fit(x, y)
    members = np.ravel(model.estimators_) if kind != "tree" else [model]
    values, labels = measured(model, x, norm, (0.0, 1.0))
    sides = []
    for feature in range(2):
        cuts = np.unique(
            [t for m in members for f, t in zip(m.tree_.feature, m.tree_.threshold, strict=True) if f == feature]
        )
        left = cuts.astype(np.float32)
        left = np.where(left.astype(float) <= cuts, left, np.nextafter(left, np.float32(-np.inf)))
        sides.append(np.concatenate([left, np.nextafter(left, np.float32(np.inf))]).astype(float))
    for row, label, value in zip(x, labels, values, strict=False):
        grid = np.array(list(itertools.product(*(np.append(s, v) for s, v in zip(sides, row, strict=True)))))
        wrong = grid[model.predict(grid) != label] - row
        lengths = np.linalg.norm(wrong, {"l2": 2, "linf": np.inf, "l1": 1}[norm], axis=1)
        assert value == pytest.approx(lengths.min(), rel=1e-6)


def test_nothing_is_nearer_for_an_attack() -> None:
    data = sm.load_dataset("digits")
    sample = data.test.balanced(10)
    for name in ("logistic_regression", "nearest_neighbour", "decision_tree"):
        model = sm.build_classical(name, data)
        exact = sm.ExactDistance("l2")(model, sample.inputs, sample.labels).values
        attack = sm.DecisionBoundary(sm.ThreatModel("l2"), 1000, data.train.balanced(100).inputs)
        assert bool((attack(model, sample.inputs, sample.labels).distance >= exact - 1e-6).all())


def test_misclassified_is_0_and_a_box_without_another_class_is_infinite() -> None:
    model = LogisticRegression().fit([[0.0], [4.0]], [0, 1])
    found = sm.ExactDistance("l2")(model, torch.tensor([[0.5], [0.5]]), torch.tensor([0, 1]))
    assert found.values.tolist() == [float("inf"), 0.0]
    assert found.valid.tolist() == [False, True]
    assert "no input inside the bounds" in found.details["reason"][0]


def test_what_has_no_exact_distance_is_named_with_what_has() -> None:
    x, y = points()
    with pytest.raises(TypeError, match="GaussianNB has no exact distance; it is there for LogisticRegression"):
        sm.ExactDistance()(GaussianNB().fit(x, y), torch.from_numpy(x), torch.from_numpy(y))
    with pytest.raises(ValueError, match="the exact search takes up to 4000; fit fewer"):
        sm.ExactDistance()(
            RandomForestClassifier(900, random_state=0).fit(x, y), torch.from_numpy(x), torch.from_numpy(y)
        )


def test_gradient_attacks_refuse_an_estimator_and_say_what_applies() -> None:
    x, y = points()
    model = sm.wrap(LogisticRegression().fit(x, y))
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for attack in (PGD(sm.ThreatModel("linf", 0.1)), sm.DDN(sm.ThreatModel("l2"))):
        with pytest.raises(RuntimeError, match=r"LogisticRegression is a scikit-learn estimator.*DecisionBoundary"):
            attack(model, inputs, labels)
