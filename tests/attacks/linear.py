"""Linear classifiers and the closed form of their distances."""

import torch
from torch import nn

from smoothness._norms import DUAL, vector_norm


def linear_model(seed, features=12, classes=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(features, classes, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, features, generator=generator, dtype=dtype))
        model.bias.copy_(torch.randn(classes, generator=generator, dtype=dtype) / 4)
    return model


def points(model, n=40, seed=0):
    """Inputs and the classes predicted there."""
    x = torch.randn(n, model.in_features, generator=torch.Generator().manual_seed(seed), dtype=model.weight.dtype)
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def nearest_distance(model, x, y, norm):
    """min over rivals of (f_y - f_j)(x) / |w_j - w_y|_dual, in float64."""
    with torch.no_grad():
        weight, logits = model.weight.double(), x.double() @ model.weight.double().T + model.bias.double()
        reach = vector_norm((weight.unsqueeze(0) - weight[y].unsqueeze(1)).flatten(0, 1), DUAL[norm]).view(len(x), -1)
        distance = (logits.gather(1, y.unsqueeze(1)) - logits) / reach
        return distance.scatter(1, y.unsqueeze(1), torch.inf).amin(dim=1)
