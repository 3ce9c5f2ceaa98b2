"""Small ensembles of trees: the nearest input of another class by a mixed-integer linear program."""

from __future__ import annotations

from typing import Any

import numpy as np

from smoothness._norms import Norm
from smoothness.analyzers.exact.answer import NOWHERE, Array, Nearest, length
from smoothness.analyzers.exact.trees import leaves, split_sides

MOST_LEAVES = 4000
SECONDS = 120.0  # of one program
TIE = 1e-6  # of the scores' scale: the solver's own tolerance, within which scores count as equal
GAP = 1e-6  # relative, between the program's two sides
_SCALE = 1000.0  # of distances within the program, whose solver has absolute tolerances of 1e-6


class EnsembleSearch:
    """Distances to the boundary of a sum of trees (Kantchelian, Tygar and Joseph 2016, arXiv 1509.07892, section 4).

    p_fk = 1 where x'_f is left of threshold k of feature f, rising in k; leaf l of a tree is taken only where its path
    agrees; one leaf a tree. The cost of x'_f being in the k-th interval is its distance to x_f (squared for l2), so
    that the program stays linear in l1, l2 and linf.
    """

    def __init__(self, estimator: Any) -> None:
        self.features = int(estimator.n_features_in_)
        self.trees, self.offset = _trees_of(estimator)
        count = sum(len(tree[2]) for tree in self.trees)
        if count > MOST_LEAVES:
            raise ValueError(
                f"{type(estimator).__name__} has {count} leaves, and the exact search takes up to {MOST_LEAVES}; fit "
                "fewer or shallower trees, or use MinimalPerturbation with DecisionBoundary for an upper bound"
            )
        found: dict[int, set[float]] = {}
        for low, high, _ in self.trees:
            for row in (low, high):
                for leaf, feature in zip(*np.isfinite(row).nonzero(), strict=True):
                    end = row[leaf, feature] if row is high else _before(row[leaf, feature])
                    found.setdefault(int(feature), set()).add(float(end))
        self.ends = {feature: np.array(sorted(ends)) for feature, ends in sorted(found.items())}
        self.first = dict(zip(self.ends, np.cumsum([0, *map(len, self.ends.values())])[:-1].tolist(), strict=True))
        self.count = sum(map(len, self.ends.values()))

    def nearest(self, x: Array, label: int, norm: Norm, low: Array, high: Array) -> Nearest:
        """The nearest over all other classes."""
        x, best = x.astype(np.float32).astype(float), NOWHERE
        for rival in range(len(self.offset)):
            if rival != label:
                found = self._towards(x, label, rival, norm, low, high)
                if found.reason:
                    return found
                best = min(best, found, key=lambda one: one.distance)
        return best

    def _towards(self, x: Array, label: int, rival: int, norm: Norm, low: Array, high: Array) -> Nearest:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_matrix

        weights = [values[:, rival] - values[:, label] for _, _, values in self.trees]
        scale = max(1e-300, sum(float(np.abs(own).max()) for own in weights))
        total = self.count + sum(map(len, weights)) + 1  # thresholds, leaves, and the largest move of linf
        rows: list[tuple[int, int, float]] = []
        lower: list[float] = []
        upper: list[float] = []

        def add(entries: list[tuple[int, float]], least: float, most: float) -> None:
            rows.extend((len(lower), column, value) for column, value in entries)
            lower.append(least)
            upper.append(most)

        least, most = np.zeros(total), np.ones(total)
        most[-1] = np.inf if norm == "linf" else 0
        cost, constant = np.zeros(total), 0.0
        cost[-1] = 1.0 if norm == "linf" else 0.0
        for feature, ends in self.ends.items():
            start, k = self.first[feature], len(ends)
            for place in range(k - 1):
                add([(start + place, 1), (start + place + 1, -1)], -np.inf, 0)
            begins = np.concatenate([[-np.inf], [split_sides(end)[1] for end in ends]])
            moves = _moves(x[feature], np.maximum(begins, low[feature]), np.minimum([*ends, np.inf], high[feature]))
            for place in map(int, np.isinf(moves).nonzero()[0]):  # intervals outside the bounds: p_(k-1) = p_k
                add([(start + j, sign) for j, sign in ((place, 1), (place - 1, -1)) if 0 <= j < k], *_shut(place, k))
            moves = _SCALE * np.where(np.isinf(moves), 0, moves**2 if norm == "l2" else moves)
            # Σ moves_k (p_k - p_(k-1)), with p of the last interval 1
            steps = moves[:-1] - moves[1:]
            if norm == "linf":
                add([(start + j, float(steps[j])) for j in range(k)] + [(total - 1, -1.0)], -np.inf, -float(moves[-1]))
            else:
                cost[start : start + k], constant = steps, constant + float(moves[-1])
        at, score = self.count, []
        for (lows, highs, _), own in zip(self.trees, weights, strict=True):
            add([(at + leaf, 1.0) for leaf in range(len(own))], 1, 1)
            for leaf in range(len(own)):
                score.append((at + leaf, float(own[leaf]) / scale))
                for feature in np.isfinite(highs[leaf]).nonzero()[0]:
                    add([(at + leaf, 1.0), (self._column(feature, highs[leaf, feature]), -1.0)], -np.inf, 0)
                for feature in np.isfinite(lows[leaf]).nonzero()[0]:
                    add([(at + leaf, 1.0), (self._column(feature, _before(lows[leaf, feature])), 1.0)], -np.inf, 1)
            at += len(own)
        gap = float(self.offset[label] - self.offset[rival]) / scale
        add(score, gap - TIE, np.inf)
        r, c, v = zip(*rows, strict=True)
        matrix = coo_matrix((v, (r, c)), shape=(len(lower), total)).tocsr()
        whole = np.concatenate([np.ones(self.count), np.zeros(total - self.count)])
        options = {"mip_rel_gap": 0.0, "time_limit": SECONDS}
        solved = milp(
            cost, integrality=whole, bounds=Bounds(least, most), options=options,
            constraints=LinearConstraint(matrix, np.array(lower), np.array(upper)),
        )  # fmt: skip
        if solved.status == 2:
            return NOWHERE
        if solved.x is None or solved.status != 0:
            return Nearest(np.nan, reason=f"the integer program did not end in {SECONDS:g} s ({solved.message})")
        point = self._point(x, solved.x, low, high)
        distance = float(length(point - x, norm))
        proved = max(0.0, float(solved.mip_dual_bound) + constant) / _SCALE
        proved = proved**0.5 if norm == "l2" else proved
        if distance - proved > GAP * distance + 1e-12:
            return Nearest(np.nan, reason=f"the integer program is open between {proved:g} and {distance:g}")
        return Nearest(distance, point)

    def _column(self, feature: int, end: float) -> int:
        return int(self.first[int(feature)]) + int(np.searchsorted(self.ends[int(feature)], end))

    def _point(self, x: Array, solution: Array, low: Array, high: Array) -> Array:
        """X moved into the intervals that were chosen."""
        point = x.copy()
        for feature, ends in self.ends.items():
            left = solution[self.first[feature] : self.first[feature] + len(ends)] > 0.5
            place = int(left.argmax()) if left.any() else len(ends)
            begin = -np.inf if place == 0 else split_sides(float(ends[place - 1]))[1]
            end = np.inf if place == len(ends) else float(ends[place])
            point[feature] = np.clip(x[feature], max(begin, low[feature]), min(end, high[feature]))
        return point


