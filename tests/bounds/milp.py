"""Exact max-norm distances of small networks as mixed-integer programs: an oracle that shares no code with bounds."""

import itertools

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

INF = np.inf
# (from, to, slope, offset) of every piece.
PIECES = {
    "relu": ((-INF, 0, 0, 0), (0, INF, 1, 0)),
    "step": ((-INF, 0, 0, 0), (0, INF, 0, 1)),
    "staircase": ((-INF, -0.75, 0, -1), (-0.75, -0.25, 0, -0.5), (-0.25, 0.25, 0, 0), (0.25, 0.75, 0, 0.5),
                  (0.75, INF, 0, 1)),
}  # fmt: skip


def nearest(model, activation, x, label, within):
    """Smallest |x' - x|_inf over x' in the unit box where another class is as likely; inf without one `within`.

    Every unit is on one of its pieces, chosen by binaries: z = Σ_p z_p with lower_p b_p <= z_p <= upper_p b_p,
    h = Σ_p slope_p z_p + offset_p b_p, Σ_p b_p = 1. At a jump both sides are allowed, so that this is the infimum.
    """
    layers = [(m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
              for m in model.modules() if isinstance(m, nn.Linear)]  # fmt: skip
    x = x.double().flatten().numpy()
    best, found = within, INF
    for rival in range(len(layers[-1][1])):
        if rival != label:
            distance = _towards(layers, PIECES[activation], x, label, rival, best)
            best, found = min(best, distance), min(found, distance)
    return found


def _towards(layers, pieces, x, label, rival, within):
    program = _Program()
    lower, upper = np.maximum(x - within, 0), np.minimum(x + within, 1)
    radius = program.add([0.0], [within])
    inputs = program.add(lower, upper)
    eye = np.eye(len(x))
    program.rows([(inputs, eye), (radius, -np.ones((len(x), 1)))], -INF, x)
    program.rows([(inputs, -eye), (radius, -np.ones((len(x), 1)))], -INF, -x)
    features = inputs
    for weight, bias in layers[:-1]:
        low = np.maximum(weight, 0) @ lower + np.minimum(weight, 0) @ upper + bias
        high = np.maximum(weight, 0) @ upper + np.minimum(weight, 0) @ lower + bias
        features, lower, upper = program.activate(features, weight, bias, low, high, pieces)
    weight, bias = layers[-1]
    row = weight[rival] - weight[label]
    program.rows([(features, row[None])], bias[label] - bias[rival], INF)
    return program.smallest(radius)


class _Program:
    def __init__(self):
        self.lower, self.upper, self.whole, self.constraints = [], [], [], []

    def add(self, lower, upper, whole=False):
        start = len(self.lower)
        self.lower += list(lower)
        self.upper += list(upper)
        self.whole += [int(whole)] * len(lower)
        return np.arange(start, start + len(lower))

    def rows(self, terms, lower, upper):
        count = len(terms[0][1])
        self.constraints.append((terms, np.broadcast_to(lower, count), np.broadcast_to(upper, count)))

    def activate(self, features, weight, bias, low, high, pieces):
        """h = φ(W features + b): its variables and their ranges."""
        n = len(bias)
        z = self.add(low, high)
        self.rows([(z, np.eye(n)), (features, -weight)], bias, bias)
        h_low, h_high = np.full(n, INF), np.full(n, -INF)
        parts, chosen, h_terms = [], [], []
        for start, end, slope, offset in pieces:
            a, b = np.maximum(low, start), np.minimum(high, end)
            met = a <= b
            a, b = np.where(met, a, 0.0), np.where(met, b, 0.0)
            part, flag = self.add(np.minimum(a, 0), np.maximum(b, 0)), self.add(np.zeros(n), met * 1.0, whole=True)
            self.rows([(part, np.eye(n)), (flag, -np.diag(a))], 0.0, INF)
            self.rows([(part, np.eye(n)), (flag, -np.diag(b))], -INF, 0.0)
            ends = np.stack([slope * a + offset, slope * b + offset])
            h_low = np.where(met, np.minimum(h_low, ends.min(0)), h_low)
            h_high = np.where(met, np.maximum(h_high, ends.max(0)), h_high)
            parts.append((part, np.eye(n)))
            chosen.append((flag, np.eye(n)))
            h_terms += [(part, -slope * np.eye(n)), (flag, -offset * np.eye(n))]
        h = self.add(h_low, h_high)
        self.rows([(z, -np.eye(n)), *parts], 0.0, 0.0)
        self.rows(chosen, 1.0, 1.0)
        self.rows([(h, np.eye(n)), *h_terms], 0.0, 0.0)
        return h, h_low, h_high

    def smallest(self, variable):
        width, blocks = len(self.lower), []
        for terms, low, high in self.constraints:
            matrix = sp.lil_matrix((len(low), width))
            for index, block in terms:
                for i, j in itertools.product(*map(range, np.shape(block))):
                    if block[i][j]:
                        matrix[i, index[j]] = block[i][j]
            blocks.append(LinearConstraint(matrix.tocsr(), low, high))
        cost = np.zeros(width)
        cost[variable] = 1.0
        result = milp(cost, constraints=blocks, integrality=self.whole, bounds=Bounds(self.lower, self.upper),
                      options={"mip_rel_gap": 1e-9})  # fmt: skip
        if result.status == 2:  # infeasible
            return INF
        assert result.status == 0, result.message
        return float(result.fun)
