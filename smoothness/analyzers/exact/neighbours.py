"""One nearest neighbour: the nearest Voronoi cell of another class, by quadratic or linear programs with pruning."""

from __future__ import annotations

from typing import Any

import numpy as np

from smoothness._norms import DUAL, Norm
from smoothness.analyzers.exact.answer import NOWHERE, Array, Nearest, length
from smoothness.analyzers.exact.linear import into_half_space

GAP = 1e-7  # relative, between the program's two sides, that counts as solved
_ROUNDS = 200  # of adding violated constraints
_TURNS = 500  # of the ascent in the multipliers
_AT_ONCE = 8  # constraints added together


class NeighbourSearch:
    """Distances to the boundary of a 1-nearest-neighbour classifier in Euclidean distance.

    Point t_j of another class is nearer to x' than every point t_i of the own class where
    2 (t_j - t_i) · x' >= |t_j|² - |t_i|²: a convex cell; x' is misclassified inside one of them.
    """

    def __init__(self, estimator: Any) -> None:
        self.points = np.asarray(estimator._fit_X, dtype=float)
        self.labels = np.asarray(estimator._y).ravel()
        self.squares = (self.points**2).sum(axis=1)

    def nearest(self, x: Array, label: int, norm: Norm, low: Array, high: Array) -> Nearest:
        """The nearest cell, other points in the order of a lower bound on theirs, until the bound is no nearer."""
        own, others = self.labels == label, (self.labels != label).nonzero()[0]
        theirs = ((self.points - x) ** 2).sum(axis=1)
        closest = self.points[own][np.argsort(theirs[own])[:20]]
        squares = (closest**2).sum(axis=1)
        bounds = np.zeros(len(others))
        for point, square in zip(closest, squares, strict=True):  # each constraint alone is a bound
            slope = self.points[others] - point
            gap = (self.squares[others] - square) / 2 - slope @ x
            size = length(slope, DUAL[norm])
            bounds = np.maximum(bounds, np.divide(gap, size, out=np.full(len(gap), np.inf), where=size > 0))
        best, program = NOWHERE, _quadratic if norm == "l2" else _linear
        for place in np.argsort(bounds, kind="stable"):
            if bounds[place] >= best.distance:
                break
            target = self.points[others[place]]
            slopes = target - self.points[own]
            gaps = (float(target @ target) - self.squares[own]) / 2 - slopes @ x
            found = program(slopes, gaps, low - x, high - x, norm, best.distance)
            if found.reason:
                return found
            if found.distance < best.distance and found.point is not None:
                best = Nearest(found.distance, x + found.point, target - x - found.point)
        return best


def _quadratic(slopes: Array, gaps: Array, low: Array, high: Array, norm: Norm, enough: float) -> Nearest:
    """Min |δ| with slopes · δ >= gaps inside the box, violated constraints added round by round.

    The multipliers' side, max gaps · λ - ½ |δ(λ)|² ..., is a lower bound at every λ >= 0: the search ends as soon as
    it shows the cell to be farther than `enough`, and an answer counts only where both sides agree.
    """
    chosen = [int(gaps.argmax())]
    multipliers = np.zeros(1)
    for _ in range(_ROUNDS):
        bound, multipliers, offset = _ascend(slopes[chosen], gaps[chosen], low, high, multipliers)
        if bound >= enough**2 / 2 or not np.isfinite(bound):
            return NOWHERE
        lacking = gaps - slopes @ offset
        lacking[chosen] = -np.inf
        scale = max(1e-300, float(np.abs(gaps).max()))
        if lacking.max() <= 1e-10 * scale:
            distance = float(length(offset, "l2"))
            lower = float(np.sqrt(2 * max(bound, 0)))
            if distance - lower <= GAP * distance:
                return Nearest(distance, offset)
            return Nearest(np.nan, reason=f"the quadratic program is open between {lower:g} and {distance:g}")
        worst = np.argsort(-lacking)[:_AT_ONCE]
        chosen += [int(row) for row in worst if lacking[row] > 1e-10 * scale]
        multipliers = np.concatenate([multipliers, np.zeros(len(chosen) - len(multipliers))])
    return Nearest(np.nan, reason="the quadratic program did not end")


def _ascend(slopes: Array, gaps: Array, low: Array, high: Array, start: Array) -> tuple[float, Array, Array]:
    """Max over λ >= 0 of the dual, by Newton's steps on the multipliers that are free; δ(λ) = box(slopesᵀ λ)."""

    def value(lam: Array) -> tuple[float, Array]:
        pull = lam @ slopes
        offset = np.clip(pull, low, high)
        return float(gaps @ lam + (offset * (offset / 2 - pull)).sum()), offset

    lam = start.copy()
    best, offset = value(lam)
    for _ in range(_TURNS):
        ascent = gaps - slopes @ offset
        free = (lam > 0) | (ascent > 0)
        if not free.any() or np.abs(np.where(free, ascent, 0)).max() <= 1e-13 * max(1e-300, np.abs(gaps).max()):
            break
        inside = (offset > low) & (offset < high)
        rows = slopes[free]
        curvature = (rows * inside) @ rows.T
        shift = 1e-13 * max(np.trace(curvature), 1e-300)
        step = np.zeros_like(lam)
        step[free] = np.linalg.lstsq(curvature + shift * np.eye(len(rows)), ascent[free], rcond=None)[0]
        improved = False
        for direction in (step, ascent / max(1e-300, float((slopes**2).sum()))):
            size = 1.0
            for _ in range(40):
                trial = np.maximum(lam + size * direction, 0)
                reached, there = value(trial)
                if reached > best:
                    lam, best, offset, improved = trial, reached, there, True
                    break
                size /= 2
            if improved:
                break
        if not improved or best > 1e12 * max(1.0, float(np.abs(gaps).max())):
            break
    return best, lam, offset


def _linear(slopes: Array, gaps: Array, low: Array, high: Array, norm: Norm, enough: float) -> Nearest:
    """The same in linf or l1, by linear programs."""
    from scipy.optimize import linprog

    features = slopes.shape[1]
    chosen = [int(gaps.argmax())]
    start = into_half_space(float(gaps[chosen[0]]), slopes[chosen[0]], low, high, norm)
    if start is None or float(length(start, norm)) >= enough:
        return NOWHERE
    eye = np.eye(features)
    extra = 1 if norm == "linf" else features
    spread = np.ones((features, 1)) if norm == "linf" else eye
    for _ in range(_ROUNDS):
        size = np.concatenate([np.zeros(features), np.ones(extra)])
        above = np.block([[eye, -spread], [-eye, -spread], [-slopes[chosen], np.zeros((len(chosen), extra))]])
        limits = np.concatenate([np.zeros(2 * features), -gaps[chosen]])
        box = [*zip(low, high, strict=True), *[(0, None)] * extra]
        found = linprog(size, A_ub=above, b_ub=limits, bounds=box, method="highs")
        if found.status == 2:
            return NOWHERE
        if found.status != 0:
            return Nearest(np.nan, reason=f"the linear program failed: {found.message}")
        offset = found.x[:features]
        if found.fun >= enough:
            return NOWHERE
        lacking = gaps - slopes @ offset
        if lacking.max() <= 1e-9 * max(1e-300, float(np.abs(gaps).max())) + 1e-9:
            return Nearest(float(length(offset, norm)), offset)
        chosen += [int(row) for row in np.argsort(-lacking)[:_AT_ONCE] if lacking[row] > 0]
    return Nearest(np.nan, reason="the linear program did not end")
