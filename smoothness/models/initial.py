"""Initial weights that do not depend on the activation, and the gain that may."""

from __future__ import annotations

import math

import torch
from torch import nn

from smoothness._checks import check_positive
from smoothness.activations import Activation, activation_facts
from smoothness.models.residual import closing_layers

Gain = float | str


def resolve_gain(gain: Gain, activation: nn.Module) -> float:
    """The factor on every hidden layer's initial weights.

    A number is taken as it is. "auto" is 1 / sqrt(E φ(u)²) for standard normal u, which keeps the
    second moment of the pre-activations from layer to layer (He et al. 2015, arXiv 1502.01852, gives
    √2 for ReLU).

    >>> resolve_gain("auto", nn.ReLU())
    1.41421...
    """
    if gain == "auto":
        moment = activation_facts(activation).second_moment
        if not moment > 0:
            raise ValueError(
                f"gain='auto' needs the second moment of {activation!r}, which is not known; give a number"
            )
        return 1 / math.sqrt(moment)
    if isinstance(gain, str):
        raise ValueError(f"gain must be a positive number or 'auto', got {gain!r}")
    return check_positive("gain", gain)


def features_pooled(activation: nn.Module) -> int:
    """Features that an activation takes in for each it gives out: 2 for maxout of pairs, 1 for most."""
    return activation.inputs_per_output if isinstance(activation, Activation) else 1


def initialise(model: nn.Module, seed: int, gain: float) -> None:
    """Fill weights with gain · N(0, 1/fan_in), the last layer with gain 1; biases with zero.

    Layers that close a residual branch start smaller (`smoothness.models.residual.Residual`). The draws depend on
    seed and shapes alone, so twins agree to the bit up to the gain.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    closing = closing_layers(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            unit = torch.randn(layer.weight.shape, generator=generator) / math.sqrt(layer.weight[0].numel())
            if any(layer is other for other in closing):
                unit /= math.sqrt(len(closing))
            layer.weight.copy_(unit if layer is layers[-1] else unit * gain)
            if layer.bias is not None:
                layer.bias.zero_()


def weights_fingerprint(model: nn.Module, gain: float = 1.0) -> tuple[float, ...]:
    """Two projections of each layer's weights, the hidden layers' gain divided out.

    Before training, twins agree to rounding (about 1e-7 relative); other weights do not.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    generator = torch.Generator().manual_seed(0)
    prints: list[float] = []
    for layer in layers:
        weight = layer.weight.detach().double().cpu().flatten() / (1 if layer is layers[-1] else gain)
        directions = torch.randn(2, weight.numel(), generator=generator, dtype=torch.float64)
        prints += (directions @ weight).tolist()
    return tuple(prints)
