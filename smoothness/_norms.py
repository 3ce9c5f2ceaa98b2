"""Norms of vectors and operators, projections and draws, for the three norms of a threat model."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[str, ...] = get_args(Norm)
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
_ORDER: dict[Norm, float] = {"l2": 2.0, "l1": 1.0}


def vector_norm(values: Tensor, norm: Norm) -> Tensor:
    """Norm of each example: (n, ...) -> (n,).

    >>> vector_norm(torch.tensor([[3.0, -4.0]]), "l1")
    tensor([7.])
    """
    if norm == "linf":
        return values.flatten(1).abs().amax(dim=1)  # ten times faster than vector_norm on the CPU
    size: Tensor = torch.linalg.vector_norm(values.flatten(1), ord=_ORDER[norm], dim=1)
    return size


def operator_norm(matrices: Tensor, norm: Norm) -> Tensor:
    """Induced p -> p norm of each matrix: (n, outputs, inputs) -> (n,).

    l2: largest singular value; linf: largest absolute row sum; l1: largest absolute column sum.

    >>> operator_norm(torch.tensor([[[1.0, -2.0], [0.0, 3.0]]]), "linf")
    tensor([3.])
    """
    if norm == "l2":
        finite = matrices.isfinite().flatten(1).all(dim=1)  # the SVD refuses NaN: answer NaN instead
        size: Tensor = torch.linalg.matrix_norm(torch.where(finite[:, None, None], matrices, 0), ord=2)
        return torch.where(finite, size, torch.nan)
    return matrices.abs().sum(dim=2 if norm == "linf" else 1).amax(dim=1)


def project_to_ball(offsets: Tensor, norm: Norm, radius: float | Tensor) -> Tensor:
    """Nearest point (Euclidean) of the ball |offset| <= radius, per example; radii (n, 1) for offsets (n, d).

    The l1 projection thresholds at the value found by sorting (Duchi et al. 2008).

    >>> project_to_ball(torch.tensor([[3.0, 4.0]]), "l2", 1.0)
    tensor([[0.6000, 0.8000]])
    """
    if norm == "linf":
        radius = torch.as_tensor(radius, dtype=offsets.dtype, device=offsets.device)
        return offsets.clamp(-radius, radius)
    flat = offsets.flatten(1)
    if norm == "l2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        return (flat / (length / radius).clamp_min(1)).view_as(offsets)  # points inside stay to the bit
    size = flat.abs()
    descending, _ = size.sort(dim=1, descending=True)
    excess = descending.cumsum(dim=1) - radius
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    kept = (descending * rank > excess).sum(dim=1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, kept - 1) / kept).clamp_min(0)
    return (flat.sign() * (size - threshold).clamp_min(0)).view_as(offsets)


def steepest_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Unit-norm direction that increases a linear function most, per example.

    linf: the gradient's sign; l2: the gradient over its length; l1: its largest coordinate's sign.
    A zero gradient gives the zero direction.

    >>> steepest_direction(torch.tensor([[1.0, -2.0]]), "l1")
    tensor([[ 0., -1.]])
    """
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "l2":
        length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        direction = torch.where(length > 0, flat / torch.where(length > 0, length, 1.0), 0.0)
    else:
        largest = flat.abs().argmax(dim=1, keepdim=True)
        direction = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    return direction.view_as(gradient)


def random_in_ball(like: Tensor, norm: Norm, radius: float, generator: torch.Generator) -> Tensor:
    """Points drawn uniformly from the ball, one per example, shaped as `like`.

    l2: a normal direction times radius · u^(1/d); l1: exponential (Dirichlet) coordinates with
    random signs (Barthe et al. 2005); linf: independent coordinates.

    >>> g = torch.Generator().manual_seed(0)
    >>> bool(vector_norm(random_in_ball(torch.zeros(9, 5), "l1", 0.1, g), "l1").max() <= 0.1 + 1e-6)
    True
    """
    n, d = like.shape[0], like[0].numel()
    if norm == "linf":
        points = torch.rand(n, d, generator=generator, dtype=like.dtype).mul_(2).sub_(1)
    elif norm == "l2":
        points = torch.randn(n, d, generator=generator, dtype=like.dtype)
        points = points / torch.linalg.vector_norm(points, dim=1, keepdim=True)
        points = points * torch.rand(n, 1, generator=generator, dtype=like.dtype) ** (1 / d)
    else:
        sizes = -torch.log1p(-torch.rand(n, d + 1, generator=generator, dtype=like.dtype))
        signs = torch.randint(0, 2, (n, d), generator=generator, dtype=like.dtype) * 2 - 1
        points = signs * sizes[:, :d] / sizes.sum(dim=1, keepdim=True)
    return points.mul_(radius).to(like.device).view_as(like)
