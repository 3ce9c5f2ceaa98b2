"""How fast do the outputs change with the input, to first order?"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_class_outputs, check_count, check_inputs, check_labels
from smoothness._model_calls import call_model, check_model
from smoothness._norms import DUAL, NORMS, Norm, operator_norm, vector_norm
from smoothness._state import model_device, probing
from smoothness.measurement import Measurement

_OF = ("logits", "margin")


@dataclass(frozen=True)
class JacobianNorm:
    """Operator norm of the input Jacobian J(x) = df/dx at each input: exact, pointwise.

    For of="logits": max |J v|_p over |v|_p = 1, that is the largest singular value (l2), the largest
    absolute row sum (linf) or column sum (l1). For of="margin", with m = f_y - max over j ≠ y of f_j:
    the dual norm of dm/dx, so that |m(x + v) - m(x)| <= value · |v|_p to first order.

    One backward pass an output, so it also works through foreign custom functions. Each result is
    compared with central differences of the forward pass along random directions: where a custom
    backward (a straight-through estimator, say) does not fit the forward pass, the example is invalid
    and details["reason"] says so. A step network's gradient truly is 0, and 0 is reported; that says
    nothing of its jumps, which `GradientKinks` measures.

    Args:
        norm: "l2", "linf" or "l1".
        of: "logits" or "margin". The margin's y is the label, or the predicted class without labels.
        batch_size: examples at once; all by default.
        probes: random directions of the comparison; 0 leaves it out.
        seed: of the directions.

    Raises:
        TypeError, ValueError: inputs, labels or outputs that do not fit, before any backward pass.

    Returns (when called): a Measurement "jacobian_norm", values (n,), unit "logit / input l2" (or the
        norm chosen), bound "exact".

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> JacobianNorm(norm="l2")(layer, torch.zeros(1, 2)).values
    tensor([4.])
    """

    norm: Norm = "l2"
    of: Literal["logits", "margin"] = "logits"
    batch_size: int | None = None
    probes: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_choice("of", self.of, _OF)
        check_count("probes", self.probes, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Measure every input; `labels` are used for of="margin" alone."""
        check_model(model)
        check_inputs(inputs)
        device = model_device(model)
        labels = None if labels is None else check_labels(labels, len(inputs)).to(device)
        directions = _directions(inputs, self.probes, self.seed)
        values, reasons = [], []
        size = self.batch_size or len(inputs)
        with probing(model):
            double = _in_double(model, inputs[:1].detach().to(device)) if self.probes else None
            for start in range(0, len(inputs), size):
                rows = slice(start, start + size)
                x = inputs[rows].detach().to(device)
                y = None if labels is None else labels[rows]
                jacobian, outputs, weights = _jacobian(model, x, y, self.of)
                norms = vector_norm(jacobian[:, 0], DUAL[self.norm]) if self.of == "margin" else None
                norms = operator_norm(jacobian, self.norm) if norms is None else norms
                values.append(norms.cpu())
                probes = directions[:, rows].to(device)
                found = _disagreements(model, double, x, jacobian, outputs, weights, probes)
                finite = norms.isfinite().tolist()
                reasons += [reason or ("" if fits else _OVERFLOW) for reason, fits in zip(found, finite, strict=True)]
        return Measurement(
            "jacobian_norm",
            torch.cat(values),
            unit=f"logit / input {self.norm}",
            bound="exact",
            settings={"analyzer": "JacobianNorm", **asdict(self)},
            valid=torch.tensor([not reason for reason in reasons]),
            details={"reason": tuple(reasons)},
        )