def _shut(place: int, count: int) -> tuple[float, float]:
    """Sides of the row p_place - p_(place-1) = 0, with p_(-1) = 0 and p_count = 1."""
    return (-1.0, -1.0) if place == count else (0.0, 0.0)


def _moves(x: float, begins: Array, ends: Array) -> Array:
    """Distance from x to each interval; infinite for an empty one."""
    return np.where(begins <= ends, np.maximum(np.maximum(begins - x, x - ends), 0), np.inf)


def _before(begin: float) -> float:
    return float(np.nextafter(np.float32(begin), np.float32(-np.inf)))


def _trees_of(estimator: Any) -> tuple[list[tuple[Array, Array, Array]], Array]:
    """Boxes and scores (leaves, classes) of each tree, and what is added to their sum."""
    from sklearn.ensemble import GradientBoostingClassifier

    features, found = int(estimator.n_features_in_), []
    classes = len(estimator.classes_)
    if not isinstance(estimator, GradientBoostingClassifier):
        for member in estimator.estimators_:
            low, high, nodes = leaves(member.tree_, features)
            values = member.tree_.value[nodes, 0]
            found.append((low, high, values / values.sum(axis=1, keepdims=True) / len(estimator.estimators_)))
        return found, np.zeros(classes)
    for stage in estimator.estimators_:
        for column, member in enumerate(stage):
            low, high, nodes = leaves(member.tree_, features)
            scores = np.zeros((len(nodes), classes))
            scores[:, column if classes > 2 else 1] = estimator.learning_rate * member.tree_.value[nodes, 0, 0]
            found.append((low, high, scores))
    middle = np.zeros((1, features))
    raw = np.atleast_1d(np.squeeze(estimator.decision_function(middle)))
    raw = raw if classes > 2 else np.array([0.0, float(raw[0])])
    for low, high, scores in found:
        raw = raw - scores[((middle >= low) & (middle <= high)).all(axis=1)][0]
    return found, raw
