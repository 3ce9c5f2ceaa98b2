"""Classifiers that are no networks: scikit-learn's, used as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smoothness._checks import check_choice, check_count, check_inputs, check_labels
from smoothness.estimators import EstimatorModel


class _Labelled(Protocol):
    @property
    def inputs(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...


class _Trainable(Protocol):
    @property
    def train(self) -> _Labelled: ...


Estimator = Any  # scikit-learn is imported on first use


def _logistic_regression(seed: int, C: float = 1.0) -> Estimator:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=2000)


def _linear_svm(seed: int, C: float = 0.1) -> Estimator:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=C, max_iter=20_000, random_state=seed)


def _rbf_svm(seed: int, C: float = 10.0) -> Estimator:
    from sklearn.svm import SVC

    return SVC(C=C, kernel="rbf", gamma="scale")


def _nearest_neighbour(seed: int) -> Estimator:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(1, algorithm="brute")


def _k_nearest(seed: int, neighbours: int = 5) -> Estimator:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(neighbours, algorithm="brute")


def _naive_bayes(seed: int, smoothing: float = 1e-2) -> Estimator:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=smoothing)


def _decision_tree(seed: int, leaf: int = 1) -> Estimator:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(min_samples_leaf=leaf, random_state=seed)


def _random_forest(seed: int, trees: int = 100, depth: int | None = None) -> Estimator:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(trees, max_depth=depth, random_state=seed, n_jobs=1)


def _gradient_boosting(seed: int, rounds: int = 50, depth: int = 3) -> Estimator:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=rounds, max_depth=depth, max_features="sqrt", random_state=seed)


def _perceptron(seed: int, width: int = 100) -> Estimator:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((width,), max_iter=500, early_stopping=True, random_state=seed)


CLASSICAL: dict[str, Callable[..., Estimator]] = {
    "decision_tree": _decision_tree,
    "gradient_boosting": _gradient_boosting,
    "k_nearest": _k_nearest,
    "linear_svm": _linear_svm,
    "logistic_regression": _logistic_regression,
    "naive_bayes": _naive_bayes,
    "nearest_neighbour": _nearest_neighbour,
    "random_forest": _random_forest,
    "rbf_svm": _rbf_svm,
    "sklearn_mlp": _perceptron,
}


def list_classical() -> list[str]:
    """Names that `build_classical` knows.

    >>> list_classical()[:3]
    ['decision_tree', 'gradient_boosting', 'k_nearest']
    """
    return sorted(CLASSICAL)


def classical_options(name: str) -> list[str]:
    """Names of a classical model's own settings.

    >>> classical_options("random_forest")
    ['trees', 'depth']
    """
    return [option for option in inspect.signature(CLASSICAL[name]).parameters if option != "seed"]


def build_classical(
    name: str,
    data: _Trainable | tuple[Tensor, Tensor],
    seed: int = 0,
    *,
    share: float = 1.0,
    **options: Any,
) -> EstimatorModel:
    """Fit a scikit-learn classifier, and wrap it: no gradient, scores where it has them.

    Args:
        name: of `list_classical()`.
        data: a data set, of which the training split is used, or inputs (n, ...) with labels (n,) from 0 on.
        seed: the estimator's random state, and of the rows drawn where `share` is below 1.
        share: of the training rows, drawn without replacement from each class: what makes seeds differ for
            estimators that do nothing at random.
        options: the estimator's own: C of logistic_regression, linear_svm, rbf_svm; neighbours of k_nearest;
            smoothing of naive_bayes; leaf of decision_tree; trees and depth of random_forest; rounds and depth of
            gradient_boosting; width of sklearn_mlp.

    Raises:
        ValueError: unknown names or options, a share outside (0, 1], labels that leave out a class; as the estimator.
        TypeError: inputs or labels of another kind.

    >>> x = torch.tensor([[0.0], [0.2], [0.8], [1.0]])
    >>> model = build_classical("nearest_neighbour", (x, torch.tensor([0, 0, 1, 1])))
    >>> model(torch.tensor([[0.1], [0.6]])).argmax(dim=1)
    tensor([0, 1])
    """
    make = CLASSICAL[check_choice("classical model", name, CLASSICAL)]
    check_count("seed", seed, minimum=0)
    known = classical_options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"{name!r} has no option {option!r}; it takes {', '.join(known) or 'none'}")
    x, y = data if isinstance(data, tuple) else (data.train.inputs, data.train.labels)
    check_inputs(x)
    labels = check_labels(y, len(x)).cpu().numpy()
    missing = sorted(set(range(int(labels.max()) + 1)) - set(labels.tolist()))
    if missing or labels.max() == 0:
        lacking = f"no example of class {missing[0]}" if missing else "one class alone"
        raise ValueError(f"the labels have {lacking}; give examples of every class 0, 1, ..., at least two")
    rows = rows_drawn(labels, share, seed)
    estimator = make(seed, **options)
    estimator.fit(x.flatten(1).to("cpu", torch.float64).numpy()[rows], labels[rows])
    return EstimatorModel(estimator)


def rows_drawn(labels: np.ndarray[Any, Any], share: float, seed: int) -> np.ndarray[Any, Any]:
    """Rows of a share of each class's examples, at least one, in their order."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    if share == 1:
        return np.arange(len(labels))
    draws = np.random.default_rng(seed)
    parts = []
    for label in np.unique(labels):
        own = (labels == label).nonzero()[0]
        parts.append(draws.choice(own, max(1, round(share * len(own))), replace=False))
    return np.sort(np.concatenate(parts))
