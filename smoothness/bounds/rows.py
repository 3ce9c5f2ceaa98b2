"""Good multipliers for many scalar outputs at once, in closed form and a few rounds of refinement."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothness._norms import Norm
from smoothness.bounds.forms import Form
from smoothness.bounds.spectra import eigen, largest_eigenvalue

# Outputs times cubed inputs from which on one eigenvalue an output is all there is time for.
_MANY = 2e9
# Exponent of the move towards |u| = |z|: the whole way overshoots on wide networks (bounds 1.0 to 1.3 times as large
# as before it), from a quarter to half of it takes off 5 to 30 %.
_STEP = 0.3


def row_multipliers(form: Form, norm: Norm, rounds: int = 1, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Multipliers t (m, N) and input weights w (m, d), or (m, 1) in the 2-norm, of each output alone.

    For a scalar output o = q Δx + a u and multipliers τ T, the smallest constant over τ has the closed form
    (|q| + √(s λ))², with T's own Schur complement S, λ its largest eigenvalue, s = aᵀ G⁻¹ a and q the slope at the
    optimal u. T starts balanced, t_i = |gain of u_i| / |z_i|, and is moved `rounds` times (never for many rows of
    many inputs) towards |u_i| / |z_i| = 1 at the worst Δx, for the `share` of the outputs with the largest constants.
    The weights of the max-norm are taken proportional to the slopes' sizes, Σ w being the bound; in the 1-norm w is
    not used and filled with the diagonal.

    Proposals only: a `Verifier` has to confirm them. Rows without a feasible T get infinite weights.
    """
    n, d = form.zx.shape
    rounds = rounds if n and len(form.ox) * d**3 < _MANY else 0
    shapes = _balanced_rows(form)
    t, w, worst = _closed_form(form, shapes, norm, refine=rounds > 0, last=rounds == 0)
    if worst is None:
        return t, w
    rows = _size(w, norm).topk(math.ceil(share * len(w))).indices
    part = Form(form.units, form.level, form.zx, form.zu, form.ox[rows], form.ou[rows])
    now, (z, u) = t[rows], (each[rows] for each in worst)
    for k in range(rounds):
        ratio = ((u**2).mean(dim=2) + 1e-30) / ((z**2).mean(dim=2) + 1e-30)
        moved = now * ratio.pow(_STEP / 2).clamp(0.3, 3.0)
        now, weights, worst = _closed_form(
            part,
            torch.where(moved.isfinite() & (moved > 0), moved, now),
            norm,
            refine=True,
            last=k == rounds - 1,
        )
        better = _size(weights, norm) < _size(w[rows], norm)
        t[rows[better]], w[rows[better]] = now[better], weights[better]
        if worst is not None:
            z, u = worst
    return t, w


def _size(w: Tensor, norm: Norm) -> Tensor:
    return w.amax(dim=1) if norm == "l1" else w.sum(dim=1)


def _balanced_rows(form: Form) -> Tensor:
    size = torch.linalg.vector_norm(form.zx, dim=1)
    size = size + 1e-8 * size.amax() + 1e-300 if len(size) else size
    gain = form.ou**2
    t = torch.zeros_like(gain)
    for k in sorted(set(form.level.tolist()), reverse=True):
        own = form.level == k
        total = (gain[:, own] + t @ form.zu[:, own] ** 2).sqrt()
        t[:, own] = (total + 1e-8 * total.amax(dim=1, keepdim=True) + 1e-300) / size[own]
    return t


