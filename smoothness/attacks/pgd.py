"""Projected gradient descent, with every trap of rough activations handled."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_positive
from smoothness._norms import project_to_ball, random_in_ball, steepest_direction, vector_norm
from smoothness.activations.surrogates import SHAPES, surrogate_gradient
from smoothness.attacks._batch import Batch
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.losses import LOSSES
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

L1_SHARE = 0.01  # of the coordinates move at each l1 step (the 99th percentile of Tramèr and Boneh 2019)
SHRINK_AT = 0.9  # fraction left at which copying the rest costs less than carrying the fooled along


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al. 2018, arXiv 1706.06083).

    Repeats x' <- clip(project(x' + step_size · d(∇loss))) with d the unit step of steepest ascent in the
    threat's norm: the gradient's sign (linf), the gradient over its length (l2), or equal steps along the
    largest hundredth of the coordinates that can still move (l1; Tramèr and Boneh 2019, arXiv 1904.13000).
    The visited point of lowest margin f_y - max_{j != y} f_j is kept, the clean one included. Success is a
    lower bound on vulnerability; examples misclassified clean, or with failing outputs, are left alone.

    Args:
        threat: the ball and the bounds, in input units.
        steps: gradient steps per restart.
        step_size: in input units, in the threat's norm; 2.5 · epsilon / steps when None.
        loss: "ce" or "margin" (`smoothness.attacks.losses`).
        restarts: runs from independent random starts; the best point over all is kept.
        random_start: start at a uniform random point of the ball instead of the clean input.
        targeted: y is the class to reach, and success is its being predicted; what is predicted so from the
            start counts as "clean_error" at distance 0.
        seed: of the random starts; drawn for all examples, so that the batch size does not matter.
        drop_fooled: an example is settled at its first fooling point. False: all examples run all the steps
            and end at their lowest margin. True: the batch shrinks at once; "auto": when it pays. Both
            give the same points, up to rounding.
        surrogate: shape of the activations' backward pass (`surrogate_gradient`); the true one when None.
        surrogate_width: of the surrogate's kernel, in units of the pre-activation.
        batch_size: examples at once; all when None. Halved, with a warning, when memory runs out.

    Raises:
        ValueError: at construction for settings out of range or epsilon None; when called for empty, NaN or
            out-of-bounds inputs, labels out of range, outputs that are not (n, classes), or a surrogate on
            a model without activation modules.
        TypeError: integer or half-precision inputs, labels that are not integers.
        RuntimeError: the points found leave the ball or the bounds by more than 1e-6 (a bug).

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> PGD(ThreatModel("linf", 0.1))(model, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    steps: int = 40
    step_size: float | None = None
    loss: Literal["ce", "margin"] = "ce"
    restarts: int = 1
    random_start: bool = True
    targeted: bool = False
    seed: int = 0
    drop_fooled: bool | Literal["auto"] = "auto"
    surrogate: str | None = None
    surrogate_width: float = 0.25
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        check_choice("loss", self.loss, LOSSES)
        check_count("seed", self.seed, minimum=0)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts={self.restarts} would repeat the same run; use random_start=True")
        if self.drop_fooled not in (True, False, "auto"):
            raise ValueError(f"drop_fooled must be True, False or 'auto', got {self.drop_fooled!r}")
        if self.surrogate is not None:
            check_choice("surrogate shape", self.surrogate, SHAPES)
        check_positive("surrogate_width", self.surrogate_width)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name, such as "pgd-ce" or "pgd-margin-tanh"."""
        return "-".join(["pgd", self.loss, *([self.surrogate] if self.surrogate else [])])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        generator = torch.Generator().manual_seed(self.seed)
        with searching(model, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            with self._backward(model):
                search.look_at_clean(LOSSES[self.loss], keep_gradient=not self.random_start)
                for _ in range(self.restarts):
                    offsets = (
                        random_in_ball(search.inputs, self.threat.norm, search.epsilon, generator)
                        if self.random_start
                        else None
                    )
                    rows = search.targets(dropping=bool(self.drop_fooled))
                    search.in_chunks(rows, partial(self._ascend, search, offsets))
            return search.close(x.device)

    def _backward(self, model: nn.Module) -> AbstractContextManager[object]:
        if self.surrogate is None:
            return nullcontext()
        return surrogate_gradient(model, self.surrogate, width=self.surrogate_width)

    def _ascend(self, search: Search, offsets: Tensor | None, rows: Tensor) -> None:
        """One run: all steps from one start."""
        ascent = LOSSES[self.loss]
        fraction = SHRINK_AT if self.drop_fooled == "auto" else 1.0
        batch = search.batch(rows, offsets)
        scratch = torch.empty_like(batch.point)
        for step in range(self.steps):
            if step == 0 and search.clean_gradient is not None:
                gradient = search.clean_gradient[rows]  # the look at the clean inputs was this pass
            else:
                _, losses, gradient = search.probe(batch.point, batch.column, ascent)
                batch.offer(losses)
            self._move(batch, gradient, search.epsilon, scratch)
            if self.drop_fooled and search.retire_fooled(batch, fraction):
                if len(batch) == 0:
                    return
                scratch = scratch[: len(batch)]
        search.judge(batch)
        search.store(batch)

    def _move(self, batch: Batch, gradient: Tensor, epsilon: float, scratch: Tensor) -> None:
        """Step, back to the ball, back to the box: clipping towards the clean input never leaves the ball."""
        norm, size = self.threat.norm, self.step_size or 2.5 * epsilon / self.steps
        if norm == "linf":
            torch.sign(gradient, out=scratch)  # not in place: the gradient may share memory with the model
            batch.point.add_(scratch, alpha=size)
        else:
            gradient = gradient.nan_to_num(0)
            # To size 1 first: the squares of float32 gradients below 1e-19 or above 1e19 leave its range.
            size_1 = vector_norm(gradient, "linf").clamp_min(torch.finfo(gradient.dtype).tiny)
            gradient = gradient / size_1.view(batch.column_shape)
            direction = steepest_direction(gradient, "l2") if norm == "l2" else _spread(batch, gradient)
            offset = project_to_ball(batch.point - batch.clean + size * direction, norm, epsilon)
            batch.point = offset.add_(batch.clean)
        batch.point.clamp_(batch.lowest, batch.highest)


def _spread(batch: Batch, gradient: Tensor) -> Tensor:
    """Equal steps of total size 1 along the largest coordinates that are not stuck at a limit."""
    stuck = torch.where(gradient > 0, batch.point >= batch.highest, batch.point <= batch.lowest)
    flat = gradient.masked_fill(stuck, 0).flatten(1)
    count = max(1, round(L1_SHARE * flat.shape[1]))
    top = flat.abs().topk(count, dim=1).indices
    signs = flat.gather(1, top).sign()
    moving = signs.abs().sum(dim=1, keepdim=True).clamp_min(1)
    return torch.zeros_like(flat).scatter_(1, top, signs / moving).view_as(gradient)
