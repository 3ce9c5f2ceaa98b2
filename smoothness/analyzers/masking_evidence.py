"""What speaks for masked gradients, all of it measured: each reading with the line from which it decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._checks import check_class_outputs
from smoothness._model_calls import call_model
from smoothness._norms import vector_norm
from smoothness._state import model_device, probing
from smoothness.analyzers.masking import MASKED_LEAD, MASKED_SHARE

LEAD_CHANCE = 0.01  # one-sided p below which a lead counts; small, for several kinds of attack are compared
SAME_OUTPUT = 1e-4  # of the largest output: what two forward passes of one input may differ by


@dataclass(frozen=True)
class Lead:
    """One kind of attack against the native ones, on the same examples.

    Attributes:
        ahead, behind: examples that it alone, and that the native attacks alone, turned.
        examples: compared.
        chance: one-sided p of McNemar's exact test.
    """

    ahead: int
    behind: int
    examples: int
    chance: float

    @property
    def lead(self) -> float:
        """Share of the examples by which it is ahead."""
        return (self.ahead - self.behind) / self.examples if self.examples else 0.0

    @property
    def counts(self) -> bool:
        """Whether it shows that native gradients mislead: over 5 points, and no accident."""
        return self.lead > MASKED_LEAD and self.chance < LEAD_CHANCE


@dataclass(frozen=True)
class MaskingEvidence:
    """Readings on the audited examples that the model classifies correctly; shares are NaN without any.

    Attributes:
        examples: how many there are.
        zero: share whose margin's gradient is exactly zero, or missing, at the input and around it.
        vanished: share whose plain cross-entropy gradient, in the model's own precision, is zero or below the
            normal range of that precision: losses without scaling stall there.
        saturated: share whose softmax gives the true class exactly 1. Shown, not decisive: confident honest
            models have some.
        logit_scale: median over examples of the standard deviation over classes.
        unexplained: share for which the gradient leaves over half of the margin's squared change over short steps
            unexplained (jumps, plateaus, rounding).
        contradicted: share whose gradient does not fit central differences of the forward pass.
        random: whether two forward passes of the same inputs differ.
        missing: the error met when a gradient was asked for.
        leads: each kind of attack without native gradients against those with them.
    """

    examples: int
    zero: float
    vanished: float
    saturated: float
    logit_scale: float
    unexplained: float
    contradicted: float
    random: bool
    missing: str
    leads: Mapping[str, Lead]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What decided that gradients are masked; empty when nothing did."""
        shares = {
            "the gradient is exactly zero": self.zero,
            "the gradient of plain cross-entropy underflows": self.vanished,
            "the gradient does not explain how the margin changes over short steps": self.unexplained,
            "the gradient contradicts differences of the forward pass": self.contradicted,
        }
        said = [f"{what} for {100 * share:.0f} % of the examples" for what, share in shares.items() if _most(share)]
        if self.random:
            said.insert(0, "two forward passes of the same inputs differ")
        if self.missing:
            said.insert(0, f"the model has no gradient ({self.missing})")
        for kind, lead in self.leads.items():
            if lead.counts:
                said.append(f"{kind} attacks are {100 * lead.lead:.0f} points ahead of those with the native gradient")
        return tuple(said)


def _most(share: float) -> bool:
    return not math.isnan(share) and share > MASKED_SHARE


def differs_from_itself(model: nn.Module, x: Tensor) -> bool:
    """Whether two forward passes of the same inputs give different outputs, beyond rounding."""
    with probing(model), torch.no_grad():
        first, second = (call_model(model, x.to(model_device(model))) for _ in range(2))
    finite = first.isfinite() & second.isfinite()
    off = (first - second)[finite].abs()
    return bool(len(off)) and float(off.max()) > SAME_OUTPUT * float(first[finite].abs().max())


def saturation(model: nn.Module, x: Tensor, y: Tensor, size: int) -> tuple[float, float, float]:
    """Shares of vanished plain cross-entropy gradients and of softmax values of exactly 1; median logit spread."""
    vanished, saturated, spreads = [], [], []
    device = model_device(model)
    with torch.inference_mode(False), torch.enable_grad(), probing(model):
        for start in range(0, len(x), size):
            inputs, labels = x[start : start + size].to(device), y[start : start + size].to(device)
            leaf = inputs.detach().clone().requires_grad_()
            try:
                outputs = check_class_outputs(call_model(model, leaf), len(inputs), labels)
            except RuntimeError:  # a model that leaves torch: the same without a gradient
                outputs = call_model(model, inputs.detach())
            gradient = None
            if outputs.requires_grad:
                loss = F.cross_entropy(outputs, labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
            size_of = torch.zeros(len(inputs)) if gradient is None else vector_norm(gradient, "linf").cpu()
            vanished.append(size_of < torch.finfo(outputs.dtype).tiny)
            logits = outputs.detach()
            saturated.append((logits.softmax(dim=1).gather(1, labels.unsqueeze(1)) == 1).flatten().cpu())
            spreads.append(logits.std(dim=1).cpu())
    shares = [float(torch.cat(part).double().mean()) for part in (vanished, saturated)]
    return shares[0], shares[1], float(torch.cat(spreads).double().median())
