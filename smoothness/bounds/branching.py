"""The exact constant of a small piecewise affine network: every affine piece that the ball meets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothness._norms import DUAL, Norm, operator_norm
from smoothness.bounds.balls import Ball
from smoothness.bounds.graph import Network
from smoothness.bounds.ranges import Ranges

Array = NDArray[np.float64]
_ORDER = {"l2": 2, "l1": 1, "linf": np.inf}
# More uncertain units than this are not branched on, nor are more half-spaces tried.
_MOST_UNITS, _MOST_NODES = 24, 4000
# Of no more units than this, so many: an l2 half-space system is quicker than a linear programme.
_FEW_UNITS, _NODES_OF_FEW = 16, {"l2": 40000, "linf": 12000, "l1": 12000}
# A piece is left out only when it is proved to be farther away than the ball reaches, by this share.
_MARGIN = 1e-9


class _Feature(NamedTuple):
    """h = matrix x + offset on the current piece."""

    matrix: Array
    offset: Array


class _TooManyError(Exception):
    """More half-spaces than are tried."""


def branched_constant(
    network: Network, ball: Ball, found: Ranges, row: int, mix: Tensor | None, separate: bool
) -> float | None:
    """The largest norm of the Jacobian over the affine pieces that meet ball `row`; None where there are too many.

    Units are decided one by one, each decision a half-space of x. A half-space system is dropped when multipliers
    λ >= 0 prove it: points with G y >= e have |y| >= λ·e / |Gᵀλ| in the dual norm. For continuous piecewise affine
    activations alone.
    """
    pieces = []
    for layer in network.hidden:
        affine = layer.facts.affine_pieces
        if affine is None or layer.facts.period is not None or any(b.order < 0 for b in layer.facts.breakpoints):
            return None
        edges = [-np.inf, *(b.position for b in layer.facts.breakpoints), np.inf]
        pieces.append([(low, high, *piece) for low, high, piece in zip(edges, edges[1:], affine, strict=False)])
    search = _Search(network, ball, row, mix, separate, pieces, found)
    if search.uncertain > _MOST_UNITS:
        return None
    try:
        search.layer(0)
    except _TooManyError:
        return None
    return search.largest * (1 + 1e-9)


class _Search:
    def __init__(
        self,
        network: Network,
        ball: Ball,
        row: int,
        mix: Tensor | None,
        separate: bool,
        pieces: list[list[tuple[float, float, float, float]]],
        found: Ranges,
    ) -> None:
        self.norm: Norm = ball.norm
        self.centre, self.radius = ball.centre[row].cpu().numpy(), float(ball.radius[row])
        self.maps = [[(j, w.cpu().numpy()) for j, w in m.sources] for m in network.maps]
        self.biases = [m.bias.cpu().numpy() for m in network.maps]
        self.mix, self.separate, self.largest, self.nodes = mix, separate, 0.0, 0
        self.options = []
        for layer, interval in zip(pieces, found.before, strict=True):
            lower, upper = interval.lower[row].tolist(), interval.upper[row].tolist()
            self.options.append(
                [[p for p in layer if p[1] >= low and p[0] <= high] for low, high in zip(lower, upper, strict=True)]
            )
        self.uncertain = sum(len(unit) > 1 for layer in self.options for unit in layer)
        self.most = _NODES_OF_FEW[self.norm] if self.uncertain <= _FEW_UNITS else _MOST_NODES
        d = len(self.centre)
        self.features = [_Feature(np.eye(d), np.zeros(d))]
        self.rows: list[tuple[Array, float]] = []  # g · y >= e, y = x - centre
        if ball.low is not None and ball.high is not None:
            for i in range(d):
                unit = np.eye(d)[i]
                self.rows.append((unit, float(ball.low[row, i]) - float(self.centre[i])))
                self.rows.append((-unit, float(self.centre[i]) - float(ball.high[row, i])))

    def layer(self, k: int) -> None:
        """Decide layer k, the layers before it being decided."""
        if k == len(self.options):
            self._leaf()
            return
        z = self._combined(k)
        options = self.options[k]
        width = len(options)
        slopes = np.array([unit[0][2] for unit in options])
        offsets = np.array([unit[0][3] for unit in options])
        self._unit(k, 0, width, z, slopes, offsets)

    def _unit(self, k: int, i: int, width: int, z: _Feature, slopes: Array, offsets: Array) -> None:
        while i < width and len(self.options[k][i]) == 1:
            i += 1
        if i == width:
            self.features.append(_Feature(slopes[:, None] * z.matrix, slopes * z.offset + offsets))
            self.layer(k + 1)
            self.features.pop()
            return
        here = float(z.matrix[i] @ self.centre + z.offset[i])
        for low, high, slope, offset in self.options[k][i]:
            added = 0
            for bound, sign in ((low, 1.0), (high, -1.0)):
                if np.isfinite(bound):
                    self.rows.append((sign * z.matrix[i], sign * (bound - here)))
                    added += 1
            if self._possible():
                before = slopes[i], offsets[i]
                slopes[i], offsets[i] = slope, offset
                self._unit(k, i + 1, width, z, slopes, offsets)
                slopes[i], offsets[i] = before
            del self.rows[len(self.rows) - added :]

    def _combined(self, k: int) -> _Feature:
        matrix = sum(w @ self.features[j].matrix for j, w in self.maps[k])
        offset = sum(w @ self.features[j].offset for j, w in self.maps[k]) + self.biases[k]
        if not self.maps[k]:
            matrix = np.zeros((len(self.biases[k]), len(self.centre)))
        return _Feature(np.asarray(matrix), np.asarray(offset))

    def _leaf(self) -> None:
        jacobian = torch.from_numpy(self._combined(len(self.maps) - 1).matrix)
        if self.mix is not None:
            jacobian = self.mix.cpu() @ jacobian
        if self.separate:
            value = float(torch.linalg.vector_norm(jacobian, ord=_ORDER[DUAL[self.norm]], dim=1).max())
        else:
            value = float(operator_norm(jacobian.unsqueeze(0), self.norm))
        self.largest = max(self.largest, value)

    def _possible(self) -> bool:
        """Unless the half-spaces are proved to miss the ball."""
        self.nodes += 1
        if self.nodes > self.most:
            raise _TooManyError
        g = np.array([row for row, _ in self.rows])
        e = np.array([value for _, value in self.rows])
        if (e <= 0).all():
            return True  # the centre itself
        size = np.linalg.norm(g, axis=1)
        scale = np.where(size > 0, size, 1.0)
        if ((size == 0) & (e > _MARGIN)).any():
            return False
        g, e = g / scale[:, None], e / scale
        multipliers = _nearest_l2(g, e) if self.norm == "l2" else _nearest_lp(g, e, self.norm)
        if multipliers is None:
            return True
        reach = float(np.linalg.norm(g.T @ multipliers, ord=_ORDER[DUAL[self.norm]]))
        gain = float(multipliers @ e) - 1e-13 * float(np.abs(multipliers) @ (np.abs(e) + 1))
        return not gain > self.radius * (1 + _MARGIN) * (reach + 1e-13 * float(np.abs(multipliers).sum()))


def _nearest_l2(g: Array, e: Array) -> Array | None:
    """Multipliers of min |y|_2 with g y >= e, by non-negative least squares (Lawson and Hanson 1974, chapter 23)."""
    from scipy.optimize import nnls

    try:
        found, _ = nnls(np.vstack([g.T, e]), np.concatenate([np.zeros(g.shape[1]), [1.0]]))
    except RuntimeError:  # too many iterations
        return None
    multipliers: Array = np.maximum(found, 0)
    return multipliers


def _nearest_lp(g: Array, e: Array, norm: Norm) -> Array | None:
    """Multipliers of the nearest point in the max-norm or the 1-norm: max λ·e with |gᵀλ| <= 1 in the dual norm."""
    from scipy.optimize import linprog

    m, d = g.shape
    if norm == "l1":  # every |(gᵀλ)_i| <= 1
        rows = np.vstack([g.T, -g.T])
        found = linprog(-e, A_ub=rows, b_ub=np.ones(2 * d), bounds=[(0, 1e6)] * m, method="highs")
    else:  # Σ s_i <= 1 with |(gᵀλ)_i| <= s_i
        eye = np.eye(d)
        rows = np.vstack([np.hstack([g.T, -eye]), np.hstack([-g.T, -eye]), np.hstack([np.zeros(m), np.ones(d)])])
        limits = np.concatenate([np.zeros(2 * d), [1.0]])
        cost = np.concatenate([-e, np.zeros(d)])
        found = linprog(cost, A_ub=rows, b_ub=limits, bounds=[(0, 1e6)] * m + [(0, None)] * d, method="highs")
    multipliers: Array | None = None if found.x is None else np.maximum(found.x[:m], 0)
    return multipliers
