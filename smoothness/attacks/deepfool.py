"""DeepFool: from linearised boundary to linearised boundary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_not_negative, check_positive
from smoothness.activations.surrogates import SHAPES
from smoothness.attacks._nearest import (
    backward_pass,
    nearest_batch,
    put_back_beyond,
    set_aside,
    step_to_nearest_boundary,
    without_radius,
)
from smoothness.attacks._search import Search, check_batch_size, searching
from smoothness.attacks.losses import LOSSES
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class DeepFool:
    """Steps to the nearest linearised boundary until one is crossed (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599).

    x' <- x' + (1 + overshoot) r with r the smallest perturbation, in the threat's norm and inside the bounds,
    that crosses the nearest of the boundaries f_j = f_y of the nine likeliest rivals j as linearised at x'. Few
    steps, so it is fast, and on a linear classifier exact; the distance is an upper bound on the smallest one and
    often well above it (`DDN`, `FMN`). The point found is drawn in by line search towards the clean input, which
    is itself returned where nothing is found, or nothing within epsilon.

    Args:
        threat: norm "linf", "l2" or "l1", and the bounds; epsilon, in input units, may be None: any distance
            counts as success.
        steps: steps at most, each with a backward pass per rival.
        overshoot: share by which each step goes farther than the linearised boundary.
        targeted: y is the class to reach, and success is its being predicted; what is predicted so from the
            start counts as "clean_error" at distance 0.
        surrogate: shape of the activations' backward pass (`surrogate_gradient`); the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once; all when None. Halved, with a warning, when memory runs out.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`, except that epsilon may be None.

    >>> import torch
    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "bias": torch.zeros(2)})
    >>> result = DeepFool(ThreatModel("l2"))(model, torch.tensor([[0.5, 0.25]]), torch.tensor([0]))
    >>> print(f"{float(result.distance):.3f}")  # margin 0.5 over |(3, -4)|
    0.100
    """

    threat: ThreatModel
    steps: int = 50
    overshoot: float = 0.02
    targeted: bool = False
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        without_radius(self.threat)
        check_count("steps", self.steps)
        check_not_negative("overshoot", self.overshoot)
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name, such as "deepfool" or "deepfool-tanh"."""
        return "-".join(["deepfool", *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        threat = without_radius(self.threat)
        with searching(model, x, y, threat, self.batch_size, targeted=self.targeted) as search:
            with backward_pass(model, self.surrogate, self.surrogate_width):
                search.look_at_clean(LOSSES["margin"])
                search.in_chunks(search.targets(dropping=False), partial(self._walk, search))
            put_back_beyond(search, self.threat.epsilon)
            return search.close(x.device)

    def _walk(self, search: Search, rows: Tensor) -> None:
        batch = nearest_batch(search, rows)
        for _ in range(self.steps):
            offset = step_to_nearest_boundary(search, batch, batch.point)
            batch.point = offset.mul_(1 + self.overshoot).add_(batch.point).clamp_(batch.lowest, batch.highest)
            set_aside(search, batch)
            if len(batch) == 0:
                return
        batch.note(search, search.look(batch.point, batch.column)[0])
        set_aside(search, batch)
        search.store(batch)
