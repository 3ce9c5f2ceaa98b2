"""Dials: families of activations that one number takes from smooth to sharp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from scipy.optimize import brentq
from torch import nn

from smoothness._checks import check_choice, check_count, check_finite
from smoothness.activations.affine import Affine
from smoothness.activations.base import Activation
from smoothness.activations.catalogue import activation, activation_facts
from smoothness.activations.facts import ActivationFacts

ScaleName = Literal["value_jump", "slope_jump", "curvature"]
SCALES: tuple[ScaleName, ...] = ("value_jump", "slope_jump", "curvature")
# What can be held, and the fact it is.
HOLDS = {"mean": "mean", "second_moment": "second_moment", "chi": "slope_second_moment"}


@dataclass(frozen=True)
class Scales:
    """An activation's place on the three scales of roughness, which do not mix.

    Infinite means rougher than the scale can tell: a jump of the value is beyond every kink, a kink beyond every
    curvature.

    Attributes:
        value_jump: largest jump of φ; 0 for a continuous one.
        slope_jump: largest jump of φ'; 0 without kinks, infinite at a value jump.
        curvature: largest |φ''|; infinite at a kink or a value jump.
    """

    value_jump: float
    slope_jump: float
    curvature: float


def scales(facts: ActivationFacts) -> Scales:
    """Place an activation on the three scales.

    Raises:
        TypeError: an activation of several features, which has no one curve.

    >>> scales(activation_facts("relu"))
    Scales(value_jump=0.0, slope_jump=1.0, curvature=inf)
    """
    if not facts.elementwise:
        raise TypeError(f"{facts.name} acts on several features at once; the three scales are those of one curve")
    jumps = [abs(b.jump) for b in facts.breakpoints if b.order == -1]
    kinks = [abs(b.jump) for b in facts.breakpoints if b.order == 0]
    return Scales(max(jumps, default=0.0), math.inf if jumps else max(kinks, default=0.0), facts.curvature)


@dataclass(frozen=True)
class Dial:
    """A family of activations that one parameter takes from smooth to sharp.

    Call it with a value of the parameter to get the activation.

    Attributes:
        name: of the dial, and of its activation in the catalogue.
        parameter: the number that is turned.
        smooth, sharp: ends of the usual range; the dial may be turned beyond where the activation allows it.
        limit: what the sharp side tends to (jump_relu: the smooth one): the reference for moments to hold.
        rescales: whether turning only changes the scale of input and output, φ_p(z) = c φ_1(z/s): trained weights
            can then undo it.
        whole: whether the parameter is a whole number.
    """

    name: str
    parameter: str
    smooth: float
    sharp: float
    limit: str
    rescales: bool = False
    whole: bool = False

    def __call__(
        self, value: float, *, hold: str | Iterable[str] = (), reference: str | nn.Module | None = None
    ) -> Activation:
        """The activation at a value of the parameter; see `dial`."""
        built = activation(self.name, **{self.parameter: self._number(value)})
        wanted = {hold} if isinstance(hold, str) else set(hold)
        for name in sorted(wanted):
            check_choice("moment to hold", name, HOLDS)
        if not wanted:
            return built
        self._refuse(wanted)
        target = activation_facts(self.limit if reference is None else reference)
        scale, shift = _held(built.facts(), target, wanted)
        return Affine(built, scale, shift)

    def scales(self, value: float) -> Scales:
        """The place of one setting on the three scales.

        >>> find_dial("softplus").scales(8.0)
        Scales(value_jump=0.0, slope_jump=0.0, curvature=2.0)
        """
        return scales(self(value).facts())

    @cached_property
    def moves(self) -> tuple[ScaleName, ...]:
        """The scales on which the dial moves, finite at both ends.

        >>> find_dial("jump_relu").moves
        ('value_jump',)
        """
        ends = self.scales(self.smooth), self.scales(self.sharp)
        return tuple(
            s for s in SCALES if all(map(math.isfinite, (p := [getattr(e, s) for e in ends]))) and p[0] != p[1]
        )

    def steps(
        self,
        count: int,
        scale: str = "parameter",
        *,
        smooth: float | None = None,
        sharp: float | None = None,
        log: bool = False,
    ) -> list[float]:
        """Settings in equal steps on a scale, from smooth to sharp; the nearest ones where they are whole.

        Args:
            count: how many, at least 2.
            scale: "value_jump", "slope_jump", "curvature", or "parameter" for the parameter itself.
            smooth: first setting; the smooth end of the usual range by default.
            sharp: last setting; the sharp end of the usual range by default.
            log: equal ratios instead of equal differences.

        Raises:
            ValueError: a scale on which the dial does not move, or more steps than whole settings.

        >>> find_dial("softplus").steps(3, "curvature", smooth=1.0, sharp=9.0)
        [1.0, 5.0, 9.0]
        """
        check_count("count", count, minimum=2)
        check_choice("scale", scale, (*SCALES, "parameter"))
        first = check_finite("smooth", self.smooth if smooth is None else smooth)
        last = check_finite("sharp", self.sharp if sharp is None else sharp)

        def place(value: float) -> float:
            return value if scale == "parameter" else float(getattr(self.scales(value), scale))

        ends = place(first), place(last)
        if not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
            places = f"{ends[0]:g} to {ends[1]:g}"
            raise ValueError(
                f"dial {self.name!r} does not move on the scale {scale!r} ({places}); "
                f"it moves on {', '.join(map(repr, (*self.moves, 'parameter')))}"
            )
        if log and min(ends) <= 0:
            raise ValueError(
                f"log=True needs places above 0 on the scale, got {ends[0]:g} to {ends[1]:g}; "
                "choose other ends, or log=False"
            )
        shares = [k / (count - 1) for k in range(count)]
        wanted = [ends[0] * (ends[1] / ends[0]) ** s if log else ends[0] + (ends[1] - ends[0]) * s for s in shares]
        if self.whole:
            return _nearest_whole(place, first, last, wanted)
        inner = [w if scale == "parameter" else _solve(place, first, last, w) for w in wanted[1:-1]]
        return [first, *inner, last]

    def _number(self, value: float) -> float:
        whole = self.whole and isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return int(value) if whole else value

    def _refuse(self, wanted: set[str]) -> None:
        if "chi" in wanted and self.rescales:
            raise ValueError(
                f"holding chi (E φ'²) would undo the dial {self.name!r}: its settings are one function at different "
                f"scales of the input, so chi is the same wherever {self.parameter} times the pre-activation's "
                "deviation is. Hold 'mean' or 'second_moment', freeze the weights, or take a dial that is no change "
                "of scale, such as 'kinked_linear'"
            )
        if {"chi", "second_moment"} <= wanted:
            raise ValueError("chi and second_moment each fix the output's scale; hold one of them")


def _held(facts: ActivationFacts, target: ActivationFacts, wanted: set[str]) -> tuple[float, float]:
    """(a, b) for which a φ + b has the target's moments."""
    for f in (facts, target):
        unknown = [name for name in sorted(wanted) if not math.isfinite(getattr(f, HOLDS[name]))]
        if unknown:
            raise ValueError(f"cannot hold {', '.join(unknown)}: of {f.name} that is not a finite number")
    here, there = facts.second_moment, target.second_moment
    if "mean" in wanted:
        here, there = here - facts.mean**2, there - target.mean**2
    if "chi" in wanted:
        here, there = facts.slope_second_moment, target.slope_second_moment
    scale = 1.0
    if wanted & {"chi", "second_moment"}:
        if not (0 < here < math.inf and 0 < there < math.inf):
            raise ValueError(
                f"cannot hold {', '.join(sorted(wanted))}: {facts.name} has {here:g} where the reference "
                f"{target.name} has {there:g}; both must be positive"
            )
        scale = math.sqrt(there / here)
    return scale, target.mean - scale * facts.mean if "mean" in wanted else 0.0


