"""An activation with its output rescaled and shifted: same roughness in kind, other moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from smoothness._checks import check_finite, check_positive
from smoothness.activations.base import Activation
from smoothness.activations.facts import ActivationFacts, Breakpoint


class Affine(Activation):
    """scale · φ(z) + shift, scale > 0.

    Raises:
        TypeError: an activation of several features, or with learnable parameters.

    >>> from smoothness.activations import activation
    >>> Affine(activation("relu"), scale=2.0, shift=-1.0).facts().breakpoints
    (Breakpoint(position=0.0, order=0, jump=2.0),)
    """

    def __init__(self, base: Activation, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        if not base.elementwise:
            raise TypeError(f"{type(base).__name__} acts on several features at once and has no one output to rescale")
        if any(True for _ in base.parameters()):
            raise TypeError(f"{type(base).__name__} has learnable parameters; rescale one without")
        object.__setattr__(self, "base", base)  # no submodule: swapping and surrogates must not look inside
        self.scale, self.shift = check_positive("scale", scale), check_finite("shift", shift)

    def forward(self, z: Tensor) -> Tensor:
        """Apply the activation, then the line."""
        value: Tensor = self.base(z) * self.scale + self.shift
        return value

    def facts(self) -> ActivationFacts:
        """Those of φ, rescaled."""
        return affine_facts(self.base.facts(), self.scale, self.shift, f"{self.scale:g}*{{}}{self.shift:+g}")

    def extra_repr(self) -> str:
        """Parameters as printed."""
        return f"{self.base!r}, scale={self.scale:g}, shift={self.shift:g}"

    base: Activation


def affine_facts(facts: ActivationFacts, a: float, b: float, name: str) -> ActivationFacts:
    """Facts of a φ + b for a > 0; `name` is a pattern for the name of φ."""
    pieces = facts.polynomial_pieces
    return replace(
        facts,
        name=name.format(facts.name),
        breakpoints=tuple(Breakpoint(p.position, p.order, a * p.jump) for p in facts.breakpoints),
        slope_min=a * facts.slope_min,
        slope_max=a * facts.slope_max,
        lipschitz=a * facts.lipschitz,
        curvature=a * facts.curvature,
        slope_variation=a * facts.slope_variation,
        at_zero=a * facts.at_zero + b,
        mean=a * facts.mean + b,
        second_moment=a * a * facts.second_moment + 2 * a * b * facts.mean + b * b,
        slope_second_moment=a * a * facts.slope_second_moment,
        polynomial_pieces=None
        if pieces is None
        else tuple((a * c[0] + b, *(a * x for x in c[1:])) if c else (b,) for c in pieces),
        function=_line(facts.function, a, b),
        derivative=_line(facts.derivative, a, 0.0),
    )


def _line(function: Callable[[Tensor], Tensor] | None, a: float, b: float) -> Callable[[Tensor], Tensor] | None:
    return None if function is None else lambda z: function(z) * a + b
