"""How far is each input from its nearest kink or jump, and from its decision boundary, along random segments?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_class_outputs, check_count, check_inputs, check_positive
from smoothness.analyzers.double import DoubleModel, double_model, in_double
from smoothness.analyzers.gradient_kinks import GradientKinks
from smoothness.analyzers.segments import random_steps
from smoothness.measurement import Measurement

_FAILS = "the model's output is NaN or infinite"
_HALVINGS = 48


class BreakDistances(NamedTuple):
    """What `NearestBreak` returns: values of shape (n,)."""

    kink: Measurement
    boundary: Measurement


@dataclass(frozen=True)
class NearestBreak:
    """Distance from each input to the nearest kink or jump, and to the decision boundary, along random segments.

    On `segments` segments x + s·u, |s| <= radius, u uniform on the l2 sphere,

        kink_distance     = least |s| of a vertex that changes some output (as `GradientKinks` finds them)
        boundary_distance = least |s| at which the predicted class is another one

    both "input l2", and infinity where there is none within the radius. Each is a point that was found, so it is an
    upper bound on the distance in any direction. The boundary is looked for at `grid` distances each way and then
    bisected; a thin slice of another class between two of them is missed.

    Args:
        segments: number of segments per example.
        radius: half the length of each, in input units (l2).
        grid: distances at which the class is read, each way.
        seed: of the directions; those of `GradientKinks` with the same seed.

    Raises:
        TypeError, ValueError: settings out of range, bad inputs or outputs, a model that cannot be read.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> _ = net[0].load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])})
    >>> found = NearestBreak(segments=1)(net, torch.tensor([[0.4]]))
    >>> found.kink.values.round(decimals=9), found.boundary.values.round(decimals=9)
    (tensor([0.4000], dtype=torch.float64), tensor([0.1000], dtype=torch.float64))
    """

    segments: int = 16
    radius: float = 1.0
    grid: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("segments", self.segments)
        check_positive("radius", self.radius)
        check_count("grid", self.grid)
        check_count("seed", self.seed, minimum=0)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> BreakDistances:
        """Measure around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        double = double_model(model, inputs)
        x = in_double(double, inputs)
        with torch.no_grad():
            outputs = check_class_outputs(double(x), len(x))
        sound = outputs.isfinite().all(dim=1).cpu()
        reasons = tuple("" if ok else _FAILS for ok in sound.tolist())
        kink = torch.full((len(x),), torch.nan, dtype=torch.float64)
        boundary = kink.clone()
        if sound.any():
            kink[sound] = self._kinks(model, inputs[sound])
            generator = torch.Generator().manual_seed(self.seed)
            steps = random_steps(x, self.segments, self.radius, generator).to(x.device)
            steps = steps.view(len(x), self.segments, *x.shape[1:])[sound]
            boundary[sound] = self._boundary(double, x[sound], steps)
        settings = {"analyzer": "NearestBreak", **asdict(self), "dtype": "float64"}
        found = [
            Measurement(name, values, "input l2", "upper", {}, settings, sound, {"reason": reasons})
            for name, values in (("kink_distance", kink), ("boundary_distance", boundary))
        ]
        return BreakDistances(*found)

    def _kinks(self, model: nn.Module, inputs: Tensor) -> Tensor:
        analyzer = GradientKinks(self.segments, self.radius, self.seed, of="logits")
        table = analyzer(model, inputs).density.details["table"]
        away = (table.position - 0.5).abs() * 2 * self.radius
        nearest = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
        example = table.segment[table.effective] // self.segments
        return nearest.scatter_reduce(0, example, away[table.effective], "amin")

    def _boundary(self, double: DoubleModel, x: Tensor, steps: Tensor) -> Tensor:
        """(n,) least distance, in both directions of every segment."""
        shares = torch.arange(1, self.grid + 1, dtype=torch.float64, device=x.device) / self.grid
        with torch.no_grad():
            here = double(x).argmax(dim=1)
            nearest = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
            for step in [side * steps[:, k] for k in range(self.segments) for side in (1, -1)]:
                wide = (len(x), 1, *[1] * (x.ndim - 1))
                points = x[:, None] + shares.view(1, -1, *[1] * (x.ndim - 1)) * step.view(wide[0], 1, *x.shape[1:])
                other = double(points.flatten(0, 1)).argmax(dim=1).view(len(x), -1) != here[:, None]
                first = other.to(torch.int8).argmax(dim=1)
                high = shares[first]
                low = high - 1 / self.grid
                for _ in range(_HALVINGS):
                    middle = (low + high) / 2
                    crossed = double(x + middle.view(-1, *[1] * (x.ndim - 1)) * step).argmax(dim=1) != here
                    low, high = torch.where(crossed, low, middle), torch.where(crossed, middle, high)
                nearest = torch.where(other.any(dim=1), torch.minimum(nearest, high * self.radius), nearest)
        return nearest.cpu()
