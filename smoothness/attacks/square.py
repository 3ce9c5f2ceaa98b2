"""Random search with square windows: scores alone, no gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness._norms import project_to_ball
from smoothness.attacks._batch import Batch, Rows
from smoothness.attacks._search import Search, check_batch_size, check_threat, searching
from smoothness.attacks._windows import Canvas
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

# Shares of 10,000 queries after which the windows' area halves (Andriushchenko et al. 2020, section 4.1).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SHRINK_AT = 0.9


@dataclass(frozen=True)
class Square:
    """Square attack: random search for the highest margin loss (Andriushchenko et al. 2020, arXiv 1912.00049).

    Each query changes the perturbation in one square window that shrinks as queries are spent, and keeps the
    change when max_{j != y} f_j - f_y does not fall. linf: the window moves to ±epsilon, one sign per channel, from
    vertical stripes at the start. l2: the window gets a bump and the mass that another window gives up. Inputs
    that are no images of shape (n, channels, height, width) have no neighbourhoods: a window is then a random
    set of features, each with a sign of its own. Equal losses are accepted, so that the search drifts along the
    plateaus of hard-step networks. Nothing depends on the logits' scale. Success is a lower bound on
    vulnerability.

    Args:
        threat: the ball and the bounds, in input units; linf or l2.
        queries: forward passes an example and restart, at most.
        p_init: share of the image that the first windows cover.
        restarts: runs with independent draws; fooled examples do not take part in later ones.
        targeted: y is the class to reach, and success is its being predicted.
        seed: of the draws. Windows are the same for all examples of a query, signs are not; neither depends
            on the batch size.
        batch_size: examples at once; all when None.

    Raises:
        ValueError: as `PGD`; or norm l1.
        TypeError, RuntimeError: as `PGD`.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
    >>> x = torch.tensor([[0.6, 0.5], [0.9, 0.1]])
    >>> Square(ThreatModel("linf", 0.1), queries=100)(model, x, torch.tensor([0, 0])).status
    ('fooled', 'survived')
    """

    threat: ThreatModel
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    targeted: bool = False
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_threat(self.threat)
        if self.threat.norm == "l1":
            raise ValueError("Square takes norm 'linf' or 'l2', got 'l1'; use EvolutionGradient or DecisionBoundary")
        check_count("queries", self.queries)
        if isinstance(self.p_init, bool) or not isinstance(self.p_init, (int, float)) or not 0 < self.p_init <= 1:
            raise ValueError(f"p_init must lie in (0, 1], got {self.p_init!r}")
        check_count("restarts", self.restarts)
        check_count("seed", self.seed, minimum=0)
        check_batch_size(self.batch_size)

    @property
    def label(self) -> str:
        """Readable name: "square"."""
        return "square"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
        """Attack x: (n, ...) with labels y: (n,)."""
        with searching(model, x, y, self.threat, self.batch_size, targeted=self.targeted) as search:
            search.look_at_clean()
            for restart in range(self.restarts):
                search.in_chunks(search.targets(dropping=True), partial(self._climb, search, restart))
            return search.close(x.device)

    def _climb(self, search: Search, restart: int, rows: Tensor) -> None:
        """All the queries of one restart, with the same draws whatever rows are asked for."""
        draws = torch.Generator().manual_seed(self.seed + 2**32 * restart)
        canvas = Canvas(search.inputs, draws)
        change = _flip if self.threat.norm == "linf" else _reshape
        batch = search.batch(rows, canvas.stripes(self.threat.norm, search.epsilon))
        if self.threat.norm == "l2":
            offset = project_to_ball(batch.point - batch.clean, "l2", search.epsilon)
            batch.point = offset.add_(batch.clean).clamp_(batch.lowest, batch.highest)
        standing = _Standing(self._try(search, batch, batch.point))
        batch.offer(standing.loss)
        for query in range(1, self.queries):
            if search.retire_fooled(batch, _SHRINK_AT, standing) and len(batch) == 0:
                return
            candidate = change(canvas, batch, search.epsilon, self._share(query))
            loss = self._try(search, batch, candidate)
            better = (loss >= standing.loss).to(candidate.dtype)
            batch.point.lerp_(candidate, better.view(batch.column_shape))
            torch.fmax(loss, standing.loss, out=standing.loss)
            batch.offer(standing.loss)
        search.store(batch)

    def _try(self, search: Search, batch: Batch, points: Tensor) -> Tensor:
        loss = search.look(points, batch.column)[1].to(batch.worst.dtype)
        batch.spoiled.add_(loss, alpha=0)  # NaN once a loss was not finite
        return loss

    def _share(self, query: int) -> float:
        done = int(query / self.queries * 10_000)
        return self.p_init / 2.0 ** sum(done > after for after in _HALVINGS)


@dataclass
class _Standing(Rows):
    """Loss at the point of each example."""

    loss: Tensor


Change = Callable[[Canvas, Batch, float, float], Tensor]


def _flip(canvas: Canvas, batch: Batch, epsilon: float, share: float) -> Tensor:
    """The points with one window at ±epsilon."""
    window, signs = canvas.window(share), canvas.signs()[batch.rows]
    candidate = canvas.view(batch.point).clone()
    clean = canvas.view(batch.clean)[..., window]
    candidate[..., window] = clean + epsilon * signs[..., : len(window)]
    return candidate.view_as(batch.point).clamp_(batch.lowest, batch.highest)


def _reshape(canvas: Canvas, batch: Batch, epsilon: float, share: float) -> Tensor:
    """The points with the mass of one window, and what the ball still has to give, put into another."""
    taker, giver, bump = canvas.two_windows(share)
    signs = canvas.signs()[batch.rows][..., : len(taker)]
    offset = canvas.view(batch.point - batch.clean)
    there = offset[..., taker]
    both = offset[..., torch.unique(torch.cat([taker, giver]))].square().sum(dim=-1, keepdim=True)
    left = (epsilon**2 - offset.square().sum(dim=(1, 2), keepdim=True)).clamp_min(0) / offset.shape[1]
    fresh = bump * signs + there / _length(there, -1)
    offset[..., giver] = 0
    offset[..., taker] = fresh / _length(fresh, -1) * (left + both).sqrt()
    offset = offset * (epsilon / _length(offset, (1, 2)))
    return offset.view_as(batch.point).add_(batch.clean).clamp_(batch.lowest, batch.highest)


def _length(values: Tensor, dim: int | tuple[int, int]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return length.clamp_min(1e-12)
