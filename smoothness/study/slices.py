"""The same plane for every network of a study, through the same three examples: what each makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothness.activations.catalogue import activation_facts
from smoothness.activations.recognition import counterpart, is_any_activation
from smoothness.analyzers import linear_regions
from smoothness.analyzers.double import double_model, in_double
from smoothness.measurement import Measurement

_MARGIN = 0.3  # of the longer side of the box around the three examples, on each side
_HELD = 2**22  # numbers at once
_MOST_UNITS = 256  # of networks whose plane is cut exactly: the pieces grow with the square of the units


@dataclass(frozen=True, eq=False)
class Plane:
    """origin + u · first + v · second, with orthonormal directions.

    Attributes:
        origin, first, second: (*input_shape), float64.
        bounds: (lowest u, highest u, lowest v, highest v): a square in input units (l2).
        corners: (3, 2) the three examples in (u, v).
    """

    origin: Tensor
    first: Tensor
    second: Tensor
    bounds: tuple[float, float, float, float]
    corners: Tensor


def plane_through(x: Tensor) -> Plane:
    """The plane through the first three examples, and a square of it around them.

    Raises:
        ValueError: fewer than three examples, or three on one line.

    >>> plane_through(torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 1.0, 1.0]])).corners.tolist()
    [[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    """
    if len(x) < 3:
        raise ValueError(f"a slice goes through three examples, and there are {len(x)}; raise data.examples")
    corners = x[:3].detach().to("cpu", torch.float64)
    sides = (corners[1:] - corners[0]).flatten(1)
    length = torch.linalg.vector_norm(sides[0])
    first = sides[0] / length
    rest = sides[1] - (sides[1] @ first) * first
    height = torch.linalg.vector_norm(rest)
    if not (length > 0 and height > 1e-9 * length):
        raise ValueError("the first three examples lie on one line; a slice needs a plane")
    second = rest / height
    places = torch.stack([torch.zeros(2, dtype=torch.float64), *torch.stack([sides @ first, sides @ second], dim=1)])
    places[1, 1] = 0.0
    low, high = places.amin(dim=0), places.amax(dim=0)
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + _MARGIN)
    u, v = middle.tolist()
    shape = corners.shape[1:]
    return Plane(corners[0], first.view(shape), second.view(shape), (u - half, u + half, v - half, v + half), places)


def slice_of(model: nn.Module, x: Tensor, y: Tensor, resolution: int) -> tuple[Measurement, ...]:
    """What the network does on the plane through the first three examples.

    f is the logit of the first example's label minus that of the second's (of the third's, or the next class, where
    the labels are equal): the same functional for every network of a study. On a grid of cell centres, in float64:

        slice_flat = share of the grid on which f does not change between neighbours, to the bit    "1", "estimate"
        slice_regions, slice_boundary = number of affine pieces of the square and length of the decision boundary in
            it, where `linear_regions` cuts it exactly                                    "1", "input l2", "exact"

    details["slice"] of the first: tensors "slice_classes" (rows, columns) uint8, "slice_slope" (2, rows, columns)
    df/du and df/dv by central differences at the pitch of the grid, "slice_corners" (3, 2) and "slice_bounds" (4).
    """
    plane = plane_through(x)
    scores = _scores(model, plane, resolution + 2)
    labels = y[:3].tolist()
    other = next((label for label in labels[1:] if label != labels[0]), (labels[0] + 1) % scores.shape[-1])
    f = scores[..., labels[0]] - scores[..., other]
    pitch = (plane.bounds[1] - plane.bounds[0]) / resolution
    here, left, right, below, above = f[1:-1, 1:-1], f[1:-1, :-2], f[1:-1, 2:], f[:-2, 1:-1], f[2:, 1:-1]
    slope = torch.stack([right - left, above - below]) / (2 * pitch)
    flat = (left == here) & (right == here) & (below == here) & (above == here)
    tensors = {
        "slice_classes": scores[1:-1, 1:-1].argmax(dim=-1).to(torch.uint8),
        "slice_slope": slope.float(),
        "slice_corners": plane.corners,
        "slice_bounds": torch.tensor(plane.bounds, dtype=torch.float64),
    }
    settings = {"resolution": resolution, "pitch": pitch}
    share = flat.to(torch.float64).mean()
    measured = Measurement("slice_flat", share, "1", "estimate", settings=settings, details={"slice": tensors})
    return measured, *_exact(model, plane)


def _scores(model: nn.Module, plane: Plane, count: int) -> Tensor:
    """(count, count, classes): the square's grid with one point more on each side."""
    double = double_model(model, plane.origin[None])
    origin, first, second = (in_double(double, part) for part in (plane.origin, plane.first, plane.second))
    pitch = (plane.bounds[1] - plane.bounds[0]) / (count - 2)
    steps = pitch * (torch.arange(count, dtype=torch.float64) - 0.5)
    places = torch.cartesian_prod(plane.bounds[2] + steps, plane.bounds[0] + steps).to(origin.device)
    wide = (-1, *[1] * origin.ndim)
    with torch.no_grad():
        scores = torch.cat(
            [
                double(origin + part[:, 1].view(wide) * first + part[:, 0].view(wide) * second).cpu()
                for part in torch.split(places, max(1, _HELD // origin.numel()))
            ]
        )
    return scores.view(count, count, -1)


def _exact(model: nn.Module, plane: Plane) -> tuple[Measurement, ...]:
    """Of sequential MLPs with few units whose activations are piecewise affine; of others, nothing."""
    units = sum(len(m.weight) for m in model.modules() if isinstance(m, nn.Linear))
    if units > _MOST_UNITS or not _few_pieces(model):
        return ()
    try:
        found = linear_regions(model, plane.origin, plane.first, plane.second, bounds=plane.bounds)
    except TypeError:
        return ()
    length = torch.tensor(found.boundary_length, dtype=torch.float64)
    return (
        Measurement("slice_regions", torch.tensor(float(len(found)), dtype=torch.float64), "1", "exact"),
        Measurement("slice_boundary", length, "input l2", "exact"),
    )


def _few_pieces(model: nn.Module) -> bool:
    """Whether no activation has more than four pieces: a staircase of many cuts a plane into millions."""
    for module in model.modules():
        if is_any_activation(module):
            try:
                facts = activation_facts(counterpart(module))
            except TypeError:
                return False
            if facts.affine_pieces is None or len(facts.affine_pieces) > 4:
                return False
    return True
