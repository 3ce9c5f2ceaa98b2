"""Networks whose constants are known, published or tabulated."""

from pathlib import Path

import numpy as np
import scipy.io
import torch
from torch import nn

import smoothness as sm

_REFERENCE = Path(__file__).parents[1] / "reference"


def reference_network(activation, dims="64-128-128-10"):
    """A network of networks.npz in float64, and its centre (zeros where none is given)."""
    with np.load(_REFERENCE / "networks.npz") as found:
        count = len(dims.split("-")) - 1
        layers = []
        for k in range(count):
            weight, bias = (torch.tensor(found[f"{dims}/{name}{k}"]).double() for name in ("weight", "bias"))
            layers.append(linear(weight, bias))
            if k < count - 1:
                layers.append(sm.activation(activation))
        centre = torch.tensor(found[f"{dims}/centre"]).double() if f"{dims}/centre" in found else None
    return nn.Sequential(*layers), centre


def lipsdp_network():
    """The 2-10-30-20-2 ReLU network of the LipSDP repository."""
    weights = scipy.io.loadmat(_REFERENCE / "lipsdp_random_weights.mat")["weights"][0]
    layers = []
    for weight in weights:
        layers += [linear(torch.tensor(weight).double()), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def linear(weight, bias=None):
    """An nn.Linear in float64."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
    layer.weight.data = weight.double()
    if bias is not None:
        layer.bias.data = bias.double()
    return layer
