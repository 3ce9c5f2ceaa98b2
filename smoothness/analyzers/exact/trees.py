"""Decision trees: every leaf is a box, and the nearest box of another class is found by looking at all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from smoothness._norms import Norm
from smoothness.analyzers.exact.answer import NOWHERE, Array, Nearest, length


def split_sides(threshold: float) -> tuple[float, float]:
    """The largest float32 at most a threshold, and the smallest above it: where left ends and right begins.

    Trees compare float32(x) <= threshold, a float64 number.

    >>> split_sides(0.5) == (0.5, float(np.nextafter(np.float32(0.5), np.float32(1))))
    True
    """
    nearest = np.float32(threshold)
    left = nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))
    return float(left), float(np.nextafter(left, np.float32(np.inf)))


def leaves(tree: Any, features: int) -> tuple[Array, Array, Array]:
    """Lowest and highest corner of each leaf's box (leaves, features), closed, in float32 numbers; and their nodes."""
    lows, highs, nodes = [], [], []
    stack = [(0, np.full(features, -np.inf), np.full(features, np.inf))]
    while stack:
        node, low, high = stack.pop()
        if tree.children_left[node] == -1:
            if (low <= high).all():  # two thresholds in one gap between float32 numbers leave an empty box
                lows.append(low)
                highs.append(high)
                nodes.append(node)
            continue
        feature, (left, right) = int(tree.feature[node]), split_sides(float(tree.threshold[node]))
        lower, upper = low.copy(), high.copy()
        upper[feature], lower[feature] = min(left, high[feature]), max(right, low[feature])
        stack += [(int(tree.children_left[node]), low, upper), (int(tree.children_right[node]), lower, high)]
    return np.array(lows), np.array(highs), np.array(nodes)


class TreeSearch:
    """Distances to the leaves of another class. The answer is a float32 input that the tree itself misclassifies."""

    def __init__(self, estimator: Any) -> None:
        tree = estimator.tree_
        self.low, self.high, nodes = leaves(tree, int(estimator.n_features_in_))
        self.labels = tree.value[nodes, 0].argmax(axis=1)

    def nearest(self, x: Array, label: int, norm: Norm, low: Array, high: Array) -> Nearest:
        """Min over the leaves of another class of |box(x) - x|."""
        x = x.astype(np.float32).astype(float)
        lows, highs = np.maximum(self.low, low), np.minimum(self.high, high)
        usable = (self.labels != label) & (lows <= highs).all(axis=1)
        if not usable.any():
            return NOWHERE
        points = np.clip(x, lows[usable], highs[usable])
        distances = length(points - x, norm)
        place = int(distances.argmin())
        return Nearest(float(distances[place]), points[place])
