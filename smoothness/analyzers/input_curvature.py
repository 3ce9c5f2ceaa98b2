"""How strongly do the outputs bend with the input, at a point or over a finite distance?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs, check_labels, check_positive
from smoothness.analyzers.double import DoubleModel, double_model, in_double, output_weights
from smoothness.analyzers.lanczos import Extremes, extreme_eigenvalues
from smoothness.measurement import BoundKind, Measurement

Of = Literal["margin", "logits"]
# Distances of the second differences, in units of |x|: they must not meet a kink, and rounding grows with 1 / h².
_NEAR = (1e-3, 1e-4, 1e-5)
_NEARER = (1e-6, 1e-7)  # for curvature that changes within those; where rounding allows
_TOLERANCE = 0.2
_ONCE = (
    "autograd's second derivative disagrees with second differences of the values "
    "(a kink at the input, an operation that can be differentiated once only, or a false backward); "
    "use InputCurvature(scale=...)"
)
_FAILS = "the model's output or a derivative of it is NaN or infinite"


class CurvatureMeasurements(NamedTuple):
    """What `InputCurvature` returns: three measurements with values of shape (n,)."""

    curvature: Measurement
    slope: Measurement
    normalised: Measurement


@dataclass(frozen=True)
class InputCurvature:
    """Largest curvature of an output, in any direction, at each input: of its Hessian or at a finite distance.

    With scale=None, H = d²f/dx² at x, and

        curvature  = |H|_2, its eigenvalue of largest magnitude     "logit / input l2^2"
        slope      = |df/dx|_2                                      "logit / input l2"
        normalised = curvature / slope                              "1 / input l2"

    normalised does not change with the logits' scale (Srinivas et al. 2022, arXiv 2206.07144, with ε = 0; 0 where
    both are 0). The eigenvalue comes from Lanczos iterations on Hessian-vector products, all examples together, until
    min(r, r² / gap) <= tolerance · |eigenvalue| for the residual r = |H v - λ v|. Bound: "lower" for the curvature (a
    Ritz value never exceeds the largest eigenvalue; the certificate says that some eigenvalue is that near), "exact"
    for the slope.

    The Hessian of a network of kinks or steps is 0 wherever it exists, which says nothing of its bends. With
    scale=h > 0 the same three are measured from values at distance h, whatever the activation:

        curvature = max over |u|_2 = 1 of |f(x + h u) - 2 f(x) + f(x - h u)| / h²
        slope     = max over |u|_2 = 1 of |f(x + h u) - f(x - h u)| / (2 h)

    over `directions` random u, each improved by `refinements` steps u <- ±(∇f(x + h u) - ∇f(x - h u)), normalised,
    and over ∇f(x). Bound: "lower" for curvature and slope; "estimate" for their quotient.

    For of="margin", f is the fixed linear functional of the logits (label, or predicted class, minus the best other
    one, both at x); for of="logits" each value is the largest over the outputs. All is computed in float64 on a copy
    in evaluation mode.

    details: for scale=None "residual", "error", "steps" and "converged", each (n,), of the output with the largest
    curvature; always "direction" (n, *input_shape), the unit u of the curvature, and "reason".

    Args:
        of: "margin" or "logits".
        scale: None for the Hessian, or a distance in input units (l2).
        tolerance: relative error of the eigenvalue.
        max_steps: Hessian-vector products at most.
        directions: random directions of the finite-scale search.
        refinements: improving steps of each.
        seed: of the random vectors; every example gets the same ones.
        batch_size: examples at once; all by default.

    Raises:
        TypeError: a model that cannot be copied to float64, or (scale=None) an operation without derivatives; the
            module is named.
        ValueError: settings out of range, bad inputs, of="margin" on a model with fewer than 2 outputs.

    >>> class Bowl(nn.Module):
    ...     def forward(self, x):
    ...         return (x**2 * torch.tensor([1.0, 3.0])).sum(1, keepdim=True)
    >>> InputCurvature(of="logits")(Bowl(), torch.ones(1, 2)).curvature.values
    tensor([6.], dtype=torch.float64)
    """

    of: Of = "margin"
    scale: float | None = None
    tolerance: float = 1e-6
    max_steps: int = 200
    directions: int = 8
    refinements: int = 8
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("of", self.of, get_args(Of))
        check_positive("tolerance", self.tolerance)
        if self.scale is not None:
            check_positive("scale", self.scale)
        check_count("max_steps", self.max_steps)
        check_count("directions", self.directions)
        check_count("refinements", self.refinements, minimum=0)
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> CurvatureMeasurements:
        """Measure at `inputs` (n, *input_shape); `labels` are used for of="margin" alone."""
        check_inputs(inputs)
        labels = None if labels is None else check_labels(labels, len(inputs))
        double = double_model(model, inputs)
        x = in_double(double, inputs)
        with torch.no_grad():
            weights = output_weights(double(x), self.of, labels)
        rows = weights.shape[1]
        size = (self.batch_size or len(x)) * rows
        repeated, weights = x.repeat_interleave(rows, dim=0), weights.flatten(0, 1)
        parts = [
            self._at_point(double, some, w) if self.scale is None else self._at_scale(double, some, w)
            for some, w in zip(torch.split(repeated, size), torch.split(weights, size), strict=True)
        ]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        found = {name: t.view(len(x), rows, *t.shape[1:]) for name, t in joined.items()}
        best = found["curvature"].nan_to_num(torch.inf).argmax(dim=1)  # NaN first: the example fails
        each = torch.arange(len(x), device=x.device)
        details: dict[str, Any] = {name: t[each, best].cpu() for name, t in found.items() if name != "slope"}
        curvature, slope = details.pop("curvature"), found["slope"].amax(dim=1).cpu()
        details["direction"] = details["direction"].view_as(x)
        finite = curvature.isfinite() & slope.isfinite()
        details["reason"] = tuple(
            "" if ok and sound else _ONCE if ok else _FAILS
            for ok, sound in zip(finite.tolist(), details.pop("trusted").tolist(), strict=True)
        )
        valid = torch.tensor([not reason for reason in details["reason"]])
        ratio = torch.where(curvature == 0, 0.0, curvature / slope)
        known = valid & ratio.isfinite()
        why = tuple(
            "" if ok else reason or "the slope is 0" for ok, reason in zip(known, details["reason"], strict=True)
        )
        kinds: tuple[BoundKind, BoundKind] = ("exact", "lower") if self.scale is None else ("lower", "estimate")
        return CurvatureMeasurements(
            self._measurement("input_curvature", "logit / input l2^2", curvature, "lower", valid, details),
            self._measurement(
                "input_slope", "logit / input l2", slope, kinds[0], valid, {"reason": details["reason"]}
            ),
            self._measurement("normalised_curvature", "1 / input l2", ratio, kinds[1], known, {"reason": why}),
        )

    def _at_point(self, double: DoubleModel, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        x = x.clone().requires_grad_()
        gradient = slopes(double, x, weights, graph=True)
        if not gradient.requires_grad:  # affine in x: no curvature anywhere
            found = _straight(self._random(x, 1)[:, 0])
        else:

            def product(v: Tensor) -> Tensor:
                (image,) = torch.autograd.grad(
                    gradient, x, v.view_as(x), retain_graph=True, allow_unused=True, materialize_grads=True
                )
                return image.flatten(1)

            start = self._random(x, 1)[:, 0]
            try:
                found = extreme_eigenvalues(product, start, tolerance=self.tolerance, max_steps=self.max_steps)
            except RuntimeError as error:
                said = str(error).splitlines()[0]
                raise TypeError(f"no second derivatives ({said}); use InputCurvature(scale=...)") from error
        names = ("residual", "error", "steps", "converged")
        trusted = _agrees(double, x.detach(), weights, found)
        return {
            "curvature": found.value.abs(),
            "trusted": trusted,
            "slope": torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1),
            "direction": found.vector,
            **{name: getattr(found, name) for name in names},
        }

    def _at_scale(self, double: DoubleModel, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        h = self.scale
        assert h is not None
        here = followed(double, x, weights)[:, None]
        drawn = self._random(x, self.directions)
        steep = slopes(double, x.clone().requires_grad_(), weights, missing_is_zero=True).flatten(1)
        u = torch.cat([_unit(steep, drawn[:, 0])[:, None], drawn], dim=1)  # (n, m, d)
        n, m, _ = u.shape
        many = weights.repeat_interleave(m, dim=0)
        bend, slope, direction = x.new_zeros(n), x.new_zeros(n), drawn[:, 0].clone()
        for round_ in range(self.refinements + 1):
            ends = [(x[:, None].flatten(2) + side * h * u).reshape(n * m, *x.shape[1:]) for side in (1, -1)]
            ahead, behind = (followed(double, end, many).view(n, m) for end in ends)
            bends = (ahead - 2 * here + behind).abs() / h**2
            top = bends.argmax(dim=1, keepdim=True)
            reached = bends.gather(1, top)[:, 0]
            better = (reached > bend) | reached.isnan()
            bend = torch.where(better, reached, bend)
            direction = torch.where(better[:, None], u[torch.arange(n), top[:, 0]], direction)
            slope = torch.maximum(slope, ((ahead - behind).abs() / (2 * h)).amax(dim=1))
            if round_ < self.refinements:
                turns = [
                    slopes(double, end.requires_grad_(), many, missing_is_zero=True).view(n, m, -1) for end in ends
                ]
                u = _unit(turns[0] - turns[1], u)
        return {"curvature": bend, "slope": slope, "direction": direction, "trusted": bend == bend}

    def _random(self, x: Tensor, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(count, x[0].numel(), generator=generator, dtype=torch.float64).to(x.device)
        return nn.functional.normalize(drawn, eps=0.0).expand(len(x), -1, -1)

    def _measurement(
        self, quantity: str, unit: str, values: Tensor, bound: BoundKind, valid: Tensor, details: dict[str, Any]
    ) -> Measurement:
        settings = {"analyzer": "InputCurvature", **asdict(self), "dtype": "float64"}
        values = torch.where(valid, values, torch.nan)
        return Measurement(quantity, values, unit=unit, bound=bound, settings=settings, valid=valid, details=details)


def followed(double: DoubleModel, x: Tensor, weights: Tensor) -> Tensor:
    """(n,) the functional of the outputs that `weights` (n, outputs) give."""
    with torch.no_grad():
        return (double(x) * weights).sum(dim=1)


def slopes(
    double: DoubleModel, x: Tensor, weights: Tensor, *, graph: bool = False, missing_is_zero: bool = False
) -> Tensor:
    """Gradient of the functional at x, which requires grad: shaped as x.

    Raises:
        TypeError: no graph from x to the outputs, unless it counts as a gradient of 0; the module is named.
    """
    with torch.enable_grad():
        value = (double(x) * weights).sum()
        if not value.requires_grad:
            if missing_is_zero:
                return torch.zeros_like(x)
            raise TypeError(
                f"{_breaking_module(double, x)} gives no gradient: derivatives by autograd do not exist; "
                "use InputCurvature(scale=...), GradientKinks or SmoothnessProbe"
            )
        (gradient,) = torch.autograd.grad(value, x, create_graph=graph, materialize_grads=True, allow_unused=True)
    return gradient


def _breaking_module(double: DoubleModel, x: Tensor) -> str:
    """The first module whose output lost the graph that its input had."""
    broken: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            given = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
            if given and isinstance(output, Tensor) and not output.requires_grad and not list(module.children()):
                broken.append(f"module {name!r} ({type(module).__name__})")

        return module.register_forward_hook(hook)

    hooks = [watch(name, module) for name, module in double.module.named_modules()]
    try:
        double(x)
    finally:
        for hook in hooks:
            hook.remove()
    return broken[0] if broken else "an operation in the model's forward"


def _straight(vector: Tensor) -> Extremes:
    zeros = vector.new_zeros(len(vector))
    return Extremes(zeros, vector, zeros, zeros, zeros.long(), zeros == 0)


def _agrees(double: DoubleModel, x: Tensor, weights: Tensor, found: Extremes) -> Tensor:
    """(n,) whether vᵀHv is the second difference of the values along v, at one of these distances at least."""
    here, v = followed(double, x, weights), found.vector.view_as(x)
    length = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp_min(1.0)
    agrees = ~(here.isfinite() & found.value.isfinite())  # those fail for another reason
    for share in (*_NEAR, *_NEARER):
        h = share * length
        step = v * h.view(-1, *[1] * (x.ndim - 1))
        ahead, behind = followed(double, x + step, weights), followed(double, x - step, weights)
        second = (ahead - 2 * here + behind) / h**2
        size = torch.maximum(ahead.abs(), behind.abs()) + torch.linalg.vector_norm(weights, dim=1)
        noise = 64 * torch.finfo(x.dtype).eps * size / h**2
        allowed = _TOLERANCE * torch.maximum(second.abs(), found.value.abs())
        clear = noise <= allowed if share in _NEARER else torch.ones_like(agrees)
        agrees |= clear & ((second - found.value).abs() <= allowed + noise)
    return agrees


def _unit(vectors: Tensor, otherwise: Tensor) -> Tensor:
    """Vectors over their lengths; `otherwise` where the length is 0 or not finite."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    sound = (length > 0) & length.isfinite()
    return torch.where(sound, vectors / torch.where(sound, length, 1.0), otherwise)
