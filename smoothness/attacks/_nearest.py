"""What minimal-norm attacks share: the closest adversarial point so far, and how it is drawn closer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothness._norms import vector_norm
from smoothness.activations.surrogates import surrogate_gradient
from smoothness.attacks._batch import Batch
from smoothness.attacks._crossing import crossing, linear_distance
from smoothness.attacks._search import Search
from smoothness.attacks.losses import rival_logits
from smoothness.threat import ThreatModel

RIVALS = 9  # likeliest other classes whose boundaries are looked at
TOLERANCE = 2e-4  # relative, of the distance to the boundary along a line
SETTLED = 1e-3  # relative gain below which more steps are not worth it
BEYOND = 4e-3  # share by which points are first set past a linearised boundary, to lie across the true one


@dataclass
class Nearest(Batch):
    """A batch whose best point is the closest one that succeeds.

    Attributes:
        distance: of the best point from the clean input; infinite while there is none.
        clean_loss: margin loss of the clean input.
        best_loss: margin loss of the best point.
    """

    distance: Tensor
    clean_loss: Tensor
    best_loss: Tensor

    def note(self, search: Search, logits: Tensor) -> Tensor:
        """Keep the current points that succeed closer by than all before; return the losses."""
        loss = clear_loss(search, logits, self.column).to(self.worst.dtype)
        length = vector_norm(self.point - self.clean, search.threat.norm)
        better = (loss > 0) & (length < self.distance)
        self.best.lerp_(self.point, better.to(self.point.dtype).view(self.column_shape))
        self.distance = torch.where(better, length, self.distance)
        self.best_loss = torch.where(better, loss, self.best_loss)
        torch.fmax(loss, self.worst, out=self.worst)
        self.spoiled.add_(loss, alpha=0)
        return loss


def clear_loss(search: Search, logits: Tensor, column: Tensor) -> Tensor:
    """Margin losses less what rounding may change: points are set so close to the boundary that it matters."""
    return search.losses(logits, column) - rounding(logits)


def rounding(logits: Tensor) -> Tensor:
    """By how much another batch size may change a margin: (m, classes) -> (m,)."""
    return 8 * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)


def without_radius(threat: ThreatModel) -> ThreatModel:
    """The threat model of the search itself, which may pass through points beyond epsilon."""
    if not isinstance(threat, ThreatModel):
        raise TypeError(f"threat must be a ThreatModel, got {type(threat).__name__}; use ThreatModel('l2')")
    return replace(threat, epsilon=None)


def put_back_beyond(search: Search, epsilon: float | None) -> None:
    """Points farther than epsilon are no answer: the clean input is returned instead."""
    if epsilon is not None:
        far = vector_norm(search.best - search.inputs, search.threat.norm) > epsilon
        search.best[far] = search.inputs[far]


def backward_pass(model: nn.Module, surrogate: str | None, width: float) -> AbstractContextManager[object]:
    """The context in which gradients are taken."""
    return nullcontext() if surrogate is None else surrogate_gradient(model, surrogate, width=width)


def nearest_batch(search: Search, rows: Tensor) -> Nearest:
    """The examples at `rows`, standing at their clean inputs."""
    batch = search.batch(rows, None)
    return Nearest(
        **vars(batch),
        distance=torch.full_like(batch.worst, torch.inf),
        clean_loss=batch.worst.clone(),
        best_loss=torch.zeros_like(batch.worst),
    )


def set_aside(search: Search, batch: Nearest) -> None:
    """Draw in and store the examples with a point that succeeds, and drop them from the batch."""
    found = batch.distance.isfinite()
    if bool(found.any()):
        done = replace(batch)
        done.keep(found.nonzero().flatten())
        draw_in(search, done)
        search.store(done)
        batch.keep((~found).nonzero().flatten())


def room(batch: Batch, origin: Tensor) -> tuple[Tensor, Tensor]:
    """The box as offsets from `origin`."""
    return batch.lowest - origin, batch.highest - origin


def step_to_nearest_boundary(search: Search, batch: Nearest, origin: Tensor) -> Tensor:
    """Offset from `origin` to the nearest of the linearised boundaries of the likeliest rivals.

    Notes the batch's points, which must be the origin, on the way. Targeted searches have one boundary.
    """
    _, gaps, gradients = nearest_boundaries(search, batch, 1)
    return crossing(gaps[0], gradients[0], *room(batch, origin), search.threat.norm)


def nearest_boundaries(search: Search, batch: Nearest, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """The linearised boundaries of the likeliest rivals around the batch's points, each example's nearest first.

    Returns distances, as if there were no bounds, and gaps and gradients, as `crossing` has them: (p, m), (p, m)
    and (p, m, ...) with p at most `places`. Notes the points on the way. Targeted searches have one boundary.
    """
    leaf, outputs = search.record(batch.point)
    logits = outputs.detach()
    batch.note(search, logits)
    rivals = rival_logits(logits, batch.column)
    count = 1 if search.targeted else min(RIVALS, logits.shape[1] - 1)
    lengths, gaps = batch.worst.new_zeros(count, len(batch)), batch.worst.new_zeros(count, len(batch))
    gradients = batch.point.new_zeros(count, *batch.point.shape)
    for rank, rival in enumerate(rivals.topk(count, dim=1).indices.unsqueeze(2).unbind(dim=1)):
        ascent = torch.zeros_like(logits).scatter_(1, rival, 1).scatter_(1, batch.column, -1)
        gradients[rank] = search.pull_back(leaf, outputs, search.signed(ascent), keep_graph=rank < count - 1)
        gap = -search.signed((logits.gather(1, rival) - logits.gather(1, batch.column)).squeeze(1))
        gaps[rank] = gap + 2 * rounding(logits)
        lengths[rank] = linear_distance(gaps[rank].abs(), gradients[rank], search.threat.norm)
    order = lengths.argsort(dim=0, stable=True)[:places]
    rows = torch.arange(len(batch), device=order.device)
    return lengths.gather(0, order), gaps.gather(0, order), gradients[order, rows]


def polish(search: Search, batch: Nearest, steps: int) -> Tensor:
    """From the best points: the clean input's projection onto the boundary linearised there, over and over.

    Exact after one step where the network is linear, and quickly convergent where it is smooth (the step of
    Croce and Hein 2020, arXiv 1907.02044). A point that does not improve on the best leads half as far next time.
    Returns which examples have settled: the second half of the steps brought them less than SETTLED closer.
    """
    norm = search.threat.norm
    boldness = torch.ones_like(batch.worst)
    batch.point = batch.best.clone()
    halfway = batch.distance
    for step in range(steps):
        before = batch.distance
        if step == steps // 2:
            halfway = before
        leaf, outputs = search.record(batch.point)
        logits = outputs.detach()
        loss = batch.note(search, logits)
        rivals = rival_logits(logits, batch.column)
        leader = rivals.argmax(dim=1, keepdim=True)
        ascent = torch.zeros_like(logits).scatter_(1, leader, 1).scatter_(1, batch.column, -1)
        gradient = search.pull_back(leaf, outputs, search.signed(ascent)).nan_to_num(0)
        offset = batch.point - batch.clean
        gap = (gradient * offset).flatten(1).sum(dim=1) - loss  # of the linearised boundary from the clean input
        aim = crossing(gap * (1 + BEYOND / 2**step), gradient, *room(batch, batch.clean), norm)
        if step > 0:
            boldness = torch.where((batch.distance < before) | (loss <= 0), boldness, boldness / 2)
        weight = boldness.view(batch.column_shape)
        start = batch.best - batch.clean
        usable = (aim != 0).flatten(1).any(dim=1).view(batch.column_shape)
        aim = torch.where(usable, start.lerp(aim, weight), start)
        batch.point = aim.add_(batch.clean).clamp_(batch.lowest, batch.highest)
    batch.note(search, search.look(batch.point, batch.column)[0])
    return batch.distance > (1 - SETTLED) * halfway  # never where no point was found


def draw_in(search: Search, batch: Nearest, passes: int = 8) -> None:
    """Draw the best points towards the clean input, along the line, until just before the prediction returns.

    False position and bisection in turn; forward passes only.
    """
    found = batch.distance.isfinite().nonzero().flatten()
    rest = replace(batch)
    rest.keep(found)
    if len(found) == 0:
        return
    offset = rest.best - rest.clean
    near, far = torch.zeros_like(rest.worst), torch.ones_like(rest.worst)
    below, above = rest.clean_loss.clone(), rest.best_loss.clone()
    for turn in range(passes):
        width = far - near
        guess = near + width * below / (below - above) + TOLERANCE * far / 2
        at = torch.where((guess < far) & (guess > near), guess, far - width / 2) if turn % 2 == 0 else far - width / 2
        at = torch.where(width > TOLERANCE * far, at, far)
        rest.point = (rest.clean + at.view(rest.column_shape) * offset).clamp_(rest.lowest, rest.highest)
        loss = rest.note(search, search.look(rest.point, rest.column)[0])
        across = loss > 0
        far, above = torch.where(across, at, far), torch.where(across, loss, above)
        near, below = torch.where(across, near, at), torch.where(across, below, loss)
        if bool((far - near <= TOLERANCE * far).all()):
            break
    batch.best[found], batch.distance[found] = rest.best, rest.distance
    batch.best_loss[found], batch.worst[found], batch.spoiled[found] = rest.best_loss, rest.worst, rest.spoiled
