"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from torch import nn


def mlp(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 128,
    depth: int = 2,
) -> nn.Sequential:
    """Flatten, then `depth` hidden layers of `width` units, each with its activation, then the logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    size = math.prod(input_shape)
    for k in range(1, depth + 1):
        layers[f"linear{k}"] = nn.Linear(size, width)
        layers[f"activation{k}"] = make_activation()
        size = width
    layers["output"] = nn.Linear(size, classes)
    return nn.Sequential(layers)
