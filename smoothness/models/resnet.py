"""The small pre-activation residual network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from smoothness._checks import check_choice
from smoothness.models.initial import features_pooled
from smoothness.models.residual import Residual, image_norm

NORMALISATIONS = ("batch", "group", "layer", "none")


def resnet(
    make_activation: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 16,
    depth: int = 1,
    normalisation: str = "batch",
) -> nn.Sequential:
    """A strided convolution, two stages of `depth` residual blocks, the mean over positions, the logits.

    A block adds conv(φ(norm(conv(φ(norm(x)))))) to x (pre-activation; He et al. 2016, arXiv 1603.05027), with 3x3
    convolutions; the first block of the second stage halves the resolution and doubles `width`, its shortcut is a
    strided 1x1 convolution. 4 · depth + 2 weighted layers on the longest path.

    Args:
        make_activation: φ, made anew for each place.
        input_shape: (channels, height, width), at least 4 pixels each way.
        classes: number of logits.
        width: channels of the first stage.
        depth: blocks in each stage.
        normalisation: "batch", "group" (of at most 8 channels), "layer" (all channels and positions of an example), or
            "none".

    Raises:
        ValueError: inputs that are not images or too small; an unknown normalisation.
    """
    check_choice("normalisation", normalisation, NORMALISATIONS)
    if len(input_shape) != 3:
        raise ValueError(f"resnet needs input_shape (channels, height, width), got {input_shape}; use 'mlp' instead")
    if min(input_shape[1:]) < 4:
        raise ValueError(
            f"input_shape {input_shape} is too small for resnet, which halves it twice; use 'cnn' or 'mlp'"
        )
    pooled = features_pooled(make_activation())
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Conv2d(input_shape[0], width * pooled, 3, stride=2, padding=1)
    channels = width
    for stage in range(2):
        for k in range(1, depth + 1):
            wider, stride = width * 2**stage, 2 if stage and k == 1 else 1
            layers[f"block{stage * depth + k}"] = _block(
                make_activation, channels, wider, stride, pooled, normalisation
            )
            channels = wider
    layers["norm"] = image_norm(normalisation, channels * pooled)
    layers["activation"] = make_activation()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def _block(
    make_activation: Callable[[], nn.Module], before: int, after: int, stride: int, pooled: int, normalisation: str
) -> Residual:
    branch = OrderedDict(
        norm1=image_norm(normalisation, before * pooled),
        activation1=make_activation(),
        conv1=nn.Conv2d(before, after * pooled, 3, stride=stride, padding=1),
        norm2=image_norm(normalisation, after * pooled),
        activation2=make_activation(),
        conv2=nn.Conv2d(after, after * pooled, 3, padding=1),
    )
    same = before == after and stride == 1
    return Residual(
        nn.Sequential(branch), None if same else nn.Conv2d(before * pooled, after * pooled, 1, stride=stride)
    )
