"""Parts of the cascade run by themselves: its first two stages, and every single attack on all examples."""

from __future__ import annotations

from torch import Tensor, nn

from smoothness.attacks import APGD, EvolutionGradient, Noise, Square, Transfer, stages
from smoothness.attacks._search import searching
from smoothness.attacks.observing import observe
from smoothness.attacks.result import Attack
from smoothness.attacks.survivors import Survivors
from smoothness.threat import ThreatModel


def first_stages(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Which examples noise and APGD through the model's own gradient leave, as at the start of the cascade."""
    with searching(model, x, y, threat, None) as search:
        search.look_at_clean()
        pool = Survivors(search, 0, observe(search, 0))
        plan = stages.Plan(threat, 0, None, None, thorough=False)
        stages.noise(pool, pool.left(), plan)
        stages.native(pool, pool.left(), plan)
        left: Tensor = ~search.close(x.device).success
    return left


def single_attacks(threat: ThreatModel, twin: nn.Module) -> dict[str, Attack]:
    """What the cascade must not be worse than on networks with jumps; the twin has relu in their place."""
    attacks: dict[str, Attack] = {
        "noise": Noise(threat),
        "square": Square(threat, 5_000),
        "evolution": EvolutionGradient(threat, steps=40, population=50),
        "transfer": Transfer(threat, twin),
    }
    for shape, width in stages.SURROGATES:
        attacks[f"{shape} {width:g}"] = APGD(threat, loss="margin", surrogate=shape, surrogate_width=width)
    return attacks
