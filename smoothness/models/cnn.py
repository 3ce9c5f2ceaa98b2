"""The small convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from smoothness.models.initial import features_pooled


def cnn(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 16,
    depth: int = 2,
) -> nn.Sequential:
    """`depth` convolutions (3x3, stride 2, channels doubling from `width`), a hidden layer, the logits.

    Strides instead of max pooling: the activation is then the only source of kinks and jumps.

    Raises:
        ValueError: inputs that are not (channels, height, width), or too small for the depth.
    """
    if len(input_shape) != 3:
        raise ValueError(f"cnn needs input_shape (channels, height, width), got {input_shape}; use 'mlp' instead")
    channels, height, length = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    pooled = features_pooled(make_activation())
    for k in range(1, depth + 1):
        if min(height, length) < 2:
            raise ValueError(f"input_shape {input_shape} is too small for {depth} strided convolutions; lower depth")
        layers[f"conv{k}"] = nn.Conv2d(channels, width * 2 ** (k - 1) * pooled, 3, stride=2, padding=1)
        layers[f"activation{k}"] = make_activation()
        channels, height, length = width * 2 ** (k - 1), (height + 1) // 2, (length + 1) // 2
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * length, 4 * width * pooled)
    layers[f"activation{depth + 1}"] = make_activation()
    layers["output"] = nn.Linear(4 * width, classes)
    return nn.Sequential(layers)
