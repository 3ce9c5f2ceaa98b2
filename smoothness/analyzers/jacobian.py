"""How fast do the outputs change with the input, to first order?"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_class_outputs, check_count, check_inputs, check_labels
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
        check_inputs(inputs)
        device = model_device(model)
        labels = None if labels is None else check_labels(labels, len(inputs)).to(device)
        directions = _directions(inputs, self.probes, self.seed)
        values, reasons = [], []
        size = self.batch_size or len(inputs)
        with probing(model):
            double = _in_double(model) if self.probes else None
            for start in range(0, len(inputs), size):
                rows = slice(start, start + size)
                x = inputs[rows].detach().to(device)
                y = None if labels is None else labels[rows]
                jacobian, outputs, weights = _jacobian(model, x, y, self.of)
                norms = vector_norm(jacobian[:, 0], DUAL[self.norm]) if self.of == "margin" else None
                values.append((operator_norm(jacobian, self.norm) if norms is None else norms).cpu())
                probes = directions[:, rows].to(device)
                reasons += _disagreements(model, double, x, jacobian, outputs, weights, probes)
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
        outputs = model(x)
        if of == "margin":
            scores = check_class_outputs(outputs, len(x), y)
            weights = _margin_weights(scores.detach(), y)
            return _gradient((scores * weights).sum(), x).unsqueeze(1), scores.detach(), weights
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != x.shape[:1]:
            raise ValueError(
                "the model must return one tensor with a row per input; wrap it in a module that returns the logits"
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


def _in_double(model: nn.Module) -> nn.Module | None:
    """A float64 copy for finite differences; None for a model that cannot be copied."""
    try:
        return copy.deepcopy(model).double()
    except RuntimeError:  # a module that holds a tensor with a graph
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

    (f(x + hv) - f(x - hv)) / 2h is compared with Jv, in float64 where the model can be copied. A kink
    or jump inside the short interval spoils single probes, so the median over the probes decides.
    """
    bad = ~outputs.isfinite().all(dim=1)
    if len(directions) == 0:
        return [_FAILS if row else "" for row in bad.tolist()]
    forward, dtype = (model, x.dtype) if double is None else (double, torch.float64)
    x = x.detach().to(dtype)
    h = torch.finfo(dtype).eps ** 0.4 * _lengths(x).clamp_min(1.0)
    errors = []
    with torch.no_grad():
        for direction in directions.to(dtype):
            ahead, behind = (forward(x + step * direction).reshape(len(x), -1) for step in (h, -h))
            difference = ahead - behind
            if weights is not None:
                difference = (difference * weights).sum(dim=1, keepdim=True)
            numeric = difference / (2 * h.flatten(1))
            analytic = torch.einsum("nkd,nd->nk", jacobian.to(dtype), direction.flatten(1))
            rounding = 16 * torch.finfo(dtype).eps * vector_norm(outputs.to(dtype), "l2") / h.flatten()
            gap = vector_norm(numeric - analytic, "l2") - rounding
            size = torch.maximum(vector_norm(numeric, "l2"), vector_norm(analytic, "l2"))
            errors.append(gap / size.clamp_min(torch.finfo(dtype).tiny))
    wrong = torch.stack(errors).median(dim=0).values > _TOLERANCE
    return [
        _FAILS if fails else _STRAIGHT_THROUGH if lies else ""
        for fails, lies in zip(bad.tolist(), wrong.tolist(), strict=True)
    ]


# A surrogate backward is off by about its own size; float32 rounding stays far below this.
_TOLERANCE = 0.2
_FAILS = "the model's output is NaN or infinite"
_STRAIGHT_THROUGH = "autograd disagrees with central differences of the forward pass (a straight-through backward?)"
