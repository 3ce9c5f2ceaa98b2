"""How does robust accuracy fall with the radius?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_positive
from smoothness._norms import NORMS, Norm
from smoothness.analyzers.attack_success import settings_of
from smoothness.analyzers.minimal_perturbation import Bounds, check_norm_of, nearest_attack
from smoothness.attacks.apgd import APGD
from smoothness.attacks.counting import lead_chance, share_interval
from smoothness.attacks.result import Attack
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel

TOLERANCE = 1e-6  # as attacks have it: a distance this far beyond a radius counts as inside


@dataclass(frozen=True)
class RobustAccuracyCurve:
    """Which examples are still classified correctly at each radius, under minimal-norm and fixed-radius attacks.

    value_ij = 1 where example i is classified correctly and no input found within epsilon_j turns it, else 0: the
    mean over examples is robust accuracy. Minimal distances give all radii at once; attacks at each fixed radius
    check them, and the curve takes the union. An input found within a radius lies within every larger one, so
    successes are carried forward and the curve never rises. Shape (n, radii); bound: upper, on robust accuracy.

    details["curve"] has one entry per radius: "epsilon", "robust_accuracy" with its exact binomial interval "low",
    "high" (95 %, over examples), "by_distance" and "by_radius" (robust accuracy under each kind alone, the latter as
    the runs came, nothing carried), "only_distance" and "only_radius" (examples that one kind alone turned).
    details["monotone"] compares the fixed-radius runs of neighbouring radii: examples "lost" and "gained", and "p",
    the one-sided McNemar chance that the larger radius turned fewer: small values point to masked gradients or a
    weak attack. Others: "distance", "reason", "passes".

    Args:
        norm: "linf", "l2" or "l1".
        epsilons: radii, in input units.
        bounds: lowest and highest valid input; None for inputs without a valid range.
        attack: makes the attack at a radius, called with its `ThreatModel`, such as `Cascade`; `APGD` on the margin
            when None. Networks with jumps need `Cascade`.
        nearest: a minimal-norm attack; `DDN` (l2) or `FMN` (linf, l1) when None.

    Raises:
        ValueError: an unknown norm, no radius, one that is not positive, an attack in another norm; as the attacks.
        TypeError, RuntimeError: as the attacks.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.9, 0.5], [0.6, 0.5], [0.2, 0.4]])
    >>> RobustAccuracyCurve("linf", (0.1, 0.3))(model, x, torch.tensor([0, 0, 0])).values
    tensor([[1., 0.],
            [0., 0.],
            [0., 0.]], dtype=torch.float64)
    """

    norm: Norm
    epsilons: Sequence[float]
    bounds: Bounds = (0.0, 1.0)
    attack: Callable[[ThreatModel], Attack] | None = None
    nearest: Attack | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        if not self.epsilons:
            raise ValueError("epsilons is empty; give at least one radius, such as (8 / 255,)")
        ascending = tuple(sorted({check_positive("epsilons", epsilon) for epsilon in self.epsilons}))
        object.__setattr__(self, "epsilons", ascending)
        check_norm_of(self.nearest, self.norm)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Measurement:
        """Measure x: (n, ...) with labels y: (n,)."""
        near = self.nearest or nearest_attack(self.norm, self.bounds)
        first = near(model, x, y)
        distance = first.distance.cpu().double()
        passes = {str(getattr(near, "label", "nearest")): first.passes._asdict()}
        failed = torch.tensor([status == "model_failure" for status in first.status])
        raw, settings = [], None
        for epsilon in self.epsilons:
            attack = self._at(epsilon)
            settings = settings or settings_of(attack)
            found = attack(model, x, y)
            raw.append(found.success.cpu())
            failed |= torch.tensor([status == "model_failure" for status in found.status]) & ~found.success.cpu()
            passes[f"{getattr(attack, 'label', 'attack')} at {epsilon:.6g}"] = found.passes._asdict()
        by_radius = torch.stack(raw, dim=1)
        by_distance = distance.unsqueeze(1) <= torch.tensor(self.epsilons, dtype=torch.float64) + TOLERANCE
        turned = by_distance | (by_radius.cummax(dim=1).values)
        valid = ~failed | turned[:, 0]
        return Measurement(
            "robust_accuracy",
            (~turned).double().masked_fill(~valid.unsqueeze(1), math.nan),
            unit="1",
            bound="upper",
            coords={"epsilon": tuple(self.epsilons)},
            settings={
                "analyzer": "RobustAccuracyCurve",
                **settings_of(self),
                "nearest": settings_of(near),
                "attack": settings,
            },
            valid=valid,
            details={
                "reason": ["" if fine else "the model's outputs are NaN or infinite" for fine in valid.tolist()],
                "distance": distance,
                "curve": self._curve(turned[valid], by_distance[valid], by_radius[valid]),
                "monotone": self._monotone(by_radius[valid]),
                "passes": passes,
            },
        )

    def _at(self, epsilon: float) -> Attack:
        threat = ThreatModel(self.norm, epsilon, bounds=self.bounds)
        return APGD(threat, loss="margin") if self.attack is None else self.attack(threat)

    def _curve(self, turned: Tensor, by_distance: Tensor, by_radius: Tensor) -> list[dict[str, Any]]:
        count = len(turned)
        points = []
        for place, epsilon in enumerate(self.epsilons):
            left, one, other = (int((~part[:, place]).sum()) for part in (turned, by_distance, by_radius))
            low, high = share_interval(left, count)
            alone = by_distance[:, place] & ~by_radius[:, place], by_radius[:, place] & ~by_distance[:, place]
            points.append(
                {
                    "epsilon": epsilon,
                    "robust_accuracy": _ratio(left, count),
                    "low": low,
                    "high": high,
                    "by_distance": _ratio(one, count),
                    "by_radius": _ratio(other, count),
                    "only_distance": int(alone[0].sum()),
                    "only_radius": int(alone[1].sum()),
                }
            )
        return points

    def _monotone(self, by_radius: Tensor) -> list[dict[str, Any]]:
        pairs = []
        for place, epsilon in enumerate(self.epsilons[1:], start=1):
            smaller, larger = by_radius[:, place - 1], by_radius[:, place]
            lost, gained = int((smaller & ~larger).sum()), int((larger & ~smaller).sum())
            pairs.append({"epsilon": epsilon, "lost": lost, "gained": gained, "p": lead_chance(lost, gained)})
        return pairs


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
