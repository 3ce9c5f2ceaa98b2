"""Where does an unknown model break around each input, and how rough is it there, from its values alone?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs, check_positive
from smoothness.analyzers.double import LAYER, DoubleModel, double_model, in_double
from smoothness.analyzers.line_probe import Break, LineProbe, Values, probe_line
from smoothness.analyzers.segments import random_steps
from smoothness.measurement import Measurement

KINDS = ("value jump", "kink", "curvature jump")
_FAILS = "the model's output is NaN or infinite on a segment"
_LEAST_BUDGET = 300  # the grid alone takes 257
# Numbers of the points evaluated at once when batch_size is None: 32 MiB of inputs.
_HELD_NUMBERS = 2**22


class ProbeMeasurements(NamedTuple):
    """What `SmoothnessProbe` returns: values of shape (n,) and (n, 3)."""

    order: Measurement
    breaks: Measurement


@dataclass(frozen=True)
class SmoothnessProbe:
    """Order of smoothness found on random segments through each input, and the density of breaks, by kind.

    For each example x, `segments` directions u are drawn uniformly from the l2 sphere, and x + s·u, |s| < radius, is
    searched for discontinuities of the value, the gradient and the curvature from values alone: no derivatives, no
    facts, no modules, so also where a backward pass lies or an operation has none. See `probe_line` for the method.

        order  = the smallest order of a break found: -1 value jump, 0 kink, 1 curvature jump; infinity without any;
                 s - 1 in between, where the Hölder exponent is s (|z|^1.5: 0.5)                        unit "1"
        breaks = number of breaks of each kind / (segments · 2 · radius)                      "breaks / input l2"

    A break is what looks like one at the distances it was seen at: softplus(beta) is a kink at all distances far
    above 1 / beta. Those distances stand in the table. What the probe cannot exclude, it says in
    details["cannot_exclude"]: breaks whose effect is below rounding, of the third or a higher derivative, off the
    segments, several within one cell of the grid that cancel, and what the budget left unsearched.
    Bound: "estimate". Values are computed in float64 on a copy in evaluation mode; a model that computes in float32
    itself is probed down to its own rounding, which is measured.

    details: "table", for each example a tuple of (segment, `Break`) with positions and distances in input units
    (l2) from x; "evaluations" (n,) of the costliest segment; "exhausted" (n,) whether a budget ended a search;
    "scales" (smallest, largest distance) in input units; "cannot_exclude"; "reason".

    Args:
        segments: number of segments per example.
        radius: half the length of each, in input units (l2).
        budget: evaluations of the model on each segment, at most.
        of: "logits", or "layer:NAME" for the flat output of a module inside.
        seed: of the directions.
        batch_size: points of a segment evaluated at once; None for as many as 32 MiB hold.

    Raises:
        TypeError, ValueError: settings out of range, bad inputs, a model that cannot be copied, an unknown layer.

    >>> found = SmoothnessProbe(segments=1, radius=2.0)(nn.ELU(), torch.tensor([[0.3]]))
    >>> found.order.values, found.breaks.values
    (tensor([1.], dtype=torch.float64), tensor([[0.0000, 0.0000, 0.2500]], dtype=torch.float64))
    """

    segments: int = 2
    radius: float = 1.0
    budget: int = 1000
    of: str = "logits"
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_count("segments", self.segments)
        check_positive("radius", self.radius)
        check_count("budget", self.budget, minimum=_LEAST_BUDGET)
        if self.of != "logits" and not (self.of.startswith(LAYER) and self.of != LAYER):
            raise ValueError(f'of must be "logits" or "layer:NAME", got {self.of!r}')
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> ProbeMeasurements:
        """Probe around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        double = double_model(model, inputs, of=self.of, strict=False)
        x = in_double(double, inputs)
        generator = torch.Generator().manual_seed(self.seed)
        steps = random_steps(x, self.segments, self.radius, generator).to(x.device)
        size = self.batch_size or max(1, _HELD_NUMBERS // x[0].numel())
        lines = [
            [_probe(double, centre, step, self.budget, size) for step in some]
            for centre, some in zip(x, steps.view(len(x), self.segments, *x.shape[1:]), strict=True)
        ]
        orders, counts = torch.full((len(x),), torch.inf, dtype=torch.float64), torch.zeros(len(x), 3).double()
        tables = []
        for row, probes in enumerate(lines):
            table = [(k, self._in_input_units(b)) for k, probe in enumerate(probes) if probe for b in probe.breaks]
            tables.append(tuple(table))
            for _, found in table:
                orders[row] = min(float(orders[row]), found.order)
                counts[row, min(max(math.floor(found.order + 1.5), 0), 2)] += 1
        valid = torch.tensor([all(probe is not None for probe in probes) for probes in lines])
        details: dict[str, Any] = {
            "table": tuple(tables),
            "evaluations": torch.tensor([max((p.evaluations for p in probes if p), default=0) for probes in lines]),
            "exhausted": torch.tensor([any(p.exhausted for p in probes if p) for probes in lines]),
            "scales": (2 * self.radius * 2.0**-22, 2 * self.radius * 2.0**-4),
            "cannot_exclude": self._cannot_exclude(),
            "reason": tuple("" if ok else _FAILS for ok in valid.tolist()),
        }
        settings = {"analyzer": "SmoothnessProbe", **asdict(self), "dtype": "float64"}
        orders[~valid], counts[~valid] = torch.nan, torch.nan
        return ProbeMeasurements(
            Measurement("smoothness_order", orders, "1", "estimate", {}, settings, valid, details),
            Measurement(
                "break_density",
                counts / (self.segments * 2 * self.radius),
                unit="breaks / input l2",
                bound="estimate",
                coords={"kind": KINDS},
                settings=settings,
                valid=valid,
                details=details,
            ),
        )

    def _in_input_units(self, found: Break) -> Break:
        length = 2 * self.radius
        return replace(
            found,
            position=(found.position - 0.5) * length,
            width=found.width * length,
            size=found.size / length ** (found.order + 1),
            scales=(found.scales[0] * length, found.scales[1] * length),
        )

    def _cannot_exclude(self) -> str:
        cell = 2 * self.radius / 256
        return (
            f"breaks off the {self.segments} segments; breaks of the third or a higher derivative; several breaks "
            f"within {cell:.3g} that cancel in fourth differences; breaks below rounding, or below what curvature "
            f"alone does over {cell / 2:.3g}; a smooth bend narrower than the distances in the table, which looks "
            "like a break; where exhausted, anything in the unfinished places"
        )


def _probe(double: DoubleModel, centre: Tensor, step: Tensor, budget: int, size: int) -> LineProbe | None:
    """None where values are NaN or infinite."""

    def function(t: Values) -> Values:
        shares = torch.from_numpy(2 * t - 1).to(centre).view(-1, *[1] * centre.ndim)
        with torch.no_grad():
            parts = [double(centre + s * step).to(torch.float64).cpu() for s in torch.split(shares, size)]
        values = torch.cat(parts).numpy()
        if not np.isfinite(values).all():
            raise FloatingPointError
        return values

    try:
        return probe_line(function, budget)
    except FloatingPointError:
        return None
