"""Walking along the decision boundary: labels alone, no scores and no gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from smoothness._checks import check_choice, check_count, check_inputs
from smoothness._model_calls import check_model
from smoothness.attacks._facets import walk_facets, worth_measuring
from smoothness.attacks._hopping import hop, hop_ahead
from smoothness.attacks._labels import LabelModel
from smoothness.attacks._reverting import revert, revert_on
from smoothness.attacks._search import Search, check_batch_size, searching
from smoothness.attacks._sharpening import sharpen
from smoothness.attacks._spanned import Known
from smoothness.attacks._starting import queue_of
from smoothness.attacks._walk import Walk, Walkers, gathered, part_of
from smoothness.attacks.result import AttackResult
from smoothness.threat import ThreatModel

Method = Literal["any", "hop"]


@dataclass(frozen=True)
class DecisionBoundary:
    """Walks along the decision boundary towards the input, of which labels alone are read.

    From misclassified starts, drawn in to the boundary, what serves an example best by measure:

    - features put back to the input's values in blocks where the label stays, and drawn in one by one where it does
      not: ends in the corners of boxes, as of trees; where that pays, after some of HopSkipJump's turns the features
      of the input are tried by themselves, and more starts follow. As of many trees;
    - the boundary's normal, coordinate by coordinate: a step along one, and so far back towards the input that the
      label tells whether its slope is above or below the middle of what it may be; neighbouring pixels tell of one
      another. The input is projected onto the piece measured, another one is measured where that leads, and other
      starts follow. Exact for hyperplanes in the end; takes 4 queries a feature, and 2,000, to be tried;
    - with 32 starts or more, the normal along the principal ways in which the starts around a boundary point differ
      from their classes' means: 200 queries a piece, for as long as single features agree; the input is then
      projected onto all pieces met since the start. As of nearest neighbours;
    - HopSkipJump (Chen et al. 2020, arXiv 1904.02144) for a few queries first, and for all the rest where it is not
      beaten: a normal from the labels of a cloud of points, a step along it, and back to the boundary by bisection.
      Between its turns, features that the label does not need are put back.

    No masking of scores or gradients touches it. With an epsilon an example is settled once inside the ball; with
    epsilon=None the nearest point found is returned: an upper bound on the distance to the boundary.

    The model may return (n,) integer labels or (n, classes) scores, of which only the largest counts.

    Args:
        threat: the ball (epsilon=None: any distance) and the bounds, in input units; linf, l2 or l1.
        queries: forward passes an example, about.
        starts: (k, ...) inputs, such as examples of all classes: the nearest misclassified ones of each class are the
            starts, and the classes' means (their labels, asked once for all x, are not counted); random points
            (uniform in the bounds, or normal around x where there are none) otherwise, and where none of them is
            misclassified.
        targeted: y is the class to reach, and success is its being predicted; then give starts of that class.
        method: "any", or "hop" for HopSkipJump from the nearest start alone: quicker, and no worse where the
            boundary has no flat pieces as large as the distance to it, as of step networks.
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
    method: Method = "any"
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f"threat must be a ThreatModel, got {type(self.threat).__name__}")
        check_count("queries", self.queries)
        if self.starts is not None:
            check_inputs(self.starts)
        check_choice("method", self.method, get_args(Method))
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
        draws = [torch.Generator().manual_seed(self.seed + part) for part in range(8)]
        batch = search.batch(rows, None)
        group = Walkers(search, batch, Walk.beginning(search, batch), self.queries)
        starts = None if self.starts is None else self.starts.to(search.inputs)
        few = 1 if self.method == "hop" or not worth_measuring(group) else None
        queue = queue_of(group, starts, draws[0], few)
        points, there = queue.next()
        group.take(points, there)
        group.leave(~there, queue).finish()
        if self.method == "hop":
            hop(group, draws[3])
            return
        first = group.at
        pays = revert(group, draws[1])
        group.take(first, pays)  # a corner has no normal
        theirs, boxes = part_of(queue, pays.nonzero().flatten()), group.leave(pays, queue)
        if len(boxes):
            hop_ahead(boxes, draws[1], reverting=True)
        _hop_on(revert_on(boxes, theirs, draws[1]), draws[3])
        first = first[~pays]
        turns, left = 0, [group]
        if worth_measuring(group):
            known = Known.of(starts, search)
            if known is not None:
                served, theirs = sharpen(group, queue, first, known, draws[4])
                _hop_on(walk_facets(served, theirs, draws[5], known), draws[6])
        if worth_measuring(group):
            turns, idle = hop_ahead(group, draws[7])
            left.append(group.leave(idle, queue))  # as of many trees: no normal is worth measuring
            left += walk_facets(group, queue, draws[2])
        _hop_on(left, draws[7], turns)


def _hop_on(parts: list[Walkers], draws: torch.Generator, turns: int = 0) -> None:
    rest = gathered(parts)
    if rest is not None:
        hop(rest, draws, turns, reverting=True)