def _closed_form(
    form: Form, t: Tensor, norm: Norm, *, refine: bool, last: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """Scaled multipliers, weights, and unless `last` z and u (m, N, k) at the worst k inputs, for shapes t: (m, N)."""
    t, infeasible, schur, q, reply_x, reply_a = _eliminated(form, t)
    s = (form.ou.unsqueeze(2) * reply_a).sum(dim=(1, 2)).clamp_min(0)
    if norm == "l2":
        metric = torch.ones_like(q)
    else:
        metric = q.abs() + (s.unsqueeze(1) * schur.diagonal(dim1=1, dim2=2).clamp_min(0)).sqrt()
        metric = metric + 1e-6 * metric.mean(dim=1, keepdim=True) + 1e-150
    if norm == "l1":
        lam = schur.diagonal(dim1=1, dim2=2).gather(1, metric.argmax(dim=1, keepdim=True)).squeeze(1)
        long = q.gather(1, metric.argmax(dim=1, keepdim=True)).squeeze(1).abs()
    else:
        root = metric.rsqrt()
        lam = largest_eigenvalue(root.unsqueeze(2) * schur * root.unsqueeze(1))
        long = torch.linalg.vector_norm(q * root, dim=1)
    scale = s + long * (s / lam.clamp_min(1e-300)).sqrt()
    scale = torch.where(s > 0, scale, 1e-9 * (long**2 / lam.clamp_min(1e-300)).clamp_min(1e-280))
    scale = torch.where(scale > s, scale, s * (1 + 1e-9) + 1e-280)
    share = (scale / (scale - s)).nan_to_num(1.0)[:, None, None]
    whole = scale[:, None, None] * schur + share * q.unsqueeze(2) * q.unsqueeze(1)
    x = None
    if norm == "l1":
        w = whole.diagonal(dim1=1, dim2=2)
        x = torch.zeros_like(w).scatter_(1, w.argmax(dim=1, keepdim=True), 1.0).unsqueeze(2)
    elif not refine:
        w = ((long + (s * lam).sqrt()) ** 2 * (1 + 1e-8)).clamp_min(1e-290).unsqueeze(1) * metric
    else:
        whole = root.unsqueeze(2) * whole * root.unsqueeze(1)
        if last:
            top = largest_eigenvalue(whole).unsqueeze(1)
        else:
            values, vectors = eigen(whole)
            top = values[:, -1:]
            # The largest eigenvalues come close to each other as T improves: all of them count.
            near = (values[:, -8:] / top.clamp_min(1e-300)).nan_to_num(0.0).clamp(0, 1) ** 12
            x = root.unsqueeze(2) * vectors[:, :, -8:] * near.sqrt().unsqueeze(1)
        w = (top * (1 + 1e-8)).clamp_min(1e-290) * metric
    w = w[:, :1] if norm == "l2" else w  # the metric is 1
    w = torch.where(infeasible.unsqueeze(1), torch.inf, w)
    if last or x is None:
        return t * scale.unsqueeze(1), w, None
    u = reply_x @ x + (reply_a @ (q.unsqueeze(1) @ x * share)) / scale[:, None, None]  # o = q x + a u
    return t * scale.unsqueeze(1), w, (form.zx @ x + form.zu @ u, u)


def _eliminated(form: Form, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What maximising over u leaves of each output, for shapes t: (m, N).

    Returns t (grown where the form of the inner units was indefinite), which rows stayed so, the Schur complement
    (m, d, d), the slope q (m, d) in Δx at the optimal u, and that u's parts (m, N, d) and (m, N, 1): of Δx, and of a
    unit of output.
    """
    m, n = t.shape
    zx, a, q = form.zx, form.ou.unsqueeze(2), form.ox
    infeasible = torch.zeros(m, dtype=torch.bool, device=t.device)
    # Units before the last level have their u read by others; those after the first one read the u of others.
    inner = int((form.level < form.level.amax()).sum()) if n else 0
    if not inner:
        return t, infeasible, (zx.T * t.unsqueeze(1)) @ zx, q, zx.new_zeros(m, n, zx.shape[1]), a / t.unsqueeze(2)
    first = int((form.level == form.level.amin()).sum())
    zu, lead = form.zu[first:, :inner], 2.0 ** (form.level.amax() - form.level).to(t.dtype)
    for _ in range(12):  # earlier layers dominate, more and more
        hidden = torch.diag_embed(t[:, :inner]) - (zu.T * t[:, first:].unsqueeze(1)) @ zu
        factor, info = torch.linalg.cholesky_ex(hidden)
        infeasible = info > 0
        if not infeasible.any():
            break
        t = torch.where(infeasible.unsqueeze(1), lead * t, t)
    factor = torch.where(infeasible[:, None, None], torch.eye(inner, dtype=t.dtype, device=t.device), factor)
    cross = (zu.T * t[:, first:].unsqueeze(1)) @ zx[first:]
    both = torch.cholesky_solve(torch.cat([cross, a[:, :inner]], dim=2), factor)
    x = both[:, :, :-1]
    schur = (zx.T * t.unsqueeze(1)) @ zx + cross.mT @ x
    q = q + (x.mT @ a[:, :inner]).squeeze(2)
    reply_x = torch.cat([x, zx.new_zeros(m, n - inner, zx.shape[1])], dim=1)
    reply_a = torch.cat([both[:, :, -1:], a[:, inner:] / t[:, inner:].unsqueeze(2)], dim=1)
    return t, infeasible, schur, q, reply_x, reply_a
