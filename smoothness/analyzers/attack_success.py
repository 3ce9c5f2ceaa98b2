"""Which examples does an attack turn?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness.attacks.cascade_result import CascadeResult
from smoothness.attacks.result import Attack, AttackResult
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel


@dataclass(frozen=True)
class AttackSuccess:
    """Success of an attack at each example: 1 where the model misclassifies the input found, else 0.

    value_i = 1[argmax f(x_i') != y_i], x_i' in the ball and the bounds, read from a forward pass of x_i'
    itself. Examples misclassified before any change count as 1, so that 1 - mean is robust accuracy.
    Bound: lower, on vulnerability; another attack may turn more. Shape (n, 1, 1): examples, attack, epsilon.

    Examples on which the model's outputs fail (NaN or infinite) are NaN and not valid, with the reason in
    details["reason"]. Other details: "inputs" (adversarial), "distance", "status", "zero_gradient" (see
    `AttackResult`; tensors on the CPU) and "passes"; of a `Cascade` also "broken_by", "stages", "missed", "why_all"
    and "robust_accuracy", its ends as bounded by sampling and as attacked.

    Args:
        attack: any `Attack`, such as `PGD(threat)`.
        name: label of the attack's coordinate; the attack's own label (such as "pgd-ce") when None.

    Raises:
        TypeError: `attack` is not callable or has no threat model, or as the attack.
        ValueError, RuntimeError: as the attack.

    >>> from smoothness.attacks import PGD
    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> analyzer = AttackSuccess(PGD(ThreatModel("linf", 0.1)))
    >>> found = analyzer(model, torch.tensor([[0.6, 0.5], [0.9, 0.1]]), torch.tensor([0, 0]))
    >>> found.to_frame()[["example", "attack", "epsilon", "value"]].values.tolist()
    [[0, 'pgd-ce', 0.1, 1.0], [1, 'pgd-ce', 0.1, 0.0]]
    """

    attack: Attack
    name: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.attack) or not isinstance(getattr(self.attack, "threat", None), ThreatModel):
            raise TypeError(
                f"attack must be an instance with a threat model, got {self.attack!r}; use PGD(ThreatModel(...))"
            )

    @property
    def label(self) -> str:
        """Label of the attack's coordinate."""
        return self.name or str(getattr(self.attack, "label", type(self.attack).__name__.lower()))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Measurement:
        """Attack x: (n, ...) with labels y: (n,)."""
        result = self.attack(model, x, y)
        valid = torch.tensor([status != "model_failure" for status in result.status])
        values = result.success.cpu().to(torch.float64).masked_fill(~valid, torch.nan)
        zero = result.zero_gradient
        return Measurement(
            "attack_success",
            values.view(-1, 1, 1),
            unit="1",
            bound="lower",
            coords={"attack": (self.label,), "epsilon": (self.attack.threat.epsilon,)},
            settings={"attack": self.label, **settings_of(self.attack)},
            valid=valid,
            details={
                "reason": ["" if fine else "the model's outputs are NaN or infinite" for fine in valid.tolist()],
                "inputs": result.inputs.detach().cpu(),
                "distance": result.distance.cpu(),
                "passes": result.passes._asdict(),
                "status": result.status,
                "zero_gradient": None if zero is None else zero.cpu(),
                **_of_stages(result),
            },
        )


def _of_stages(result: AttackResult) -> dict[str, Any]:
    """What a cascade says beside: who turned what, what each stage did, and the interval by sampling."""
    if not isinstance(result, CascadeResult):
        return {}
    missed = result.missed
    return {
        "broken_by": result.broken_by,
        "stages": [
            {"stage": s.name, "tried": s.tried, "fooled": s.fooled, "passes": s.passes._asdict(), "note": s.note}
            for s in result.stages
        ],
        "robust_accuracy": result.robust_accuracy,
        "missed": None
        if missed is None
        else {
            "survivors": missed.survivors,
            "sampled": missed.sampled,
            "found": missed.found,
            "highest_share": missed.highest_share,
            "confidence": missed.confidence,
        },
        "why_all": result.why_all,
    }


def settings_of(record: Any) -> dict[str, Any]:
    """Every field as JSON knows it, the type's name included."""
    pairs: Mapping[str, Any] = (
        {field.name: getattr(record, field.name) for field in fields(record)}
        if is_dataclass(record)
        else {key: value for key, value in vars(record).items() if not key.startswith("_")}
    )
    return {"kind": type(record).__name__, **{key: _plain(value) for key, value in pairs.items()}}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return settings_of(value)
    return repr(value)
