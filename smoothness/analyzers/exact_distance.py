"""How far is the boundary of a classical classifier, exactly?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smoothness._checks import check_choice, check_inputs, check_labels
from smoothness._norms import NORMS, Norm
from smoothness.analyzers.attack_success import settings_of
from smoothness.analyzers.exact.answer import Array, Nearest
from smoothness.analyzers.minimal_perturbation import Bounds
from smoothness.estimators import EstimatorModel
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel
from smoothness.wrapping import wrap

OFFERED = (
    "LogisticRegression, LinearSVC, SVC(kernel='linear') of two classes, RidgeClassifier, SGDClassifier, Perceptron, "
    "KNeighborsClassifier(1), DecisionTreeClassifier, and small RandomForestClassifier, ExtraTreesClassifier, "
    "GradientBoostingClassifier"
)
_BEYOND = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)  # relative steps over the boundary at which the witness is tried


class _Searcher(Protocol):
    def nearest(self, x: Array, label: int, norm: Norm, low: Array, high: Array) -> Nearest:
        """The nearest input of another class than `label`."""
        ...


@dataclass(frozen=True)
class ExactDistance:
    """Distance from each input to the nearest one that a classical classifier gives another class.

    value_i = inf |x' - x_i|_p over x' inside the bounds with predict(x') != y_i; 0 for examples that are misclassified
    as they are. Shape (n,), unit "input linf" (or the norm chosen). Bound: exact, up to 1e-6 relative.

    Linear classifiers: |margin| / |w_j - w_y|_dual, the smallest over the classes j, or a search along one number
    inside the bounds. One nearest neighbour: the nearest Voronoi cell of another class, by quadratic programs (l2) or
    linear ones. Trees: the nearest leaf box of another class; trees read float32, and so does the distance. Ensembles
    of trees: a mixed-integer program (Kantchelian et al. 2016, arXiv 1509.07892). Each answer is checked by the
    estimator's own `predict`, at the nearest input or a hair's breadth beyond it (relative 1e-5 at most).

    Not valid, and NaN: examples where a program did not end, or the check failed. Infinite, and not valid: no input
    inside the bounds is of another class. Details: "reason", "inputs" (the nearest found, float64), "status" as
    `AttackResult`.

    Args:
        norm: "linf", "l2" or "l1".
        bounds: lowest and highest valid input; None for inputs without a valid range.

    Raises:
        TypeError: an estimator for which there is no exact method (those that have one are named).
        ValueError: an unknown norm, an ensemble that is too large; as `wrap`.

    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[0.0, 0.0], [1.0, 0.0]], [0, 1])  # the boundary is at 1/2
    >>> found = ExactDistance("l2")(model, torch.tensor([[0.2, 0.3]]), torch.tensor([0]))
    >>> round(float(found.values), 4), found.bound
    (0.3, 'exact')
    """

    norm: Norm = "l2"
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Measurement:
        """Measure x: (n, ...) with labels y: (n,), positions in the estimator's classes."""
        wrapped = model if isinstance(model, EstimatorModel) else _wrapped(model)
        searcher = _searcher(wrapped.estimator)
        check_inputs(x)
        labels = check_labels(y, len(x))
        threat = ThreatModel(self.norm, None, bounds=self.bounds)
        threat.check_inside(x)
        low, high = (t.flatten(1).double().cpu().numpy() for t in threat.limits(x.double()))
        flat = x.detach().flatten(1).double().cpu().numpy()
        predicted = _labels(wrapped, x)
        found = [
            Nearest(0.0, row)
            if guess != label
            else _checked(
                wrapped, searcher.nearest(row, label, self.norm, lowest, highest), row, label, lowest, highest
            )
            for row, guess, label, lowest, highest in zip(flat, predicted, labels.tolist(), low, high, strict=True)
        ]
        nearest = np.stack([row if one.point is None else one.point for one, row in zip(found, flat, strict=True)])
        values = torch.tensor([one.distance for one in found], dtype=torch.float64)
        return Measurement(
            "minimal_distance",
            values,
            unit=f"input {self.norm}",
            bound="exact",
            settings={**settings_of(self), "analyzer": "ExactDistance", "method": type(searcher).__name__},
            valid=values.isfinite(),
            details={
                "reason": [one.reason or ("" if np.isfinite(one.distance) else _NONE) for one in found],
                "inputs": torch.from_numpy(nearest).view(x.shape),
                "status": tuple(_status(one) for one in found),
            },
        )


_NONE = "no input inside the bounds is of another class"


def has_exact_distance(estimator: Any) -> bool:
    """Whether `ExactDistance` takes a fitted estimator and is fast on it: of sums of trees it is not."""
    try:
        return not hasattr(estimator, "estimators_") and bool(_searcher(estimator))
    except TypeError:
        return False


def _wrapped(model: Any) -> EstimatorModel:
    wrapped = wrap(model)
    if not isinstance(wrapped, EstimatorModel):
        raise TypeError(f"{type(model).__name__} has no exact distance; it is there for {OFFERED}")
    return wrapped


def _searcher(estimator: Any) -> _Searcher:
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    from smoothness.analyzers.exact.ensembles import EnsembleSearch
    from smoothness.analyzers.exact.linear import LinearSearch
    from smoothness.analyzers.exact.neighbours import NeighbourSearch
    from smoothness.analyzers.exact.trees import TreeSearch

    if isinstance(estimator, (LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier, Perceptron)):
        return LinearSearch(estimator)
    if isinstance(estimator, SVC) and estimator.kernel == "linear" and len(estimator.classes_) == 2:
        return LinearSearch(estimator)
    if isinstance(estimator, KNeighborsClassifier) and estimator.n_neighbors == 1:
        if estimator.effective_metric_ == "euclidean":
            return NeighbourSearch(estimator)
        raise TypeError(
            f"the exact distance needs Euclidean neighbours, got the metric {estimator.effective_metric_!r}"
        )
    if isinstance(estimator, DecisionTreeClassifier) and estimator.n_outputs_ == 1:
        return TreeSearch(estimator)
    if isinstance(estimator, (RandomForestClassifier, ExtraTreesClassifier, GradientBoostingClassifier)):
        return EnsembleSearch(estimator)
    raise TypeError(
        f"{type(estimator).__name__} has no exact distance; it is there for {OFFERED}. Use MinimalPerturbation with "
        "DecisionBoundary for an upper bound"
    )


def _labels(model: EstimatorModel, x: Tensor) -> list[int]:
    scores = model(x.detach().double())
    return [int(label) for label in (scores.argmax(dim=1) if scores.ndim == 2 else scores)]


def _checked(model: EstimatorModel, one: Nearest, x: Array, label: int, low: Array, high: Array) -> Nearest:
    """The answer where the estimator's own prediction there, or just beyond, is another class."""
    if one.point is None:
        return one
    steps = [np.zeros_like(x)]
    if one.beyond is not None:
        size = float(np.abs(one.beyond).max()) or 1.0
        reach = max(one.distance, 1e-6)
        steps += [one.beyond / size * reach * step for step in _BEYOND]
    points = [np.clip(one.point + step, low, high) for step in steps]
    wrong = [int(guess != label) for guess in _labels(model, torch.from_numpy(np.stack(points)))]
    if not any(wrong):
        return Nearest(
            np.nan, reason="the estimator's own prediction beyond the boundary is unchanged: a tie in scores"
        )
    return Nearest(one.distance, points[wrong.index(1)])


def _status(one: Nearest) -> str:
    return "survived" if not np.isfinite(one.distance) else "fooled" if one.distance > 0 else "clean_error"
