"""Gradients by evolution strategies: scores alone, averaged over a cloud of points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_positive
from smoothness._norms import project_to_ball, random_in_ball, steepest_direction, vector_norm
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks._l1 import project_to_l1_box, sparse_direction
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

# Set on a hard-step digits MLP: steps of a quarter of the ball and a slow average left 47 % robust where PGD's
# usual step, a sixteenth, left 56 %: the estimate is noisy, and the walk has plateaus to cross.
_STEP = 10.0
_MOMENTUM = 0.75
_L1_SHARE = 0.1  # of the coordinates that an l1 step moves
_NUMBERS = 2**22  # held at once in the cloud
_SHRINK_AT = 0.9


@dataclass(frozen=True)
class EvolutionGradient:
    """Projected ascent along gradients estimated from scores by an evolution strategy.

    At each step the margin loss is read at antithetic points x ± sigma u, u standard normal, all inside the ball and
    the bounds, and the direction is Σ w u with w the rank of the loss among them: the natural evolution strategy
    of Salimans et al. 2017 (arXiv 1703.03864), in attacks Ilyas et al. 2018 (arXiv 1804.08598). Ranks, with ties
    shared, make it blind to the logits' scale, and a cloud about as wide as the ball sees past the plateaus of
    hard-step networks, where every derivative is 0. Points of the cloud count as visited: the one of
    highest loss is kept. Success is a lower bound on vulnerability.

    Args:
        threat: the ball and the bounds, in input units.
        steps: steps per restart.
        population: points of the cloud, rounded up to an even number; a step costs one more pass.
        sigma: size of the cloud: of a coordinate (linf), the typical length (l2) or sum (l1) of an offset, in units
            of epsilon.
        restarts: runs, the first from the clean input, the others from random points.
        targeted: y is the class to reach, and success is its being predicted.
        seed: of the draws. The cloud is the same for all examples; it does not depend on the batch size.
        batch_size: examples at once; all when None.

    Raises:
        ValueError, TypeError, RuntimeError: as `PGD`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> EvolutionGradient(ThreatModel("linf", 0.1))(model, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    steps: int = 40
    population: int = 50
    sigma: float = 0.5
    restarts: int = 1
    targeted: bool = False
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_count("steps", self.steps)
        check_count("population", self.population, minimum=2)
        check_positive("sigma", self.sigma)
        check_count("restarts", self.restarts)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "evolution"."""
        return "evolution"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        with searching(model, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            search.look_at_clean()
            for restart in range(self.restarts):
                search.in_chunks(search.targets(dropping=True), partial(self._climb, search, restart))
            return search.close(x.device)

    def _climb(self, search: Search, restart: int, rows: Tensor) -> None:
        """One run, with the same draws whatever rows are asked for."""
        draws = torch.Generator().manual_seed(self.seed + 2**32 * restart)
        norm, epsilon, like = self.threat.norm, search.epsilon, search.inputs[0]
        offsets = random_in_ball(search.inputs, norm, epsilon, draws) if restart else None
        batch = search.batch(rows, offsets)
        walk = _Walk(torch.zeros_like(batch.point))
        features = like.numel()
        width = self.sigma * epsilon / {"linf": 1.0, "l2": features**0.5, "l1": float(features)}[norm]
        for _ in range(self.steps):
            half = torch.randn((self.population + 1) // 2, features, generator=draws, dtype=like.dtype)
            cloud = torch.cat([half, -half]).to(like.device)
            gradient = _rank_gradient(search, batch, cloud, width)
            length = vector_norm(gradient, "l2").clamp_min(torch.finfo(gradient.dtype).tiny).view(batch.column_shape)
            walk.velocity.mul_(_MOMENTUM).add_(gradient / length)
            _move(batch, walk.velocity, self.threat, _STEP / self.steps * epsilon, epsilon)
            search.judge(batch)
            if search.retire_fooled(batch, _SHRINK_AT, walk) and len(batch) == 0:
                return
        search.store(batch)


@dataclass
class _Walk(Rows):
    velocity: Tensor


def _rank_gradient(search: Search, batch: Batch, cloud: Tensor, width: float) -> Tensor:
    """Σ w u over the cloud, w how many of its points each beats; the best point of the cloud is offered."""
    gradient = torch.zeros_like(batch.point)
    size = max(1, _NUMBERS // cloud.numel())
    for start in range(0, len(batch), size):
        part = slice(start, start + size)
        clean = batch.clean[part].unsqueeze(1)
        offset = (batch.point[part] - batch.clean[part]).unsqueeze(1) + width * cloud.view(-1, *clean.shape[2:])
        flat = offset.flatten(0, 1)
        if search.threat.norm != "linf":
            flat = project_to_ball(flat, search.threat.norm, search.epsilon)
        points = clean + flat.view_as(offset)
        points.clamp_(batch.lowest[part].unsqueeze(1), batch.highest[part].unsqueeze(1))
        column = batch.column[part].repeat_interleave(len(cloud), dim=0)
        loss = search.look(points.flatten(0, 1), column)[1].view(-1, len(cloud)).to(batch.worst.dtype)
        rank = (loss.unsqueeze(2) > loss.unsqueeze(1)).sum(dim=2) - (loss.unsqueeze(2) < loss.unsqueeze(1)).sum(dim=2)
        gradient[part] = (rank.to(cloud.dtype) @ cloud).view_as(gradient[part])
        _offer_best(batch, part, points, loss)
    return gradient


def _offer_best(batch: Batch, part: slice, points: Tensor, loss: Tensor) -> None:
    highest, place = loss.nan_to_num(nan=-torch.inf).max(dim=1)
    better = highest > batch.worst[part]
    batch.best[part][better] = points[torch.arange(len(points), device=points.device), place][better]
    batch.worst[part] = torch.fmax(highest, batch.worst[part])
    batch.spoiled[part] += 0 * loss.sum(dim=1)  # NaN once a loss was not finite


def _move(batch: Batch, direction: Tensor, threat: ThreatModel, size: float, epsilon: float) -> None:
    """A steepest step of the given size, back to the ball and the box."""
    if threat.norm == "linf":
        batch.point.add_(direction.sign(), alpha=size)
    elif threat.norm == "l2":
        offset = batch.point - batch.clean + size * steepest_direction(direction, "l2")
        batch.point = project_to_ball(offset, "l2", epsilon).add_(batch.clean)
    else:
        stuck = torch.where(direction > 0, batch.point >= batch.highest, batch.point <= batch.lowest)
        count = torch.full_like(batch.rows, max(1, round(_L1_SHARE * direction[0].numel())))
        offset = batch.point - batch.clean + size * sparse_direction(direction.masked_fill(stuck, 0), count)
        lowest, highest = batch.lowest - batch.clean, batch.highest - batch.clean
        batch.point = project_to_l1_box(offset, lowest, highest, epsilon).add_(batch.clean)
    batch.point.clamp_(batch.lowest, batch.highest)
