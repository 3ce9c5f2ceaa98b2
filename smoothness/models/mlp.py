"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from smoothness.models.initial import features_pooled


def mlp(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 128,
    depth: int = 2,
) -> nn.Sequential:
    """Flatten, then `depth` hidden layers with `width` outputs of their activation each, then the logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    size = math.prod(input_shape)
    pooled = features_pooled(make_activation())
    for k in range(1, depth + 1):
        layers[f"linear{k}"] = nn.Linear(size, width * pooled)
        layers[f"activation{k}"] = make_activation()
        size = width
    layers["output"] = nn.Linear(size, classes)
    return nn.Sequential(layers)
