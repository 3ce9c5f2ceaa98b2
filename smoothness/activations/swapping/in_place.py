"""How does a replacement write into its input where the model relies on that?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InPlace(nn.Module):
    """Applies an activation and writes the result into the input: for an in-place one whose input is read again.

    >>> z = torch.tensor([-1.0, 2.0])
    >>> _ = InPlace(nn.ReLU())(z)
    >>> z
    tensor([0., 2.])
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, z: Tensor) -> Tensor:
        """Apply and write back."""
        return write_back(self.activation, z)


def write_back(activation: nn.Module, z: Tensor) -> Tensor:
    """Write φ(z) into z and return z. A graph of φ needs the old values: then φ gets a copy."""
    recording = torch.is_grad_enabled() and z.requires_grad
    return z.copy_(activation(z.clone() if recording else z))
