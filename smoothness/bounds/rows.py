"""Good multipliers for many scalar outputs at once, in closed form and a few rounds of refinement."""

from __future__ import annotations

import torch
from torch import Tensor

from smoothness._norms import Norm
from smoothness.bounds.forms import Form
from smoothness.bounds.spectra import eigen, largest_eigenvalue

# Outputs times cubed inputs from which on one eigenvalue an output is all there is time for.
_MANY = 2e9


def row_multipliers(form: Form, norm: Norm, rounds: int = 1) -> tuple[Tensor, Tensor]:
    """Multipliers t (m, N) and input weights w (m, d), or (m, 1) in the 2-norm, of each output alone.

    For a scalar output o = q Δx + a u and multipliers τ T, the smallest constant over τ has the closed form
    (|q| + √(s λ))², with T's own Schur complement S, λ its largest eigenvalue, s = aᵀ G⁻¹ a and q the slope at the
    optimal u. T starts balanced, t_i = |gain of u_i| / |z_i|, and is moved `rounds` times (never for many rows of
    many inputs) towards |u_i| / |z_i| = 1 at the worst Δx. The weights of the max-norm are taken proportional to the
    slopes' sizes, Σ w being the bound; in the 1-norm w is not used and filled with the diagonal.

    Proposals only: a `Verifier` has to confirm them. Rows without a feasible T get infinite weights.
    """
    n, d = form.zx.shape
    rounds = rounds if len(form.ox) * d**3 < _MANY else 0
    t = _balanced_rows(form)
    best: tuple[Tensor, Tensor] | None = None
    for k in range(rounds + 1):
        scaled, w, worst = _closed_form(form, t, norm, refine=rounds > 0)
        if best is None:
            best = scaled, w
        else:
            size = [part.amax(dim=1) if norm == "l1" else part.sum(dim=1) for part in (w, best[1])]
            better = (size[0] < size[1]).unsqueeze(1)
            best = torch.where(better, scaled, best[0]), torch.where(better, w, best[1])
        if k == rounds or n == 0:
            break
        z, u = worst
        ratio = ((u**2).mean(dim=2) + 1e-30) / ((z**2).mean(dim=2) + 1e-30)
        moved = scaled * ratio.sqrt().clamp(0.3, 3.0)
        t = torch.where(moved.isfinite() & (moved > 0), moved, t)
    assert best is not None
    return best


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


def _closed_form(form: Form, t: Tensor, norm: Norm, *, refine: bool) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Scaled multipliers, weights, and z and u (m, N, k) at the worst k inputs, for shapes t: (m, N)."""
    m, n = t.shape
    zu, zx = form.zu, form.zx
    a, q = form.ou.unsqueeze(2), form.ox
    last = (
        int((form.level < form.level.amax()).sum()) if n else 0
    )  # from here on nothing reads a unit's u but the output
    infeasible = torch.zeros(m, dtype=torch.bool, device=t.device)
    reply_x, reply_a = zx.new_zeros(1, n, zx.shape[1]), a / t.unsqueeze(2)
    if last:
        inner, lead = zu[:, :last], 2.0 ** (form.level.amax() - form.level).double()
        for _ in range(12):  # earlier layers dominate, more and more
            hidden = torch.diag_embed(t[:, :last]) - (inner.T * t.unsqueeze(1)) @ inner
            factor, info = torch.linalg.cholesky_ex(hidden)
            infeasible = info > 0
            if not infeasible.any():
                break
            t = torch.where(infeasible.unsqueeze(1), lead * t, t)
        factor = torch.where(infeasible[:, None, None], torch.eye(last, dtype=t.dtype, device=t.device), factor)
        cross = (inner.T * t.unsqueeze(1)) @ zx
        both = torch.cholesky_solve(torch.cat([cross, a[:, :last]], dim=2), factor)
        inner_x = both[:, :, :-1]
        reply_x = torch.cat([inner_x, zx.new_zeros(m, n - last, zx.shape[1])], dim=1)
        reply_a = torch.cat([both[:, :, -1:], a[:, last:] / t[:, last:].unsqueeze(2)], dim=1)
        schur = (zx.T * t.unsqueeze(1)) @ zx + cross.mT @ inner_x
        q = q + (inner_x.mT @ a[:, :last]).squeeze(2)
    else:
        schur = (zx.T * t.unsqueeze(1)) @ zx
    s = (a * reply_a).sum(dim=(1, 2)).clamp_min(0)
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
    whole = scale[:, None, None] * schur
    whole = whole + (scale / (scale - s)).nan_to_num(1.0)[:, None, None] * q.unsqueeze(2) * q.unsqueeze(1)
    if norm == "l1":
        w = whole.diagonal(dim1=1, dim2=2)
        index = w.argmax(dim=1, keepdim=True)
        x = torch.zeros_like(w).scatter_(1, index, 1.0).unsqueeze(2)
    elif not refine:
        w = ((long + (s * lam).sqrt()) ** 2 * (1 + 1e-8)).clamp_min(1e-290).unsqueeze(1)
        w, x = (w if norm == "l2" else w * metric), torch.zeros_like(q).unsqueeze(2)
    else:
        whole = root.unsqueeze(2) * whole * root.unsqueeze(1)
        values, vectors = eigen(whole)
        w = (values[:, -1:] * (1 + 1e-8)).clamp_min(1e-290)
        w = w if norm == "l2" else w * metric
        # The largest eigenvalues come close to each other as T improves: all of them count.
        share = (values[:, -8:] / values[:, -1:].clamp_min(1e-300)).nan_to_num(0.0).clamp(0, 1) ** 12
        x = root.unsqueeze(2) * vectors[:, :, -8:] * share.sqrt().unsqueeze(1)
    w = torch.where(infeasible.unsqueeze(1), torch.inf, w)
    output = (q.unsqueeze(1) @ x) * (scale / (scale - s)).nan_to_num(1.0)[:, None, None]  # o = q x + a u
    u = (reply_x @ x if last else 0.0) + (reply_a @ output) / scale[:, None, None]
    z = zx @ x + zu @ u
    return t * scale.unsqueeze(1), w, (z, u)
