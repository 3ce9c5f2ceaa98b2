"""Walking along the decision boundary: labels alone, no scores and no gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs
from smoothness._model_calls import check_model
from smoothness._norms import Norm, steepest_direction, vector_norm
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks._labels import LabelModel
from smoothness.attacks._search import Search, check_batch_size, searching
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

_DRAWS = 100  # random starts at most, and points of the first cloud (Chen et al. 2020, section 4.1)
_MOST = 2000  # points of a cloud
# The cloud's radius: this over √features, in distances from the input to the boundary. The paper's 1/features is too
# small to see past the cells of step networks (median linf distance 0.162 on a digits MLP; 0.087 with this), and no
# better for relu.
_WIDTH = 4.0
_WIDEST = 0.5
_HALVINGS = 12  # of a search along a line
_STEPS = 8  # sizes tried for a step
_STARTS = 1024  # looked at together
_NUMBERS = 2**22  # held at once in the cloud
_SHRINK_AT = 0.9


@dataclass(frozen=True)
class DecisionBoundary:
    """HopSkipJump: a walk along the decision boundary towards the input (Chen et al. 2020, arXiv 1904.02144).

    From a misclassified start, by turns: bisect towards x until on the boundary; estimate the boundary's normal from
    the labels of a cloud of points around; step along it, half as far until still misclassified. Only labels
    are read, so it attacks models that give labels alone, and no masking of scores or gradients touches it. With an
    epsilon an example is settled once inside the ball; with epsilon=None the nearest point found is returned: an
    upper bound on the distance to the boundary.

    The model may return (n,) integer labels or (n, classes) scores, of which only the largest counts.

    Args:
        threat: the ball (epsilon=None: any distance) and the bounds, in input units; linf, l2 or l1.
        queries: forward passes an example, about.
        starts: (k, ...) inputs, such as examples of all classes, from which the nearest misclassified one is the
            start; random points (uniform in the bounds, or normal around x where there are none) otherwise, and where
            none of them is misclassified.
        targeted: y is the class to reach, and success is its being predicted; then give starts of that class.
        seed: of the draws, which are the same for all examples and do not depend on the batch size.
        batch_size: examples at once; all when None.

    Raises:
        ValueError: as `PGD`, but epsilon may be None; starts of another shape than the inputs.
        TypeError: outputs that are neither integer labels nor scores; as `PGD`.
        RuntimeError: as `PGD`.

    >>> class Labels(nn.Module):
    ...     def forward(self, x):
    ...         return (x[:, 1] > x[:, 0]).long()
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> DecisionBoundary(ThreatModel("linf", 0.1))(Labels(), x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    queries: int = 5000
    starts: Tensor | None = field(default=None, repr=False, compare=False)
    targeted: bool = False
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f"threat must be a ThreatModel, got {type(self.threat).__name__}")
        check_count("queries", self.queries)
        if self.starts is not None:
            check_inputs(self.starts)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "decision-boundary"."""
        return "decision-boundary"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        labels = LabelModel(check_model(model), y)
        with searching(labels, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            search.look_at_clean()
            if self.starts is not None and self.starts.shape[1:] != x.shape[1:]:
                raise ValueError(
                    f"starts must have the inputs' shape {tuple(x.shape[1:])}, got {tuple(self.starts.shape[1:])}"
                )
            if self.starts is not None:
                self.threat.check_inside(self.starts)
            search.in_chunks(search.targets(dropping=True), partial(self._walk, search))
            return search.close(x.device)

    def _walk(self, search: Search, rows: Tensor) -> None:
        """The whole walk, with the same draws whatever rows are asked for."""
        draws = torch.Generator().manual_seed(self.seed)
        batch = search.batch(rows, None)
        low, high = replace(self.threat, epsilon=None).limits(batch.clean)
        nowhere = torch.full_like(batch.worst, math.inf)
        spent, clean = torch.zeros_like(batch.rows), batch.clean
        walk = _Walk(clean.clone(), nowhere, clean.clone(), nowhere.clone(), spent, low, high)
        self._start(search, batch, walk, draws)
        found = (walk.distance < math.inf).nonzero().flatten()
        search.store(batch)
        for each in (batch, walk):
            each.keep(found)
        norm, turn = self.threat.norm, 0
        active = torch.ones_like(walk.spent, dtype=torch.bool)
        while len(batch) and bool(active.any()):
            if turn:
                cloud = _cloud(norm, min(_MOST, int(_DRAWS * math.sqrt(turn))), search.inputs[0], draws)
                _step(search, batch, walk, _normal(search, batch, walk, cloud), active, norm, turn)
            _bisect(search, batch, walk, active, norm)
            turn += 1
            if self.threat.epsilon is not None:
                _settle(search, batch, walk)
                if search.retire_fooled(batch, _SHRINK_AT, walk) and len(batch) == 0:
                    return
            active = walk.spent < self.queries
        if self.threat.epsilon is None:
            _settle(search, batch, walk)
        search.store(batch)

    def _start(self, search: Search, batch: Batch, walk: _Walk, draws: torch.Generator) -> None:
        """A misclassified point for each example, where one is found."""
        if self.starts is not None:
            _nearest_start(search, batch, walk, self.starts.to(search.inputs), self.threat.norm)
        spread = batch.clean.abs().flatten(1).amax(dim=1).clamp_min(1e-3).view(batch.column_shape)
        for turn in range(min(_DRAWS, self.queries)):
            missing = walk.distance.isinf()
            if not bool(missing.any()):
                return
            shape = search.inputs.shape[1:]
            if self.threat.bounds is None:  # wider and wider around the example
                noise = torch.randn(shape, generator=draws, dtype=search.inputs.dtype).to(batch.point.device)
                points = batch.clean + spread * 2.0 ** (turn / 8 - 3) * noise
            else:
                noise = torch.rand(shape, generator=draws, dtype=search.inputs.dtype).to(batch.point.device)
                points = walk.low + noise * (walk.high - walk.low)
            wrong = _wrong(search, batch, points) & missing
            walk.spent += missing
            walk.take(batch, points, wrong, self.threat.norm)


@dataclass
class _Walk(Rows):
    """Where each example's walk stands.

    Attributes:
        at: a misclassified point; distance: from the input to it, infinite while there is none.
        nearest, least: the nearest point so far, and its distance.
        spent: queries.
        low, high: the bounds.
    """

    at: Tensor
    distance: Tensor
    nearest: Tensor
    least: Tensor
    spent: Tensor
    low: Tensor
    high: Tensor

    def take(self, batch: Batch, points: Tensor, where: Tensor, norm: Norm) -> None:
        """Move to the points there."""
        self.at = torch.where(where.view(batch.column_shape), points, self.at)
        moved = vector_norm(self.at - batch.clean, norm).to(self.distance.dtype)
        self.distance = torch.where(where, moved, self.distance)
        nearer = self.distance < self.least
        self.nearest = torch.where(nearer.view(batch.column_shape), self.at, self.nearest)
        self.least = torch.where(nearer, self.distance, self.least)


def _wrong(search: Search, batch: Batch, points: Tensor, rows: Tensor | None = None) -> Tensor:
    """Whether each point is what the attack wants; failures are noted."""
    column = batch.column if rows is None else batch.column[rows]
    loss = search.look(points, column)[1].to(batch.spoiled.dtype)
    rows = torch.arange(len(batch), device=loss.device) if rows is None else rows
    batch.spoiled.index_add_(0, rows, 0 * loss)  # NaN once a loss was not finite
    return loss > 0


def _nearest_start(search: Search, batch: Batch, walk: _Walk, starts: Tensor, norm: Norm) -> None:
    """The nearest start that is what the attack wants."""
    with torch.no_grad():
        labels = torch.cat([search.run(part).argmax(dim=1) for part in torch.split(starts, _STARTS)])
    fits = (labels == batch.column) if search.targeted else (labels != batch.column)
    points = batch.clean.clone()
    for row in fits.any(dim=1).nonzero().flatten().tolist():
        good = starts[fits[row]]
        points[row] = good[vector_norm(good - batch.clean[row], norm).argmin()]
    walk.take(batch, points, fits.any(dim=1), norm)


def _bisect(search: Search, batch: Batch, walk: _Walk, active: Tensor, norm: Norm) -> None:
    """Nearer to the input along a line, down to the boundary: the scaled-down offset, or for linf the cut one."""
    offset = walk.at - batch.clean
    below, above = torch.zeros_like(walk.distance), torch.ones_like(walk.distance)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        wrong = _wrong(search, batch, batch.clean + _scaled(offset, middle, walk.distance, norm))
        below, above = torch.where(wrong, below, middle), torch.where(wrong, middle, above)
    walk.spent += _HALVINGS * active
    points = batch.clean + _scaled(offset, above, walk.distance, norm)
    walk.take(batch, points, active & (above < 1), norm)


def _scaled(offset: Tensor, share: Tensor, distance: Tensor, norm: Norm) -> Tensor:
    shape = (-1,) + (1,) * (offset.ndim - 1)
    if norm != "linf":
        return offset * share.view(shape)
    limit = (share * distance).view(shape)
    return torch.minimum(torch.maximum(offset, -limit), limit)


def _settle(search: Search, batch: Batch, walk: _Walk) -> None:
    """Offer the points inside the ball."""
    batch.point = walk.nearest.clone()
    batch.offer(torch.where(walk.least <= search.epsilon, 1.0, -1.0).to(batch.worst.dtype))


def _cloud(norm: Norm, count: int, like: Tensor, draws: torch.Generator) -> Tensor:
    """Directions of unit l2 length: (count, features)."""
    cloud = torch.randn(count, like.numel(), generator=draws, dtype=like.dtype)
    if norm == "linf":
        cloud = torch.rand(count, like.numel(), generator=draws, dtype=like.dtype) * 2 - 1
    return cloud.div_(torch.linalg.vector_norm(cloud, dim=1, keepdim=True)).to(like.device)


def _normal(search: Search, batch: Batch, walk: _Walk, cloud: Tensor) -> Tensor:
    """Direction in which points are misclassified: Σ (wrong - share of wrong) · offset over a cloud around each."""
    direction = torch.zeros_like(walk.at)
    features = walk.at[0].numel()
    width = vector_norm(walk.at - batch.clean, "l2") * min(_WIDEST, _WIDTH / math.sqrt(features))
    size = max(1, _NUMBERS // cloud.numel())
    for start in range(0, len(batch), size):
        part = slice(start, start + size)
        at, reach = walk.at[part].unsqueeze(1), width[part].view(-1, *[1] * walk.at.ndim)
        points = at + reach * cloud.view(-1, *walk.at.shape[1:])
        points = torch.minimum(torch.maximum(points, walk.low[part].unsqueeze(1)), walk.high[part].unsqueeze(1))
        rows = torch.arange(len(batch), device=points.device)[part].repeat_interleave(len(cloud))
        wrong = _wrong(search, batch, points.flatten(0, 1), rows).view(-1, len(cloud)).to(points.dtype)
        offsets = (points - at).flatten(2)
        share = wrong.mean(dim=1, keepdim=True)
        weights = torch.where((share > 0) & (share < 1), wrong - share, 2 * wrong - 1)
        direction[part] = (weights.unsqueeze(1) @ offsets).view_as(direction[part])
    walk.spent += len(cloud)
    return direction


def _step(search: Search, batch: Batch, walk: _Walk, direction: Tensor, active: Tensor, norm: Norm, turn: int) -> None:
    """Along the direction, half as far until the point is still misclassified."""
    heading = steepest_direction(direction, "linf" if norm == "linf" else "l2")
    length = walk.distance if norm == "linf" else vector_norm(walk.at - batch.clean, "l2").to(walk.distance.dtype)
    size = length / math.sqrt(turn)
    waiting = active.clone()
    for _ in range(_STEPS):
        points = walk.at + size.view(batch.column_shape).to(walk.at.dtype) * heading
        points = torch.minimum(torch.maximum(points, walk.low), walk.high)
        wrong = _wrong(search, batch, points) & waiting
        walk.spent += waiting
        walk.take(batch, points, wrong, norm)
        waiting = waiting & ~wrong
        if not bool(waiting.any()):
            return
        size = size / 2
