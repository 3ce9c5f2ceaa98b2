"""Exact distances to the nearest misclassified input of tiny networks, by enumeration of what each unit does."""

import itertools

import numpy as np
import torch
from torch import nn

from tests.attacks.exact import least_norm


def tiny(activation, seed, features=3, hidden=5, classes=3):
    """A random network with one hidden layer, its inputs and its own predictions as labels."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(features, hidden), activation, nn.Linear(hidden, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model[0].bias.copy_(-model[0].weight.sum(dim=1) / 2 + model[0].bias / 4)  # units change sides inside the box
        inside = torch.rand(200, features, generator=generator, dtype=torch.float64)
        model[2].bias.sub_(model(inside).mean(dim=0))  # every class is somewhere
        x = torch.rand(8, features, generator=generator, dtype=torch.float64)
        return model, x, model(x).argmax(dim=1)


def nearest(model, x, label, norm, kind):
    """Smallest |x' - x|_p over x' in the unit box with another class, in linf or l1; inf without any.

    Every pattern of active hidden units is a polytope on which the network is affine (relu) or constant (step):
    one linear program for each pattern and rival class.
    """
    weight, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    out, offset = model[2].weight.detach().numpy(), model[2].bias.detach().numpy()
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(bias)):
        active = np.array(pattern)
        sides = np.where(active[:, None] > 0, -weight, weight), np.where(active > 0, bias, -bias)
        if kind == "relu":
            slope, level = out @ (active[:, None] * weight), out @ (active * bias) + offset
        else:
            slope, level = np.zeros((len(offset), len(x))), out @ active + offset
        for rival in range(len(offset)):
            if rival == label or (kind == "step" and level[rival] <= level[label]):
                continue
            lead = slope[label] - slope[rival], level[rival] - level[label]
            best = min(best, _program(np.vstack([sides[0], lead[0]]), np.append(sides[1], lead[1]), x, norm))
    return best


def _program(rows, limits, x, norm):
    """min |x' - x| over rows · x' <= limits and 0 <= x' <= 1."""
    box = np.eye(len(x))
    return least_norm(np.vstack([-rows, box, -box]), np.concatenate([rows @ x - limits, -x, x - 1]), norm)


def distances(model, x, y, norm, kind):
    return torch.tensor([nearest(model, x[i].numpy(), int(y[i]), norm, kind) for i in range(len(x))])
