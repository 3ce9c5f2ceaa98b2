"""Whether tiny hard-step networks can be fooled, by enumeration of their cells."""

import itertools

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from smoothness.activations import activation


def step_network(seed, features=3, hidden=6, classes=3, step=None):
    """Linear, step, linear, in float64."""
    generator = torch.Generator().manual_seed(seed)
    step = activation("step") if step is None else step
    model = nn.Sequential(nn.Linear(features, hidden), step, nn.Linear(hidden, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model[0].bias.mul_(0.3)
    return model


def can_be_fooled(model, x, y, epsilon, bounds=None, inside=1e-9):
    """(n,) whether the max-norm ball meets a cell of another class by at least `inside`."""
    first, _, last = model
    w, b = first.weight.detach().numpy(), first.bias.detach().numpy()
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(b))), dtype=torch.float64)
    with torch.no_grad():
        predicted = last(patterns).argmax(dim=1)
    found = []
    for point, label in zip(x.numpy(), y.tolist(), strict=True):
        low, high = point - epsilon, point + epsilon
        if bounds is not None:
            low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
        wrong = patterns[predicted != label].numpy()
        found.append(any(_meets(w, b, 2 * pattern - 1, low, high, inside) for pattern in wrong))
    return torch.tensor(found)


def _meets(w, b, sign, low, high, inside):
    """Whether sign · (w x + b) >= inside for some x in the box."""
    reach = np.where(sign[:, None] * w > 0, high, low)
    if (sign * ((w * reach).sum(axis=1) + b) < inside).any():
        return False
    answer = linprog(
        np.zeros(w.shape[1]), A_ub=-sign[:, None] * w, b_ub=sign * b - inside, bounds=list(zip(low, high, strict=True))
    )
    return answer.status == 0