def _solve(place: Callable[[float], float], first: float, last: float, wanted: float) -> float:
    low, high = min(first, last), max(first, last)
    if low > 0 and high / low > 10:  # bisect ratios
        return math.exp(brentq(lambda x: place(math.exp(x)) - wanted, math.log(low), math.log(high), xtol=1e-14))
    return float(brentq(lambda x: place(x) - wanted, low, high, xtol=1e-14))


def _nearest_whole(place: Callable[[float], float], first: float, last: float, wanted: list[float]) -> list[float]:
    low, high = sorted((round(first), round(last)))
    places = {value: place(value) for value in range(low, high + 1)}
    chosen = [min(places, key=lambda value: abs(places[value] - w)) for w in wanted]
    if len(set(chosen)) < len(chosen):
        raise ValueError(
            f"{len(wanted)} equal steps need more whole settings than {low} to {high} has; ask for fewer, or use "
            "scale='parameter'"
        )
    return list(map(float, chosen))


_ALL = (
    Dial("softplus", "beta", 0.5, 50.0, "relu", rescales=True),
    Dial("swish", "beta", 0.5, 50.0, "relu", rescales=True),
    Dial("smooth_relu", "alpha", 0.5, 50.0, "relu", rescales=True),
    Dial("squareplus", "b", 4.0, 1e-4, "relu", rescales=True),
    Dial("elu", "alpha", 1.0, 0.01, "relu"),
    Dial("celu", "alpha", 2.0, 0.02, "relu", rescales=True),
    Dial("tanh", "steepness", 0.5, 50.0, "sign", rescales=True),
    Dial("sigmoid_staircase", "temperature", 0.25, 0.005, "staircase"),
    Dial("quantised_relu", "bits", 8, 1, "quantised_relu", whole=True),
    Dial("staircase", "levels", 65, 2, "sign", whole=True),
    Dial("leaky_relu", "negative_slope", 1.0, 0.0, "relu"),
    Dial("kinked_linear", "kink", 0.0, 1.0, "relu"),
    Dial("jump_relu", "height", 0.0, 1.0, "relu", rescales=True),
)
DIALS: dict[str, Dial] = {d.name: d for d in _ALL}


