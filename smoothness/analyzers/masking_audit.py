"""Can a model's gradients be believed, and can a figure of robustness?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs, check_labels
from smoothness._model_calls import check_model
from smoothness.analyzers.attack_success import settings_of
from smoothness.analyzers.jacobian import JacobianNorm
from smoothness.analyzers.masking_evidence import Lead, MaskingEvidence, differs_from_itself, saturation
from smoothness.attacks._search import check_batch_size, check_threat, searching
from smoothness.attacks.apgd import APGD
from smoothness.attacks.cascade import Cascade
from smoothness.attacks.continuation import Continuation
from smoothness.attacks.counting import lead_chance, share_interval
from smoothness.attacks.evolution import EvolutionGradient
from smoothness.attacks.noise import Noise
from smoothness.attacks.observing import Observed, observe
from smoothness.attacks.result import Attack
from smoothness.attacks.square import Square
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel

CONVERGED = 0.01  # points of robust accuracy that doubling the budget, or other attacks, may still take


class MaskingVerdicts(NamedTuple):
    """Both verdicts of `MaskingAudit`: values 0 or 1, one for all examples.

    Attributes:
        gradient_masked: of the model; details: "evidence" (`MaskingEvidence`), "reasons", "successes" (each kind's
            (n,) bool on the examples at "rows"), "left_out", "passes".
        figure_trustworthy: of the figure; details: "figure" (robust accuracy on the audited examples), "interval"
            (exact, 95 %), "doubled", "others", "reasons", "passes".
    """

    gradient_masked: Measurement
    figure_trustworthy: Measurement

    @property
    def masked(self) -> bool:
        """Whether native gradients are masked."""
        return bool(self.gradient_masked.values)

    @property
    def trustworthy(self) -> bool:
        """Whether the figure can be trusted."""
        return bool(self.figure_trustworthy.values)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What decided against gradients and figure."""
        return (*self.gradient_masked.details["reasons"], *self.figure_trustworthy.details["reasons"])


