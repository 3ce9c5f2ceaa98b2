"""What did a swap replace, what did it leave, and why?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SwapReport:
    """What `swap_activations` did.

    Attributes:
        replaced: (name, old, new) of every exchange. A functional call is named after the module whose
            forward makes it: "layer1.0.relu".
        left: (name, why) of activations seen and left alone.
        functional: (name, way) of every functional call among the replaced: "traced", or "at run time"
            with the reason why the module's forward is not traced.

    >>> print(SwapReport((("act", "ReLU()", "GELU()"),), (("pooler.act", "final output (pooler)"),)))
    replaced act: ReLU() -> GELU()
    left     pooler.act: final output (pooler)
    """

    replaced: tuple[tuple[str, str, str], ...]
    left: tuple[tuple[str, str], ...]
    functional: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        ways = dict(self.functional)
        lines = [
            f"replaced {name}: {old} -> {new}" + (f" ({ways[name]})" if name in ways else "")
            for name, old, new in self.replaced
        ]
        return "\n".join(lines + [f"left     {name}: {why}" for name, why in self.left])
