"""How far is the nearest input that a model gets wrong?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice
from smoothness._norms import NORMS, Norm
from smoothness.analyzers.attack_success import settings_of
from smoothness.attacks.ddn import DDN
from smoothness.attacks.fmn import FMN
from smoothness.attacks.result import Attack
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel

Bounds = tuple[Tensor | float, Tensor | float] | None
_REASONS = {
    "model_failure": "the model's outputs are NaN or infinite",
    "survived": "no misclassified input was found",
}


def nearest_attack(norm: Norm, bounds: Bounds) -> Attack:
    """The minimal-norm attack used by default: `DDN` in l2, `FMN` in linf and l1."""
    threat = ThreatModel(norm, None, bounds=bounds)
    return DDN(threat) if norm == "l2" else FMN(threat)


@dataclass(frozen=True)
class MinimalPerturbation:
    """Distance from each input to the nearest misclassified one that an attack finds.

    value_i = min |x' - x_i|_p over the misclassified x' found inside the bounds; 0 for examples that are
    misclassified as they are. Shape (n,), unit "input linf" (or the norm chosen). Bound: upper, on the distance to
    the decision boundary; a stronger attack may find nearer inputs. Read it with `MaskingAudit`: an attack that
    follows gradients overstates the distance where these are masked.

    Not valid are examples without a bound: infinite where no misclassified input was found (a median over examples
    must count these as far), NaN where the model's outputs fail. Details: "reason", "inputs" (the nearest found),
    "status", "passes".

    Args:
        norm: "linf", "l2" or "l1".
        bounds: lowest and highest valid input; None for inputs without a valid range.
        attack: any `Attack` with this norm, best without a radius; `DDN` (l2) or `FMN` (linf, l1) when None.

    Raises:
        ValueError: an unknown norm, or an attack in another norm; as the attack.
        TypeError: `attack` has no threat model; as the attack.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> found = MinimalPerturbation("l2")(model, torch.tensor([[0.9, 0.5]]), torch.tensor([0]))
    >>> round(float(found.values), 3)  # 0.4 / √2
    0.283
    """

    norm: Norm = "l2"
    bounds: Bounds = (0.0, 1.0)
    attack: Attack | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_norm_of(self.attack, self.norm)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Measurement:
        """Measure x: (n, ...) with labels y: (n,)."""
        attack = self.attack or nearest_attack(self.norm, self.bounds)
        result = attack(model, x, y)
        reasons = [_REASONS.get(status, "") for status in result.status]
        failed = torch.tensor([status == "model_failure" for status in result.status])
        return Measurement(
            "minimal_perturbation",
            result.distance.cpu().double().masked_fill(failed, torch.nan),
            unit=f"input {self.norm}",
            bound="upper",
            settings={"analyzer": "MinimalPerturbation", **settings_of(self), "attack": settings_of(attack)},
            valid=torch.tensor([not reason for reason in reasons]),
            details={
                "reason": reasons,
                "inputs": result.inputs.detach().cpu(),
                "status": result.status,
                "passes": result.passes._asdict(),
            },
        )


def check_norm_of(attack: Attack | None, norm: Norm) -> None:
    """Raise unless an attack measures in the norm asked for."""
    if attack is None:
        return
    threat = getattr(attack, "threat", None)
    if not isinstance(threat, ThreatModel):
        raise TypeError(f"attack must be an instance with a threat model, got {attack!r}; use DDN(ThreatModel('l2'))")
    if threat.norm != norm:
        raise ValueError(f"the attack's norm is {threat.norm!r} and not {norm!r}; give both the same")
