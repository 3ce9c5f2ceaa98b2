"""The best multipliers of a quadratic form: a barrier method whose Newton matrix has a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness.bounds.forms import Form
from smoothness.bounds.spectra import largest_eigenvalue


@dataclass(frozen=True, eq=False)
class Multipliers:
    """A proposal, to be verified: |o|² + Σ t_i (z_i² - u_i²) <= Σ w_i Δx_i² for all Δx and u.

    Attributes:
        t: (N,) of the uncertain units.
        w: (d,), or (1,) for the same weight on every Δx_i².
        steps: Newton steps taken.
    """

    t: Tensor
    w: Tensor
    steps: int


def starting_multipliers(form: Form, *, shared: bool) -> Multipliers:
    """Feasible multipliers in closed form: the better of two guesses.

    One balances t z² against the gain |∂o/∂u|² / t of every unit, t_i = s |∂o/∂u_i| / |z_i|, with the best scale s
    of a geometric grid. The other is always feasible: with κ above the number K of terms of a sum,
    |Σ a_k|² <= K Σ |a_k|² admits τ_j = κ (|O_j|² + Σ_k τ_k |Z_kj|²), from the last layer to the first.
    """
    scores = [(math.inf, _layered(form), form.ox[0])]
    guess = _balanced(form)
    for t in (scores[0][1], *(guess * 3.0**k for k in range(-1, 3))):
        w = weights_for(form, t, shared=shared)
        if w is not None:
            scores.append((float(w.sum()), t, w))
    _, t, w = min(scores[1:] or [(math.inf, scores[0][1], form.ox.new_full((1,), math.inf))], key=lambda s: s[0])
    return Multipliers(t, w, 0)


def weights_for(form: Form, t: Tensor, *, shared: bool) -> Tensor | None:
    """Nearly the smallest w that goes with t; None where no w does.

    Separate weights are taken proportional to the output's slopes, which is exact for an affine network.
    """
    schur = schur_complement(form, t)
    if schur is None:
        return None
    if shared:
        return (largest_eigenvalue(schur).reshape(1) * (1 + 1e-9)).clamp_min(1e-290)
    slopes = torch.linalg.vector_norm(form.ox, dim=0) + schur.diagonal().clamp_min(0).sqrt()
    slopes = slopes.clamp_min(1e-6 * float(slopes.mean()) + 1e-150)
    root = slopes.rsqrt()
    largest = largest_eigenvalue(root.unsqueeze(1) * schur * root)
    weights: Tensor = (largest * (1 + 1e-9) * slopes).clamp_min(1e-290)
    return weights


def schur_complement(form: Form, t: Tensor) -> Tensor | None:
    """S(t) (d, d): Δxᵀ S Δx = max over u of |o|² + Σ t (z² - u²); None where that is unbounded."""
    hidden = torch.diag(t) - (form.zu.T * t) @ form.zu - form.ou.T @ form.ou
    factor = _factor(hidden)
    if factor is None:
        return None
    cross = (form.zu.T * t) @ form.zx + form.ou.T @ form.ox
    half = torch.linalg.solve_triangular(factor, cross, upper=False)
    found: Tensor = (form.zx.T * t) @ form.zx + form.ox.T @ form.ox + half.T @ half
    return found


def _balanced(form: Form) -> Tensor:
    """t_i = gain_i / |z_i|, the gain of u_i through the output and the later layers' t z²; last layers first."""
    size = torch.linalg.vector_norm(form.zx, dim=1)
    size = size + 1e-8 * size.amax() + 1e-300 if len(size) else size
    gain = (form.ou**2).sum(dim=0)
    t = torch.zeros_like(size)
    for k in sorted(set(form.level.tolist()), reverse=True):
        own = form.level == k
        total = gain[own] + t @ form.zu[:, own] ** 2
        t[own] = (total.sqrt() + 1e-8 * float(total.amax()) ** 0.5 + 1e-300) / size[own]
    return t


