"""Chance: random points of the ball, the control for every optimised attack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count
from smoothness._norms import random_in_ball
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class Noise:
    """Best of `draws` random points of the ball, clipped to the bounds.

    "uniform": uniform in the ball; "corner": x + epsilon · s with random signs s, the farthest points of the
    max-norm ball. The point of lowest margin f_y - max_{j != y} f_j is kept. Only forward passes: with
    `draws` equal to the steps of `PGD` both look at as many points. Success is a lower bound on vulnerability.

    Args:
        threat: the ball and the bounds, in input units.
        draws: random points per example.
        kind: "uniform" or, for linf only, "corner".
        seed: of the draws; drawn for all examples, so that the batch size does not matter.
        drop_fooled: an example is settled at its first fooling point; else all draws are made and the
            lowest margin wins.
        batch_size: examples at once; all when None.

    Raises:
        ValueError: as `PGD`; or corners in a norm other than linf.
        TypeError, RuntimeError: as `PGD`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> Noise(ThreatModel("linf", 0.1), kind="corner")(model, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    draws: int = 40
    kind: Literal["uniform", "corner"] = "uniform"
    seed: int = 0
    drop_fooled: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_count("draws", self.draws)
        check_choice("kind", self.kind, ("uniform", "corner"))
        if self.kind == "corner" and self.threat.norm != "linf":
            raise ValueError(f"kind='corner' needs norm 'linf', got {self.threat.norm!r}; use kind='uniform'")
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "noise-uniform" or "noise-corner"."""
        return f"noise-{self.kind}"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        generator = torch.Generator().manual_seed(self.seed)
        with searching(model, x, y, self.threat, self.batch_size) as search:
            search.look_at_clean()
            for _ in range(self.draws):
                offsets = self._offsets(search, generator)
                rows = search.targets(dropping=self.drop_fooled)
                search.in_chunks(rows, partial(_try, search, offsets))
            return search.close(x.device)

    def _offsets(self, search: Search, generator: torch.Generator) -> Tensor:
        if self.kind == "uniform":
            return random_in_ball(search.inputs, self.threat.norm, search.epsilon, generator)
        signs = torch.randint(0, 2, search.inputs.shape, generator=generator, dtype=search.inputs.dtype) * 2 - 1
        return (signs * search.epsilon).to(search.inputs.device)


def _try(search: Search, offsets: Tensor, rows: Tensor) -> None:
    batch = search.batch(rows, offsets)
    search.judge(batch)
    search.store(batch)
