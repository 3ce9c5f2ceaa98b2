"""How much does the gradient vary around each input, in kinks and in curvature, and on which scale?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs, check_positive
from smoothness.analyzers.double import LAYER, double_model, in_double, output_weights
from smoothness.analyzers.segment_variation import SegmentVariation, variation_on_segments
from smoothness.analyzers.segments import random_steps
from smoothness.measurement import Measurement

# Segments whose points are held at once when batch_size is None.
_HELD_SEGMENTS = 256
# Parts that do not add up to the change of the value by this share of the largest value are not to be believed.
_CLOSED = 1e-6
_FAILS = "the model's output is NaN or infinite"
_JUMPS = "the value jumps: the variation of the gradient is infinite; see value_variation and value_jump_part"
_STILL = "the gradient does not vary on the segments"
_OPEN = (
    "the parts do not add up to the change of the value: a jump or a false derivative in an operation that is no "
    "activation module with known facts; SmoothnessProbe works from values alone"
)


class VariationMeasurements(NamedTuple):
    """What `GradientVariation` returns: values of shape (n,), and (n, scales) for the concentration."""

    kink_part: Measurement
    curvature_part: Measurement
    concentration: Measurement
    value_variation: Measurement
    value_jump_part: Measurement


@dataclass(frozen=True)
class GradientVariation:
    """Total variation of the directional derivative on random segments through each input, by what makes it.

    For each example x, `segments` directions u are drawn uniformly from the l2 sphere, and g(s) = f(x + s·u),
    -radius < s < radius. With the whole length T = segments · 2 · radius,

        kink_part       = Σ |g'(s+) - g'(s-)| / T        "logit / input l2 per input l2"
        curvature_part  = Σ ∫ |g''(s)| ds / T             "logit / input l2 per input l2"
        value_variation = Σ (Σ |g(s+) - g(s-)| + ∫ |g'|) / T, and value_jump_part its first term    "logit / input l2"

    Their split repeats what class the activation is of: relu has kinks, softplus(beta=1000) has none. What tells
    whether the gradient turns abruptly is `concentration(h)`: the share of the gradient's variation at points whose
    local scale is below h. The local scale is 0 at a kink, and elsewhere the length of the interval on which |g''|
    stays above half its value there: about 3.5 / (β |dz/ds|) for a softplus of sharpness β. Kinks give 1 for every h.

    Where the value jumps, the gradient's variation is infinite: the first three are then not valid, and the value's
    variation and its jump part say what there is to say.

    For of="margin", f is the fixed linear functional of the logits (predicted class minus runner-up, both at x); for
    of="logits" and of="layer:NAME" (the flat output of that module) sizes are l2 norms over the outputs. Computed in
    float64 on a copy in evaluation mode; see `variation_on_segments` for the method. Bound: "estimate" of the mean
    over all directions; details["standard_error"] beside it, NaN for one segment.

    Args:
        segments: number of segments per example.
        radius: half the length of each, in input units (l2).
        of: "margin", "logits" or "layer:NAME".
        scales: the h of the concentration, in input units (l2); None for radius · (2^-10, 2^-8, ..., 1).
        grid: cells of each segment at the start of a bisection, for networks that are not piecewise affine; a unit
            that crosses and returns within one is missed.
        seed: of the directions.
        batch_size: examples at once; None for as many as make 256 segments.

    Raises:
        TypeError: a model that cannot be copied to float64, or an operation without a forward-mode derivative.
        ValueError: settings out of range, bad inputs, an unknown layer, too few outputs for of="margin".

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 3))
    >>> found = GradientVariation(segments=2)(net, torch.zeros(5, 2))
    >>> found.kink_part.values.tolist(), found.concentration.values.shape
    ([0.0, 0.0, 0.0, 0.0, 0.0], torch.Size([5, 6]))
    """

    segments: int = 8
    radius: float = 1.0
    of: str = "margin"
    scales: tuple[float, ...] | None = None
    grid: int = 64
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_count("segments", self.segments)
        check_positive("radius", self.radius)
        if self.of not in ("margin", "logits") and not (self.of.startswith(LAYER) and self.of != LAYER):
            raise ValueError(f'of must be "margin", "logits" or "layer:NAME", got {self.of!r}')
        for scale in self.scales or ():
            check_positive("scales", scale)
        check_count("grid", self.grid)
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> VariationMeasurements:
        """Measure around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        double = double_model(model, inputs, of=self.of)
        x = in_double(double, inputs)
        with torch.no_grad():
            outputs = double(x)
        weights = output_weights(outputs, "margin")[:, 0] if self.of == "margin" else None
        sound = outputs.isfinite().all(dim=1).cpu()
        generator = torch.Generator().manual_seed(self.seed)
        steps = random_steps(x, self.segments, self.radius, generator).to(x.device)
        steps = steps.view(len(x), self.segments, *x.shape[1:])
        scales = torch.tensor(self._scales(), dtype=torch.float64) / (2 * self.radius)
        size = self.batch_size or max(1, _HELD_SEGMENTS // self.segments)
        rows = {name: torch.full((len(x), self.segments), torch.nan, dtype=torch.float64) for name in _PARTS}
        shares = torch.full((len(x), self.segments, len(scales)), torch.nan, dtype=torch.float64)
        for some in torch.split(sound.nonzero().flatten(), size) if sound.any() else ():
            centres, offsets = x[some].repeat_interleave(self.segments, dim=0), steps[some].flatten(0, 1)
            found = variation_on_segments(
                double.module,
                centres - offsets,
                centres + offsets,
                of="logits" if self.of == "margin" else self.of,
                weights=None if weights is None else weights[some].repeat_interleave(self.segments, dim=0),
                grid=self.grid,
            )
            for name in _PARTS:
                rows[name][some] = getattr(found, name).view(-1, self.segments)
            shares[some] = found.concentration(scales).view(-1, self.segments, len(scales))
        return self._measured(rows, shares, sound)

    def _scales(self) -> tuple[float, ...]:
        return self.scales or tuple(self.radius * 2.0**-k for k in range(10, -1, -2))

    def _measured(self, rows: dict[str, Tensor], shares: Tensor, sound: Tensor) -> VariationMeasurements:
        length = 2 * self.radius
        kinks, bends = rows["slope_jumps"] / length**2, rows["slope_curvature"] / length**2
        jumps, slopes = rows["value_jumps"] / length, rows["value_slopes"] / length
        whole = kinks + bends
        pooled = (
            torch.where(whole[..., None] > 0, shares, 0.0).mul(whole[..., None]).sum(dim=1) / whole.sum(1)[:, None]
        )
        closed = (rows["closure"] <= _CLOSED).all(dim=1)
        jumping = (jumps > 0).any(dim=1)
        plain = ["" if ok and shut else _OPEN if ok else _FAILS for ok, shut in zip(sound, closed, strict=True)]
        smooth = [reason or (_JUMPS if jump else "") for reason, jump in zip(plain, jumping, strict=True)]
        moving = [reason or ("" if some > 0 else _STILL) for reason, some in zip(smooth, whole.sum(1), strict=True)]
        what = "feature" if self.of.startswith(LAYER) else "logit"
        bend, slope = f"{what} / input l2 per input l2", f"{what} / input l2"
        unresolved = {"unresolved": rows["unresolved"].mean(dim=1)}
        return VariationMeasurements(
            self._one("gradient_kink_part", bend, kinks, smooth),
            self._one("gradient_curvature_part", bend, bends, smooth, unresolved),
            self._one("gradient_concentration", "1", pooled, moving),
            self._one("value_variation", slope, jumps + slopes, plain),
            self._one("value_jump_part", slope, jumps, plain),
        )

    def _one(
        self, quantity: str, unit: str, rows: Tensor, reasons: list[str], details: dict[str, Any] | None = None
    ) -> Measurement:
        valid = torch.tensor([not reason for reason in reasons])
        found: dict[str, Any] = {"reason": tuple(reasons), **(details or {})}
        values, coords = rows, {"scale": self._scales()}
        if quantity != "gradient_concentration":
            spread = rows.std(dim=1) if self.segments > 1 else torch.full_like(rows[:, 0], torch.nan)
            found["standard_error"] = spread / self.segments**0.5
            values, coords = rows.mean(dim=1), {}
        return Measurement(
            quantity,
            torch.where(valid.view(-1, *[1] * (values.ndim - 1)), values, torch.nan),
            unit=unit,
            bound="estimate",
            coords=coords,
            settings={"analyzer": "GradientVariation", **asdict(self), "dtype": "float64"},
            valid=valid,
            details=found,
        )


_PARTS = tuple(
    name for name in SegmentVariation.__dataclass_fields__ if name not in ("samples", "pieces")
)  # one number a segment each
