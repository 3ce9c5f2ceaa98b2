"""Smooth activations drawn with straight lines: hardtanh, hardsigmoid, hardswish."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from smoothness._checks import check_finite
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, piecewise_affine_facts, piecewise_polynomial_facts


class HardTanh(Activation):
    """φ(z) = z cut to [min_val, max_val] (Collobert 2004).

    >>> import torch
    >>> HardTanh()(torch.tensor([-3.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        self.min_val, self.max_val = check_finite("min_val", min_val), check_finite("max_val", max_val)
        if self.min_val >= self.max_val:
            raise ValueError(f"min_val and max_val must be finite and ascend, got {min_val!r} and {max_val!r}")

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.hardtanh(z, self.min_val, self.max_val)

    def facts(self) -> ActivationFacts:
        """Kinks of 1 and -1 at the ends of the range."""
        low, high = self.min_val, self.max_val
        return piecewise_affine_facts(f"hardtanh({self.extra_repr()})", (low, high), ((0, low), (1, 0), (0, high)))

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"min_val={self.min_val:g}, max_val={self.max_val:g}"


class HardSigmoid(Activation):
    """φ(z) = min(max(z + 3, 0), 6) / 6 (Courbariaux et al. 2015, arXiv 1511.00363, as scaled by torch).

    >>> import torch
    >>> HardSigmoid()(torch.tensor([-4.0, 0.0, 4.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.relu6(z + 3) / 6  # as F.hardsigmoid to the bit, whose gradient is 1/6 rounded to float32

    def facts(self) -> ActivationFacts:
        """Kinks of 1/6 at -3 and -1/6 at 3."""
        return piecewise_affine_facts("hardsigmoid", (-3.0, 3.0), ((0.0, 0.0), (1 / 6, 0.5), (0.0, 1.0)))


class HardSwish(Activation):
    """φ(z) = z · min(max(z + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244).

    >>> import torch
    >>> HardSwish()(torch.tensor([-4.0, -1.5, 4.0]))
    tensor([-0.0000, -0.3750,  4.0000])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Apply φ elementwise."""
        return F.hardswish(z)

    def facts(self) -> ActivationFacts:
        """Slope from -1/2 (right of -3) to 3/2 (left of 3), with kinks of -1/2 at both; least value at -3/2."""
        return piecewise_polynomial_facts("hardswish", (-3.0, 3.0), ((0.0,), (0.0, 0.5, 1 / 6), (0.0, 1.0)))
