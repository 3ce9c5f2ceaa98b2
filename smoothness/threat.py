"""What the adversary may do."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._checks import check_choice, check_positive
from smoothness._norms import NORMS, Norm


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """A norm ball around the input, and the box in which inputs are valid.

    The adversary may choose any x' with |x' - x|_p <= epsilon and low <= x' <= high.

    Attributes:
        norm: p of the ball: "linf", "l2" or "l1".
        epsilon: radius in input units; None for attacks that minimise the distance.
        bounds: lowest and highest valid input, a number or a tensor per feature;
            None for inputs without a valid range (embeddings), which are then never clipped.

    Raises:
        ValueError: unknown norm, epsilon not positive and finite, low not below high.

    >>> threat = ThreatModel("linf", 8 / 255)
    >>> threat.key() == ThreatModel("linf", 8 / 255).key()
    True
    """

    norm: Norm
    epsilon: float | None = None
    bounds: tuple[Tensor | float, Tensor | float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        if self.epsilon is not None:
            check_positive("epsilon", self.epsilon)
        if self.bounds is not None:
            if len(self.bounds) != 2:
                raise ValueError(f"bounds must be (low, high) or None, got {self.bounds!r}")
            low, high = (torch.as_tensor(bound) for bound in self.bounds)
            if low.isnan().any() or high.isnan().any() or not (low < high).all():
                raise ValueError(f"bounds must have low below high everywhere, got {self.bounds!r}")

    def check_inside(self, inputs: Tensor) -> None:
        """Raise ValueError when an input lies outside the bounds."""
        if self.bounds is None:
            return
        low, high = (torch.as_tensor(bound, dtype=inputs.dtype, device=inputs.device) for bound in self.bounds)
        outside = ((inputs < low) | (inputs > high)).flatten(1).any(dim=1)
        if outside.any():
            rows = outside.nonzero().flatten().tolist()[:5]
            raise ValueError(
                f"inputs lie outside the threat model's bounds in rows {rows} "
                f"(inputs span {float(inputs.min()):.4g} to {float(inputs.max()):.4g}); "
                "scale the inputs or pass ThreatModel(..., bounds=(low, high)) or bounds=None"
            )

    def limits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest allowed value of each coordinate: the box around the ball, inside the bounds."""
        radius = math.inf if self.epsilon is None else self.epsilon
        lowest, highest = inputs - radius, inputs + radius
        if self.bounds is not None:
            low, high = (torch.as_tensor(b, dtype=inputs.dtype, device=inputs.device) for b in self.bounds)
            lowest, highest = torch.maximum(lowest, low), torch.minimum(highest, high)
        return lowest, highest

    def key(self) -> str:
        """Hash of norm, epsilon and bounds; the same on every machine."""
        digest = hashlib.sha256(f"{self.norm}|{self.epsilon!r}".encode())
        for bound in self.bounds or ():
            values = torch.as_tensor(bound, dtype=torch.float64).cpu().contiguous()
            digest.update(f"|{tuple(values.shape)}|".encode() + values.numpy().tobytes())
        return digest.hexdigest()[:16]
