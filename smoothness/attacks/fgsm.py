"""The fast gradient sign method: one full step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from smoothness.attacks.pgd import PGD
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class FGSM:
    """One step of size epsilon from the clean input (Goodfellow et al. 2015, arXiv 1412.6572).

    x' = clip(x + epsilon · sign ∇loss) for linf; the steepest step of length epsilon for l2 and l1. On a
    classifier that is linear with two classes this is the worst perturbation there is. As in `PGD`, the
    point of lowest margin is returned: the clean one where the step helped the true class. Success is a
    lower bound on vulnerability.

    Args:
        threat: the ball and the bounds, in input units.
        loss: "ce" or "margin".
        surrogate: shape of the activations' backward pass; the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once; all when None.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`.

    >>> import torch
    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> FGSM(ThreatModel("linf", 0.1))(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0])).inputs
    tensor([[0.5000, 0.6000]])
    """

    threat: ThreatModel
    loss: Literal["ce", "margin"] = "ce"
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self._as_pgd()

    @property
    def label(self) -> str:
        """Readable name, such as "fgsm" or "fgsm-margin-tanh"."""
        parts = [self.loss] if self.loss != "ce" else []
        return "-".join(["fgsm", *parts, *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        return self._as_pgd()(model, x, y)

    def _as_pgd(self) -> PGD:
        return PGD(
            self.threat,
            steps=1,
            step_size=self.threat.epsilon if isinstance(self.threat, ThreatModel) else None,
            loss=self.loss,
            random_start=False,
            surrogate=self.surrogate,
            surrogate_width=self.surrogate_width,
            batch_size=self.batch_size,
        )
