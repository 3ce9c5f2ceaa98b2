"""Adversarial training: what the adversary does to each batch, and the loss that follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import project_to_ball, random_in_ball, steepest_direction
from smoothness._state import probing
from smoothness.attacks.losses import LOSSES, rival_logits
from smoothness.data import Split
from smoothness.threat import ThreatModel

Method = Literal["pgd-at", "trades"]
METHODS: tuple[str, ...] = get_args(Method)

HELD_OUT_EXAMPLES = 200
HELD_OUT_STEPS = 20
START_SPREAD = 1e-3  # of the normal start of TRADES, where the divergence's gradient is 0 (Zhang et al. 2019)
COLLAPSE_SHARE, COLLAPSE_POINTS = 0.5, 0.2  # the points keep sampling noise out: its spread is 3.5 at most

Ascend = Callable[[Tensor], Tensor]  # logits to the direction in which the adversary's loss grows


class CatastrophicOverfittingWarning(UserWarning):
    """The network withstands the attack it was trained with, and no stronger one."""


@dataclass(frozen=True)
class Adversarial:
    """How to train against an adversary.

    "pgd-at" (Madry et al. 2018, arXiv 1706.06083) descends the cross-entropy at x', found by ascending it from
    a uniform random point of the ball. "trades" (Zhang et al. 2019, arXiv 1901.08573) descends
    CE(f(x), y) + beta · KL(p(x) ‖ p(x')), p = softmax f, with x' found by ascending the divergence from a normal
    start of spread 0.001. Each step is x' <- clip(project(x' + step_size · d(∇loss))), d the gradient's sign
    (linf) or the gradient over its length (l2); all examples are perturbed, misclassified ones too. The adversary
    sees the model in evaluation mode, and through the recipe's surrogate where activations jump.

    Args:
        threat: norm "linf" or "l2", radius and bounds, in input units.
        method: "pgd-at" or "trades".
        steps: gradient steps of the adversary for each step of training; 1 with "pgd-at" and
            step_size = 1.25 epsilon is the fast training of Wong et al. 2020 (arXiv 2001.03994).
        step_size: in input units; 2.5 · epsilon / steps when None, at most 1.25 epsilon.
        beta: weight of the divergence in "trades"; "pgd-at" does not use it.

    Raises:
        ValueError: settings out of range, a radius of None, or norm "l1".
        TypeError: threat is no ThreatModel.

    >>> from smoothness.data import load_dataset
    >>> from smoothness.models import build_model
    >>> from smoothness.training import Recipe, train
    >>> data = load_dataset("gaussians", dimensions=4)
    >>> model = build_model("mlp", input_shape=(4,), classes=2, width=8)
    >>> adversary = Adversarial(ThreatModel("linf", 0.3, bounds=None), steps=2)
    >>> result = train(model, data, Recipe(epochs=2, adversarial=adversary))
    >>> len(result.robust_accuracy), result.collapsed_at
    (2, None)
    """

    threat: ThreatModel
    method: Method = "pgd-at"
    steps: int = 7
    step_size: float | None = None
    beta: float = 6.0

    def __post_init__(self) -> None:
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(
                f"threat must be a ThreatModel, got {type(self.threat).__name__}; use ThreatModel('linf', 8 / 255)"
            )
        if self.threat.epsilon is None:
            raise ValueError(
                "adversarial training needs a radius, got epsilon=None; "
                f"use ThreatModel({self.threat.norm!r}, epsilon=...)"
            )
        if self.threat.norm == "l1":
            raise ValueError("adversarial training is for norm 'linf' or 'l2', got 'l1'; pass one of them")
        check_choice("method", self.method, METHODS)
        check_count("steps", self.steps)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        check_positive("beta", self.beta)

    @property
    def epsilon(self) -> float:
        """The radius."""
        return float(self.threat.epsilon or 0)  # construction refuses None

    @property
    def size(self) -> float:
        """The adversary's step in input units."""
        return self.step_size or min(2.5 / self.steps, 1.25) * self.epsilon

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """The loss to descend on one batch.

        Args:
            model: in training mode.
            x: inputs (n, ...) inside the bounds.
            y: labels (n,).
            generator: of the adversary's starts.
        """
        if self.method == "pgd-at":
            start = random_in_ball(x, self.threat.norm, self.epsilon, generator)
            points = ascend(model, x, start, self.threat, self.steps, self.size, _away_from(y))
            return F.cross_entropy(model(points), y)
        start = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) * START_SPREAD
        with probing(model), torch.no_grad():
            honest = model(x).softmax(dim=1)
        points = ascend(
            model, x, start, self.threat, self.steps, self.size, lambda logits: logits.softmax(dim=1) - honest
        )
        clean, attacked = model(x).log_softmax(dim=1), model(points).log_softmax(dim=1)
        divergence = F.kl_div(attacked, clean, reduction="batchmean", log_target=True)
        return F.nll_loss(clean, y) + self.beta * divergence