def _layered(form: Form) -> Tensor:
    levels = sorted(set(form.level.tolist()))
    kappa = len(levels) + 1.5
    t = form.ox.new_zeros(len(form.units))
    for k in sorted(levels, reverse=True):
        own = form.level == k
        total = _spectral(form.ou[:, own])
        for later in levels:
            if later > k:
                others = form.level == later
                total = total + t[others].amax() * _spectral(form.zu[others][:, own])
        t[own] = (kappa * total).clamp_min(1e-12)
    return t


def best_multipliers(
    form: Form,
    *,
    shared: bool,
    tolerance: float = 1e-5,
    most_steps: int = 40,
    start: Multipliers | None = None,
    enough: float = 0.0,
) -> Multipliers:
    """Minimise Σ w (w itself when shared) over all feasible (t, w) by a primal-dual interior-point method.

    The feasible set is A(y) = diag(w, t) - Vᵀ diag(t) V - Oᵀ O >= 0 with V = [zx zu], O = [ox ou]; it implies
    t >= 0. A is affine with coefficients of rank two, e_i e_iᵀ - v_i v_iᵀ, so that the Newton matrix of the HKM
    direction (Helmberg, Rendl, Vanderbei, Wolkowicz 1996) is made of entrywise products of Gram matrices, at the
    cost of a few matrix products; predictor and corrector after Mehrotra.

    Args:
        form: of one example; reduced beforehand when `shared`.
        shared: one w for all inputs (2-norm), else one each (max-norm).
        tolerance: relative gap to the optimum at which to stop.
        most_steps: steps at most; every point reached is feasible.
        start: feasible multipliers; in closed form by default.
        enough: a Σ w at which to stop.
    """
    start = start or starting_multipliers(form, shared=shared)
    if len(form.units) == 0 and shared:
        return Multipliers(start.t, _spectral(form.ox).reshape(1) * (1 + 1e-12) + 1e-300, 0)
    usable = start.w.isfinite().all() and start.t.isfinite().all() and (start.t > 0).all() and start.w.sum() > 1e-280
    if most_steps == 0 or not usable or float(start.w.sum()) < enough:
        return start
    return _PrimalDual(form, shared, start).minimise(tolerance, most_steps, enough)


