"""Segments through inputs: drawing them, and checking those that are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoothness._checks import check_inputs


def random_steps(inputs: Tensor, count: int, radius: float, generator: torch.Generator) -> Tensor:
    """Offsets of length `radius` (l2) in random directions, float64: (n · count, *input_shape), by example.

    One draw an example, in order: an example's directions depend on its place, not on how many follow.

    >>> steps = random_steps(torch.zeros(2, 3), 4, 0.5, torch.Generator().manual_seed(0))
    >>> steps.shape, steps.norm(dim=1).unique()
    (torch.Size([8, 3]), tensor([0.5000], dtype=torch.float64))
    """
    size = inputs[0].numel()
    drawn = [torch.randn(count, size, generator=generator, dtype=torch.float64) for _ in inputs]
    steps = radius * nn.functional.normalize(torch.cat(drawn), eps=0.0)
    return steps.view(-1, *inputs.shape[1:])


def check_segments(starts: Tensor, ends: Tensor) -> None:
    """Raise unless both are finite batches of one shape, and no segment has length 0.

    Raises:
        TypeError, ValueError: the argument and its rows are named.

    >>> check_segments(torch.zeros(1, 2), torch.zeros(1, 2))
    Traceback (most recent call last):
        ...
    ValueError: start and end are equal in rows [0]; drop segments of length 0
    """
    for name, points in (("starts", starts), ("ends", ends)):
        try:
            check_inputs(points)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    if starts.shape != ends.shape:
        raise ValueError(f"starts and ends must have one shape, got {tuple(starts.shape)} and {tuple(ends.shape)}")
    still = (starts == ends).flatten(1).all(dim=1)
    if still.any():
        rows = still.nonzero().flatten().tolist()
        raise ValueError(f"start and end are equal in rows {rows[:5]}; drop segments of length 0")
