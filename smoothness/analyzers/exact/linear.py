"""Linear classifiers: the nearest half-space, in closed form; inside a box by a search along one number."""

from __future__ import annotations

from typing import Any

import numpy as np

from smoothness._norms import DUAL, Norm
from smoothness.analyzers.exact.answer import NOWHERE, Array, Nearest, length


class LinearSearch:
    """Distances to the boundary of argmax_k w_k · x + b_k."""

    def __init__(self, estimator: Any) -> None:
        weights, bias = np.atleast_2d(estimator.coef_).astype(float), np.atleast_1d(estimator.intercept_).astype(float)
        if len(weights) == 1:
            weights, bias = np.stack([0 * weights[0], weights[0]]), np.array([0.0, float(bias.ravel()[0])])
        self.weights, self.bias = weights, np.broadcast_to(bias, (len(weights),))

    def nearest(self, x: Array, label: int, norm: Norm, low: Array, high: Array) -> Nearest:
        """Min over the other classes j of the distance to {w_j · x' + b_j >= w_y · x' + b_y} inside the box."""
        best = NOWHERE
        scores = self.weights @ x + self.bias
        for rival in range(len(self.weights)):
            slope, gap = self.weights[rival] - self.weights[label], float(scores[label] - scores[rival])
            if rival == label or not slope.any() or gap / length(slope, DUAL[norm]) >= best.distance:
                continue  # the half-space without the box is no farther
            offset = into_half_space(gap, slope, low - x, high - x, norm)
            if offset is not None and (distance := float(length(offset, norm))) < best.distance:
                inward = np.where(slope > 0, high - x - offset, offset - low + x) > 0
                best = Nearest(distance, x + offset, np.sign(slope) * np.abs(slope) * inward)
        return best


def into_half_space(gap: float, slope: Array, low: Array, high: Array, norm: Norm) -> Array | None:
    """Smallest offset with slope · offset >= gap and low <= offset <= high; None where there is none.

    Without limits: gap / |slope|_dual. With them each coordinate goes at its pace (l2: in proportion to its slope;
    linf: all alike) until it meets its limit; l1 uses up the steepest first. What is gained is piecewise linear in
    time, and the time is found between the two limits where the gap is met.

    >>> into_half_space(1.0, np.array([3.0, 4.0]), np.full(2, -np.inf), np.array([np.inf, 0.1]), "l2")
    array([0.2, 0.1])
    """
    size = np.abs(slope)
    room = np.where(slope > 0, high, np.where(slope < 0, -low, 0.0))
    if float(size[size > 0] @ room[size > 0]) < gap:
        return None
    if norm == "l1":
        order = np.argsort(-size, kind="stable")
        gain = np.where(size > 0, size, 1.0) * room
        before = np.concatenate([[0.0], np.cumsum(gain[order])[:-1]])
        share = np.maximum(gap - before, 0) / np.maximum(size[order], np.finfo(float).tiny)
        move = np.empty_like(size)
        move[order] = np.minimum(share, room[order])
        return np.asarray(move * np.sign(slope))
    pace = np.where(size > 0, 1.0, 0.0) if norm == "linf" else size
    ends = np.divide(room, pace, out=np.full_like(room, np.inf), where=pace > 0)  # when each meets its limit
    free = size > 0
    while True:
        rate = float((size * pace)[free].sum())
        held = float(size[~free] @ room[~free])
        time = (gap - held) / rate if rate > 0 else np.inf
        over = free & (ends < time)
        if not over.any() or rate == 0:
            break
        free &= ~over
    moved = size > 0
    out = np.zeros_like(size)
    out[moved] = np.minimum(np.where(free, time, np.inf)[moved] * pace[moved], room[moved])
    return np.asarray(out * np.sign(slope))
