"""What the measurements say together: masked gradients, robust accuracy, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from smoothness.analyzers.masking import Masking, family
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel


def attacks_of(found: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """The attacks among the measurements, by label."""
    return {name: m for name, m in found.items() if m.quantity == "attack_success"}


def correct_of(found: Mapping[str, Measurement]) -> Tensor:
    """(n,) bool: examples that are classified correctly, with finite outputs."""
    correct = found["correct"]
    return correct.valid & (correct.values > 0.5)


def fooled_by(measurements: Mapping[str, Measurement]) -> tuple[Tensor, Tensor]:
    """(n,) bool: examples that any of the attacks fooled; and those on which one of them gave an answer."""
    fooled = torch.stack([m.valid & (m.values.flatten() > 0.5) for m in measurements.values()]).any(dim=0)
    return fooled, torch.stack([m.valid for m in measurements.values()]).any(dim=0)


def success_on_correct(found: Mapping[str, Measurement], measurements: Mapping[str, Measurement]) -> float:
    """Share of the correctly classified examples that any of the attacks fooled; NaN without any."""
    fooled, answered = fooled_by(measurements)
    rows = correct_of(found) & answered
    return float(fooled[rows].double().mean()) if rows.any() else math.nan


def robust_accuracy(found: Mapping[str, Measurement]) -> float:
    """Share of all examples that are right and that no attack fooled: an upper bound."""
    fooled, _ = fooled_by(attacks_of(found))
    return float((correct_of(found) & ~fooled).double().mean())


def read_masking(found: Mapping[str, Measurement], threat: ThreatModel) -> Masking:
    """Whether native gradients tell the truth: the rule of the studies, on one network."""
    jacobian, finite = found["jacobian_norm"], found["correct"].valid
    attacks = attacks_of(found)
    rates = {
        group: success_on_correct(found, {n: m for n, m in attacks.items() if family(n) == group})
        for group in dict.fromkeys(map(family, attacks))
    }
    others = [rate for group, rate in rates.items() if group not in ("native", "cascade") and not math.isnan(rate)]
    native = rates.get("native", math.nan)
    lead = max(others) - native if others and not math.isnan(native) else -math.inf
    return Masking(
        zero_share=zero_share(jacobian),
        lead=lead,
        lead_epsilon=threat.epsilon if threat.epsilon is not None and lead > -math.inf else math.nan,
        contradicted=float((~jacobian.valid[finite]).double().mean()) if finite.any() else math.nan,
    )


def zero_share(jacobian: Measurement) -> float:
    """Share of the valid examples with a gradient of exactly zero; NaN without any."""
    return float((jacobian.values[jacobian.valid] == 0).double().mean()) if jacobian.valid.any() else math.nan


def verdict(found: Mapping[str, Measurement], threat: ThreatModel | None, masking: Masking | None) -> str:
    """The panel's answer in two or three sentences."""
    if threat is None or masking is None:
        share = zero_share(found["jacobian_norm"])
        zero = f" The input gradient is exactly 0 for {percent(share)} of the examples." if share > 0 else ""
        return f"No verdict: accuracy, margins and attacks need labels, and none were given.{zero}"
    correct = correct_of(found)
    clean = float(correct.double().mean())
    head = f"Clean accuracy is {percent(clean)}"
    if not correct.any():
        return f"{head}: no verdict, since attacks have nothing to turn where no example is classified correctly."
    at = describe_threat(threat)
    robust = percent(robust_accuracy(found))
    head += f"; robust accuracy at {at} is at most {robust}, on {len(correct)} examples. "
    why = "; ".join(reasons(masking))
    if masking.masked:
        return (
            f"{head}Native gradients are masked ({why}): what FGSM and PGD find with them says nothing about "
            "robustness. Read the union of all attacks; `MaskingAudit` tells whether that figure can be trusted."
        )
    return f"{head}No sign of masked gradients{f' ({why})' if why else ''}; a stronger attack may still find more."


def reasons(masking: Masking) -> list[str]:
    """What was measured that speaks for masked gradients."""
    said = []
    if masking.zero_share > 0:
        said.append(f"the gradient is exactly 0 for {percent(masking.zero_share)} of the examples")
    if masking.contradicted > 0:
        said.append(f"it contradicts the forward pass for {percent(masking.contradicted)}")
    if masking.lead > 0:
        said.append(f"attacks that do not use it are ahead by {100 * masking.lead:.0f} points")
    return said


def describe_threat(threat: ThreatModel) -> str:
    """The ball in words.

    >>> describe_threat(ThreatModel("linf", 8 / 255)), describe_threat(ThreatModel("l2", 0.5))
    ('linf ε = 8/255', 'l2 ε = 0.5')
    """
    epsilon = float(threat.epsilon or 0.0)
    near = Fraction(epsilon * 255).limit_denominator(4)
    if threat.norm == "linf" and near and math.isclose(float(near) / 255, epsilon, rel_tol=1e-9):
        return f"{threat.norm} ε = {float(near):g}/255"
    return f"{threat.norm} ε = {epsilon:.4g}"


def percent(share: float) -> str:
    """A share as readers see it."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"
