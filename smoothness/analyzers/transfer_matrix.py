"""Do perturbations made for one model turn another?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_class_outputs, check_count, check_inputs, check_labels
from smoothness._model_calls import call_model
from smoothness._state import model_device, probing
from smoothness.analyzers.attack_success import settings_of
from smoothness.attacks._search import check_batch_size, check_threat
from smoothness.attacks.counting import share_interval
from smoothness.attacks.losses import margin_loss
from smoothness.attacks.pgd import PGD
from smoothness.attacks.result import Attack
from smoothness.measurement import BoundKind, Measurement
from smoothness.threat import ThreatModel

_WRONG = "a source or a target misclassifies it as it is, or its outputs fail"
_REASONS = {
    "success": _WRONG,
    "noise": _WRONG,
    "shuffled": _WRONG,
    "alignment": "an input gradient of a source or a target is zero or missing",
}


class TransferMeasurements(NamedTuple):
    """The readings of `TransferMatrix`, values (n, sources, targets).

    Attributes:
        success: 1 where the perturbation made for the source turns the target, else 0.
        noise: the same for the perturbation with its signs drawn at random.
        shuffled: the same for the perturbation made for another example.
        alignment: cosine of the two models' input gradients of the margin.
    """

    success: Measurement
    noise: Measurement
    shuffled: Measurement
    alignment: Measurement


@dataclass(frozen=True)
class TransferMatrix:
    """Success on every target of the perturbations made for every source, beside two controls.

    Examples that the source or the target misclassifies as they are say nothing: their values are NaN, and examples
    with such a pair are not valid, so that valid rows hold the same examples for every pair. Controls on
    the same examples: "noise" keeps the size of every coordinate of the perturbation and draws its sign, so chance
    at equal size; "shuffled" takes the perturbation made for another example, so what any input would suffer. Both
    are clipped to the bounds. (Papernot et al. 2016, arXiv 1605.07277; gradient alignment: Demontis et al. 2019,
    arXiv 1809.02861.) Bound: lower for success, estimates otherwise.

    success.details["table"] has one entry per pair: "source", "target", "examples" (classified correctly by both),
    "success", "low", "high" (exact binomial interval, 95 %), "noise", "shuffled", "beyond_noise", "alignment".

    Args:
        sources: name -> model that perturbations are made for.
        threat: the ball and the bounds, in input units.
        attack: with the same threat; `PGD` of 40 steps on the margin, without stopping at the first success, when
            None. A source whose gradient is zero needs an attack with a surrogate, or `Cascade`.
        seed: of the controls.
        batch_size: examples at once where targets are asked; all when None.

    Raises:
        ValueError: no sources, or an attack with another threat; as the attack.
        TypeError: as the attack.

    >>> one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> for model, factor in ((one, 1.0), (two, 5.0)):
    ...     _ = model.load_state_dict({"weight": factor * torch.eye(2), "bias": torch.zeros(2)})
    >>> x, y = torch.tensor([[0.6, 0.5], [0.9, 0.1]]), torch.tensor([0, 0])
    >>> TransferMatrix({"one": one}, ThreatModel("linf", 0.1))({"two": two}, x, y).success.values.flatten()
    tensor([1., 0.], dtype=torch.float64)
    """

    sources: Mapping[str, nn.Module]
    threat: ThreatModel
    attack: Attack | None = None
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty; give at least one model, such as {'relu': model}")
        check_threat(self.threat)
        theirs = None if self.attack is None else self.attack.threat
        if theirs is not None and (theirs.key(), theirs.norm) != (self.threat.key(), self.threat.norm):
            raise ValueError(f"the attack's threat {theirs!r} differs from {self.threat!r}; give both the same")
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    def __call__(self, targets: nn.Module | Mapping[str, nn.Module], x: Tensor, y: Tensor) -> TransferMeasurements:
        """Measure on one target, or on each of several by name; x: (n, ...) with labels y: (n,)."""
        check_inputs(x)
        y = check_labels(y, len(x)).cpu()
        named = {"target": targets} if isinstance(targets, nn.Module) else dict(targets)
        attack = self.attack or PGD(self.threat, loss="margin", drop_fooled=False, batch_size=self.batch_size)
        draws = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(x), generator=draws)
        other = torch.empty_like(order).scatter_(0, order, order.roll(1))  # each example's perturbation from another
        signs = torch.randint(0, 2, x.shape, generator=draws, dtype=torch.int8) * 2 - 1
        right = {name: self._right(model, x, y) for name, model in named.items()}
        slopes = {name: self._slopes(model, x, y) for name, model in named.items()}
        parts: dict[str, list[Tensor]] = {"success": [], "noise": [], "shuffled": [], "alignment": []}
        passes = {}
        for name, source in self.sources.items():
            found = attack(source, x, y.to(x.device))
            passes[name] = found.passes._asdict()
            here, slope = self._right(source, x, y), self._slopes(source, x, y)
            offset = found.inputs.detach() - x
            moved = {
                "success": found.inputs.detach(),
                "noise": self._clip(x + offset * signs.to(offset)),
                "shuffled": self._clip(x + offset[other.to(x.device)]),
            }
            for kind, points in moved.items():
                wrong = [self._wrong(model, points, y, here & right[place]) for place, model in named.items()]
                parts[kind].append(torch.stack(wrong, dim=1))
            cosines = [torch.nn.functional.cosine_similarity(slope, slopes[place], dim=1) for place in named]
            parts["alignment"].append(torch.stack(cosines, dim=1))
        values = {kind: torch.stack(rows, dim=1) for kind, rows in parts.items()}
        names = tuple(self.sources), tuple(named)
        settings = {"analyzer": "TransferMatrix", **settings_of(self), "sources": list(names[0])}
        settings["attack"] = settings_of(attack)
        table = _table(names, values)

        def measurement(kind: str, bound: BoundKind) -> Measurement:
            coords = {"source": names[0], "target": names[1]}
            valid = values[kind].isfinite().flatten(1).all(dim=1)
            details: dict[str, Any] = {"reason": ["" if fine else _REASONS[kind] for fine in valid.tolist()]}
            details |= {"table": table, "passes": passes} if kind == "success" else {}
            return Measurement(f"transfer_{kind}", values[kind], "1", bound, coords, settings, valid, details)

        return TransferMeasurements(
            measurement("success", "lower"),
            measurement("noise", "estimate"),
            measurement("shuffled", "estimate"),
            measurement("alignment", "exact"),
        )

    def _clip(self, points: Tensor) -> Tensor:
        if self.threat.bounds is None:
            return points
        low, high = (torch.as_tensor(bound).to(points) for bound in self.threat.bounds)
        return torch.minimum(torch.maximum(points, low), high)

    def _chunks(self, count: int) -> list[slice]:
        size = self.batch_size or count
        return [slice(start, start + size) for start in range(0, count, size)]

    def _outputs(self, model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
        parts = []
        with probing(model), torch.no_grad():
            for rows in self._chunks(len(points)):
                parts.append(call_model(model, points[rows].to(model_device(model))).cpu())
        return check_class_outputs(torch.cat(parts), len(y), y)

    def _right(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        outputs = self._outputs(model, x, y)
        return (outputs.argmax(dim=1) == y) & outputs.isfinite().all(dim=1)

    def _wrong(self, model: nn.Module, points: Tensor, y: Tensor, counted: Tensor) -> Tensor:
        outputs = self._outputs(model, points, y)
        counted = counted & outputs.isfinite().all(dim=1)
        return (outputs.argmax(dim=1) != y).double().masked_fill(~counted, math.nan)

    def _slopes(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """(n, d) gradients of the margin; NaN where zero or missing, which have no direction."""
        parts, device = [], model_device(model)
        with torch.inference_mode(False), torch.enable_grad(), probing(model):
            for rows in self._chunks(len(x)):
                points, labels = x[rows], y[rows]
                leaf = points.detach().to(device).clone().requires_grad_()
                loss = margin_loss(call_model(model, leaf), labels.to(device)).sum()
                gradient = None
                if loss.requires_grad:
                    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
                flat = torch.zeros(len(points), points[0].numel()) if gradient is None else gradient.flatten(1).cpu()
                parts.append(flat.double())
        slopes = torch.cat(parts)
        return slopes.masked_fill((slopes == 0).all(dim=1, keepdim=True), math.nan)


def _table(names: tuple[tuple[str, ...], tuple[str, ...]], values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    rows = []
    for i, source in enumerate(names[0]):
        for j, target in enumerate(names[1]):
            counted = ~values["success"][:, i, j].isnan()
            count, hits = int(counted.sum()), int(values["success"][counted, i, j].sum())
            low, high = share_interval(hits, count)
            means = {kind: float(part[:, i, j].nanmean()) for kind, part in values.items()}
            rows.append(
                {
                    "source": source, "target": target, "examples": count, "success": means["success"],
                    "low": low, "high": high, "noise": means["noise"], "shuffled": means["shuffled"],
                    "beyond_noise": means["success"] - means["noise"], "alignment": means["alignment"],
                }
            )  # fmt: skip
    return rows
