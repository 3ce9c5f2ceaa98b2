"""How far can the outputs move while the input stays near? Finite for every activation, steps included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import Norm, project_to_ball, random_in_ball, steepest_direction, vector_norm
from smoothness._state import model_device, probing
from smoothness.analyzers.lipschitz_search import Outputs, readable_outputs
from smoothness.analyzers.lipschitz_target import (
    EFFORTS,
    Bounds,
    ball_around,
    check_target,
    checked_batch,
    field_values,
    layer_name,
    network_of,
    plain_settings,
)
from smoothness.analyzers.lipschitz_upper import examples_at_once, margin_rows
from smoothness.bounds.lipschitz import lipschitz_constants
from smoothness.bounds.reach import complete_ranges, output_range
from smoothness.measurement import Bracket, Measurement


@dataclass(frozen=True)
class LocalOscillation:
    """sup |f(x') - f(x)| over the ball of each radius around x, from both sides, for every activation.

    The one scale on which networks with steps and smooth ones are compared. Above, the smaller of r times the
    certified constant over centre pairs and of the size of the outputs' certified range; below, the largest change
    found by gradient steps, random points and random climbing, which also finds jumps. Both grow with the radius.

    Args:
        norm: of the ball; the change of logits or features is measured in the same norm.
        radii: of the balls, ascending.
        of: "logits", "margin" (the change of f_y - f_j, above the largest over the other classes j; below that of
            f_y - max_j f_j) or "layer:NAME".
        effort, bounds, batch_size, memory_gib: as in `LipschitzUpperBound`.
        starts, steps, seed: of the search.

    Raises:
        TypeError, ValueError: as in `LipschitzUpperBound`; radii that do not ascend.

    Returns (when called): a `Bracket` of two Measurements "local_oscillation", values (n, radii), unit "logit".

    >>> step = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Threshold(0.5, 0.0))
    >>> _ = step[0].weight.data.fill_(1.0)
    >>> LocalOscillation(norm="linf", radii=(0.1, 1.0))(step, Tensor([[0.45]])).upper.values
    tensor([[0.5500, 1.4500]], dtype=torch.float64)
    """

    norm: Norm = "l2"
    radii: tuple[float, ...] = (0.01, 0.1, 1.0)
    of: str = "logits"
    effort: Literal["fast", "standard", "tight"] = "standard"
    bounds: Bounds | None = None
    starts: int = 16
    steps: int = 40
    batch_size: int | None = None
    seed: int = 0
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        if not self.radii or any(b <= a for a, b in zip(self.radii, self.radii[1:], strict=False)):
            raise ValueError(f"radii must be given in ascending order, got {self.radii!r}")
        for radius in self.radii:
            check_positive("radii", radius)
        check_target(self)
        check_choice("effort", self.effort, EFFORTS)
        check_positive("memory_gib", self.memory_gib)
        check_count("starts", self.starts)
        check_count("steps", self.steps)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Bracket:
        """Measure every input; `labels` are used for of="margin" alone."""
        inputs, labels = checked_batch(model, self, inputs, labels)
        inputs = inputs.detach().to(model_device(model))
        upper, tables = self._above(model, inputs, labels)
        lower = self._below(model, inputs, labels)
        valid = lower.isfinite().all(dim=1)
        reason = tuple("" if ok else "the model's output is NaN or infinite" for ok in valid.tolist())
        below = self._measurement("lower", lower, valid, {"reason": reason})
        return Bracket(below, self._measurement("upper", upper, None, {"reason": ("",) * len(upper), **tables}))

    def _measurement(
        self, bound: Literal["lower", "upper"], values: Tensor, valid: Tensor | None, details: dict[str, Any]
    ) -> Measurement:
        return Measurement(
            "local_oscillation",
            values,
            unit="feature" if layer_name(self.of) else "logit",
            bound=bound,
            coords={"radius": self.radii},
            settings=plain_settings("LocalOscillation", field_values(self)),
            valid=torch.ones(len(values), dtype=torch.bool) if valid is None else valid,
            details=details,
        )

    def _above(self, model: nn.Module, inputs: Tensor, labels: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        columns, by_range, by_constant = [], [], []
        with torch.no_grad():
            network = network_of(model, self, inputs, self.memory_gib)
            size = self.batch_size or examples_at_once(network, self.memory_gib)
            for radius in self.radii:
                ranges, constants = [], []
                for start in range(0, len(inputs), size):
                    rows = slice(start, start + size)
                    ball = ball_around(inputs[rows], self.norm, radius, self.bounds)
                    mix = margin_rows(network, ball, self.of, None if labels is None else labels[rows])
                    found, at = complete_ranges(network, ball, self.effort)
                    lower, upper = output_range(network, found, at, mix)
                    largest = torch.maximum(-lower, upper).clamp_min(0)
                    ranges.append(vector_norm(largest, "linf" if mix is not None else self.norm) * (1 + 1e-12))
                    constants.append(
                        radius
                        * lipschitz_constants(
                            network,
                            ball,
                            pairs="centre",
                            mix=mix,
                            separate=mix is not None,
                            effort=self.effort,
                            ranges=(found, at),
                        ).values
                    )
                by_range.append(torch.cat(ranges))
                by_constant.append(torch.cat(constants))
                columns.append(torch.minimum(by_range[-1], by_constant[-1]))
        values = torch.stack(columns, dim=1)
        # What holds on a larger ball holds on a smaller one.
        values = values.flip(1).cummin(dim=1).values.flip(1)
        tables = {"by range": torch.stack(by_range, dim=1).cpu(), "by constant": torch.stack(by_constant, dim=1).cpu()}
        return values, tables

    def _below(self, model: nn.Module, inputs: Tensor, labels: Tensor | None) -> Tensor:
        parts = []
        with probing(model), readable_outputs(model, inputs[:1], self.of) as outputs:
            size = self.batch_size or len(inputs)
            for start in range(0, len(inputs), size):
                rows = slice(start, start + size)
                y = None if labels is None else labels[rows].to(inputs.device)
                parts.append(self._climb(outputs, inputs[rows].to(outputs.dtype), y))
        return torch.cat(parts).cummax(dim=1).values

    def _climb(self, outputs: Outputs, x: Tensor, labels: Tensor | None) -> Tensor:
        function, shape = outputs.of_examples(x, labels), x.shape[1:]
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self.starts)
        base = x[rows]
        with torch.no_grad():
            here = function(x, torch.arange(len(x), device=x.device))[rows]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = random_in_ball(torch.zeros(self.starts, *shape, dtype=torch.float64), self.norm, 1.0, generator)
        points = base + self.radii[0] * drawn.to(x).repeat(len(x), *[1] * len(shape))
        found = []
        for radius in self.radii:
            best = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for k in range(self.steps):
                points = self._into(base, points, radius).requires_grad_()
                with torch.enable_grad():
                    change = function(points, rows) - here
                    size = vector_norm(change, self.norm)
                    total = size.sum()
                    gradient = None
                    if total.requires_grad:
                        (gradient,) = torch.autograd.grad(total, points, allow_unused=True)
                size = size.detach()
                best = best.scatter_reduce(0, rows, size.nan_to_num(torch.inf), "amax")
                noise = torch.randn(self.starts, *shape, generator=generator, dtype=torch.float64).to(x)
                noise = noise.repeat(len(x), *[1] * len(shape))
                uphill = torch.zeros_like(points) if gradient is None else gradient.nan_to_num()
                move = steepest_direction(uphill, self.norm)
                still = (vector_norm(move, self.norm) == 0).view(-1, *[1] * len(shape))
                move = torch.where(still, steepest_direction(noise, self.norm), move)
                step = radius * (0.6 * (1 - k / self.steps) + 0.02)
                points = points.detach() + step * move
            rounding = 64 * torch.finfo(x.dtype).eps * here.abs().amax(dim=1).view(len(x), -1)[:, 0]
            found.append((best - rounding).clamp_min(0))
        return torch.stack(found, dim=1).cpu()

    def _into(self, base: Tensor, points: Tensor, radius: float) -> Tensor:
        points = base + project_to_ball(points.detach() - base, self.norm, radius * (1 - 1e-9))
        if self.bounds is not None:
            low, high = (torch.as_tensor(b, dtype=base.dtype, device=base.device) for b in self.bounds)
            points = torch.minimum(torch.maximum(points, low), high)
        return points
