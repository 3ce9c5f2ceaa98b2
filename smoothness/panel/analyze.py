"""The standard panel on anybody's model, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from smoothness._checks import check_count
from smoothness._model_calls import check_model
from smoothness._state import model_device
from smoothness._version import __version__
from smoothness.analyzers import AttackSuccess, CleanPredictions, JacobianNorm
from smoothness.analyzers.per_margin import per_margin
from smoothness.attacks import FGSM, PGD, Attack, Cascade, Noise
from smoothness.consistency import Check
from smoothness.measurement import Measurement
from smoothness.panel import roughness
from smoothness.panel.certified import certified, check_certified, infinite
from smoothness.panel.checks import check_panel
from smoothness.panel.examples import Examples, check_runs, gather, random_state_of_its_own, threat_for
from smoothness.panel.reading import read_masking, verdict, zero_share
from smoothness.panel.result import Panel
from smoothness.panel.uses import ActivationUse, activations_of
from smoothness.threat import ThreatModel

STEPS = 40
SURROGATE = "tanh"


def analyze(
    model: nn.Module,
    x: Tensor | DataLoader[Any],
    y: Tensor | None = None,
    *,
    threat: ThreatModel | None = None,
    examples: int = 200,
    batch_size: int | None = None,
    seed: int = 0,
) -> Panel:
    """Run the standard panel on a model: what it says, how steep and how rough it is, how easily it is fooled.

    Accuracy and margins; the input gradient, and whether it can be believed; kinks and jumps; of the first few
    examples the variation of gradient and value, plateaus, curvature, what `SmoothnessProbe` finds from values alone,
    and the stability of explanations (with captum); success of random noise, FGSM, PGD (two losses), the `Cascade`
    (standard effort) and, where activations jump or gradients are zero or false, PGD through a surrogate backward;
    what can be proved around the first few examples (Lipschitz constant and oscillation from both sides, certified
    radius); the activations with their facts; whether gradients are masked; the hard invariants. What cannot be
    measured, or would take a panel too long, is said, with the reason,
    under `left_out`. Without labels: the input gradient, roughness and activations alone.

    The model is measured in evaluation mode and left as it was found, and so are the global random
    generators; the same arguments give the same numbers.

    Args:
        model: any nn.Module that gives (n, classes) scores; `smoothness.wrap` makes one of others.
        x: inputs (n, ...), floating point; or a DataLoader that yields (inputs, labels) or inputs.
        y: labels (n,), when x is a tensor.
        threat: what the adversary may do; linf 8/255 inside [0, 1] by default, for inputs that lie there.
        examples: how many are measured, the first ones; the rest of a loader is not read.
        batch_size: examples at once; all by default.
        seed: of everything random.

    Raises:
        TypeError: a model, inputs, labels or a threat model of another type.
        ValueError: empty or NaN inputs, labels that do not fit, a model that does not take the inputs,
            inputs outside [0, 1] without a threat model.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    >>> panel = analyze(net, x, net(x).argmax(dim=1))
    >>> [check.passed for check in panel.checks]
    [True, True, True, True, True, True, True, True]
    >>> panel.verdict
    'Clean accuracy is 100.0 %; robust accuracy at linf ε = 8/255 is at most ...
    """
    check_model(model)
    check_count("examples", examples)
    check_count("seed", seed, minimum=0)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    device = model_device(model)
    with torch.inference_mode(False), torch.enable_grad(), random_state_of_its_own(seed, device):
        given = gather(x, y, examples, device)
        outputs = check_runs(model, given.inputs)
        ball = None if given.labels is None else threat_for(given.inputs, threat)
        run = _Run(model, given, ball, batch_size, seed)
        run.everything(outputs)
    return run.panel()


@dataclass
class _Run:
    """One panel in the making."""

    model: nn.Module
    given: Examples
    threat: ThreatModel | None
    batch_size: int | None
    seed: int
    found: dict[str, Measurement] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    activations: Sequence[ActivationUse] = ()

    def everything(self, outputs: Tensor) -> None:
        inputs, labels = self.given.inputs, self.given.labels
        if labels is not None:
            self.add(*CleanPredictions(self.batch_size)(self.model, inputs, labels))
        of: roughness.Of = "logits" if labels is None else "margin"
        self.add(JacobianNorm(of=of, batch_size=self.batch_size, seed=self.seed)(self.model, inputs, labels))
        self.roughness(of)
        self.activations = activations_of(self.model, inputs[:1])
        if labels is None or self.threat is None:
            why = "they need labels, and none were given"
            lacking = ("accuracy and margins", "attacks", "figures per margin", "certified bounds", "explanations")
            self.left_out += [(what, why) for what in lacking]
            return
        self.add(per_margin(self.found["jacobian_norm"], self.found["margin"]))
        self.attacks(self.threat, labels)
        self.certified(self.threat, labels)

    def add(self, *measurements: Measurement) -> None:
        self.found |= {m.quantity: m for m in measurements}

    def attempt(self, what: str, measure: Callable[[], Iterable[Measurement]]) -> None:
        """Add what can be measured; the reason stands under `left_out` otherwise."""
        try:
            self.add(*measure())
        except (ImportError, TypeError, ValueError, RuntimeError) as error:
            self.left_out.append((what, str(error)))

    def roughness(self, of: roughness.Of) -> None:
        model, x, y, seed = self.model, self.given.inputs, self.given.labels, self.seed
        self.attempt("kinks and jumps", lambda: roughness.kinks(model, x, of, seed))
        self.attempt("variation", lambda: roughness.variation(model, x, of, seed, self.found))
        self.attempt("plateaus", lambda: roughness.plateaus(model, x, of, seed))
        self.attempt("curvature at the point", lambda: roughness.curvature(model, x, y, of, seed, None))
        distance = roughness.DISTANCE
        self.attempt("curvature over a distance", lambda: roughness.curvature(model, x, y, of, seed, distance))
        self.attempt("probe", lambda: roughness.probe(model, x, seed))
        threat = self.threat
        if y is not None and threat is not None:
            self.attempt("explanations", lambda: roughness.explanations(model, x, y, threat, seed))

    def attacks(self, threat: ThreatModel, labels: Tensor) -> None:
        size = self.batch_size
        corner = threat.norm == "linf"
        panel: list[Attack] = [
            Noise(threat, STEPS, "corner" if corner else "uniform", self.seed, batch_size=size),
            FGSM(threat, batch_size=size),
            PGD(threat, STEPS, seed=self.seed, batch_size=size),
            PGD(threat, STEPS, loss="margin", seed=self.seed, batch_size=size),
        ]
        for attack in panel:
            self.attack(attack, labels)
        self.attack(Cascade(threat, seed=self.seed, batch_size=size), labels)
        name = f"pgd-margin-{SURROGATE}"
        if not self.needs_surrogate():
            why = "not needed: no activation with value jumps was found, and gradients are neither zero nor false"
            self.left_out.append((name, why))
            return
        try:
            attack = PGD(threat, STEPS, loss="margin", seed=self.seed, surrogate=SURROGATE, batch_size=size)
            self.attack(attack, labels)
        except (TypeError, ValueError, RuntimeError) as error:
            self.left_out.append((name, str(error)))

    def certified(self, threat: ThreatModel, labels: Tensor) -> None:
        margin = self.found["margin"]
        self.attempt(
            "certified bounds", lambda: certified(self.model, self.given.inputs, labels, threat, margin, self.seed)
        )
        if why := infinite(self.found):
            self.left_out.append(("finite constant", why))

    def attack(self, attack: Attack, labels: Tensor) -> None:
        analyzer = AttackSuccess(attack)
        self.found[analyzer.label] = analyzer(self.model, self.given.inputs, labels)

    def needs_surrogate(self) -> bool:
        jumps = any(use.order == -1 for use in self.activations)
        jacobian = self.found["jacobian_norm"]
        false = (~jacobian.valid & self.found["correct"].valid).any()
        return jumps or zero_share(jacobian) > 0 or bool(false)

    def panel(self) -> Panel:
        masking = None if self.threat is None else read_masking(self.found, self.threat)
        checks: tuple[Check, ...] = tuple(check_panel(self.found, self.given.inputs, self.threat))
        if self.threat is not None:
            checks += tuple(check_certified(self.found, self.given.inputs.cpu(), self.threat))
        return Panel(
            measurements=self.found,
            activations=tuple(self.activations),
            left_out=tuple(self.left_out),
            checks=checks,
            verdict=verdict(self.found, self.threat, masking),
            masking=masking,
            threat=self.threat,
            about=self.about(),
        )

    def about(self) -> Mapping[str, str]:
        parameters = sum(p.numel() for p in self.model.parameters())
        shape = tuple(self.given.inputs.shape[1:])
        return {
            "model": type(self.model).__name__,
            "parameters": f"{parameters:,}",
            "inputs": f"{self.given.source}, shape ({', '.join(map(str, shape))})",
            "seed": str(self.seed),
            "versions": f"smoothness {__version__}, torch {torch.__version__}",
        }
