"""The smallest certified Lipschitz constant of a network on a ball, and which bound gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smoothness.bounds.balls import Ball
from smoothness.bounds.branching import branched_constant
from smoothness.bounds.forms import Sectors, sectors
from smoothness.bounds.graph import HiddenLayer, Network
from smoothness.bounds.jacobians import jacobian_constant, product_constant
from smoothness.bounds.linear_jacobians import relaxed_jacobian_constant
from smoothness.bounds.quadratic import Certificate, Effort, quadratic_constant
from smoothness.bounds.ranges import Ranges
from smoothness.bounds.reach import complete_ranges, local_sectors
from smoothness.bounds.slopes import Pairs


@dataclass(frozen=True, eq=False)
class Constants:
    """Certified constants of a batch.

    Attributes:
        values: (n,) the smallest; infinite where a jump is crossed or nothing is bounded.
        candidates: name of a bound -> (n,).
        certificates: of the quadratic form, or None, per example.
        crossed: (n,) name of a layer whose activation may jump, or "".
    """

    values: Tensor
    candidates: Mapping[str, Tensor]
    certificates: tuple[Certificate | None, ...]
    crossed: tuple[str, ...]

    @property
    def winners(self) -> tuple[str, ...]:
        """The bound that is smallest, per example; "" where none is finite."""
        names = list(self.candidates)
        stacked = torch.stack([self.candidates[name] for name in names])
        best = stacked.argmin(dim=0).tolist()
        return tuple(names[k] if v < float("inf") else "" for k, v in zip(best, self.values.tolist(), strict=True))


def lipschitz_constants(
    network: Network,
    ball: Ball,
    *,
    pairs: Pairs = "ball",
    mix: Tensor | None = None,
    separate: bool = False,
    effort: Effort = "standard",
    ranges: tuple[Ranges, Ranges] | None = None,
) -> Constants:
    """Certified constants of every example of a ball.

    Args:
        network: in float64.
        ball: n balls.
        pairs: "ball" for all pairs of points in it, "centre" for those with its centre.
        mix: (n, m, outputs) combinations of the outputs.
        separate: the largest constant of a single (combined) output, instead of the vector of all.
        effort: how much work goes into ranges and multipliers.
        ranges: as found by `complete_ranges`, to use again.
    """
    found, at = ranges or complete_ranges(network, ball, effort)
    local = local_sectors(network, found, at if pairs == "centre" else None)
    constants = constants_of_sectors(network, local, ball, mix=mix, separate=separate, effort=effort)
    more = {}
    curved = any(layer.facts.affine_pieces is None for layer in network.hidden)  # else no better than intervals
    if curved and effort != "fast":
        centred = local_sectors(network, found, at)
        more["relaxed Jacobian"] = relaxed_jacobian_constant(
            network, ball, found, at, centred, pairs=pairs, mix=mix, separate=separate, effort=effort
        )
    if effort == "tight" and network.hidden:
        rows = [
            branched_constant(network, ball, found, row, None if mix is None else mix[row], separate)
            for row in range(len(ball.centre))
        ]
        exact = [torch.inf if value is None else value for value in rows]
        more["affine pieces"] = constants.values.new_tensor(exact)
    values = torch.stack([constants.values, *more.values()]).amin(dim=0)
    return replace(constants, values=values, candidates={**constants.candidates, **more})


def constants_of_sectors(
    network: Network,
    local: Sectors,
    ball: Ball,
    *,
    mix: Tensor | None = None,
    separate: bool = False,
    effort: Effort = "standard",
) -> Constants:
    """The smallest of all bounds for given sectors."""
    n, norm = len(ball.centre), ball.norm
    infinite = torch.full((n,), torch.inf, dtype=torch.float64, device=ball.centre.device)
    crossed = _crossed(network, local, n)
    finite = torch.tensor([not name for name in crossed], device=infinite.device)
    index = finite.nonzero().squeeze(1)
    candidates = {name: infinite.clone() for name in ("quadratic form", "Jacobian", "layer product", "global")}
    certificates: list[Certificate | None] = [None] * n
    if len(index):
        part, own = local.rows(index), None if mix is None else mix[index]
        if not network.hidden:  # no unit: one empty row stands for every example
            part = Sectors((), ())
        steepest = [c.abs() + r for c, r in zip(part.centre, part.radius, strict=True)]
        candidates["Jacobian"][index] = _defined(jacobian_constant(network, part, norm, own, separate))
        norms: dict[int, Tensor] = {}
        product = product_constant(network, steepest, norm, own, separate, norms)
        candidates["layer product"][index] = _defined(product)
        globally = [
            torch.full_like(
                s, max(abs(layer.facts.slope_min), abs(layer.facts.slope_max)) if not _jumps(layer) else torch.inf
            )
            for s, layer in zip(steepest, network.hidden, strict=True)
        ]
        candidates["global"][index] = _defined(product_constant(network, globally, norm, own, separate, norms))
        for row in index.tolist():
            one = None if mix is None else mix[row]
            certificate = quadratic_constant(network, local, row, norm, mix=one, separate=separate, effort=effort)
            certificates[row] = certificate
            candidates["quadratic form"][row] = certificate.value
    values = torch.stack(list(candidates.values())).amin(dim=0)
    return Constants(values, candidates, tuple(certificates), crossed)


def global_sectors(network: Network) -> Sectors:
    """Of all pairs of points of the whole space."""
    slopes = []
    for layer in network.hidden:
        end = torch.full((1, layer.width), torch.inf, dtype=torch.float64, device=network.output.bias.device)
        slopes.append(layer.facts.slope_range(-end, end))
    return sectors(slopes)


def _jumps(layer: HiddenLayer) -> bool:
    return any(b.order == -1 for b in layer.facts.breakpoints)


def _crossed(network: Network, local: Sectors, n: int) -> tuple[str, ...]:
    names = [""] * n
    for layer, centre, radius in zip(network.hidden, local.centre, local.radius, strict=True):
        bad = ~(centre.isfinite() & radius.isfinite()).all(dim=1)
        for row in bad.nonzero().squeeze(1).tolist():
            names[row] = names[row] or layer.name
    return tuple(names)


def _defined(values: Tensor) -> Tensor:
    return values.nan_to_num(torch.inf, posinf=torch.inf)
