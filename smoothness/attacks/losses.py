"""What an attack increases: losses of the logits that grow as the true class loses, and their directions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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
