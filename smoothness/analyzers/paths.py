"""Segments between data points and along the paths of attacks, for `kinks_on_segments` and its like."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_count, check_inputs, check_labels
from smoothness.attacks.result import Attack

_ROWS = 1024  # of the table of pairs at once


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments, none of length 0, sorted by example and place.

    Attributes:
        starts, ends: (s, *input_shape).
        example: (s,) to which one of the paths, or first data points, each belongs.
        begins: (s,) length (l2) of the path before it; 0 for single segments.
    """

    starts: Tensor
    ends: Tensor
    example: Tensor
    begins: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Tensor:
        """(s,) l2 length of each, in input units: kinks of a segment over its length are their density."""
        lengths: Tensor = torch.linalg.vector_norm((self.ends - self.starts).flatten(1).double(), dim=1)
        return lengths


def segments_along(path: Tensor | Sequence[Tensor]) -> Segments:
    """The steps of a path through each example, one segment a step; steps of length 0 are left out.

    Args:
        path: the points in order: (points, n, *input_shape), or a list of n tensors (points_i, *input_shape) as
            `attack_path` returns. `torch.stack([x, adversarial])` is the straight way to each adversarial example.

    Raises:
        TypeError, ValueError: points that are no finite floats, or no path that moves.

    >>> found = segments_along(torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[3.0, 4.0]], [[3.0, 5.0]]]))
    >>> found.begins, found.lengths
    (tensor([0., 5.], dtype=torch.float64), tensor([5., 1.], dtype=torch.float64))
    """
    paths = list(path.transpose(0, 1)) if isinstance(path, Tensor) and path.ndim > 1 else list(path)
    parts: list[tuple[Tensor, ...]] = []
    for example, points in enumerate(paths):
        check_inputs(points)
        steps = torch.linalg.vector_norm((points[1:] - points[:-1]).flatten(1).double(), dim=1)
        moves = steps > 0
        begins = steps.cumsum(0) - steps
        numbers = torch.full_like(begins, example, dtype=torch.int64)
        parts.append(tuple(part[moves] for part in (points[:-1], points[1:], numbers, begins)))
    if not sum(len(part[0]) for part in parts):
        raise ValueError("no path moves: all points of each are equal, so that there is no segment")
    starts, ends, numbers, begins = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Segments(starts.detach(), ends.detach(), numbers, begins)


def segments_between(
    inputs: Tensor, count: int, *, labels: Tensor | None = None, same_class: bool | None = None, seed: int = 0
) -> Segments:
    """Segments between `count` pairs of different data points, drawn uniformly with replacement.

    Args:
        inputs: (n, *input_shape).
        count: number of segments.
        labels: (n,), where the classes of the pairs matter.
        same_class: True for pairs within a class, False for pairs of two classes, None for any.
        seed: of the draw.

    Raises:
        TypeError, ValueError: bad inputs or settings, no labels for same_class, no such pair.

    >>> x, y = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> segments_between(x, 3, labels=y, same_class=True).lengths
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    check_inputs(inputs)
    check_count("count", count)
    check_count("seed", seed, minimum=0)
    if same_class is not None and labels is None:
        raise ValueError("same_class needs labels")
    points = inputs.detach()
    kind = torch.unique(points.flatten(1), dim=0, return_inverse=True)[1]  # equal points share a number
    y = kind * 0 if labels is None else check_labels(labels, len(points)).to(kind.device)

    def partners(rows: Tensor) -> Tensor:
        """(rows, n) which points each may be paired with."""
        apart: Tensor = kind[rows, None] != kind
        return apart if same_class is None else apart & ((y[rows, None] == y) == same_class)

    rows = torch.arange(len(points), device=kind.device)
    counts = torch.cat([partners(some).sum(dim=1) for some in torch.split(rows, _ROWS)])
    if not counts.any():
        raise ValueError("there is no pair of different data points of that kind")
    generator = torch.Generator().manual_seed(seed)
    one = counts.double().cpu().multinomial(count, replacement=True, generator=generator).sort().values
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    other = torch.empty_like(one)
    for some in torch.split(torch.arange(count), _ROWS):
        rank = partners(one[some].to(kind.device)).cumsum(dim=1).cpu()  # the partner whose rank is drawn
        other[some] = torch.searchsorted(rank, (share[some, None] * rank[:, -1:]).long() + 1)[:, 0]
    one, other = one.to(kind.device), other.to(kind.device)
    begins = torch.zeros(count, dtype=torch.float64, device=kind.device)
    return Segments(points[one], points[other], one, begins)


def attack_path(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """The points at which an attack calls the model, in order, without repetitions: the iterates of a gradient attack.

    Each example is attacked by itself, so that its random draws are those of the first one of a batch. The input comes
    first; the point that the attack returns is among them. Calls with several points at once are left out.

    Args:
        attack: any attack.
        model: the model; called with float inputs as the attack does.
        x: (n, *input_shape) inputs.
        y: (n,) labels.

    Returns:
        n tensors (points_i, *input_shape), on the CPU, for `segments_along`; one point where the attack does not move,
        as at an example that is misclassified from the start.

    Raises:
        As the attack.

    >>> from smoothness import PGD, ThreatModel
    >>> model = nn.Linear(2, 2)
    >>> _ = model.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    >>> pgd = PGD(ThreatModel("linf", 0.3), steps=3, step_size=0.1, random_start=False)
    >>> attack_path(pgd, model, torch.tensor([[0.9, 0.1]]), torch.tensor([0]))[0]
    tensor([[0.9000, 0.1000],
            [0.8000, 0.2000],
            [0.7000, 0.3000],
            [0.6000, 0.4000]])
    """
    check_inputs(x)
    labels = check_labels(y, len(x))
    paths = []
    for point, label in zip(torch.split(x.detach(), 1), torch.split(labels, 1), strict=True):
        visited = [point.cpu()]

        def look(_: nn.Module, given: tuple[Any, ...], visited: list[Tensor] = visited) -> None:
            if given and isinstance(given[0], Tensor) and len(given[0]) == 1:
                visited.append(given[0].detach().cpu().clone())

        hook = model.register_forward_pre_hook(look)
        try:
            found = attack(model, point, label)
        finally:
            hook.remove()
        last = found.inputs.detach().cpu()
        if not any(torch.equal(last, point) for point in visited):
            visited.append(last)
        new = [now for before, now in itertools.pairwise(visited) if not torch.equal(before, now)]
        paths.append(torch.cat([visited[0], *new]))
    return paths