class _PrimalDual:
    """Columns and multipliers in units of the start: y = 1 there."""

    def __init__(self, form: Form, shared: bool, start: Multipliers) -> None:
        self.start, self.shared = start, shared
        self.d, self.n = form.zx.shape[1], len(form.units)
        self.weights = start.w.expand(self.d).clone()
        column = torch.cat([self.weights, start.t]).rsqrt()
        self.v = torch.cat([form.zx, form.zu], dim=1) * column * start.t.sqrt().unsqueeze(1)
        outputs = torch.cat([form.ox, form.ou], dim=1) * column
        self.gram = outputs.T @ outputs
        self.k = 1 if shared else self.d
        self.cost = start.w.new_zeros(self.k + self.n)
        self.cost[: self.k] = 1.0 if shared else self.weights / self.weights.sum()

    def slack(self, y: Tensor) -> Tensor:
        """A(y)."""
        return self.linear(y) - self.gram

    def linear(self, y: Tensor) -> Tensor:
        """Σ y_i A_i."""
        w, t = y[: self.k], y[self.k :]
        found = -(self.v.T * t) @ self.v
        found.diagonal().add_(torch.cat([w.expand(self.d), t]))
        return found

    def adjoint(self, x: Tensor, vx: Tensor | None = None) -> Tensor:
        """<A_i, X> for all i."""
        vx = self.v @ x if vx is None else vx
        inputs, units = x.diagonal()[: self.d], x.diagonal()[self.d :]
        first = inputs.sum().reshape(1) if self.shared else inputs
        return torch.cat([first, units - (vx * self.v).sum(dim=1)])

    def newton_matrix(self, x: Tensor, s: Tensor, vx: Tensor, vs: Tensor) -> Tensor:
        """tr(A_i X A_j S)."""
        d = self.d
        corner = vx[:, d:] * vs[:, d:]
        units = x[d:, d:] * s[d:, d:] - corner - corner.T + (vx @ self.v.T) * (vs @ self.v.T)
        inputs = x[:d, :d] * s[:d, :d]
        both = x[:d, d:] * s[:d, d:] - (vx[:, :d] * vs[:, :d]).T
        if self.shared:
            inputs, both = inputs.sum().reshape(1, 1), both.sum(dim=0, keepdim=True)
        return torch.cat([torch.cat([inputs, both], 1), torch.cat([both.T, units], 1)])

    def minimise(self, tolerance: float, most_steps: int, enough: float) -> Multipliers:
        size = self.d + self.n
        y = self.cost.new_ones(self.k + self.n)
        y[: self.k] = 1.5
        z = self.slack(y)
        factor = _factor(z)
        if factor is None:
            return self.start
        s = torch.cholesky_inverse(factor)
        x = s * (float(self.cost.sum()) / float(self.adjoint(s)[: self.k].sum()))
        steps = 0
        while steps < most_steps:
            steps += 1
            vx, vs = self.v @ x, self.v @ s
            matrix = self.newton_matrix(x, s, vx, vs)
            solve = _solver(matrix)
            if solve is None:
                break
            gap = float((x * z).sum())
            mu = gap / size
            centre = self.adjoint(s, vs)
            # Predictor: straight to the optimum. <A_i, X + dX> = c_i becomes M dy = σμ <A_i, S> - c.
            dy = solve(-self.cost)
            dz = self.linear(dy)
            dx = -x - _symmetric(x @ dz @ s)
            ahead_x, ahead_z = _longest_step(x, dx), _longest_step(z, dz)
            after = float(((x + ahead_x * dx) * (z + ahead_z * dz)).sum())
            sigma = min(1.0, max(1e-4, (after / gap) ** 3 if gap > 0 else 1.0))
            sigma = max(sigma, (1 - min(ahead_x, ahead_z)) ** 3 * 0.5)
            second = _symmetric(dx @ dz @ s)
            dy = solve(sigma * mu * centre - self.cost - self.adjoint(second))
            dz = self.linear(dy)
            dx = sigma * mu * s - x - _symmetric(x @ dz @ s) - second
            step_x, step_z = 0.95 * _longest_step(x, dx), 0.95 * _longest_step(z, dz)
            moved = y + step_z * dy
            z2 = self.slack(moved)
            factor = _factor(z2)
            if factor is None or not bool(dx.isfinite().all()):
                break
            y, z, x = moved, z2, x + step_x * dx
            s = torch.cholesky_inverse(factor)
            if float((y[: self.k] * self.start.w).sum()) < enough:
                break
            if float((x * z).sum()) < tolerance * float(self.cost @ y) or max(step_x, step_z) < 1e-3:
                break
        w = y[: self.k] * self.start.w
        return Multipliers(y[self.k :] * self.start.t, w, steps)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _longest_step(matrix: Tensor, direction: Tensor) -> float:
    """Nearly the longest step up to 1 that keeps a matrix positive definite."""
    step = 1.0
    for _ in range(40):
        if _factor(matrix + step * direction) is not None:
            return step
        step *= 0.8
    return 0.0


@dataclass(frozen=True, eq=False)
class _Solve:
    factor: Tensor
    scale: Tensor

    def __call__(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve((right * self.scale).unsqueeze(1), self.factor).squeeze(1) * self.scale


def _solver(matrix: Tensor) -> _Solve | None:
    scale = matrix.diagonal().clamp_min(1e-300).rsqrt()
    scaled = scale.unsqueeze(1) * matrix * scale
    for jitter in (0.0, 1e-14, 1e-12, 1e-10):
        scaled.diagonal().add_(jitter)
        factor = _factor(scaled)
        if factor is not None:
            return _Solve(factor, scale)
    return None


def _factor(matrix: Tensor) -> Tensor | None:
    factor, info = torch.linalg.cholesky_ex(matrix)
    return factor if int(info) == 0 and bool(factor.diagonal().isfinite().all()) else None


def _spectral(matrix: Tensor) -> Tensor:
    """Squared spectral norm; 0 of an empty matrix."""
    if matrix.numel() == 0:
        return matrix.new_zeros(())
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return largest_eigenvalue(small) * (1 + 1e-12)
