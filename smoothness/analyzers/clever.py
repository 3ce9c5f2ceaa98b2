"""CLEVER: the smallest adversarial distance, estimated from sampled gradients. Proves nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness._model_calls import call_model
from smoothness._norms import DUAL, Norm, random_in_ball, vector_norm
from smoothness._state import model_device, probing
from smoothness.analyzers.lipschitz_target import (
    Bounds,
    check_radius,
    check_target,
    checked_batch,
    class_differences,
    field_values,
    plain_settings,
)
from smoothness.measurement import Measurement


@dataclass(frozen=True)
class Clever:
    """min over classes j of min(radius, margin_j / L_j) with L_j estimated by extreme-value theory: an estimate.

    L_j is the location of a reverse Weibull distribution fitted to the largest gradient norms of f_y - f_j in
    `batches` batches of `samples` random points of the ball (Weng et al. 2018, arXiv 1801.10578). Bounded by
    nothing: it can exceed the true distance. Scores saturate at the radius. On step networks every gradient is 0,
    and the score the radius: see `CertifiedRadius` for what is proved.

    Args:
        norm, bounds: as in `LipschitzUpperBound`.
        radius: of the ball, the largest score.
        batches, samples: of each example.
        batch_size: points at once; one batch of samples by default.
        seed: of the points, the same for every example.

    Raises:
        TypeError, ValueError: inputs, labels or outputs that do not fit.

    Returns (when called): a Measurement "clever_score", values (n,), unit "input l2" (or the norm chosen), bound
        "estimate". details: "lipschitz", the estimated constants of the limiting classes.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = Clever(norm="linf", radius=1.0, batches=3, samples=4)(model, torch.tensor([[0.6, 0.5]]))
    >>> round(float(found.values), 4)
    0.05
    """

    norm: Norm = "l2"
    radius: float = 1.0
    bounds: Bounds | None = None
    batches: int = 50
    samples: int = 64
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_radius(self.radius)
        check_target(self)
        check_count("batches", self.batches, minimum=2)
        check_count("samples", self.samples)

    @property
    def of(self) -> str:
        """The margins."""
        return "margin"

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> Measurement:
        """Estimate for the label, or for the predicted class without labels."""
        inputs, labels = checked_batch(model, self, inputs, labels)
        x = inputs.detach().to(model_device(model))
        with probing(model), torch.enable_grad():
            here = call_model(model, x).detach()
            mix = class_differences(here, labels)
            margins = (mix @ here.unsqueeze(2)).squeeze(2)
            largest = torch.stack([self._largest(model, x[k : k + 1], mix[k]) for k in range(len(x))])
        constants = torch.tensor(
            [[_location(column) for column in example.T] for example in largest.cpu().double().numpy()]
        )
        ratio = margins.cpu().double() / constants.clamp_min(1e-300)
        score, limiting = ratio.clamp(0, self.radius).min(dim=1)
        valid = score.isfinite() & here.isfinite().all(dim=1).cpu()
        return Measurement(
            "clever_score",
            torch.where(valid, score, torch.nan),
            unit=f"input {self.norm}",
            bound="estimate",
            settings=plain_settings("Clever", field_values(self)),
            valid=valid,
            details={
                "reason": tuple("" if ok else "the model's output is NaN or infinite" for ok in valid.tolist()),
                "lipschitz": constants.gather(1, limiting.unsqueeze(1)).squeeze(1),
            },
        )

    def _largest(self, model: nn.Module, x: Tensor, mix: Tensor) -> Tensor:
        """(batches, classes - 1) largest gradient norms."""
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(self.batches):
            like = torch.zeros(self.samples, *x.shape[1:], dtype=torch.float64)
            points = x + random_in_ball(like, self.norm, self.radius, generator).to(x)
            if self.bounds is not None:
                low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in self.bounds)
                points = torch.minimum(torch.maximum(points, low), high)
            norms = []
            for part in torch.split(points, self.batch_size or len(points)):
                part = part.requires_grad_()
                differences = call_model(model, part) @ mix.T
                norms.append(torch.stack([self._norms(column, part) for column in differences.unbind(1)], dim=1))
            found.append(torch.cat(norms).amax(dim=0))
        return torch.stack(found)

    def _norms(self, column: Tensor, points: Tensor) -> Tensor:
        if not column.requires_grad:
            return torch.zeros(len(points), dtype=points.dtype, device=points.device)
        (gradient,) = torch.autograd.grad(column.sum(), points, retain_graph=True, allow_unused=True)
        return vector_norm(torch.zeros_like(points) if gradient is None else gradient, DUAL[self.norm])


def _location(maxima: NDArray[np.float64]) -> float:
    """Right end point of the fitted reverse Weibull distribution; the largest value when all are alike."""
    from scipy.stats import weibull_max

    top = float(maxima.max())
    if not np.isfinite(top) or top - float(maxima.min()) <= 1e-6 * top:
        return top
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit complains of flat likelihoods
        _, location, _ = weibull_max.fit(maxima / top, loc=1.0, scale=0.1)
    return top * float(location) if np.isfinite(location) and location >= 1 else top