@dataclass(frozen=True)
class MaskingAudit:
    """Two verdicts on a fixed random subsample of the examples.

    gradient_masked, a property of the model: do its own gradients mislead an attack? From measurements alone: the
    margin's gradient is exactly zero or missing, the plain cross-entropy gradient underflows, the gradient
    contradicts central differences of the forward pass, or does not explain how the margin changes over short
    steps, each for over half of the examples; two forward passes differ; or attacks without the native gradient
    (noise, surrogate, continuation, black-box) are over 5 points ahead of those with it (one-sided McNemar test,
    p < 0.01). Each kind of attack runs by itself on all the audited examples: attacks on what others left, or a
    cascade against its own stages, would prove nothing.

    figure_trustworthy, a property of the number that `attack` gives: a second, independent run of it on the
    examples left changes robust accuracy by at most 1 point, and so do the separate attacks above. A masked model
    can have a trustworthy figure; claims rest on the figure. Where a model is random no figure is trustworthy.

    Bound: estimates. (Athalye et al. 2018, arXiv 1802.00420; Carlini et al. 2019, arXiv 1902.06705.)

    Args:
        threat: the ball and the bounds, in input units.
        examples: how many are audited; all when there are fewer.
        seed: of the subsample and of the attacks.
        attack: whose figure is judged; `Cascade(threat, effort="full")` when None. A second run takes the next
            seed, so it must have one.
        batch_size: examples at once; all when None.

    Raises:
        ValueError, TypeError, RuntimeError: as the attacks.

    >>> model = nn.Sequential(nn.Linear(4, 2, bias=False))
    >>> x = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    >>> threat = ThreatModel("linf", 0.2)
    >>> audit = MaskingAudit(threat, attack=APGD(threat))(model, x, model(x).argmax(dim=1))
    >>> audit.masked, audit.trustworthy
    (False, True)
    """

    threat: ThreatModel
    examples: int = 200
    seed: int = 0
    attack: Attack | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_count("examples", self.examples)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)
        if self.attack is not None and not isinstance(getattr(self.attack, "seed", None), int):
            raise ValueError(
                f"attack must have a seed, for its second run, got {self.attack!r}; use Cascade(threat, effort='full')"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> MaskingVerdicts:
        """Audit x: (n, ...) with labels y: (n,)."""
        check_model(model)
        check_inputs(x)
        labels = check_labels(y, len(x))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))
        rows = order[: self.examples].sort().values
        x, labels = x[rows.to(x.device)], labels[rows.to(labels.device)]
        with searching(model, x, labels, self.threat, self.batch_size) as search:
            search.look_at_clean()
            right = search.attacked.cpu()
            observed = observe(search, self.seed)
        successes, left_out, passes = self._separately(model, x, labels, observed)
        evidence = self._evidence(model, x, labels, right, observed, successes)
        figure = self._figure(model, x, labels, right, successes, evidence.random)
        settings = {"analyzer": "MaskingAudit", **settings_of(self)}
        details = {
            "evidence": evidence, "reasons": evidence.reasons, "successes": successes, "rows": rows,
            "left_out": left_out, "passes": passes,
        }  # fmt: skip
        return MaskingVerdicts(
            _verdict("gradient_masked", bool(evidence.reasons), settings, details),
            _verdict("figure_trustworthy", not figure["reasons"], settings, figure),
        )

    def _kinds(self) -> dict[str, Sequence[Attack]]:
        """Attacks by what drives them; the native ones first."""
        threat, seed, size = self.threat, self.seed, self.batch_size

        def through(shape: str, width: float) -> Attack:
            return APGD(threat, 50, "margin", seed=seed, surrogate=shape, surrogate_width=width, batch_size=size)

        black_box: list[Attack] = [EvolutionGradient(threat, seed=seed, batch_size=size)]
        if threat.norm != "l1":
            black_box.append(Square(threat, 1_000, seed=seed, batch_size=size))
        return {
            "native": (
                APGD(threat, 100, "ce", seed=seed, batch_size=size),
                APGD(threat, 100, "dlr-targeted", target_classes=3, seed=seed, batch_size=size),
            ),
            "noise": (Noise(threat, 100, "corner" if threat.norm == "linf" else "uniform", seed, batch_size=size),),
            "surrogate": (through("tanh", 0.25), through("tanh", 1.0), through("mollified", 0.5)),
            "continuation": (Continuation(threat, seed=seed, batch_size=size),),
            "black-box": black_box,
        }

    def _separately(
        self, model: nn.Module, x: Tensor, y: Tensor, observed: Observed
    ) -> tuple[dict[str, Tensor], dict[str, str], dict[str, int]]:
        """What each kind turns, why some attacks were left out, and passes by kind."""
        successes: dict[str, Tensor] = {}
        left_out: dict[str, str] = {}
        passes: dict[str, int] = {}
        for kind, attacks in self._kinds().items():
            if kind in ("native", "surrogate", "continuation") and observed.missing:
                left_out[kind] = observed.missing
                continue
            turned = torch.zeros(len(x), dtype=torch.bool)
            for attack in attacks:
                try:
                    found = attack(model, x, y)
                except (ValueError, TypeError) as error:
                    if kind not in ("surrogate", "continuation"):
                        raise
                    left_out[str(getattr(attack, "label", kind))] = str(error)
                    continue
                turned |= found.success.cpu()
                passes[kind] = passes.get(kind, 0) + found.passes.total
            successes[kind] = turned
        return successes, left_out, passes

    def _evidence(
        self, model: nn.Module, x: Tensor, y: Tensor, right: Tensor, observed: Observed, successes: dict[str, Tensor]
    ) -> MaskingEvidence:
        count = int(right.sum())
        if count == 0:
            nan = math.nan
            return MaskingEvidence(
                0, nan, nan, nan, nan, nan, nan, differs_from_itself(model, x), observed.missing, {}
            )
        here = right.to(x.device)
        x, y = x[here], y[here]
        vanished, saturated, scale = saturation(model, x, y, self.batch_size or count)
        native = successes.get("native", torch.zeros_like(right))[right]
        leads = {}
        for kind, turned in successes.items():
            if kind != "native":
                ahead, behind = int((turned[right] & ~native).sum()), int((native & ~turned[right]).sum())
                leads[kind] = Lead(ahead, behind, count, lead_chance(ahead, behind))
        contradicted = math.nan
        if not observed.missing:
            contradicted = _share(~JacobianNorm(of="margin", batch_size=self.batch_size)(model, x, y).valid)
        return MaskingEvidence(
            examples=count,
            zero=_share(observed.blind.cpu()[right]),
            vanished=vanished,
            saturated=saturated,
            logit_scale=scale,
            unexplained=_share(~observed.truthful.cpu()[right]),
            contradicted=contradicted,
            random=differs_from_itself(model, x),
            missing=observed.missing,
            leads=leads,
        )

    def _figure(
        self, model: nn.Module, x: Tensor, y: Tensor, right: Tensor, successes: dict[str, Tensor], random: bool
    ) -> dict[str, Any]:
        """The figure, and what a second run and the separate attacks still take from it."""
        attack: Any = self.attack or Cascade(self.threat, effort="full", seed=self.seed, batch_size=self.batch_size)
        first = attack(model, x, y)
        held = torch.tensor([status == "survived" for status in first.status])
        total = sum(status != "model_failure" for status in first.status)
        rows = held.nonzero().flatten()
        passes, again = first.passes.total, 0
        if len(rows):
            second = replace(attack, seed=attack.seed + 1_000)(model, x[rows.to(x.device)], y[rows.to(y.device)])
            again, passes = int(second.success.sum()), passes + second.passes.total
        others = {kind: int((turned & held).sum()) for kind, turned in successes.items()}
        most = max(others.values(), default=0)
        reasons = []
        if random:
            reasons.append("two forward passes of the same inputs differ: a success may not repeat")
        if total and again > CONVERGED * total:
            reasons.append(f"doubling the budget takes {again} of the {int(held.sum())} examples left")
        if total and most > CONVERGED * total:
            kind = max(others, key=lambda name: others[name])
            reasons.append(f"{kind} attacks alone turn {most} of the {int(held.sum())} examples left")
        if not bool(right.any()):
            reasons.append("no example is classified correctly")
        left = int(held.sum())
        return {
            "figure": left / total if total else math.nan,
            "interval": share_interval(left, total),
            "doubled": (left - again) / total if total else math.nan,
            "others": others,
            "reasons": tuple(reasons),
            "passes": passes,
            "attack": str(getattr(attack, "label", type(attack).__name__)),
        }


def _share(flags: Tensor) -> float:
    return float(flags.double().mean()) if len(flags) else math.nan


def _verdict(quantity: str, holds: bool, settings: dict[str, Any], details: dict[str, Any]) -> Measurement:
    value = torch.tensor(float(holds), dtype=torch.float64)
    return Measurement(quantity, value, unit="1", bound="estimate", settings=settings, details=details)
