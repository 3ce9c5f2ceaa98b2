"""Auto-PGD: projected gradient ascent that sets its own step size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import random_in_ball
from smoothness.activations.surrogates import SHAPES, surrogate_gradient
from smoothness.attacks._climb import Climb, checkpoints
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.losses import LOSSES, OBJECTIVES, Aim, logit_scale
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

SHRINK_AT = 0.9  # fraction left at which copying the rest costs less than carrying the fooled along


@dataclass(frozen=True)
class APGD:
    """Auto-PGD (Croce and Hein 2020, arXiv 2003.01690; l1: Croce and Hein 2021, arXiv 2103.01208).

    Steepest ascent with momentum, x' = P(x + 0.75 (P(x + η d) - x) + 0.25 (x - x_previous)), from η = 2 epsilon.
    At checkpoints 0.22, 0.41, 0.57, ... of the steps an example whose loss rose in less than three quarters of
    the steps, or has found no better point since, halves η and goes back to its best point. In l1 there is no
    momentum: the step moves the largest coordinates, two thirds as many as differ at the best point so far, and
    points are projected onto the ball and the box together. The visited point of lowest margin
    f_y - max_{j != y} f_j is kept, the clean one included. Success is a lower bound on vulnerability.

    Losses: "ce", cross-entropy of logits scaled to a common spread (`losses.logit_scale`); "margin",
    max_{j != y} f_j - f_y; "dlr", the margin over the difference of largest and third largest logit;
    "dlr-targeted", the same towards each of the likeliest wrong classes in turn. None depends on the scale of
    the logits. With two classes "dlr" is undefined and "margin" is used instead.

    Args:
        threat: the ball and the bounds, in input units.
        steps: gradient steps per run.
        loss: "ce", "margin", "dlr" or "dlr-targeted".
        restarts: runs from independent random starts; for "dlr-targeted", per class.
        target_classes: of "dlr-targeted", wrong classes by falling clean logit; all when there are fewer.
        targeted: y is the class to reach, and success is its being predicted; what is predicted so from the
            start counts as "clean_error" at distance 0. Not with "dlr-targeted".
        seed: of the random starts; drawn for all examples, so that the batch size does not matter.
        drop_fooled: an example is settled at its first fooling point. False: all examples run all the steps
            and end at their lowest margin. True: the batch shrinks at once; "auto": when it pays. Both
            give the same points, up to rounding.
        surrogate: shape of the activations' backward pass (`surrogate_gradient`); the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once; all when None. Halved, with a warning, when memory runs out.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> APGD(ThreatModel("linf", 0.1), loss="margin")(model, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    steps: int = 100
    loss: Literal["ce", "margin", "dlr", "dlr-targeted"] = "ce"
    restarts: int = 1
    target_classes: int = 9
    targeted: bool = False
    seed: int = 0
    drop_fooled: bool | Literal["auto"] = "auto"
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_count("steps", self.steps)
        check_choice("loss", self.loss, OBJECTIVES)
        check_count("restarts", self.restarts)
        check_count("target_classes", self.target_classes)
        check_count("seed", self.seed, minimum=0)
        if self.targeted and self.loss == "dlr-targeted":
            raise ValueError("loss='dlr-targeted' chooses its own targets; with targeted=True use loss='dlr'")
        if self.drop_fooled not in (True, False, "auto"):
            raise ValueError(f"drop_fooled must be True, False or 'auto', got {self.drop_fooled!r}")
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name, such as "apgd-ce", "apgd-dlr-targeted" or "apgd-margin-tanh"."""
        return "-".join(["apgd", self.loss, *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        generator = torch.Generator().manual_seed(self.seed)
        with searching(model, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            with self._backward(model):
                search.look_at_clean(LOSSES["ce" if self.loss == "ce" else "margin"], keep_logits=True)
                for target in self._targets(search):
                    for _ in range(self.restarts):
                        offsets = random_in_ball(search.inputs, self.threat.norm, search.epsilon, generator)
                        rows = search.targets(dropping=bool(self.drop_fooled))
                        search.in_chunks(rows, partial(self._ascend, search, offsets, target))
            return search.close(x.device)

    def _backward(self, model: nn.Module) -> AbstractContextManager[object]:
        if self.surrogate is None:
            return nullcontext()
        return surrogate_gradient(model, self.surrogate, width=self.surrogate_width)

    def _targets(self, search: Search) -> list[Tensor]:
        """(n,) class to raise, for each run."""
        if self.loss != "dlr-targeted" or search.clean_logits is None:
            return [search.labels]
        order = search.clean_logits.scatter(1, search.labels.unsqueeze(1), -torch.inf).argsort(dim=1, descending=True)
        return list(order[:, : min(self.target_classes, order.shape[1] - 1)].unbind(dim=1))

    def _ascend(self, search: Search, offsets: Tensor, target: Tensor, rows: Tensor) -> None:
        """One run: all steps from one start."""
        batch = search.batch(rows, offsets)
        aim = Aim(logit_scale(search.logits_of(rows)), target[rows].unsqueeze(1))
        norm, epsilon = self.threat.norm, search.epsilon
        climb, reviews = Climb.start(batch, norm, epsilon), checkpoints(self.steps, norm)
        fraction = SHRINK_AT if self.drop_fooled == "auto" else 1.0
        for step in range(self.steps):
            leaf, outputs = search.record(batch.point)
            logits = outputs.detach()
            batch.offer(search.losses(logits, batch.column))
            values, ascent = OBJECTIVES[self.loss](logits, batch.column, aim)
            gradient = search.pull_back(leaf, outputs, search.signed(ascent))
            climb.take(batch, search.signed(values), gradient, norm)
            if self.drop_fooled and search.retire_fooled(batch, fraction, climb, aim) and len(batch) == 0:
                return
            if step in reviews:
                climb.review(batch, reviews[step], norm, epsilon)
            climb.move(batch, norm, epsilon)
        search.judge(batch)
        search.store(batch)