def _jacobian(model: nn.Module, x: Tensor, y: Tensor | None, of: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows d(output)/dx: (n, rows, d); the outputs; and the output weights (n, classes) of the margin."""
    x = x.requires_grad_()
    with torch.enable_grad():
        outputs = call_model(model, x)
        if of == "margin":
            scores = check_class_outputs(outputs, len(x), y)
            weights = _margin_weights(scores.detach(), y)
            return _gradient((scores * weights).sum(), x).unsqueeze(1), scores.detach(), weights
        if outputs.shape[:1] != x.shape[:1] or outputs.numel() == 0:
            raise ValueError(
                f"the model must return one row of outputs per input, got shape {tuple(outputs.shape)} "
                f"for {len(x)} inputs; wrap it in a module that returns the logits"
            )
        flat = outputs.reshape(len(x), -1)
        rows = [_gradient(column.sum(), x) for column in flat.unbind(dim=1)]
        return torch.stack(rows, dim=1), flat.detach(), None


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """Gradient per example, flat; a missing graph (a foreign step, say) counts as zero."""
    if not value.requires_grad:
        return torch.zeros_like(x).flatten(1)
    (gradient,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x).flatten(1) if gradient is None else gradient.detach().flatten(1)


def _margin_weights(outputs: Tensor, y: Tensor | None) -> Tensor:
    """+1 at the class y, -1 at the best other class."""
    y = outputs.argmax(dim=1) if y is None else y
    others = outputs.scatter(1, y.unsqueeze(1), -torch.inf).argmax(dim=1, keepdim=True)
    return torch.zeros_like(outputs).scatter_(1, y.unsqueeze(1), 1.0).scatter_(1, others, -1.0)


def _directions(inputs: Tensor, probes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(probes, *inputs.shape, generator=generator, dtype=torch.float64)
    return drawn / _lengths(drawn.flatten(0, 1)).view(probes, len(inputs), *[1] * (inputs.ndim - 1))


def _lengths(points: Tensor) -> Tensor:
    return vector_norm(points, "l2").view(-1, *[1] * (points.ndim - 1))


def _in_double(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A float64 copy for finite differences; None for a model that cannot be copied, or that converts x itself."""
    try:
        double = copy.deepcopy(model).double()
        with torch.no_grad():
            return double if double(x.double()).dtype == torch.float64 else None
    except (RuntimeError, AttributeError):  # a tensor with a graph inside; x.float() in its forward pass
        return None


def _disagreements(
    model: nn.Module,
    double: nn.Module | None,
    x: Tensor,
    jacobian: Tensor,
    outputs: Tensor,
    weights: Tensor | None,
    directions: Tensor,
) -> list[str]:
    """Why autograd is not to be believed, per example; "" where it fits the forward pass.

    A difference across a nearby step or kink says nothing of the slope at x: rows that disagree are compared
    again at smaller distances. A backward pass that lies disagrees at all of them.
    """
    reasons = [_FAILS if row else "" for row in (~outputs.isfinite().all(dim=1)).tolist()]
    suspects = torch.tensor([i for i, reason in enumerate(reasons) if not reason], device=x.device, dtype=torch.long)
    if len(directions) == 0:
        return reasons
    forward, dtype = (model, x.dtype) if double is None else (double, torch.float64)
    broken = torch.zeros_like(suspects, dtype=torch.bool)
    for shrink in _SHRINKS:
        if len(suspects) == 0:
            break
        pairs = _Differences(forward, x[suspects].detach().to(dtype), None if weights is None else weights[suspects])
        errors, breaks = [], []
        for direction in directions[:, suspects].to(dtype):
            numeric, gap = pairs.along(direction, shrink)
            analytic = torch.einsum("nkd,nd->nk", jacobian[suspects].to(dtype), direction.flatten(1))
            size = torch.maximum(vector_norm(numeric, "l2"), vector_norm(analytic, "l2")).clamp_min(_tiny(dtype))
            off, rounding = vector_norm(numeric - analytic, "l2"), pairs.rounding(shrink)
            # At first rounding is allowed for; an acquittal at a smaller distance must stand in spite of it.
            errors.append((torch.where(off == 0, off, off + rounding) if shrink < 1 else off - rounding) / size)
            breaks.append((gap - 2 * rounding) / size)
        wrong, broken = (torch.stack(part).median(dim=0).values > _TOLERANCE for part in (errors, breaks))
        suspects, broken = suspects[wrong], broken[wrong]
    for row, breaks_here in zip(suspects.tolist(), broken.tolist(), strict=True):
        reasons[row] = _ON_A_BREAK if breaks_here else _STRAIGHT_THROUGH
    return reasons


class _Differences:
    """Central and one-sided differences of the forward pass (of the weighted sum of its outputs) at x."""

    def __init__(self, forward: nn.Module, x: Tensor, weights: Tensor | None) -> None:
        self.forward, self.x, self.weights = forward, x, weights
        self.distance = torch.finfo(x.dtype).eps ** 0.4 * _lengths(x).clamp_min(1.0)
        self.here = self._outputs(x)

    def along(self, direction: Tensor, shrink: float) -> tuple[Tensor, Tensor]:
        """(n, rows) central differences, and (n,) the distance between both one-sided ones."""
        h = self.distance * shrink
        ahead, behind = (self._outputs(self.x + step * direction) for step in (h, -h))
        h = h.flatten(1)
        gap = self._weighted(ahead - self.here) - self._weighted(self.here - behind)
        return self._weighted(ahead - behind) / (2 * h), vector_norm(gap / h, "l2")

    def rounding(self, shrink: float) -> Tensor:
        """(n,) rounding error of a difference."""
        size: Tensor = vector_norm(self.here, "l2") / self.distance.flatten()
        return 16 * torch.finfo(self.x.dtype).eps / shrink * size

    def _outputs(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = call_model(self.forward, points).reshape(len(points), -1)
        return outputs.to(self.x.dtype)

    def _weighted(self, change: Tensor) -> Tensor:
        return change if self.weights is None else (change * self.weights).sum(dim=1, keepdim=True)


def _tiny(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).tiny)


# Distances of the differences, in units of the first: what lies between 1e-9 and 1e-6 of x is not at x.
_SHRINKS = (1.0, 1 / 32, 1 / 1024)
# A surrogate backward is off by about its own size; float32 rounding stays far below this.
_TOLERANCE = 0.2
_FAILS = "the model's output is NaN or infinite"
_ON_A_BREAK = "the outputs have no derivative here: one-sided differences disagree (a kink or a jump at the input)"
_OVERFLOW = "the Jacobian norm is NaN or infinite; float64 inputs and model have more range"
_STRAIGHT_THROUGH = (
    "autograd disagrees with central differences of the forward pass "
    "(a straight-through backward, or a gradient lost to rounding?)"
)
