"""How does a fitted scikit-learn classifier become a module, tensor in and scores out?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SCORES = ("decision_function", "predict_joint_log_proba", "predict_proba")


class EstimatorModel(nn.Module):
    """A fitted scikit-learn classifier behind `wrap`, used as it is: `.estimator`.

    Inputs (n, ...) are flattened and go to the estimator as float64 arrays. Outputs are float64 scores (n, classes)
    in the order of `classes`, whose largest is what `predict` says; an estimator without scores gives (n,) int64
    labels, on which `DecisionBoundary` works. There is no gradient, and asking for one is an error rather than zero.

    Attributes:
        estimator: what was wrapped.
        classes: its classes; label k means classes[k].
        scores: the method that is read, or None where there are labels alone.
    """

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.estimator = estimator
        self.classes = _classes_of(estimator)
        self.scores = next((name for name in _SCORES if callable(getattr(estimator, name, None))), None)
        self._agrees = _argmax_is_prediction(estimator, len(self.classes))
        self._place = {label: place for place, label in enumerate(self.classes)}
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, classes) float64, or (n,) int64 without scores.

        Raises:
            RuntimeError: a gradient was asked for.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError(f"{self.name} is a scikit-learn estimator: no output of it requires grad")
        flat = x.detach().flatten(1).to("cpu", torch.float64).numpy()
        wanted: Any = getattr(self.estimator, "n_features_in_", flat.shape[1])
        if flat.shape[1] != wanted:
            raise ValueError(
                f"{self.name} was fitted on {wanted} features and the inputs of shape {tuple(x.shape[1:])} have "
                f"{flat.shape[1]}; give inputs of that size"
            )
        if self.scores is None:
            return torch.from_numpy(self._labels(flat)).to(x.device)
        scores = np.asarray(getattr(self.estimator, self.scores)(flat), dtype=np.float64)
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1)
        if not self._agrees:
            scores = _led_by(scores, self._labels(flat))
        return torch.from_numpy(np.ascontiguousarray(scores)).to(x.device)

    @property
    def name(self) -> str:
        """The estimator's class."""
        return type(self.estimator).__name__

    def extra_repr(self) -> str:
        """The estimator as it prints itself."""
        return repr(self.estimator)

    def _labels(self, flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.array([self._place[label] for label in self.estimator.predict(flat).tolist()], dtype=np.int64)


def is_estimator(model: object) -> bool:
    """Whether this looks like a scikit-learn classifier: it predicts, and has parameters to be fitted with."""
    return not isinstance(model, (nn.Module, type)) and all(
        callable(getattr(model, name, None)) for name in ("fit", "predict", "get_params")
    )


def _classes_of(estimator: Any) -> tuple[Any, ...]:
    from sklearn.base import is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    if not is_classifier(estimator):
        raise TypeError(f"{name} is no classifier; wrap takes scikit-learn classifiers, whose predict gives classes")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ValueError(f"{name} is not fitted; call its fit(inputs, labels) before wrap") from error
    found = getattr(estimator, "classes_", None)
    if not isinstance(found, np.ndarray) or found.ndim != 1:
        raise TypeError(f"{name} predicts several labels an input; wrap one classifier for each of them")
    if len(found) < 2:
        raise ValueError(f"{name} was fitted on the one class {found[0]!r}; fit it on at least two")
    classes = tuple(found.tolist())
    if all(isinstance(label, (int, float)) for label in classes) and classes != tuple(range(len(classes))):
        raise ValueError(
            f"{name}'s classes are {_listed(classes)}; labels count from 0 here and would be mistaken for others: fit "
            "it on positions, np.unique(labels, return_inverse=True)[1]"
        )
    return classes


def _listed(classes: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, classes[:6])) + (", ..." if len(classes) > 6 else "")


def _argmax_is_prediction(estimator: Any, classes: int) -> bool:
    """Whether predict is known to give the largest score; libsvm votes among pairs of classes instead."""
    from sklearn.svm import SVC, NuSVC

    ours = type(estimator).__module__.startswith("sklearn.")
    nested = any(hasattr(estimator, name) for name in ("steps", "estimators", "estimator", "best_estimator_"))
    return ours and not nested and not (classes > 2 and isinstance(estimator, (SVC, NuSVC)))


def _led_by(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The scores with the largest, and the first of equals, at what was predicted: exchanged where it was not."""
    first = scores.argmax(axis=1)
    rows = (first != labels).nonzero()[0]
    if not len(rows):
        return scores
    changed, top = scores.copy(), scores[rows, first[rows]]
    changed[rows, first[rows]] = scores[rows, labels[rows]]
    changed[rows, labels[rows]] = np.nextafter(top, np.inf)
    return changed
