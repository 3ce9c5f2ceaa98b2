"""How steady and how faithful are gradient explanations around each input?"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import (
    check_choice,
    check_class_outputs,
    check_count,
    check_finite,
    check_inputs,
    check_labels,
    check_positive,
)
from smoothness._norms import NORMS, Norm, random_in_ball
from smoothness.analyzers.deep_lift import deep_lift
from smoothness.analyzers.double import DoubleModel, double_model, in_double
from smoothness.analyzers.input_curvature import slopes
from smoothness.measurement import BoundKind, Measurement

Method = Literal["saliency", "integrated_gradients", "smooth_grad", "deep_lift"]
_COMPLETE = ("integrated_gradients", "deep_lift")
Attribute = Callable[[Tensor, Tensor], Tensor]
_UNSOUND = ("guided_backprop", "deconvolution", "lrp")
_FAILS = "the model's output or the attribution is NaN or infinite"
_BLANK = "the attribution is 0 everywhere (a plateau, or a gradient that is hidden): there is nothing to compare"
_INCOMPLETE = "only integrated gradients and DeepLift promise completeness"


class StabilityMeasurements(NamedTuple):
    """What `AttributionStability` returns: values of shape (n,)."""

    sensitivity: Measurement
    top_overlap: Measurement
    rank_correlation: Measurement
    infidelity: Measurement
    completeness_error: Measurement


@dataclass(frozen=True)
class AttributionStability:
    """Change of an attribution A(x) within a ball around each input, and how well it explains the output.

    The explained output f is the logit of the label (without labels, of the class predicted at x), also at the
    perturbed inputs. Over `samples` offsets v drawn uniformly from |v|_p <= radius:

        sensitivity        = max |A(x + v) - A(x)|_2 / |A(x)|_2                             "1", bound "lower"
        top_overlap        = mean share of the top features (by |A|) of x among those of x + v      "1"
        rank_correlation   = mean Spearman correlation of |A(x)| and |A(x + v)|                     "1"
        infidelity         = mean (v · A(x) - (f(x) - f(x - v)))²                            "logit^2"
        completeness_error = |Σ A - (f(x) - f(baseline))|                                    "logit"

    (Yeh et al. 2019, arXiv 1901.09392, for the first and the fourth; Ghorbani et al. 2019, arXiv 1710.10547, for the
    second and the third). Infidelity is that of the attribution per unit of input: for integrated gradients and
    DeepLift of A / (x - baseline), so that a linear model has 0; it is the mean over the ball, an "estimate" as are
    the overlap and the correlation. Completeness is asked of these two alone (Sundararajan et al. 2017,
    arXiv 1703.01365): the error of integrated gradients is that of the `steps`, which kinks and jumps make large.

    Attributions are captum's: saliency (signed), integrated gradients (Gauss-Legendre rule), SmoothGrad (mean over
    `steps` inputs with normal noise of standard deviation radius / 2), and DeepLift's rescale rule, where it is valid:
    for affine operations and elementwise activations that are modules, each called once. They need captum, which
    `pip install "smoothness[attribution]"` brings. Guided backprop and LRP are refused: for activations that they do
    not know by exact type they silently return something else. An attribution of 0 everywhere, as all
    of a step network's are, is not valid; train and explain such networks through a surrogate, and say so.

    Computed in float64 on a copy in evaluation mode; the global random state is put back.

    Args:
        method: "saliency", "integrated_gradients", "smooth_grad" or "deep_lift".
        norm: "linf", "l2" or "l1", of the ball.
        radius: in input units.
        samples: offsets for each example; every example gets the same ones.
        top: share of the features that count as the top ones; one at least.
        steps: of the path, or noisy inputs of SmoothGrad.
        baseline: value of every feature of the baseline.
        seed: of offsets and noise.
        batch_size: examples at once; all by default.

    Raises:
        ModuleNotFoundError: captum is not installed.
        TypeError: a model without gradients, or (deep_lift) one for which the rule is not valid; what is in the way
            is named.
        ValueError: settings out of range, an unsound method, bad inputs or outputs.
    """

    method: Method = "integrated_gradients"
    norm: Norm = "linf"
    radius: float = 0.05
    samples: int = 8
    top: float = 0.1
    steps: int = 32
    baseline: float = 0.0
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.method in _UNSOUND:
            raise ValueError(
                f"method {self.method!r} knows a few activations by exact type and silently treats all others in "
                f"another way, so that networks could not be compared; choose {', '.join(get_args(Method))}"
            )
        check_choice("method", self.method, get_args(Method))
        check_choice("norm", self.norm, NORMS)
        check_positive("radius", self.radius)
        check_count("samples", self.samples)
        if check_positive("top", self.top) > 1:
            raise ValueError(f"top must be a share of at most 1, got {self.top!r}")
        check_count("steps", self.steps, minimum=2)
        check_finite("baseline", self.baseline)
        check_count("seed", self.seed, minimum=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> StabilityMeasurements:
        """Measure around `inputs` (n, *input_shape)."""
        check_inputs(inputs)
        double = double_model(model, inputs)
        x = in_double(double, inputs)
        y = None if labels is None else check_labels(labels, len(inputs)).to(x.device)
        with torch.no_grad():
            outputs = check_class_outputs(double(x), len(x), y)
        y = outputs.argmax(dim=1) if y is None else y
        weights = torch.zeros_like(outputs[:1])
        weights[0, 0] = 1.0
        slopes(double, x[:1].clone().requires_grad_(), weights)  # refuses a model without gradients, naming why
        attribute = self._attribution(double)
        size = self.batch_size or len(x)
        parts = [
            self._measure(double, attribute, some, target)
            for some, target in zip(torch.split(x, size), torch.split(y, size), strict=True)
        ]
        return self._measurements({name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]})

    def _attribution(self, double: DoubleModel) -> Attribute:
        """(points, classes) -> attributions, seeded."""
        captum = _captum()
        if self.method == "integrated_gradients":
            path = captum.IntegratedGradients(double, multiply_by_inputs=True)
            keywords: dict[str, Any] = {
                "baselines": self.baseline,
                "n_steps": self.steps,
                "method": "gausslegendre",
            }
            return lambda x, y: _seeded(self.seed, lambda: path.attribute(x, target=y, **keywords))
        if self.method == "deep_lift":
            rule = deep_lift(captum, double.module)
            return lambda x, y: _seeded(self.seed, lambda: rule(x, torch.full_like(x, self.baseline), y))
        saliency = captum.Saliency(double)
        if self.method == "saliency":
            return lambda x, y: _seeded(self.seed, lambda: saliency.attribute(x, target=y, abs=False))
        noisy = captum.NoiseTunnel(saliency)
        noise = {"nt_type": "smoothgrad", "nt_samples": self.steps, "stdevs": self.radius / 2, "abs": False}

        def averaged(x: Tensor, y: Tensor) -> Tensor:
            # One by one: the noise must not depend on the other examples of the batch.
            rows = zip(torch.split(x, 1), torch.split(y, 1), strict=True)
            return torch.cat([_seeded(self.seed, partial(noisy.attribute, a, target=b, **noise)) for a, b in rows])

        return averaged

    def _measure(self, double: DoubleModel, attribute: Attribute, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        like = torch.zeros(self.samples, *x.shape[1:], dtype=torch.float64)
        offsets = random_in_ball(like, self.norm, self.radius, generator).to(x.device)
        here = attribute(x.clone().requires_grad_(), y).detach().flatten(1)
        slope = here
        if self.method in _COMPLETE:
            away = (x - self.baseline).flatten(1)
            slope = torch.where(away == 0, 0.0, here / torch.where(away == 0, 1.0, away))
        value = _logit(double, x, y)
        count = max(1, round(self.top * here.shape[1]))
        found: dict[str, list[Tensor]] = {name: [] for name in ("moved", "overlap", "correlation", "misfit")}
        for offset in offsets:
            there = attribute((x + offset).requires_grad_(), y).detach().flatten(1)
            found["moved"].append(torch.linalg.vector_norm(there - here, dim=1))
            found["overlap"].append(_top_overlap(here.abs(), there.abs(), count))
            found["correlation"].append(_spearman(here.abs(), there.abs()))
            explained = slope @ offset.flatten()
            found["misfit"].append((explained - (value - _logit(double, x - offset, y))) ** 2)
        size = torch.linalg.vector_norm(here, dim=1)
        change = value - _logit(double, torch.full_like(x, self.baseline), y)
        return {
            "size": size + 0 * value,
            "sensitivity": torch.stack(found["moved"]).amax(dim=0) / size,
            "top_overlap": torch.stack(found["overlap"]).mean(dim=0),
            "rank_correlation": torch.stack(found["correlation"]).mean(dim=0),
            "infidelity": torch.stack(found["misfit"]).mean(dim=0),
            "completeness_error": (here.sum(dim=1) - change).abs(),
        }

    def _measurements(self, found: dict[str, Tensor]) -> StabilityMeasurements:
        size = found.pop("size")
        base = ["" if s > 0 else _BLANK if s == 0 else _FAILS for s in size.tolist()]
        whole = [
            reason or ("" if self.method in _COMPLETE else _INCOMPLETE)
            for reason in ["" if s == s else _FAILS for s in size.tolist()]
        ]
        kinds: dict[str, tuple[str, BoundKind]] = {
            "sensitivity": ("1", "lower"),
            "top_overlap": ("1", "estimate"),
            "rank_correlation": ("1", "estimate"),
            "infidelity": ("logit^2", "estimate"),
            "completeness_error": ("logit", "exact"),
        }
        out = []
        for name, (unit, bound) in kinds.items():
            values = found[name]
            reasons = whole if name == "completeness_error" else base
            reasons = [r or ("" if ok else _FAILS) for r, ok in zip(reasons, values.isfinite().tolist(), strict=True)]
            valid = torch.tensor([not reason for reason in reasons])
            out.append(
                Measurement(
                    f"attribution_{name}",
                    torch.where(valid, values, torch.nan),
                    unit=unit,
                    bound=bound,
                    settings={"analyzer": "AttributionStability", **asdict(self), "dtype": "float64"},
                    valid=valid,
                    details={"reason": tuple(reasons)},
                )
            )
        return StabilityMeasurements(*out)


def _captum() -> Any:
    try:
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'AttributionStability needs captum: pip install "smoothness[attribution]"', name=error.name
        ) from error


def _seeded(seed: int, run: Callable[[], Tensor]) -> Tensor:
    """Run with the global generators seeded, and put them back."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        return run()


def _logit(double: DoubleModel, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return double(x).gather(1, y[:, None])[:, 0]


def _top_overlap(one: Tensor, other: Tensor, count: int) -> Tensor:
    """(n,) share of the `count` largest features of `one` among those of `other`."""
    marks = [torch.zeros_like(a).scatter_(1, a.topk(count, dim=1).indices, 1.0) for a in (one, other)]
    return (marks[0] * marks[1]).sum(dim=1) / count


def _spearman(one: Tensor, other: Tensor) -> Tensor:
    """(n,) Pearson correlation of the ranks, ties at their mean rank; 0 where one of them is constant."""
    ranks = [_ranks(a) for a in (one, other)]
    first, second = (r - r.mean(dim=1, keepdim=True) for r in ranks)
    size = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    return torch.where(size > 0, (first * second).sum(dim=1) / size.clamp_min(1e-300), 0.0)


def _ranks(values: Tensor) -> Tensor:
    ordered = values.sort(dim=1).values.contiguous()
    below = torch.searchsorted(ordered, values.contiguous())
    upto = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + upto - 1).to(torch.float64) / 2
