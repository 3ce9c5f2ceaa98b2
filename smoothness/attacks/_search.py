"""What all attacks share: checks, chunks, retiring fooled examples, and the last check of the answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smoothness._checks import check_class_outputs, check_count, check_inputs, check_labels
from smoothness._model_calls import call_model, check_model
from smoothness._norms import vector_norm
from smoothness._state import model_device, probing
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks.losses import Ascent, margin_loss, rival_logits
from smoothness.attacks.result import STATUSES, AttackResult, Passes
from smoothness.threat import ThreatModel

TOLERANCE = 1e-6


def check_threat(threat: ThreatModel) -> float:
    """Return the radius of a threat model that has one."""
    if not isinstance(threat, ThreatModel):
        raise TypeError(f"threat must be a ThreatModel, got {type(threat).__name__}; use ThreatModel('linf', 8 / 255)")
    if threat.epsilon is None:
        raise ValueError(
            f"this attack needs a radius, got epsilon=None; use ThreatModel({threat.norm!r}, epsilon=...)"
        )
    return threat.epsilon


def check_batch_size(batch_size: int | None) -> None:
    """Accept None (all at once) or a positive whole number."""
    if batch_size is not None:
        check_count("batch_size", batch_size)


class MissingGradientError(RuntimeError):
    """A model was asked for a gradient and has none."""


@contextmanager
def searching(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    batch_size: int | None,
    *,
    targeted: bool = False,
) -> Iterator[Search]:
    """Check what came in, put the model in evaluation mode, and hand out the search; all restored after."""
    check_model(model)
    check_inputs(x)
    labels = check_labels(y, len(x))
    threat.check_inside(x)
    # Callers may be inside no_grad or inference_mode; attacks need gradients all the same.
    with torch.inference_mode(False), torch.enable_grad(), probing(model):
        device = model_device(model)
        inputs, labels = x.detach().clone().to(device), labels.clone().to(device)
        yield Search(model, inputs, labels, threat, batch_size, targeted=targeted)


class Search:
    """State of one attack on one set of inputs: the best point of each example, and the passes spent.

    Every loss is positive exactly when the attack has succeeded: max_{j != y} f_j - f_y, and its negative
    in a targeted search, where y is the class to reach.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        batch_size: int | None,
        *,
        targeted: bool = False,
    ) -> None:
        self.model, self.inputs, self.labels, self.threat = model, inputs, labels, threat
        self.targeted = targeted
        self.epsilon = math.inf if threat.epsilon is None else threat.epsilon
        self.size = batch_size or len(inputs)
        self.outputs_checked = False
        self.forward = self.backward = 0
        self.best = inputs.clone()
        self.worst = inputs.new_zeros(len(inputs))
        self.spoiled = inputs.new_zeros(len(inputs))
        self.clean_error = torch.zeros_like(labels, dtype=torch.bool)
        self.attacked = torch.zeros_like(self.clean_error)
        self.zero_gradient: Tensor | None = None
        self.clean_gradient: Tensor | None = None
        self.clean_logits: Tensor | None = None

    def run(self, points: Tensor) -> Tensor:
        """Forward pass."""
        outputs = call_model(self.model, points)
        if not self.outputs_checked:
            check_class_outputs(outputs, len(points), self.labels)
            self.outputs_checked = True
        self.forward += len(points)
        return outputs

    def look(self, points: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and losses, without a graph."""
        with torch.no_grad():
            logits = self.run(points)
        return logits, self.losses(logits, column)

    def losses(self, logits: Tensor, column: Tensor) -> Tensor:
        """Margin losses, positive exactly where the attack has succeeded."""
        return self.signed(margin_loss(logits, column.squeeze(1)))

    def probe(self, points: Tensor, column: Tensor, ascent: Ascent) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, losses, and the direction that increases the attack's loss at each point.

        The direction is zero where the graph does not reach the input, or there is none.
        """
        leaf, outputs = self.record(points)
        logits = outputs.detach()
        rivals = rival_logits(logits, column)
        losses = (rivals.amax(dim=1, keepdim=True) - logits.gather(1, column)).squeeze(1)
        return logits, self.signed(losses), self.pull_back(leaf, outputs, self.signed(ascent(rivals, column)))

    def record(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Forward pass with a graph: the leaf that holds the points, and the outputs."""
        leaf = points.detach().requires_grad_()
        with told_of_missing_gradients():
            return leaf, self.run(leaf)

    def pull_back(self, leaf: Tensor, outputs: Tensor, ascent: Tensor, *, keep_graph: bool = False) -> Tensor:
        """Gradient of (outputs · ascent) at the leaf; zero where the graph does not reach it."""
        if outputs.requires_grad:
            with told_of_missing_gradients():
                (gradient,) = torch.autograd.grad(outputs, leaf, ascent, allow_unused=True, retain_graph=keep_graph)
            if gradient is not None:
                self.backward += len(leaf)
                return gradient
        return torch.zeros_like(leaf, requires_grad=False)

    def signed(self, values: Tensor) -> Tensor:
        """Values of the untargeted attack as they are, negated when y is the class to reach."""
        return values.neg() if self.targeted else values

    def succeeds(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Whether the prediction is what the attack wants; False where an output is not finite."""
        return ((logits.argmax(dim=1) == labels) == self.targeted) & logits.isfinite().all(dim=1)

    def look_at_clean(
        self, ascent: Ascent | None = None, keep_gradient: bool = False, keep_logits: bool = False
    ) -> None:
        """Pass over the clean inputs: errors, failures and, given a loss, where its gradient is zero."""
        if ascent is not None:
            self.zero_gradient = torch.ones_like(self.clean_error)
            self.clean_gradient = torch.zeros_like(self.inputs) if keep_gradient else None

        def look(rows: Tensor) -> None:
            points, column = self.inputs.index_select(0, rows), self.labels[rows].unsqueeze(1)
            if ascent is None or self.zero_gradient is None:
                logits, losses = self.look(points, column)
            else:
                logits, losses, gradient = self.probe(points, column, ascent)
                self.zero_gradient[rows] = vector_norm(gradient, "linf") == 0
                if self.clean_gradient is not None:
                    self.clean_gradient[rows] = gradient
            if keep_logits:
                if self.clean_logits is None:
                    self.clean_logits = logits.new_zeros(len(self.inputs), logits.shape[1])
                self.clean_logits[rows] = logits
            finite = logits.isfinite().all(dim=1)
            self.worst[rows] = losses.to(self.worst.dtype)
            self.spoiled[rows] = torch.where(finite, 0.0, torch.nan).to(self.spoiled.dtype)
            self.clean_error[rows] = self.succeeds(logits, column.squeeze(1))
            self.attacked[rows] = finite & ~self.clean_error[rows]

        self.in_chunks(torch.arange(len(self.inputs), device=self.inputs.device), look)

    def logits_of(self, rows: Tensor) -> Tensor:
        """Clean logits, which the look at the clean inputs was asked to keep."""
        if self.clean_logits is None:
            raise RuntimeError("no clean logits: call look_at_clean(..., keep_logits=True) first")
        return self.clean_logits[rows]

    def in_chunks(self, rows: Tensor, work: Callable[[Tensor], None]) -> None:
        """Call `work` on chunks of rows, halving them when memory runs out."""
        while len(rows):
            chunk = rows[: self.size]
            try:
                work(chunk)
            except RuntimeError as error:
                if len(chunk) == 1 or not _out_of_memory(error):
                    raise
                self.size = len(chunk) // 2
            else:
                rows = rows[len(chunk) :]
                continue
            warnings.warn(
                f"out of memory with {len(chunk)} examples at once, now trying {self.size}; "
                f"pass batch_size={self.size} to start there",
                stacklevel=2,
            )

    def targets(self, *, dropping: bool) -> Tensor:
        """Rows worth attacking: correct at the clean input and, when dropping, not fooled so far."""
        return (self.attacked & (self.worst <= 0) if dropping else self.attacked).nonzero().flatten()

    def batch(self, rows: Tensor, offsets: Tensor | None) -> Batch:
        """The examples at `rows`, standing at their clean inputs plus offsets, clipped to the limits."""
        clean = self.inputs.index_select(0, rows)
        lowest, highest = self.threat.limits(clean)
        point = clean.clone() if offsets is None else offsets.index_select(0, rows).add_(clean)
        return Batch(
            rows,
            self.labels[rows].unsqueeze(1),
            clean,
            lowest,
            highest,
            point.clamp_(lowest, highest),
            self.best.index_select(0, rows),
            self.worst[rows],
            self.spoiled[rows],
        )

    def judge(self, batch: Batch) -> None:
        """Offer the batch's points without asking for a gradient."""
        batch.offer(self.look(batch.point, batch.column)[1])

    def store(self, batch: Batch) -> None:
        """Write the best points of a batch back."""
        self.best[batch.rows] = batch.best
        self.worst[batch.rows] = batch.worst
        self.spoiled[batch.rows] = batch.spoiled

    def retire_fooled(self, batch: Batch, fraction: float, *followers: Rows) -> bool:
        """Freeze fooled examples at their first fooling point; shrink the batch once few enough are left.

        Freezing at once and shrinking later give the same answer: results do not depend on `fraction`.
        `followers` hold tensors of the same rows and shrink with the batch.
        """
        fooled = batch.worst > 0
        count = int(fooled.sum())
        if count == 0:
            return False
        batch.worst.masked_fill_(fooled, torch.inf)
        if len(batch) - count > fraction * len(batch):
            return False
        self.store(batch)
        left = (~fooled).nonzero().flatten()
        for rows in (batch, *followers):
            rows.keep(left)
        return True

    def close(self, home: torch.device) -> AttackResult:
        """Check success, ball and bounds on what is returned, and give the result."""
        distance = self._checked_distance(self._pull_inside())
        failed, fooled = ~self.spoiled.isfinite(), torch.zeros_like(self.clean_error)

        def check(rows: Tensor) -> None:
            with torch.no_grad():
                logits = self.run(self.best[rows])
            fooled[rows] = self.succeeds(logits, self.labels[rows])
            failed[rows] |= ~logits.isfinite().all(dim=1)

        self.in_chunks(self.targets(dropping=False), check)
        failed &= ~fooled
        success = fooled | self.clean_error
        status = torch.where(failed, 3, torch.where(fooled, 1, torch.where(self.clean_error, 0, 2))).tolist()
        return AttackResult(
            inputs=self.best.to(home),
            success=success.to(home),
            distance=distance.double().masked_fill(~success, torch.inf).to(home),
            passes=Passes(self.forward, self.backward),
            status=tuple(STATUSES[code] for code in status),
            zero_gradient=None if self.zero_gradient is None else self.zero_gradient.to(home),
        )

    def _pull_inside(self) -> Tensor:
        """Scale points back that rounding has put outside the ball, towards x; return all distances."""
        length = self._distance()
        rows = (length > self.epsilon + TOLERANCE / 10).nonzero().flatten()
        if len(rows) == 0:
            return length
        clean, points = self.inputs[rows], self.best[rows]
        scale = (self.epsilon / length[rows].double()).view(-1, *[1] * (clean.ndim - 1))
        offset = (points.double() - clean.double()) * scale
        if self.threat.norm == "linf":
            offset = (points.double() - clean.double()).clamp(-self.epsilon, self.epsilon)
        inside = (clean.double() + offset).to(points.dtype)
        outside = (inside.double() - clean.double()).abs() > offset.abs()
        self.best[rows] = torch.where(outside, torch.nextafter(inside, clean), inside)
        return self._distance()

    def _checked_distance(self, distance: Tensor) -> Tensor:
        excess = float(distance.max()) - self.epsilon
        if self.threat.bounds is not None:
            low, high = (
                torch.as_tensor(b, dtype=self.best.dtype, device=self.best.device) for b in self.threat.bounds
            )
            excess = max(excess, float((low - self.best).max()), float((self.best - high).max()))
        if not excess <= TOLERANCE:
            raise RuntimeError(
                f"adversarial inputs leave the ball or the bounds by {excess:.3g}; this is a bug, please report it"
            )
        return distance

    def _distance(self) -> Tensor:
        return vector_norm(self.best - self.inputs, self.threat.norm)


@contextmanager
def told_of_missing_gradients() -> Iterator[None]:
    """Say which attacks apply where a model leaves torch, or has no backward pass."""
    try:
        yield
    except RuntimeError as error:
        signs = ("requires grad", "not implemented", "must implement")
        if isinstance(error, MissingGradientError) or not any(sign in str(error) for sign in signs):
            raise
        raise MissingGradientError(
            f"the model has no gradient ({str(error).splitlines()[0]}); attacks that need none apply: Noise, Square, "
            "EvolutionGradient, DecisionBoundary, Transfer from another model, and Cascade, which leaves out the rest"
        ) from error


def _out_of_memory(error: RuntimeError) -> bool:
    signs = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error).lower() for sign in signs)
