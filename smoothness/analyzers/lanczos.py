"""Extreme eigenvalues of many symmetric matrices at once, from matrix-vector products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_CHECK, _CHECK_EVERY = 8, 4


@dataclass(frozen=True, eq=False)
class Extremes:
    """The eigenvalue of largest magnitude of each matrix, with its certificate.

    Attributes:
        value: (n,) Ritz value, signed; its magnitude is never above that of the true one, up to rounding.
        vector: (n, d) unit Ritz vector.
        residual: (n,) |A v - value · v|: an eigenvalue lies within it.
        error: (n,) min(residual, residual² / gap to the other Ritz values) (Kato-Temple).
        steps: (n,) products taken.
        converged: (n,) error <= tolerance · |value|, or all d steps taken.
    """

    value: Tensor
    vector: Tensor
    residual: Tensor
    error: Tensor
    steps: Tensor
    converged: Tensor


def extreme_eigenvalues(
    product: Callable[[Tensor], Tensor], start: Tensor, *, tolerance: float, max_steps: int
) -> Extremes:
    """Lanczos iterations with full reorthogonalisation, all matrices side by side.

    Each matrix keeps the values of the first check at which it has converged, so that its result does not depend
    on its neighbours.

    Args:
        product: (n, d) -> (n, d), row by row A_i v_i.
        start: (n, d) first vectors, not 0.
        tolerance: relative, of the eigenvalue.
        max_steps: products at most; d are enough in exact arithmetic.

    >>> A = torch.diag(torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64))
    >>> found = extreme_eigenvalues(lambda v: v @ A, torch.ones(1, 3).double(), tolerance=1e-9, max_steps=9)
    >>> found.value
    tensor([-3.0000], dtype=torch.float64)
    """
    count, dimension = start.shape
    limit = min(max_steps, dimension)
    vectors = start.new_zeros(limit + 1, count, dimension)
    vectors[0] = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    projected = start.new_zeros(count, limit + 1, limit + 1)
    best: Extremes | None = None
    for k in range(limit):
        image = product(vectors[k])
        known = vectors[: k + 1]
        for _ in range(2):  # once more: rounding of the first pass
            parts = torch.einsum("knd,nd->nk", known, image)
            image = image - torch.einsum("knd,nk->nd", known, parts)
            projected[:, k, k] += parts[:, k]
        beta = torch.linalg.vector_norm(image, dim=1)
        last = k + 1 == limit
        if last or (k + 1 >= _FIRST_CHECK and (k + 1 - _FIRST_CHECK) % _CHECK_EVERY == 0):
            found = _ritz(projected[:, : k + 1, : k + 1], known, beta, tolerance, complete=k + 1 == dimension)
            best = found if best is None else _keep(best, found)
            if bool(best.converged.all()) or not bool(beta.isfinite().all()):
                break
        projected[:, k, k + 1] = projected[:, k + 1, k] = beta
        # A Krylov space that is exhausted goes on with zeros, which change nothing.
        size = projected.diagonal(dim1=1, dim2=2).abs().amax(dim=1)
        alive = beta > 1e-14 * torch.maximum(size, beta)
        vectors[k + 1] = torch.where(alive[:, None], image / beta.clamp_min(1e-300)[:, None], 0.0)
    assert best is not None
    return best


def _ritz(projected: Tensor, vectors: Tensor, beta: Tensor, tolerance: float, *, complete: bool) -> Extremes:
    finite = projected.isfinite().flatten(1).all(dim=1)
    values, mixtures = torch.linalg.eigh(torch.where(finite[:, None, None], projected, 0.0))
    top = values.abs().argmax(dim=1, keepdim=True)
    value = values.gather(1, top)[:, 0]
    mixture = mixtures.gather(2, top[:, :, None].expand(-1, mixtures.shape[1], 1))[:, :, 0]
    residual = beta * mixture[:, -1].abs()
    gaps = (values - value[:, None]).abs().scatter(1, top, torch.inf)
    error = torch.minimum(residual, residual**2 / gaps.amin(dim=1).clamp_min(1e-300))
    vector = torch.einsum("knd,nk->nd", vectors, mixture)
    value = torch.where(finite, value, torch.nan)
    return Extremes(
        value=value,
        vector=vector,
        residual=residual,
        error=error,
        steps=torch.full_like(top[:, 0], len(vectors)),
        converged=(error <= tolerance * value.abs()) | complete,
    )


def _keep(best: Extremes, found: Extremes) -> Extremes:
    done = best.converged

    def pick(name: str) -> Tensor:
        old, new = getattr(best, name), getattr(found, name)
        return torch.where(done[:, None] if old.ndim > 1 else done, old, new)

    return Extremes(*(pick(name) for name in ("value", "vector", "residual", "error", "steps", "converged")))
