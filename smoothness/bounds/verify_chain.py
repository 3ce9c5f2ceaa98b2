"""Does the multipliers' bound of a chain hold, in spite of float64 rounding? Checked apart from how it was found."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.bounds.spectra import largest_eigenvalue
from smoothness.bounds.verify import norm_at_most_one

_EPS = sys.float_info.epsilon
# Relative slack on all that is computed of the errors themselves.
_UP = 1 + 1e-6
# Lower bounds tried for the smallest eigenvalue of E.
_FLOORS = (0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_RAISES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def chain_constant(
    weights: Sequence[Tensor], centre: Sequence[Tensor], radius: Sequence[Tensor], t: Sequence[Tensor]
) -> float:
    """A proved constant of |o|_2 over |Δx|_2 with o = W_L h, h_k = c_k z_k + r_k u_k, |u_k| <= |z_k|, z_k = W_k h.

    From the last layer to the first, |o|² + Σ t (z² - u²) of the later layers is at most |G h|² for a matrix G that is
    known up to an error ε_j of each column's 2-norm. With B = G R T^(-1/2) and E = I - B Bᵀ > 0 the maximum over u of
    |G (C z + R u)|² - t u² is (G C z)ᵀ E⁻¹ (G C z). A matrix L with |E - L Lᵀ| <= ζ (both computed and compared) and
    L Lᵀ >= δ I > 0 gives E⁻¹ <= (1 + κ) (L Lᵀ)⁻¹, κ = ζ / (δ - ζ); so the next G is (√(1 + κ) L⁻¹ G C W; √t W). What
    solving with L leaves is measured by its residual. Infinite where a step is not proved.

    Args:
        weights: W_1, ..., W_L, float64, taken as exact.
        centre: (width,) of each hidden layer.
        radius: (width,) of each.
        t: positive multipliers (width,) of each hidden layer.
    """
    rows = weights[-1]
    error = torch.zeros_like(rows[0])
    for k in range(len(t) - 1, -1, -1):
        step = _step(rows, error, radius[k], t[k])
        if step is None:
            return math.inf
        rows, error = step.before(weights[k], centre[k], radius[k], t[k])
    return _norm(rows, error)


def unit_constants(
    weights: Sequence[Tensor], centre: Sequence[Tensor], radius: Sequence[Tensor], t: Sequence[Tensor]
) -> Tensor:
    """(m,) proved constants of every output alone, |o_i| over |Δx|_2, with the same multipliers for all of them.

    With Φ = Σ t (z² - u²) of the later layers, o_i <= q_i·h + √s_i √(|G h|² - Φ). Completing the square in
    v = √t u, with q' = q R T^(-1/2) and H = I - Bᵀ B, keeps that form: s_i grows by q' H⁻¹ q'ᵀ
    = |q'|² + (B q'ᵀ)ᵀ E⁻¹ (B q'ᵀ), and q becomes (q C + (B q'ᵀ)ᵀ E⁻¹ G C) W. In the end Φ >= 0, so that
    |o_i| <= |q_i| + √s_i |G|. Arguments and G, B, E as in `chain_constant`.
    """
    q = weights[-1]
    wrong = torch.zeros_like(q)  # of each entry of q
    s = q.new_zeros(len(q))
    rows, error = q[:0], torch.zeros_like(q[0])
    for k in range(len(t) - 1, -1, -1):
        step = _step(rows, error, radius[k], t[k])
        if step is None:
            return torch.full_like(s, math.inf)
        gains, weight, width = radius[k] * t[k].rsqrt(), weights[k], len(t[k])
        scaled = q * gains
        long = torch.linalg.vector_norm(scaled, dim=1) * _UP
        off = torch.linalg.vector_norm((wrong + 8 * _EPS * q.abs()) * gains, dim=1) * _UP
        centred = q * centre[k]
        moved = centred @ weight
        size = wrong * centre[k].abs() + (2.1 * (width + 8) + 4) * _EPS * centred.abs()
        wrong = (size @ weight.abs()) * _UP + 4 * _EPS * moved.abs()
        s = s + (long + off) ** 2
        if len(rows):
            share, x, lost = step.reply(scaled, long, off)
            s = s + share
            passed, wrong_passed, columns = step.passed(weight, centre[k])
            x_size = torch.linalg.vector_norm(x, dim=0).unsqueeze(1) * _UP
            moved = moved + x.T @ passed
            rounding = 2.1 * (len(rows) + 8) * _EPS * x_size * columns
            wrong = wrong + x_size * wrong_passed + lost.unsqueeze(1) * (columns + wrong_passed) + rounding
            wrong = (wrong + 4 * _EPS * moved.abs()) * _UP
        q = moved
        rows, error = step.before(weight, centre[k], radius[k], t[k])
    direct = torch.linalg.vector_norm(q, dim=1) + torch.linalg.vector_norm(wrong, dim=1)
    found = (direct + s.sqrt() * _norm(rows, error)) * _UP
    return torch.where(s > 0, found, direct * _UP).nan_to_num(math.inf)


def _norm(rows: Tensor, error: Tensor) -> float:
    """A proved bound of |G|_2 for G known up to the errors of its columns."""
    if not bool(rows.isfinite().all()):
        return math.inf
    if rows.numel() == 0:
        return 0.0
    spread = torch.linalg.vector_norm(error) * _UP
    small = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
    square = float(largest_eigenvalue(small))
    for share in _RAISES:
        size = math.sqrt(square * (1 + share)) + 1e-140
        scaled = rows / size
        rounding = 2 * _EPS * torch.linalg.matrix_norm(scaled)
        if bool(norm_at_most_one(scaled, (spread / size + rounding) * _UP)):
            return size * (1 + 1e-12)
    return math.inf


@dataclass(frozen=True, eq=False)
class _Step:
    """One layer's B (within `off`, Frobenius; of norm `size` at most), E (within `noise`) and L."""

    rows: Tensor
    error: Tensor
    scaled: Tensor
    size: float
    off: float
    gap: Tensor
    noise: float
    factor: Tensor
    floor: float
    zeta: float

    def passed(self, weight: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G C W, the errors of its columns and their sizes."""
        columns = torch.linalg.vector_norm(self.rows, dim=0)
        passed = (self.rows * centre) @ weight
        wrong = (self.error + 4 * _EPS * columns) * centre.abs()
        wrong = wrong + 2.1 * (len(weight) + 8) * _EPS * columns * centre.abs() * _UP
        return passed, wrong @ weight.abs() * _UP, torch.linalg.vector_norm(passed, dim=0) * _UP

    def before(self, weight: Tensor, centre: Tensor, radius: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """G of the layer before, and the errors of its columns."""
        passed, wrong_passed, columns = self.passed(weight, centre)
        m, delta = len(self.rows), self.floor - self.zeta
        solved = torch.linalg.solve_triangular(self.factor, passed, upper=False) if m else passed
        length = float(torch.linalg.matrix_norm(self.factor)) * _UP if m else 0.0
        residual = torch.linalg.vector_norm(passed - self.factor @ solved, dim=0)
        solved_size = torch.linalg.vector_norm(solved, dim=0)
        residual = residual + 2.1 * (m + 8) * _EPS * (length * solved_size + columns)
        grown = math.sqrt(1 + self.zeta / (delta - self.zeta) * _UP)
        own = radius > 0
        found = torch.cat([grown * solved, t[own].sqrt().unsqueeze(1) * weight[own]])
        wrong = grown * (residual + wrong_passed) / math.sqrt(delta) * _UP
        return found, (wrong + 8 * _EPS * torch.linalg.vector_norm(found, dim=0)) * _UP

    def reply(self, q: Tensor, long: Tensor, off: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds of yᵀ E⁻¹ y for y = B qᵀ, an approximate E⁻¹ y (a column each), and how far it may be off.

        `long` bounds |q_i|, `off` its error.
        """
        m, width = self.scaled.shape
        y = self.scaled @ q.T
        y_off = self.size * off + self.off * (long + off) + 2.1 * (width + 8) * _EPS * self.size * long
        x = torch.cholesky_solve(y, self.factor)
        x_size, y_size = (torch.linalg.vector_norm(part, dim=0) * _UP for part in (x, y))
        residual = torch.linalg.vector_norm(y - self.gap @ x, dim=0) * _UP + y_off + self.noise * x_size
        gap_size = float(torch.linalg.matrix_norm(self.gap)) * _UP
        residual = residual + 2.1 * (m + 8) * _EPS * (gap_size * x_size + y_size)
        lost = residual / (self.floor - self.noise) * _UP
        share = (x * y).sum(dim=0).clamp_min(0) + (y_size + y_off) * lost + y_off * x_size
        return (share + 2.1 * (m + 8) * _EPS * x_size * y_size) * _UP, x, lost


def _step(rows: Tensor, error: Tensor, radius: Tensor, t: Tensor) -> _Step | None:
    """None where E > 0 is not proved."""
    if not (bool((t > 1e-250).all()) and bool((t < 1e250).all()) and bool(rows.isfinite().all())):
        return None
    m, width = rows.shape
    columns = torch.linalg.vector_norm(rows, dim=0)
    gains = radius * t.rsqrt()
    scaled = rows * gains
    off = float(torch.linalg.vector_norm((error + 8 * _EPS * columns) * gains)) * _UP
    size = float(torch.linalg.matrix_norm(scaled)) * _UP
    gap = -(scaled @ scaled.T)
    gap.diagonal().add_(1)
    noise = 2 * size * off + off**2 + 2.1 * (width + 8) * _EPS * (size**2 + m)
    factor, info = torch.linalg.cholesky_ex(gap)
    floor = None if int(info) else _floor(gap)
    if floor is None:
        return None
    length = float(torch.linalg.matrix_norm(factor)) * _UP
    product = 2.1 * (m + 8) * _EPS * (length**2 + m)
    zeta = (noise + float(torch.linalg.matrix_norm(gap - factor @ factor.T)) + product) * _UP
    if not floor > 4 * zeta:  # L Lᵀ >= δ I with δ = floor - ζ
        return None
    return _Step(rows, error, scaled, size, off, gap, noise, factor, floor, zeta)


def _floor(gap: Tensor) -> float | None:
    """A proved lower bound of the smallest eigenvalue of a computed matrix with eigenvalues up to 1."""
    m = len(gap)
    # The factorisation succeeds on A only when A + γ tr(A) I is positive semidefinite (Rump 2006).
    margin = 2.1 * (m + 16) * _EPS * (m + float(gap.diagonal().abs().sum()))
    for floor in _FLOORS:
        shifted = gap.clone()
        shifted.diagonal().sub_(floor + margin)
        if int(torch.linalg.cholesky_ex(shifted)[1]) == 0:
            return floor
    return None
