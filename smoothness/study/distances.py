"""How far is the boundary, and how far the next class? The two distances behind one claim about any classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from smoothness._norms import Norm, vector_norm
from smoothness.analyzers import MinimalPerturbation
from smoothness.analyzers.exact_distance import ExactDistance, has_exact_distance
from smoothness.attacks import DecisionBoundary
from smoothness.data import Dataset, Split
from smoothness.estimators import EstimatorModel
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel

QUANTITIES = ("minimal_distance", "next_class_distance")
_STARTS = 500  # training examples, classes in turn, that the attack by labels may start from
_AT_ONCE = 16  # examples held against the training split together


def distances(
    data: Dataset, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, queries: int, seed: int
) -> Iterator[Measurement]:
    """Distance to the boundary (exact, or an upper bound by attack), and to the nearest example of another class.

    Exact: linear classifiers, one nearest neighbour, single trees. Upper bounds: by `DecisionBoundary` for other
    estimators, by the default attack of `MinimalPerturbation` for networks.
    """
    yield next_class(data.train, x, y, norm)
    yield replace(to_boundary(data, model, x, y, norm, queries, seed), quantity=QUANTITIES[0])


def to_boundary(
    data: Dataset, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, queries: int, seed: int
) -> Measurement:
    """Distance to the nearest misclassified input, by the best method there is for the model; see `distances`."""
    if not isinstance(model, EstimatorModel):
        found = MinimalPerturbation(norm, data.bounds)(model, x, y)
    elif has_exact_distance(model.estimator):
        found = ExactDistance(norm, data.bounds)(model, x, y)
    else:
        starts = data.train.balanced(min(_STARTS, len(data.train))).inputs
        attack = DecisionBoundary(ThreatModel(norm, None, bounds=data.bounds), queries, starts, seed=seed)
        found = MinimalPerturbation(norm, data.bounds, attack)(model, x, y)
    return replace(found, details={})


def next_class(train: Split, x: Tensor, y: Tensor, norm: Norm) -> Measurement:
    """Min |x_i - t|_p over the training examples t of another class than y_i; exact."""
    found = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for start in range(0, len(x), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        offsets = (x[part].unsqueeze(1) - train.inputs.unsqueeze(0)).double()
        far = vector_norm(offsets.flatten(0, 1), norm).view(len(offsets), -1)
        same = train.labels.unsqueeze(0) == y[part].unsqueeze(1)
        found[part] = far.masked_fill(same, torch.inf).amin(dim=1).double()
    return Measurement(QUANTITIES[1], found, unit=f"input {norm}", bound="exact", valid=found.isfinite())
