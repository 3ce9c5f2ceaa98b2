"""What an attack increases: losses of the logits that grow as the true class loses, and their directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.attacks._batch import Rows

TYPICAL_SPREAD = 10.0  # standard deviation over classes to which cross-entropy scales an example's clean logits


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} f_j - f_y per example: (n, classes), (n,) -> (n,), in logits.

    Positive exactly when another class leads (Carlini and Wagner 2017, arXiv 1608.04644, without cut-off).

    >>> margin_loss(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    column = labels.unsqueeze(1)
    return (rival_logits(logits, column).amax(dim=1, keepdim=True) - logits.gather(1, column)).squeeze(1)


def rival_logits(logits: Tensor, column: Tensor) -> Tensor:
    """Logits with the true class, given as a column (n, 1), at -inf."""
    return logits.scatter(1, column, -torch.inf)


def _cross_entropy_ascent(rivals: Tensor, column: Tensor) -> Tensor:
    """Gradient of -log softmax(f)_y in the logits, times a positive number per example.

    The gradient is p_j for rivals and -Σ p_j for the true class; dividing by the largest rival's p keeps
    it from underflowing to 0 on large logits, and no steepest step sees the factor.

    >>> _cross_entropy_ascent(torch.tensor([[-torch.inf, -900.0, -900.0]]), torch.tensor([[0]]))
    tensor([[-2.,  1.,  1.]])
    """
    ascent = (rivals - rivals.amax(dim=1, keepdim=True)).exp_()
    return ascent.scatter_(1, column, ascent.sum(dim=1, keepdim=True).neg_())


def _margin_ascent(rivals: Tensor, column: Tensor) -> Tensor:
    """Gradient of max_{j != y} f_j - f_y in the logits: 1 for the leading rival, -1 for the true class."""
    leader = rivals.argmax(dim=1, keepdim=True)
    return torch.zeros_like(rivals).scatter_(1, leader, 1).scatter_(1, column, -1)


# Direction in which the loss grows, in logit space, from rival_logits and the labels' column. Taking it in
# closed form costs a fraction of building and walking the loss's graph.
Ascent = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Ascent] = {"ce": _cross_entropy_ascent, "margin": _margin_ascent}


@dataclass
class Aim(Rows):
    """What a scale-free loss knows of each example beforehand.

    Attributes:
        scale: (m, 1), by which logits are multiplied (`logit_scale`).
        target: (m, 1), the wrong class that "dlr-targeted" raises.
    """

    scale: Tensor
    target: Tensor


def logit_scale(clean_logits: Tensor) -> Tensor:
    """TYPICAL_SPREAD over the standard deviation of each example's clean logits: (n, classes) -> (n, 1).

    Cross-entropy of logits times this is the same for f and c · f. Outputs without spread, or with NaN, are
    left alone.

    >>> logits = torch.tensor([[1.0, -1.0, 0.0]])
    >>> bool(torch.isclose(logit_scale(logits), 1e20 * logit_scale(1e20 * logits)))
    True
    """
    size = clean_logits.abs().amax(dim=1, keepdim=True)  # to size 1 first: squares would leave the float range
    usable = (size > 0) & size.isfinite()
    size = torch.where(usable, size, 1)
    spread = (clean_logits / size).std(dim=1, keepdim=True, correction=0)
    return torch.where(usable & (spread > 0), TYPICAL_SPREAD / (spread * size), 1)


def _cross_entropy(logits: Tensor, column: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
    """Log Σ_{j != y} exp(s f_j) - s f_y: a rising function of cross-entropy that never saturates."""
    rivals = rival_logits(logits, column) * aim.scale
    values = rivals.logsumexp(dim=1, keepdim=True) - logits.gather(1, column) * aim.scale
    return values.squeeze(1), _cross_entropy_ascent(rivals, column)


def _margin(logits: Tensor, column: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
    rivals = rival_logits(logits, column)
    leading, leader = rivals.max(dim=1, keepdim=True)
    ascent = torch.zeros_like(logits).scatter_(1, leader, 1).scatter_(1, column, -1)
    return (leading - logits.gather(1, column)).squeeze(1), ascent


def _difference_of_logits_ratio(logits: Tensor, column: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
    """(max_{j != y} f_j - f_y) / (f_1st - f_3rd), the denominator between the largest and third largest logit."""
    if logits.shape[1] < 3:
        return _margin(logits, column, aim)
    numerator, ascent = _margin(logits, column, aim)
    top, place = logits.topk(3, dim=1)
    weights = top.new_tensor([1.0, 0.0, -1.0])
    return _quotient(numerator, ascent, top, place, weights)


def _targeted_difference_of_logits_ratio(logits: Tensor, column: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
    """(f_t - f_y) / (f_1st - (f_3rd + f_4th) / 2); with three classes f_3rd stands for both."""
    numerator = (logits.gather(1, aim.target) - logits.gather(1, column)).squeeze(1)
    ascent = torch.zeros_like(logits).scatter_(1, aim.target, 1).scatter_(1, column, -1)
    if logits.shape[1] < 3:
        return numerator, ascent
    top, place = logits.topk(min(4, logits.shape[1]), dim=1)
    weights = top.new_tensor([1.0, 0.0, -0.5, -0.5] if logits.shape[1] > 3 else [1.0, 0.0, -1.0])
    return _quotient(numerator, ascent, top, place, weights)


def _quotient(numerator: Tensor, ascent: Tensor, top: Tensor, place: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Value of numerator / (top · weights), and the denominator times its gradient."""
    denominator = (top - top[:, -1:]) @ weights  # differences first: exact where the logits are large and close
    values = torch.where(denominator > 0, numerator / denominator, numerator.sign())
    slope = torch.where(denominator > 0, values, 0).unsqueeze(1)
    return values, ascent.scatter_add(1, place, -slope * weights)


# Value, and direction in logit space up to a positive factor, from logits, the labels' column and the aim.
# The value only ranks the points of one example: it may be any rising function of the loss.
Objective = Callable[[Tensor, Tensor, Aim], tuple[Tensor, Tensor]]
OBJECTIVES: dict[str, Objective] = {
    "ce": _cross_entropy,
    "margin": _margin,
    "dlr": _difference_of_logits_ratio,
    "dlr-targeted": _targeted_difference_of_logits_ratio,
}
