"""Do a model's own gradients tell the truth? The rule, from measurements only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MASKED_LEAD = 0.05  # points by which attacks without the native gradient must be ahead
MASKED_SHARE = 0.5  # share of examples with an input gradient of exactly zero

_GRADIENT = r"(fgsm|pgd|apgd|ddn|fmn|deepfool)"
_NATIVE = re.compile(_GRADIENT + r"(-ce|-margin|-dlr|-dlr-targeted|-linf|-l2|-l1)?")


def family(attack: str) -> str:
    """What drives an attack: chance, the network's own gradient, a surrogate's, something else, or a bit of each.

    >>> [family(a) for a in ("noise-corner", "pgd-margin", "pgd-ce-tanh", "square", "cascade-full")]
    ['noise', 'native', 'surrogate', 'other', 'cascade']
    """
    if attack.startswith(("noise", "cascade")):
        return attack.partition("-")[0]
    if _NATIVE.fullmatch(attack):
        return "native"
    return "surrogate" if re.match(_GRADIENT + r"-|continuation", attack) else "other"


@dataclass(frozen=True)
class Masking:
    """Whether native gradients tell the truth about one network, or one activation and architecture.

    Attributes:
        zero_share: share of examples with a gradient of exactly zero, mean over seeds; NaN if not measured.
        lead: largest lead, over ε, of noise, surrogate or other attacks over native ones (mean over seeds).
        lead_epsilon: the ε of that lead.
        contradicted: share of examples whose gradient does not fit the forward pass; NaN if not measured.
    """

    zero_share: float
    lead: float
    lead_epsilon: float
    contradicted: float = math.nan

    @property
    def masked(self) -> bool:
        """The rule: gradients mostly zero or mostly false, or other attacks ahead by over 5 points. Never by name."""
        shares = (self.zero_share, self.contradicted)  # NaN, not measured, is never above
        return any(share > MASKED_SHARE for share in shares) or self.lead > MASKED_LEAD
