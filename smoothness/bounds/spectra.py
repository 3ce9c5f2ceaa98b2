"""Eigenvalues of symmetric matrices that may be ill-scaled or not finite: proposals never fail for them."""

from __future__ import annotations

import torch
from torch import Tensor


def eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (..., d) and eigenvectors of (..., d, d); infinite values where entries are not finite.

    Where the algorithm does not converge, the trace stands in for the largest eigenvalue.
    """
    size = matrices.abs().flatten(-2).amax(dim=-1)
    usable = size.isfinite()
    scale = torch.where(usable & (size > 0), size, 1.0)[..., None, None]
    scaled = torch.where(usable[..., None, None], matrices / scale, 0.0)
    scaled = (scaled + scaled.mT) / 2
    try:
        values, vectors = torch.linalg.eigh(scaled)
    except RuntimeError:  # did not converge
        flat = [_one(m) for m in scaled.reshape(-1, *scaled.shape[-2:])]
        values = torch.stack([v for v, _ in flat]).view(scaled.shape[:-1])
        vectors = torch.stack([v for _, v in flat]).view(scaled.shape)
    return torch.where(usable.unsqueeze(-1), values * scale.squeeze(-1), torch.inf), vectors


def largest_eigenvalue(matrices: Tensor) -> Tensor:
    """(...,) of (..., d, d), at least 0; infinite where entries are not finite."""
    size = matrices.abs().flatten(-2).amax(dim=-1)
    usable = size.isfinite()
    scale = torch.where(usable & (size > 0), size, 1.0)
    scaled = torch.where(usable[..., None, None], matrices / scale[..., None, None], 0.0)
    try:
        values = torch.linalg.eigvalsh(scaled)[..., -1]
    except RuntimeError:  # did not converge
        values = eigen(scaled)[0][..., -1]
    return torch.where(usable, values.clamp_min(0) * scale, torch.inf)


def _one(matrix: Tensor) -> tuple[Tensor, Tensor]:
    for jitter in (0.0, 1e-14, 1e-12, 1e-10):
        noise = jitter * torch.linspace(1, 2, len(matrix), dtype=matrix.dtype, device=matrix.device)
        try:
            values, vectors = torch.linalg.eigh(matrix + torch.diag(noise))
        except RuntimeError:  # did not converge
            continue
        return values, vectors
    values = torch.zeros_like(matrix[0])
    values[-1] = matrix.diagonal().clamp_min(0).sum()
    return values, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
