"""Between which values does the local Lipschitz constant lie?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from smoothness._norms import Norm
from smoothness.analyzers.lipschitz_lower import LipschitzLowerBound
from smoothness.analyzers.lipschitz_target import Bounds, field_values, plain_settings
from smoothness.analyzers.lipschitz_upper import LipschitzUpperBound
from smoothness.measurement import Bracket


@dataclass(frozen=True)
class LocalLipschitz:
    """Both sides of the local Lipschitz constant: found by search from below, certified from above.

    Args:
        norm, radius, of, pairs, effort, bounds, batch_size, memory_gib: as in `LipschitzUpperBound`.
        starts, steps, seed: of the search, as in `LipschitzLowerBound`.

    Raises:
        TypeError, ValueError: as in `LipschitzUpperBound`.

    Returns (when called): a `Bracket` of two Measurements "local_lipschitz", values (n,).

    >>> found = LocalLipschitz(norm="linf", radius=0.1)(nn.Linear(2, 2), Tensor([[0.0, 0.0]]))
    >>> bool(found.lower.values <= found.upper.values)
    True
    """

    norm: Norm = "l2"
    radius: float = 0.1
    of: str = "logits"
    pairs: Literal["ball", "centre"] = "ball"
    effort: Literal["fast", "standard", "tight"] = "standard"
    bounds: Bounds | None = None
    starts: int = 8
    steps: int = 60
    batch_size: int | None = None
    seed: int = 0
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        self._lower()
        self._upper()

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Bracket:
        """Measure every input; `labels` are used for of="margin" alone."""
        upper = self._upper()(model, inputs, labels)  # refuses what cannot be read before any search
        lower = self._lower()(model, inputs, labels)
        settings = plain_settings("LocalLipschitz", field_values(self))
        return Bracket(replace(lower, settings=settings), replace(upper, settings=settings))

    def _lower(self) -> LipschitzLowerBound:
        return LipschitzLowerBound(
            self.norm,
            self.radius,
            self.of,
            self.pairs,
            self.bounds,
            self.starts,
            self.steps,
            self.batch_size,
            self.seed,
        )

    def _upper(self) -> LipschitzUpperBound:
        return LipschitzUpperBound(
            self.norm, self.radius, self.of, self.pairs, self.effort, self.bounds, self.batch_size, self.memory_gib
        )
