"""What can be proved around a few examples: constants, oscillation and radii from the network's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from smoothness._norms import vector_norm
from smoothness.analyzers import CertifiedRadius, LocalLipschitz, LocalOscillation
from smoothness.analyzers.per_margin import per_margin
from smoothness.bounds.reading import read_network
from smoothness.consistency import Check
from smoothness.measurement import Bracket, Measurement
from smoothness.panel.reading import attacks_of
from smoothness.threat import ThreatModel

EXAMPLES = 4
UNITS = 1000  # hidden ones: seconds, whatever the machine; a limit on time would change the numbers
EVALUATIONS = 8
TOLERANCE = 2e-6  # in input units, as attacks allow themselves


class TooLargeError(ValueError):
    """More hidden units than a panel takes the time for."""


def certified(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, margin: Measurement, seed: int
) -> Iterator[Measurement]:
    """Constant, oscillation and certified radius of the first examples, within the threat's radius.

    Both sides of the first two, of the margin, as they are and per margin.

    Raises:
        TooLargeError: a network with more than `UNITS` hidden units.
        TypeError, ValueError: a network that cannot be read, with the reason.
    """
    x, y = x[:EXAMPLES], y[:EXAMPLES]
    radius = float(threat.epsilon or 0.0)
    with torch.no_grad():
        network = read_network(model, x[:1], None)
    units = sum(layer.width for layer in network.hidden)
    if units > UNITS:
        raise TooLargeError(
            f"{units:,} hidden units; a panel bounds up to {UNITS:,}. `LocalLipschitz` and `CertifiedRadius` take any"
        )
    constant = LocalLipschitz(threat.norm, radius, "margin", effort="fast", seed=seed)(model, x, y)
    moved = LocalOscillation(threat.norm, (radius,), "margin", effort="fast", seed=seed)(model, x, y)
    for found in (*_sides(constant, radius), *_sides(moved, radius)):
        yield found
        yield per_margin(found, margin)
    yield CertifiedRadius(threat.norm, effort="fast", evaluations=EVALUATIONS)(model, x, y)


def _sides(found: Bracket, radius: float) -> Iterator[Measurement]:
    """Both sides under names of their own, with the radius as coordinate, as studies have them."""
    for side, one in (("lower", found.lower), ("upper", found.upper)):
        values = one.values.view(len(one.values), 1)
        yield replace(one, quantity=f"{one.quantity}_{side}", values=values, coords={"epsilon": (radius,)})


def infinite(found: Mapping[str, Measurement]) -> str:
    """Why a constant is infinite around some examples; "" where it is finite."""
    upper = found.get("local_lipschitz_upper")
    if upper is None:
        return ""
    count = int(upper.values.isinf().sum())
    layers = ", ".join(dict.fromkeys(name for name in upper.details["crossed"] if name))
    at = f" (layer {layers})" if layers else ""
    return (
        f"infinite around {count} of {len(upper.values)} examples: pairs of points may lie on both sides of an "
        f"activation's jump{at}; the oscillation is finite"
        if count
        else ""
    )


def check_certified(found: Mapping[str, Measurement], inputs: Tensor, threat: ThreatModel) -> list[Check]:
    """No attack found anything within a certified radius.

    Distances are those of the adversarial inputs themselves, not the radius of the attack's ball.
    """
    if "certified_radius" not in found:
        return []
    radii = found["certified_radius"]
    n = len(radii.values)
    inside = fooled = 0
    for attack in attacks_of(found).values():
        success = attack.valid[:n] & (attack.values.flatten()[:n] > 0.5) & radii.valid
        distance = vector_norm((attack.details["inputs"][:n] - inputs[:n]).double(), threat.norm)
        inside += int((success & (distance + TOLERANCE < radii.values.double())).sum())
        fooled += int(success.sum())
    return [
        Check("no adversarial input is nearer than its certified radius", inside == 0,
              f"{inside} violations; {fooled} examples compared" if inside else f"{fooled} examples compared"),
    ]  # fmt: skip
