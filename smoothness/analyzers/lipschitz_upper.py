"""How steep can the network be anywhere around an input? From above, certified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_positive
from smoothness._norms import Norm
from smoothness._state import model_device
from smoothness.analyzers.lipschitz_target import (
    EFFORTS,
    PAIRS,
    Bounds,
    ball_around,
    check_radius,
    check_target,
    checked_batch,
    class_differences,
    field_values,
    layer_name,
    network_of,
    plain_settings,
    unit_of,
)
from smoothness.bounds.balls import Ball
from smoothness.bounds.graph import Network
from smoothness.bounds.lipschitz import Constants, lipschitz_constants
from smoothness.bounds.ranges import Ranges
from smoothness.bounds.reach import complete_ranges
from smoothness.measurement import Measurement


@dataclass(frozen=True)
class LipschitzUpperBound:
    """Certified local Lipschitz constant: an upper bound, for every activation.

    sup |f(a) - f(b)| / |a - b|_p over pairs (a, b) of points within `radius` of x (pairs="ball"), or over pairs
    (x, b) alone (pairs="centre": tighter, and all that certification needs). Inputs are clipped to `bounds` only when
    given.

    The smallest of several bounds, named in details["winner"]: the quadratic form of all slopes in their local
    intervals (Fazlyab et al. 2019, arXiv 1906.04893; here with slopes and ranges from the activations' facts,
    the best multipliers by an interior-point method, and each certificate proved again in float64 with all rounding
    included), the interval Jacobian (Weng et al. 2018, arXiv 1804.09699), a linear relaxation through the Jacobian
    (after Shi et al. 2022, arXiv 2210.07394; not under "fast"), the product of local layer norms, and the global one.
    The values hold for the network in real arithmetic with its weights as stored.

    Under "tight" small networks of continuous piecewise affine activations are cut into their affine pieces: exact.
    Where an activation's jump may be crossed no constant exists for pairs in the ball: the value is infinite and
    details["crossed"] names the layer. Centre pairs are finite unless a unit sits on its threshold; see also
    `LocalOscillation`.

    Args:
        norm: p: "l2", "linf" or "l1".
        radius: of the ball, in input units.
        of: "logits" (the constant is p -> p), "margin" (f_y - max of the others, to the real numbers: the largest
            constant of f_y - f_j over the classes j that may be the nearest rival in the ball; y is the label, or the
            predicted class without labels) or "layer:NAME" (p -> p, of a module's output).
        pairs: "ball" or "centre".
        effort: "fast" (multipliers in closed form), "standard" or "tight" (all ranges by optimised forms, and affine
            pieces).
        bounds: lowest and highest valid input, as in a `ThreatModel`.
        batch_size: examples at once; all by default.
        memory_gib: what one layer's matrix may take.

    Raises:
        TypeError: a module that cannot be read, or an activation without facts; it is named.
        ValueError: a radius that is not positive, inputs outside the bounds, too little memory (the need is named).

    Returns (when called): a Measurement "local_lipschitz", values (n,), unit "logit / input l2" (or the norm
        chosen), bound "upper". details: "winner", "candidates" (name -> (n,)), "certificates" (units and
        multipliers of each quadratic form), "crossed" and, of classifiers, "margin": f_y - max of the others, by which
        to divide where networks are compared.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> LipschitzUpperBound(norm="l2", radius=0.1)(layer, torch.zeros(1, 2)).values
    tensor([4.0000], dtype=torch.float64)
    """

    norm: Norm = "l2"
    radius: float = 0.1
    of: str = "logits"
    pairs: Literal["ball", "centre"] = "ball"
    effort: Literal["fast", "standard", "tight"] = "standard"
    bounds: Bounds | None = None
    batch_size: int | None = None
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        check_radius(self.radius)
        check_target(self)
        check_choice("pairs", self.pairs, PAIRS)
        check_choice("effort", self.effort, EFFORTS)
        check_positive("memory_gib", self.memory_gib)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Bound every input; `labels` are used for of="margin" alone."""
        inputs, labels = checked_batch(model, self, inputs, labels)
        with torch.no_grad():
            inputs = inputs.to(model_device(model))
            network = network_of(model, self, inputs, self.memory_gib)
            parts = list(self._parts(network, inputs, labels))
            margins = _margins(network, inputs, self.of, labels)
        names = parts[0].candidates
        return Measurement(
            "local_lipschitz",
            torch.cat([part.values for part in parts]),
            unit=unit_of(self.of, self.norm),
            bound="upper",
            settings=plain_settings("LipschitzUpperBound", field_values(self)),
            details={
                "reason": ("",) * len(inputs),
                "winner": tuple(name for part in parts for name in part.winners),
                "crossed": tuple(name for part in parts for name in part.crossed),
                "candidates": {name: torch.cat([part.candidates[name] for part in parts]).cpu() for name in names},
                "certificates": tuple(c for part in parts for c in part.certificates),
                "margin": margins,
            },
        )

    def _parts(self, network: Network, inputs: Tensor, labels: Tensor | None) -> Iterator[Constants]:
        size = self.batch_size or examples_at_once(network, self.memory_gib)
        for start in range(0, len(inputs), size):
            rows = slice(start, start + size)
            ball = ball_around(inputs[rows], self.norm, self.radius, self.bounds)
            mix = margin_rows(network, ball, self.of, None if labels is None else labels[rows])
            ranges = complete_ranges(network, ball, self.effort)
            if mix is not None:
                mix = nearest_rivals(network, ranges[0], mix)
            yield lipschitz_constants(
                network, ball, pairs=self.pairs, mix=mix, separate=mix is not None, effort=self.effort, ranges=ranges
            )


def margin_rows(network: Network, ball: Ball, of: str, labels: Tensor | None) -> Tensor | None:
    """The class differences of of="margin"; None for the outputs themselves."""
    return class_differences(network.run(ball.centre)[1], labels) if of == "margin" else None


def nearest_rivals(network: Network, found: Ranges, mix: Tensor) -> Tensor:
    """`mix` with the classes that are never the nearest rival on the ball replaced by the one that is at its centre.

    Where f_j < f_k holds on all of the ball for some other rival k, j takes no part in max over j of f_j there.
    """
    margins = (mix @ found.centre_output.unsqueeze(2)).squeeze(2)
    nearest = mix.gather(1, margins.argmin(dim=1).view(-1, 1, 1).expand(-1, 1, mix.shape[2]))
    lead = found.find(network.output, nearest - mix).upper  # of f_j - f_k
    return torch.where((lead < 0).unsqueeze(2), nearest, mix)


def _margins(network: Network, inputs: Tensor, of: str, labels: Tensor | None) -> Tensor | None:
    if layer_name(of) or network.output.width < 2 or (of != "margin" and labels is None):
        return None
    outputs = network.run(inputs.flatten(1).double())[1]
    rows = class_differences(outputs, labels)
    return (rows @ outputs.unsqueeze(2)).squeeze(2).amin(dim=1).cpu()


def examples_at_once(network: Network, memory_gib: float) -> int:
    """So many that the substituted rows of the largest layer fit."""
    largest = max(weight.numel() for affine in network.maps for _, weight in affine.sources) if network.hidden else 1
    return max(1, int(memory_gib * 2**30 / (6 * 8 * largest)))