def ascend(
    model: nn.Module, x: Tensor, start: Tensor, threat: ThreatModel, steps: int, size: float, direction: Ascend
) -> Tensor:
    """Points of the ball that the adversary reaches from x + start in so many steps; the last ones, not the best.

    A missing gradient counts as zero, as everywhere.
    """
    epsilon = float(threat.epsilon or 0)
    lowest, highest = threat.limits(x)
    points = (x + project_to_ball(start, threat.norm, epsilon)).clamp(lowest, highest)
    with probing(model):
        for _ in range(steps):
            leaf = points.detach().requires_grad_()
            outputs = model(leaf)
            if not outputs.requires_grad:
                break
            (gradient,) = torch.autograd.grad(outputs, leaf, direction(outputs.detach()), allow_unused=True)
            if gradient is None:
                break
            if threat.norm == "linf":
                points = leaf.detach().add(gradient.sign(), alpha=size)
            else:
                moved = leaf.detach() + size * steepest_direction(gradient, threat.norm)
                points = x + project_to_ball(moved - x, threat.norm, epsilon)
            points.clamp_(lowest, highest)
    return points


def _away_from(labels: Tensor) -> Ascend:
    """Direction of growing cross-entropy."""
    column = labels.unsqueeze(1)
    return lambda logits: LOSSES["ce"](rival_logits(logits, column), column)


def held_out_accuracies(model: nn.Module, split: Split, adversary: Adversarial) -> tuple[float, float]:
    """Accuracy of a balanced sample under the training attack, and what is left under PGD of 20 steps too.

    Both attacks ascend the cross-entropy from uniform random points; the second is an upper bound on the truth.
    """
    sample = split.balanced(min(HELD_OUT_EXAMPLES, len(split)))
    x, y = sample.inputs, sample.labels
    start = random_in_ball(x, adversary.threat.norm, adversary.epsilon, torch.Generator().manual_seed(0))
    runs = ((adversary.steps, adversary.size), (HELD_OUT_STEPS, 2.5 * adversary.epsilon / HELD_OUT_STEPS))
    points = [ascend(model, x, start, adversary.threat, steps, size, _away_from(y)) for steps, size in runs]
    with probing(model), torch.no_grad():
        under_training, under_more, clean = (model(p).argmax(dim=1) == y for p in (*points, x))
    return float(under_training.double().mean()), float((under_training & under_more & clean).double().mean())


def collapsed_at(attacked: Sequence[float], robust: Sequence[float]) -> int | None:
    """Epoch, counted from 1, from which on the training shows catastrophic overfitting; None without.

    From there to the last epoch the training attack leaves at least 20 points more of the held-out examples
    correct than an attack of many steps does, and at least twice as many (the sign of Wong et al. 2020,
    arXiv 2001.03994, section 5.4: one step is withstood while many are not).

    Args:
        attacked: accuracy under the training attack, per epoch.
        robust: accuracy under many steps, on the same examples.

    >>> collapsed_at([0.50, 0.55, 0.85], [0.40, 0.45, 0.05])
    3
    >>> collapsed_at([0.50, 0.55, 0.10], [0.40, 0.45, 0.05]) is None
    True
    """
    first = None
    for epoch, (shown, held) in enumerate(zip(attacked, robust, strict=True), start=1):
        collapsed = held <= COLLAPSE_SHARE * shown and shown - held >= COLLAPSE_POINTS
        first = (first or epoch) if collapsed else None
    return first


def warn_of_collapse(attacked: float, robust: float, epoch: int, adversary: Adversarial) -> None:
    """Say what happened and what helps; to be called by `train`."""
    remedy = (
        f"try more steps than {adversary.steps}, a smaller step_size than {adversary.size:.3g} "
        f"or a smaller epsilon than {adversary.epsilon:g}"
    )
    warnings.warn(
        f"catastrophic overfitting from epoch {epoch} on: at the end {attacked:.1%} of the held-out examples "
        f"withstand the training attack and {robust:.1%} one of {HELD_OUT_STEPS} steps; {remedy}",
        CatastrophicOverfittingWarning,
        stacklevel=3,
    )


__all__ = ["METHODS", "Adversarial", "CatastrophicOverfittingWarning", "Method", "collapsed_at"]
