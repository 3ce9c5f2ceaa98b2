"""Smallest adversarial distances of tiny networks, by enumeration: what the attacks are measured against."""

import itertools

import numpy as np
import torch
from scipy.optimize import linprog, nnls
from torch import nn


def tiny_network(seed, features=3, hidden=5, classes=3):
    """Linear, ReLU, linear, in float64, with every class predicted somewhere in [-1, 1]^features for most seeds."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model[2].bias.sub_(model(torch.zeros(1, features, dtype=torch.float64))[0])
    return model


def exact_distances(model, x, y, norm, bounds=None):
    """(n,) distance to the nearest point where another class is at least level; infinite where there is none."""
    found = [_distance(model, point, int(label), norm, bounds) for point, label in zip(x, y, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


def _distance(model, point, label, norm, bounds):
    first, _, second = model
    w1, b1, w2, b2 = (t.detach().numpy() for t in (first.weight, first.bias, second.weight, second.bias))
    x, best = point.numpy(), np.inf
    before = w1 @ x + b1
    for pattern in itertools.product((0.0, 1.0), repeat=len(b1)):
        on = np.array(pattern)
        sign = 2 * on - 1
        for rival in set(range(len(b2))) - {label}:
            difference = w2[rival] - w2[label]
            # rows · offset >= limits: each unit keeps its side, and the rival is level with the label or above
            rows = np.vstack([sign[:, None] * w1, (difference * on) @ w1])
            limits = np.append(-sign * before, -(difference * on) @ before - b2[rival] + b2[label])
            if bounds is not None:
                rows = np.vstack([rows, np.eye(len(x)), -np.eye(len(x))])
                limits = np.concatenate([limits, bounds[0] - x, x - bounds[1]])
            best = min(best, least_norm(rows, limits, norm))
    return best


def least_norm(rows, limits, norm):
    """Least norm of an offset with rows · offset >= limits."""
    d = rows.shape[1]
    if norm == "l2":  # least distance programming (Lawson and Hanson 1974, chapter 23)
        target = np.append(np.zeros(d), 1.0)
        weights, miss = nnls(np.vstack([rows.T, limits]), target)
        residual = np.vstack([rows.T, limits]) @ weights - target
        return np.inf if miss < 1e-9 else float(np.linalg.norm(residual[:d] / residual[d]))
    sizes = 1 if norm == "linf" else d
    spread = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    found = linprog(
        np.append(np.zeros(d), np.ones(sizes)),
        A_ub=np.block([[-rows, np.zeros((len(rows), sizes))], [np.eye(d), -spread], [-np.eye(d), -spread]]),
        b_ub=np.concatenate([-limits, np.zeros(2 * d)]),
        bounds=[(None, None)] * d + [(0, None)] * sizes,
    )
    return found.fun if found.status == 0 else np.inf
