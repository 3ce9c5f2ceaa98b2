"""Up to which distance is no adversarial example possible? Certified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import Norm
from smoothness._state import model_device
from smoothness.analyzers.lipschitz_target import (
    EFFORTS,
    Bounds,
    ball_around,
    check_target,
    checked_batch,
    class_differences,
    field_values,
    network_of,
    plain_settings,
)
from smoothness.analyzers.lipschitz_upper import examples_at_once
from smoothness.bounds.balls import Ball
from smoothness.bounds.graph import Network
from smoothness.bounds.jacobians import row_steepness
from smoothness.bounds.quadratic import row_constants
from smoothness.bounds.ranges import Ranges
from smoothness.bounds.reach import complete_ranges, local_sectors, output_range
from smoothness.measurement import Measurement


@dataclass(frozen=True)
class CertifiedRadius:
    """A radius within which the class provably does not change: a lower bound on the smallest adversarial distance.

    max over r of min over classes j of min(r, margin_j / L_j(r)), where L_j(r) bounds |Δ(f_y - f_j)| / |Δx| over
    centre pairs of the ball of radius r. A certified range of f_y - f_j on that ball that stays positive stands for
    min(r, margin_j / L_j) = r. (margin / L is false beyond the r for which L was computed.) Misclassified examples
    have radius 0.

    Args:
        norm, bounds, batch_size, memory_gib: as in `LipschitzUpperBound`.
        effort: "fast" takes ranges and interval Jacobians, for whole data sets; "standard" and "tight" the quadratic
            form, its multipliers optimised for the class that limits the radius, and in closed form for the others.
        largest: no radius beyond this one is tried.
        evaluations: radii tried: first a geometric grid up to `largest`, then bisection.

    Raises:
        TypeError, ValueError: as in `LipschitzUpperBound`.

    Returns (when called): a Measurement "certified_radius", values (n,), unit "input l2" (or the norm chosen), bound
        "lower". details: "margin" (n,).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = CertifiedRadius(norm="linf")(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]))
    >>> round(float(found.values), 4)
    0.05
    """

    norm: Norm = "l2"
    effort: Literal["fast", "standard", "tight"] = "standard"
    bounds: Bounds | None = None
    largest: float = 10.0
    evaluations: int = 16
    batch_size: int | None = None
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        check_positive("largest", self.largest)
        check_count("evaluations", self.evaluations, minimum=2)
        check_target(self)
        check_choice("effort", self.effort, EFFORTS)
        check_positive("memory_gib", self.memory_gib)

    @property
    def of(self) -> str:
        """The margins."""
        return "margin"

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Certify every input for its label, or for the predicted class without labels."""
        inputs, labels = checked_batch(model, self, inputs, labels)
        inputs = inputs.detach().to(model_device(model))
        with torch.no_grad():
            network = network_of(model, self, inputs, self.memory_gib)
            size = self.batch_size or examples_at_once(network, self.memory_gib)
            parts = [
                self._certify(network, inputs[k : k + size], None if labels is None else labels[k : k + size])
                for k in range(0, len(inputs), size)
            ]
        values, margins = (torch.cat(part) for part in zip(*parts, strict=True))
        return Measurement(
            "certified_radius",
            values,
            unit=f"input {self.norm}",
            bound="lower",
            settings=plain_settings("CertifiedRadius", field_values(self)),
            details={"reason": ("",) * len(values), "margin": margins.cpu()},
        )

    def _certify(self, network: Network, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        ball = ball_around(x, self.norm, 1.0, self.bounds)
        mix = class_differences(network.run(ball.centre)[1], labels)
        at = Ranges(network, Ball(ball.centre, "linf", torch.zeros_like(ball.radius)), relax=False).complete()
        margins = at.find(network.output, mix).lower  # (n, classes - 1), proved
        margin = margins.amin(dim=1)
        best, fails = torch.zeros_like(margin), torch.full_like(margin, self.largest)
        # A first guess per example from the slopes at the centre, then up or down by 4, then bisection.
        radius = torch.full_like(margin, min(self.largest, 1e-2))
        for _ in range(self.evaluations):
            todo = ((margin > 0) & (best < fails * (1 - 1e-3))).nonzero().squeeze(1)
            if len(todo) == 0:
                break
            low, high = (None if e is None else e[todo] for e in (ball.low, ball.high))
            part = Ball(ball.centre[todo], self.norm, radius[todo].unsqueeze(1), low, high)
            reached, whole = self._at_radius(network, part, mix[todo], margins[todo])
            best[todo] = torch.maximum(best[todo], reached)
            fails[todo] = torch.where(whole, fails[todo], torch.minimum(fails[todo], radius[todo]))
            tried = fails < self.largest
            up = torch.minimum(torch.maximum(best, radius) * 4, fails)
            radius = torch.where(
                tried, torch.where(best > 0, (best * fails).clamp_min(1e-300).sqrt(), fails / 8), up
            ).clamp(1e-12 * self.largest, self.largest)
            fails = torch.where((best >= self.largest * (1 - 1e-9)), best, fails)
        return best * (1 - 1e-9), margin

    def _at_radius(self, network: Network, ball: Ball, mix: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        """The radius certified by balls of this one, and whether all of it is."""
        radius = ball.radius.squeeze(1)
        found, at = complete_ranges(network, ball, self.effort)
        drop = -output_range(network, found, at, mix).lower  # (n, classes - 1)
        # A range that leaves the margin positive certifies the whole ball, and nothing when it does not.
        inside = drop < margins
        slopes = local_sectors(network, found, at)
        if self.effort == "fast":
            steepness = row_steepness(network, slopes, self.norm, mix)
            return self._reached(radius, inside, margins, steepness)
        finite = slopes.finite if network.hidden else torch.ones(len(drop), dtype=torch.bool)
        steepness = torch.full_like(drop, torch.inf)
        for row in ((~inside).any(dim=1) & finite.to(drop.device)).nonzero().squeeze(1).tolist():
            constants = row_constants(network, slopes, row, self.norm, mix[row], margins[row], self.effort)
            steepness[row] = constants
        return self._reached(radius, inside, margins, steepness)

    def _reached(self, radius: Tensor, inside: Tensor, margins: Tensor, steepness: Tensor) -> tuple[Tensor, Tensor]:
        certified = torch.where(inside, radius.unsqueeze(1), margins / steepness.clamp_min(1e-300))
        certified = torch.minimum(certified, radius.unsqueeze(1)).amin(dim=1)
        return certified, certified >= radius