def list_dials() -> list[str]:
    """Names that `dial` knows.

    >>> list_dials()[:3]
    ['celu', 'elu', 'jump_relu']
    """
    return sorted(DIALS)


def find_dial(name: str) -> Dial:
    """A dial by name: its range, its place on the three scales, equal steps.

    >>> find_dial("tanh").limit
    'sign'
    """
    return DIALS[check_choice("dial", name, DIALS)]


def dial(
    name: str, value: float, *, hold: str | Iterable[str] = (), reference: str | nn.Module | None = None
) -> Activation:
    """Turn a named dial: the activation at a value of its parameter.

    With `hold`, output moments for standard normal inputs are kept at those of the reference by a positive factor
    and a shift of the output: "mean" E φ(u), "second_moment" E φ(u)², "chi" E φ'(u)².

    Args:
        name: one of `list_dials()`.
        value: of the dial's parameter: `find_dial(name).parameter`.
        hold: moments to hold.
        reference: whose moments; by default `find_dial(name).limit`.

    Raises:
        ValueError: unknown dial or moment, a value out of range, moments that cannot be held together, or chi on
            a dial that is a change of scale, which would undo it.

    >>> dial("softplus", 0.1)
    Softplus(beta=0.1)
    >>> centred = dial("softplus", 4.0, hold=("mean", "second_moment"))
    >>> round(centred.facts().second_moment, 12)  # as relu's
    0.5
    """
    return find_dial(name)(value, hold=hold, reference=reference)
