"""On which share of the ball does nothing change?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs, check_not_negative, check_positive
from smoothness._norms import NORMS, Norm, random_in_ball, vector_norm
from smoothness.activations.recognition import is_any_activation
from smoothness.analyzers.double import DoubleModel, double_model, in_double, output_weights
from smoothness.analyzers.input_curvature import slopes
from smoothness.measurement import Measurement

Of = Literal["margin", "logits"]
_FAILS = "the model's output is NaN or infinite at a point of the ball"
_NO_MODULES = "the model has no activation modules: functional activations cannot be watched"
# Points held at once when batch_size is None, in float64 numbers: 64 MiB.
_HELD_NUMBERS = 2**23
# The distance over which an output must not change: far above rounding of x, far below any radius.
_NEAR = 1e-6


class PlateauMeasurements(NamedTuple):
    """What `PlateauFraction` returns."""

    flat: Measurement
    zero_gradient: Measurement
    saturation: Measurement


@dataclass(frozen=True)
class PlateauFraction:
    """Share of a ball on which the outputs stand still, by values and by gradients, and of saturated units by layer.

    At `points` points z drawn uniformly from the ball |z - x|_p <= radius:

        flat          = share with f(z + v) = f(z), to the bit, for each of `probes` random v, |v|_2 = 1e-6 · radius
        zero_gradient = share where autograd's df/dz is exactly 0
        saturation    = share of (point, unit) with |φ'| <= saturated, for each activation module

    All have unit "1". A step network has flat = zero_gradient = 1 except next to its steps; a foreign step with a
    straight-through backward has flat = 1 and zero_gradient = 0, and a missing graph counts as a gradient of 0.
    Saturated tanh or sigmoid units are flat where float64 no longer resolves a change. For of="margin" f is the
    predicted class minus the best other one, both at x; for of="logits", all outputs.

    Saturation reads every activation module that runs, by its own backward pass at the pre-activations it received;
    one that runs twice counts once, its mean over the calls. Without such modules it is not valid.

    All is computed in float64 on a copy in evaluation mode. Bound: "estimate" of the shares of the ball; the
    standard error (binomial, over points) stands in details["standard_error"].

    Args:
        norm: "l2", "linf" or "l1", of the ball.
        radius: in input units.
        of: "margin" or "logits".
        points: drawn for each example; every example gets the same offsets.
        probes: random directions at each point.
        saturated: largest slope that counts as saturation; 0 for slopes of exactly 0.
        seed: of points and directions.
        batch_size: examples at once; None takes as many as 64 MiB hold.

    Raises:
        TypeError, ValueError: settings out of range, bad inputs or outputs, a model that cannot be copied.

    >>> found = PlateauFraction(of="logits", radius=0.5)(nn.ReLU(), torch.tensor([[-1.0], [1.0]]))
    >>> found.flat.values.tolist(), found.saturation.values.tolist()
    ([1.0, 0.0], [[1.0], [0.0]])
    """

    norm: Norm = "l2"
    radius: float = 0.1
    of: Of = "logits"
    points: int = 64
    probes: int = 2
    saturated: float = 0.0
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_choice("of", self.of, get_args(Of))
        check_positive("radius", self.radius)
        check_not_negative("saturated", self.saturated)
        check_count("points", self.points)
        check_count("probes", self.probes)
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> PlateauMeasurements:
        """Measure around `inputs` (n, *input_shape); `labels` are not used."""
        check_inputs(inputs)
        double = double_model(model, inputs)
        x = in_double(double, inputs)
        size = self.batch_size or max(1, _HELD_NUMBERS // (self.points * x[0].numel()))
        flat, zero, saturation, sound = [], [], [], []
        layers: tuple[str, ...] = ()
        for some in torch.split(x, size):
            shares = self._shares(double, some)
            flat.append(shares[0])
            zero.append(shares[1])
            layers = tuple(shares[2])
            saturation.append(torch.stack(list(shares[2].values()), dim=1) if layers else some.new_zeros(len(some), 1))
            sound.append(shares[3])
        valid = torch.cat(sound).cpu()
        reasons = tuple("" if ok else _FAILS for ok in valid.tolist())
        watched = valid & bool(layers)
        why = reasons if layers else tuple(_NO_MODULES for _ in reasons)
        return PlateauMeasurements(
            self._measurement("flat_fraction", torch.cat(flat), valid, reasons),
            self._measurement("zero_gradient_fraction", torch.cat(zero), valid, reasons),
            self._measurement("saturation", torch.cat(saturation), watched, why, layers or ("none",)),
        )

    def _shares(self, double: DoubleModel, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        n, m = len(x), self.points
        generator = torch.Generator().manual_seed(self.seed)
        like = torch.zeros(m, *x.shape[1:], dtype=torch.float64)
        offsets = random_in_ball(like, self.norm, self.radius, generator).to(x.device)
        points = (x[:, None] + offsets).flatten(0, 1)
        with torch.no_grad():
            outputs = double(x)
            rows = output_weights(outputs, self.of).repeat_interleave(m, dim=0)
            with _watching(double, self.saturated) as held:
                here = _read(double, points, rows)
        sound = here.isfinite().all(dim=1).view(n, m).all(dim=1) & outputs.isfinite().all(dim=1)
        still = torch.ones(n * m, dtype=torch.bool, device=x.device)
        for _ in range(self.probes):
            drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
            step = drawn / vector_norm(drawn, "l2").view(-1, *[1] * (x.ndim - 1)) * (_NEAR * self.radius)
            with torch.no_grad():
                there = _read(double, (points.view(n, m, *x.shape[1:]) + step.to(x.device)).flatten(0, 1), rows)
            still &= (there == here).all(dim=1)
        zero = torch.ones_like(still)
        for row in rows.unbind(dim=1):
            gradient = slopes(double, points.detach().requires_grad_(), row, missing_is_zero=True)
            zero &= (gradient.flatten(1) == 0).all(dim=1)
        shares = {name: torch.stack(calls).mean(dim=0).view(n, m).mean(dim=1) for name, calls in held.items()}
        return (
            still.view(n, m).to(torch.float64).mean(dim=1),
            zero.view(n, m).to(torch.float64).mean(dim=1),
            shares,
            sound,
        )

    def _measurement(
        self, quantity: str, values: Tensor, valid: Tensor, reasons: tuple[str, ...], layers: tuple[str, ...] = ()
    ) -> Measurement:
        values = values.cpu()
        values = torch.where(valid.view(-1, *[1] * (values.ndim - 1)), values, torch.nan)
        return Measurement(
            quantity,
            values,
            unit="1",
            bound="estimate",
            coords={"layer": layers} if layers else {},
            settings={"analyzer": "PlateauFraction", **asdict(self), "dtype": "float64"},
            valid=valid,
            details={"reason": reasons, "standard_error": (values * (1 - values) / self.points).sqrt()},
        )


def _read(double: DoubleModel, points: Tensor, rows: Tensor) -> Tensor:
    return torch.einsum("nk,nrk->nr", double(points), rows)


def _own_slope(module: nn.Module, z: Tensor) -> Tensor:
    """φ' as the module's own backward gives it; 0 without a graph."""
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        out = module.forward(z + 0.0)  # a copy: the module may work in place
        if not out.requires_grad:
            return torch.zeros_like(z)
        (slope,) = torch.autograd.grad(out.sum(), z, materialize_grads=True, allow_unused=True)
    return slope


@contextmanager
def _watching(double: DoubleModel, saturated: float) -> Iterator[dict[str, list[Tensor]]]:
    """Share of saturated units at each point, for every activation module that runs inside the context, by call."""
    held: dict[str, list[Tensor]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            low = _own_slope(module, inputs[0]).abs() <= saturated
            held.setdefault(name, []).append(low.flatten(1).to(torch.float64).mean(dim=1))

        return module.register_forward_pre_hook(hook)

    hooks = [watch(name, module) for name, module in double.module.named_modules() if is_any_activation(module)]
    try:
        yield held
    finally:
        for hook in hooks:
            hook.remove()
