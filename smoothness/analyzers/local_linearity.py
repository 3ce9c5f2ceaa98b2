"""How far does the model depart from its tangent within a ball?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs, check_labels, check_positive
from smoothness._norms import NORMS, Norm, project_to_ball, random_in_ball, steepest_direction, vector_norm
from smoothness.analyzers.double import DoubleModel, double_model, in_double, output_weights
from smoothness.analyzers.input_curvature import followed, slopes
from smoothness.measurement import Measurement

Of = Literal["margin", "logits"]
_FAILS = "the model's output or its gradient is NaN or infinite"


@dataclass(frozen=True)
class LocalLinearityError:
    """Largest departure of an output from its tangent at x, over a ball: a lower bound.

        value = max over |v|_p <= radius of |f(x + v) - f(x) - v · ∇f(x)|     "logit"

    the γ of Qin et al. 2019 (arXiv 1907.02610), of the margin or the logits instead of the loss. Found by projected
    steepest ascent, whose step shrinks from half the radius, from random points of the ball in opposite pairs; the
    best point seen counts. It is finite for every activation: a kink gives a value in proportion to the radius, a
    step its jump. On step networks the gradient is 0, and the search only moves outwards.

    For of="margin", f is the fixed linear functional of the logits (label, or predicted class, minus the best other
    one, both at x); for of="logits" the value is the largest over the outputs. Computed in float64 on a copy in
    evaluation mode; a missing gradient counts as 0.

    details: "offset" (n, *input_shape), the v of the value, and "reason".

    Args:
        norm: "l2", "linf" or "l1", of the ball.
        radius: in input units.
        of: "margin" or "logits".
        steps: of the ascent.
        restarts: random starting points; every example gets the same offsets.
        seed: of the starting points.
        batch_size: examples at once; all by default.

    Raises:
        TypeError, ValueError: settings out of range, bad inputs or outputs, a model that cannot be copied.

    >>> found = LocalLinearityError(norm="linf", radius=0.5, of="logits")(nn.ReLU(), torch.full((1, 1), 0.25))
    >>> round(float(found.values), 6)
    0.25
    """

    norm: Norm = "l2"
    radius: float = 0.1
    of: Of = "margin"
    steps: int = 20
    restarts: int = 4
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_choice("of", self.of, get_args(Of))
        check_positive("radius", self.radius)
        check_count("steps", self.steps, minimum=0)
        check_count("restarts", self.restarts)
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Measure around `inputs` (n, *input_shape); `labels` are used for of="margin" alone."""
        check_inputs(inputs)
        labels = None if labels is None else check_labels(labels, len(inputs))
        double = double_model(model, inputs)
        x = in_double(double, inputs)
        with torch.no_grad():
            weights = output_weights(double(x), self.of, labels)
        rows, size = weights.shape[1], self.batch_size or len(x)
        values, offsets = [], []
        for some, w in zip(torch.split(x, size), torch.split(weights, size), strict=True):
            value, offset = self._search(double, some.repeat_interleave(rows, dim=0), w.flatten(0, 1))
            best = value.nan_to_num(torch.inf).view(-1, rows).argmax(dim=1)
            pick = best + rows * torch.arange(len(some), device=x.device)
            values.append(value[pick].cpu())
            offsets.append(offset[pick].cpu())
        found = torch.cat(values)
        valid = found.isfinite()
        return Measurement(
            "local_linearity_error",
            torch.where(valid, found, torch.nan),
            unit="logit",
            bound="lower",
            settings={"analyzer": "LocalLinearityError", **asdict(self), "dtype": "float64"},
            valid=valid,
            details={
                "offset": torch.cat(offsets),
                "reason": tuple("" if ok else _FAILS for ok in valid.tolist()),
            },
        )

    def _search(self, double: DoubleModel, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) largest departure found, and (n, *input_shape) its offset."""
        here = followed(double, x, weights)
        tangent = slopes(double, x.clone().requires_grad_(), weights, missing_is_zero=True)
        generator = torch.Generator().manual_seed(self.seed)
        best, at = torch.zeros_like(here), torch.zeros_like(x)
        start = torch.zeros_like(x[:1])
        for restart in range(self.restarts):
            # Every other start is opposite: what bends is often on one side of x alone.
            start = -start if restart % 2 else random_in_ball(start.cpu(), self.norm, self.radius, generator).to(x)
            offset = start.expand_as(x)
            for k in range(self.steps + 1):
                there = followed(double, x + offset, weights)
                error = there - here - (offset * tangent).flatten(1).sum(dim=1)
                better = (error.abs() > best) | error.isnan()
                best = torch.where(better, error.abs(), best)
                at = torch.where(_wide(better, x), offset, at)
                if k == self.steps:
                    break
                bend = slopes(double, (x + offset).requires_grad_(), weights, missing_is_zero=True) - tangent
                bend = torch.where(_wide(error < 0, x), -bend, bend)
                # On the piece of x itself all is flat: go outwards.
                uphill = steepest_direction(
                    torch.where(_wide(vector_norm(bend, "linf") > 0, x), bend, offset), self.norm
                )
                step = self.radius * (1 - k / self.steps) / 2
                offset = project_to_ball(offset + step * uphill, self.norm, self.radius)
        return best, at


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))
