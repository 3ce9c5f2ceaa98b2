"""How densely gradient discontinuities lie around each input, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_class_outputs, check_count, check_inputs, check_positive
from smoothness.analyzers.double import double_model, in_double
from smoothness.analyzers.kink_bisection import kinks_by_bisection
from smoothness.analyzers.kinks import Kinks, kinks_on_segments, sequential_chain
from smoothness.analyzers.segments import random_steps
from smoothness.measurement import Measurement

Of = Literal["margin", "logits"]
Method = Literal["auto", "exact", "bisection"]
# End points held at once when batch_size is None, in float64 numbers: 64 MiB.
_HELD_NUMBERS = 2**23


class KinkMeasurements(NamedTuple):
    """What `GradientKinks` returns: three measurements with values of shape (n, layers)."""

    density: Measurement
    slope_jump: Measurement
    value_jump: Measurement


@dataclass(frozen=True)
class GradientKinks:
    """Density and size of kinks and jumps on random segments through each input, by layer.

    For each example x, `segments` directions u are drawn uniformly from the l2 sphere, and the vertices v of
    g(s) = f(x + s·u), -radius < s < radius, are enumerated (`kinks_on_segments`). With the whole length
    T = segments · 2 · radius,

        density    = Σ_v 1 / T                        "kinks / input l2", effective vertices only
        slope_jump = Σ_v |g'(v+) - g'(v-)| / T        "logit / input l2 per input l2"
        value_jump = Σ_v |g(v+) - g(v-)| / T          "logit / input l2"

    g' is the directional derivative per unit of input length, so slope_jump is the total variation that kinks
    give to it per unit of length. A vertex counts for the layer of the unit that switches there; coincident
    units share it equally. A value jump downstream of a step counts for the step's layer. For of="margin", f is
    the fixed linear functional (predicted class minus runner-up, both at x) of the logits; for of="logits" sizes
    are l2 norms over the outputs. density is the same for both: vertices that move some output.

    Segments are not clipped to a box. All is computed in float64, as in evaluation mode, and the model is not
    changed. Bound: "estimate" of the mean over all directions (exact on the segments drawn; the standard error
    stands in details). When every activation has a continuous slope: zeros, "exact", and details["note"].

    details: "table" (`Kinks`; segment number = example · segments + j; jumps of all outputs in t = (s + radius) /
    (2 · radius), so divide `jump` by 2 · radius), "standard_error" (n, layers; NaN for one segment),
    "margin" (n,) and "pair" (n, 2) at x for of="margin", and "note".

    Args:
        segments: number of segments per example.
        radius: half the length of each, in input units (l2). An l∞ step of 8/255 in 784 dimensions has 0.88.
        seed: of the directions; they depend on the example's place in `inputs`, not on batch_size.
        of: "margin" or "logits".
        batch_size: examples whose segments are held at once; None takes as many as 64 MiB hold.
        keep_table: whether details holds the table; its size is rows times outputs.
        method: "exact" (`kinks_on_segments`), "bisection" (`kinks_by_bisection`: curved activations too, but two
            crossings of a unit within 1/256 of a segment are missed), or "auto": exact where it can be.

    Raises:
        TypeError: a model that neither method can read; with method="exact", activations both curved and kinked.
        ValueError: settings out of range, bad inputs, or of="margin" on a model with fewer than 2 outputs.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> found = GradientKinks(segments=4)(net, torch.zeros(5, 2))
    >>> found.density.values.shape, found.density.unit
    (torch.Size([5, 1]), 'kinks / input l2')
    """

    segments: int = 64
    radius: float = 1.0
    seed: int = 0
    of: Of = "margin"
    batch_size: int | None = None
    keep_table: bool = True
    method: Method = "auto"

    def __post_init__(self) -> None:
        check_count("segments", self.segments)
        check_positive("radius", self.radius)
        check_count("seed", self.seed, minimum=0)
        check_choice("of", self.of, get_args(Of))
        check_choice("method", self.method, get_args(Method))
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> KinkMeasurements:
        """Measure around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        outputs = _outputs(model, inputs).cpu()
        pair = self._pair(outputs)
        sums: list[Tensor] = []
        tables: list[Kinks] = []
        done, method = 0, self.method
        for starts, ends in self._segments(inputs):
            table, method = _table(model, starts, ends, method)
            count = len(starts) // self.segments
            sums.append(self._sums(table, None if pair is None else pair[done : done + count]))
            if self.keep_table:
                tables.append(table)
            done += count
        # (n, segments, layers, 3), each per unit of input length
        rates = torch.cat(sums) / (2 * self.radius)
        details: dict[str, Any] = {"note": table.note, "method": method}
        if self.keep_table:
            details["table"] = _join(tables)
        if pair is not None:
            details |= {
                "pair": pair,
                "margin": outputs.gather(1, pair[:, :1])[:, 0] - outputs.gather(1, pair[:, 1:])[:, 0],
            }
        return KinkMeasurements(
            self._measurement("kink_density", "kinks / input l2", rates[..., 0], table.layers, details),
            self._measurement("slope_jump", "logit / input l2 per input l2", rates[..., 1], table.layers, details),
            self._measurement("value_jump", "logit / input l2", rates[..., 2], table.layers, details),
        )

    def _pair(self, outputs: Tensor) -> Tensor | None:
        """(n, 2) predicted class and runner-up."""
        if self.of == "logits":
            return None
        if outputs.shape[1] < 2:
            raise ValueError(
                'of="margin" needs a model with at least 2 outputs, got 1; use GradientKinks(of="logits")'
            )
        return check_class_outputs(outputs, len(outputs)).topk(2, dim=1).indices

    def _segments(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        size = self.batch_size or max(1, _HELD_NUMBERS // (2 * self.segments * inputs[0].numel()))
        for batch in torch.split(inputs.detach(), size):
            centres = batch.to(torch.float64).repeat_interleave(self.segments, dim=0)
            steps = random_steps(batch, self.segments, self.radius, generator).to(centres.device)
            yield centres - steps, centres + steps

    def _sums(self, table: Kinks, pair: Tensor | None) -> Tensor:
        """(examples, segments, layers, 3): vertices, Σ |slope jump| and Σ |value jump| of each segment."""
        layers = len(table.layers)
        slope = table.jump / (2 * self.radius)
        if pair is None:
            sizes = [torch.linalg.vector_norm(jump, dim=1) for jump in (slope, table.value_jump)]
        else:
            own = pair[table.segment // self.segments]
            sizes = [(jump.gather(1, own) @ jump.new_tensor([1.0, -1.0])).abs() for jump in (slope, table.value_jump)]
        rows = torch.stack([table.effective.to(torch.float64), *sizes], dim=1) * table.share[:, None]
        sums = torch.zeros(table.segments * layers, 3, dtype=torch.float64)
        sums.index_add_(0, table.segment * layers + table.layer, rows)
        return sums.view(-1, self.segments, layers, 3)

    def _measurement(
        self, quantity: str, unit: str, rates: Tensor, layers: tuple[str, ...], details: dict[str, Any]
    ) -> Measurement:
        error = rates.std(dim=1) / self.segments**0.5 if self.segments > 1 else torch.full_like(rates[:, 0], torch.nan)
        return Measurement(
            quantity,
            rates.mean(dim=1),
            unit=unit,
            bound="exact" if details["note"] and details["method"] == "exact" else "estimate",
            coords={"layer": layers},
            settings=asdict(self) | {"dtype": "float64"},
            details=details | {"standard_error": error},
        )


def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """(n, outputs) in float64."""
    chain = sequential_chain(model)
    with torch.no_grad():
        if chain is not None:
            return chain.outputs(chain.flatten(inputs))
        double = double_model(model, inputs)
        return double(in_double(double, inputs))


def _table(model: nn.Module, starts: Tensor, ends: Tensor, method: Method) -> tuple[Kinks, Method]:
    """The kinks, and the method that found them."""
    if method != "bisection":
        try:
            return kinks_on_segments(model, starts, ends), "exact"
        except TypeError:
            if method == "exact":
                raise
    return kinks_by_bisection(model, starts, ends), "bisection"


def _join(tables: list[Kinks]) -> Kinks:
    """One table of the segments of several, numbered on."""
    first = torch.tensor([0, *(table.segments for table in tables)]).cumsum(0)
    segment = torch.cat([table.segment + offset for table, offset in zip(tables, first[:-1], strict=True)])
    names = ("position", "layer", "unit", "value_jump", "jump", "effective")
    rows: dict[str, Any] = {name: torch.cat([getattr(table, name) for table in tables]) for name in names}
    return Kinks(segment, **rows, layers=tables[0].layers, segments=int(first[-1]), note=tables[0].note)
