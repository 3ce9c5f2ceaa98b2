"""Does a certificate hold, in spite of float64 rounding? Checked apart from how it was found."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from smoothness.bounds.forms import Sectors
from smoothness.bounds.graph import Network

_EPS = sys.float_info.epsilon
# Entries of matrices checked at a time: as many as stay in cache.
_ENTRIES = 1e5
# Relative slack on all that is computed of the errors themselves.
_UP = 1 + 1e-6


class Verifier:
    """The increments of one example's form, computed anew from the weights with a bound on every entry's error.

    With y = √w Δx and v = √t u, the claim |o|² + Σ t_i (z_i² - u_i²) <= Σ w_i Δx_i² for all Δx and u says that the
    matrix M which maps (y, v) to (√t z, o) has spectral norm at most 1. It is proved by a Cholesky factorisation of
    I - M Mᵀ shifted by a margin that covers the errors of M, the rounding of the product, and that of the
    factorisation (which succeeds on B only when B + γ tr(B) I is positive semidefinite; Higham 2002, theorem 10.7;
    Rump 2006).

    Args:
        network: the network.
        found: its sectors; `row` chooses the example.
        row: the example.
        mix: (m, outputs) combinations of the outputs; the outputs themselves by default.
    """

    def __init__(self, network: Network, found: Sectors, row: int, mix: Tensor | None = None) -> None:
        device = network.output.bias.device
        radius = torch.cat([r[row] for r in found.radius]) if found.radius else torch.zeros(0, device=device)
        self.units = radius.nonzero().squeeze(1)
        self.d, count, start = network.inputs, len(self.units), 0
        features = [torch.eye(self.d, self.d + count, dtype=torch.float64, device=device)]
        errors = [torch.zeros_like(features[0])]
        values, value_errors = [], []
        for k, layer in enumerate(network.hidden):
            z, z_error = _affine(layer.affine.sources, layer.width, features, errors)
            inside = (self.units >= start) & (self.units < start + layer.width)
            own, local = inside.nonzero().squeeze(1), self.units[inside] - start
            values.append(z[local])
            value_errors.append(z_error[local])
            centre = found.centre[k][row].unsqueeze(1)
            h, h_error = centre * z, centre.abs() * z_error
            h_error = h_error + 2 * _EPS * h.abs()
            h[local, self.d + own] += found.radius[k][row, local]
            features.append(h)
            errors.append(h_error * _UP)
            start += layer.width
        output, output_error = _affine(network.output.sources, network.output.width, features, errors)
        if mix is not None:
            output_error = mix.abs() @ (output_error + 2 * (mix.shape[1] + 8) * _EPS * output.abs())
            output = mix @ output
        empty = features[0].new_zeros(0, self.d + count)
        self.z, self.z_error = torch.cat([*values, empty]), torch.cat([*value_errors, empty])
        self.o, self.o_error = output, output_error * _UP
        # Units whose u the outputs alone read, and columns of all others; the first rows read the input alone.
        self.quiet = (self.z == 0).all(dim=0) & (self.z_error == 0).all(dim=0)
        self.loud = (~self.quiet).nonzero().squeeze(1)
        read = (self.z[:, self.d :] != 0) | (self.z_error[:, self.d :] != 0)
        self.first = int((read.any(dim=1).cumsum(dim=0) == 0).sum())
        self.loud_z, self.loud_square = self.z[:, self.loud], self.z_error[:, self.loud].clamp_min(1e-150) ** 2

    def holds(self, t: Tensor, w: Tensor, outputs: slice = slice(None)) -> bool:
        """Whether the claim is proved, for positive t: (N,) and w: (d,) or (1,) and some outputs together."""
        if t.shape != self.units.shape or not bool(_usable(t) & _usable(w)):
            return False
        o, o_error = self.o[outputs], self.o_error[outputs]
        column = torch.cat([w.expand(self.d), t]).rsqrt()
        root = torch.cat([t.sqrt(), t.new_ones(len(o))]).unsqueeze(1)
        rows = root * torch.cat([self.z, o]) * column
        error = root * torch.cat([self.z_error, o_error]) * column + 8 * _EPS * rows.abs()
        return bool(norm_at_most_one(rows, torch.linalg.matrix_norm(error) * _UP, self.first, self.d))

    def hold(self, t: Tensor, w: Tensor, outputs: slice | Tensor = slice(None)) -> Tensor:
        """(m,) whether it is proved for each of m outputs alone: t (m, N) and w (m, d) or (m, 1)."""
        o, o_error = self.o[outputs], self.o_error[outputs]
        if t.shape != (len(o), len(self.units)):
            return torch.zeros(len(o), dtype=torch.bool, device=o.device)
        count = max(1, int(_ENTRIES / ((t.shape[1] + 1) * (len(self.loud) + 1))))
        parts = [torch.split(part, count) for part in (t, w, o, o_error)]
        return torch.cat([self._hold(*part) for part in zip(*parts, strict=True)])

    def _hold(self, t: Tensor, w: Tensor, o: Tensor, o_error: Tensor) -> Tensor:
        usable = _usable(t) & _usable(w)
        t, w = t.where(usable.unsqueeze(1), 1.0), w.where(usable.unsqueeze(1), 1.0)
        column = torch.cat([w.expand(-1, self.d), t], dim=1).rsqrt()
        o, o_error = o * column, o_error * column
        loud = column[:, self.loud]
        rows = o.new_zeros(len(o), t.shape[1] + 1, len(self.loud) + 1)
        rows[:, :-1, :-1] = t.sqrt().unsqueeze(2) * (self.loud_z * loud.unsqueeze(1))
        rows[:, -1, :-1] = o[:, self.loud]
        # What only the output reads counts by its length alone.
        quiet = torch.linalg.vector_norm(o[:, self.quiet], dim=1)
        rows[:, -1, -1] = quiet * (1 + 2 * (column.shape[1] + 8) * _EPS)
        # Σ t E² / w, with something for what underflows; and the rounding of the rows.
        square = ((t @ self.loud_square) * loud**2).sum(dim=1) + 1e-25
        error = torch.hypot(square.sqrt(), torch.linalg.vector_norm(o_error, dim=1))
        error = error + 8 * _EPS * torch.linalg.matrix_norm(rows)
        inputs = int((self.loud < self.d).sum())
        return usable & norm_at_most_one(rows, error * _UP, self.first, inputs)

    def columns(self, t: Tensor, outputs: slice = slice(None)) -> Tensor:
        """(d,) upper bounds of S_ii(t) = max over u of |o|² + Σ t (z² - u²) at Δx = e_i; infinite where unproved.

        With G = I - M_vᵀ M_v, c = M_vᵀ M_x e_i and any k, S_ii = |M_x e_i|² + 2 cᵀk - kᵀ G k + rᵀ G⁻¹ r with
        r = c - G k, and G >= δ I proved by Cholesky bounds the last term by |r|² / δ.
        """
        unproved = torch.full((self.d,), torch.inf, dtype=torch.float64, device=self.o.device)
        if not (bool(_usable(t)) and t.shape == self.units.shape):
            return unproved
        column = torch.cat([t.new_ones(self.d), t.rsqrt()])
        root = torch.cat([t.sqrt(), t.new_ones(len(self.o[outputs]))]).unsqueeze(1)
        rows = root * torch.cat([self.z, self.o[outputs]]) * column
        error = root * torch.cat([self.z_error, self.o_error[outputs]]) * column + 8 * _EPS * rows.abs()
        mx, mv, ex, ev = rows[:, : self.d], rows[:, self.d :], error[:, : self.d], error[:, self.d :]
        n, m = mv.shape[1], len(rows)
        size, spread = float(torch.linalg.matrix_norm(mv)), float(torch.linalg.matrix_norm(ev)) * _UP
        if not size < 1e150:
            return unproved
        noise = 2.1 * size * spread + spread**2 + 2.1 * (m + n + 8) * _EPS * (n + size**2)
        delta = 1e-9 + 4 * noise
        hidden = torch.eye(n, dtype=torch.float64, device=rows.device) - mv.T @ mv
        shifted = hidden.clone()
        shifted.diagonal().sub_(delta + noise * _UP)
        factor, info = torch.linalg.cholesky_ex(hidden)
        if int(torch.linalg.cholesky_ex(shifted)[1]) or int(info):
            return unproved
        c = mv.T @ mx
        k = torch.cholesky_solve(c, factor) if n else c
        long, k_long, c_long = (torch.linalg.vector_norm(part, dim=0) for part in (mx, k, c))
        wrong_x = torch.linalg.vector_norm(ex, dim=0) * _UP
        # Errors of M_x e_i, of M_v k and of G k, with the rounding of the products.
        e_x = wrong_x + 4 * _EPS * long
        e_c = size * e_x + spread * long + 2.1 * (m + 8) * _EPS * size * long
        residual = (
            torch.linalg.vector_norm(c - hidden @ k, dim=0)
            + e_c
            + (noise + 4 * (n + 8) * _EPS * (1 + size**2)) * k_long
        )
        value = long**2 + 2 * (c * k).sum(dim=0) - (k * (hidden @ k)).sum(dim=0)
        slack = 2.1 * long * e_x + e_x**2 + 2.1 * e_c * k_long + noise * k_long**2
        slack = slack + 8 * (m + n + 8) * _EPS * (long**2 + c_long * k_long + (1 + size**2) * k_long**2)
        found = value + (slack + residual**2 / delta) * _UP
        return torch.where(found.isfinite(), found.clamp_min(0), torch.inf)


def norm_at_most_one(rows: Tensor, spread: Tensor, first: int = 0, inputs: int = 0) -> Tensor:
    """Whether every matrix within `spread` (Frobenius) of `rows` (..., m, n) is proved to have spectral norm <= 1.

    The `first` rows may be declared to be zero beyond the `inputs` first columns.
    """
    m, n = sorted(rows.shape[-2:])
    if rows.shape[-2] > m:
        alone, rest = rows[..., :first, :inputs], rows[..., first:, :]
        shifted = -(rest.mT @ rest)
        shifted[..., :inputs, :inputs] -= alone.mT @ alone
    else:
        shifted = -(rows @ rows.mT)
    size = torch.linalg.matrix_norm(rows) * _UP
    margin = 2.1 * size * spread + spread**2 + 2.1 * (n + m + 16) * _EPS * (m + size**2)
    shifted.diagonal(dim1=-2, dim2=-1).add_((1 - margin * _UP).unsqueeze(-1))
    _, info = torch.linalg.cholesky_ex(shifted.nan_to_num(-1.0))
    holds: Tensor = (margin < 1) & (info == 0)  # the margin is nan or infinite where an entry is
    return holds


def _usable(multipliers: Tensor) -> Tensor:
    return ((multipliers > 1e-290) & (multipliers < 1e290)).all(dim=-1)


def _affine(
    sources: Sequence[tuple[int, Tensor]], width: int, features: Sequence[Tensor], errors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Σ_j W_j h_j, and a bound on the error of each entry."""
    total = features[0].new_zeros(width, features[0].shape[1])
    error = torch.zeros_like(total)
    for j, weight in sources:
        size = weight.abs()
        terms = 2 * (weight.shape[1] + len(sources) + 8) * _EPS
        total = total + (
            weight @ features[j] if j else torch.nn.functional.pad(weight, (0, total.shape[1] - weight.shape[1]))
        )
        if j:
            error = error + size @ (errors[j] + terms * features[j].abs())
        error = error + 4 * _EPS * total.abs()
    return total, error * _UP
