"""Lipschitz constants from the slope-restricted quadratic form, each confirmed by the verifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smoothness._norms import Norm
from smoothness.bounds.forms import Form, Sectors, assemble
from smoothness.bounds.graph import Network
from smoothness.bounds.interior import best_multipliers
from smoothness.bounds.rows import row_multipliers
from smoothness.bounds.verify import Verifier

Effort = Literal["fast", "standard", "tight"]

# Relative gap to the best multipliers at which to stop.
_TOLERANCE = {"standard": 1e-4, "tight": 1e-7}
# Floating-point operations beyond which the multipliers are those in closed form.
_FLOPS = {"fast": 0.0, "standard": 4e11, "tight": 3e12}
# A proposal is raised by these until it is confirmed.
_RAISES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was proved of one example.

    Attributes:
        value: the constant; infinite when nothing was proved.
        units: indices of the uncertain units among all hidden units.
        multipliers: (problems, N): t of each quadratic form, one form for the 2-norm of all outputs or one an output.
        weights: (problems, d) or (problems, 1) of the input.
    """

    value: float
    units: Tensor
    multipliers: Tensor
    weights: Tensor


def quadratic_constant(
    network: Network,
    found: Sectors,
    row: int,
    norm: Norm,
    *,
    mix: Tensor | None = None,
    separate: bool = False,
    effort: Effort = "standard",
) -> Certificate:
    """Lipschitz constant p -> p (p -> |·| of each output when `separate`) over all increments in the sectors.

    In the 2-norm one quadratic form bounds |Δo|_2 (Fazlyab et al. 2019, arXiv 1906.04893, with local slopes). In the
    max-norm each output has a form in its own weighted metric, Σ w_i Δx_i² <= Σ w_i on the unit cube. In the 1-norm
    it is the diagonal of the Schur complement that counts: |∂o_k / ∂x_i|² <= S_ii.
    """
    form = assemble(network, found, row, mix)
    verifier = Verifier(network, found, row, mix)
    if norm == "l2" and not separate:
        return _whole(form.reduced(), verifier, effort)
    if norm == "l1":
        return _columns(form, verifier, separate, effort)
    return _each(form.reduced() if norm == "l2" else form, verifier, norm, effort)


def row_constants(
    network: Network, found: Sectors, row: int, norm: Norm, mix: Tensor, margins: Tensor, effort: Effort
) -> Tensor:
    """(m,) constants p -> |·| of every combination; the one with the smallest margin / constant is refined.

    `mix` (m, outputs) gives the combinations, `margins` (m,) by how much their values exceed 0.
    """
    form, verifier = assemble(network, found, row, mix), Verifier(network, found, row, mix)
    form = form.reduced() if norm == "l2" else form
    t, w = row_multipliers(form, norm, rounds=1)

    def constant(k: int, t: Tensor, w: Tensor) -> float:
        if norm == "l1":
            return math.sqrt(float(verifier.columns(t, slice(k, k + 1)).amax())) * (1 + 1e-12)
        return _confirmed(verifier, t, w, slice(k, k + 1))

    values = torch.stack([w.new_tensor(constant(k, t[k], w[k])) for k in range(len(t))])
    refined: set[int] = set()
    while effort != "fast" and len(form.units) and not _too_large(form, effort):
        k = int((margins / values.clamp_min(1e-300)).argmin())
        if k in refined:
            break
        refined.add(k)
        one = form.rows(slice(k, k + 1))
        shared = norm != "linf"
        better = best_multipliers(one.reduced() if norm == "l1" else one, shared=shared, tolerance=_TOLERANCE[effort])
        values[k] = min(float(values[k]), constant(k, better.t, better.w))
    return values


def _whole(form: Form, verifier: Verifier, effort: Effort) -> Certificate:
    steps = 0 if _too_large(form, effort) else 40
    tolerance = _TOLERANCE.get(effort, 1.0)
    found = best_multipliers(form, shared=True, tolerance=tolerance, most_steps=steps)
    value = _confirmed(verifier, found.t, found.w, slice(None))
    return Certificate(value, form.units, found.t.unsqueeze(0), found.w.unsqueeze(0))


def _each(form: Form, verifier: Verifier, norm: Norm, effort: Effort) -> Certificate:
    """The largest over the outputs: only those whose quick bound exceeds the others' final one are refined."""
    t, w = row_multipliers(form, norm, rounds=1)
    values = [_confirmed(verifier, t[k], w[k], slice(k, k + 1)) for k in range(len(t))]
    refine = not _too_large(form, effort)
    largest = 0.0
    for k in sorted(range(len(values)), key=lambda k: -values[k]):
        if values[k] <= largest:
            break
        if refine and len(form.units):
            better = best_multipliers(form.rows(slice(k, k + 1)), shared=norm == "l2", tolerance=_TOLERANCE[effort])
            value = _confirmed(verifier, better.t, better.w, slice(k, k + 1))
            if value < values[k]:
                values[k], t[k], w[k] = value, better.t, better.w
        largest = max(largest, values[k])
    return Certificate(max(values), form.units, t, w)


def _columns(form: Form, verifier: Verifier, separate: bool, effort: Effort) -> Certificate:
    t, w = row_multipliers(form, "l1", rounds=1)
    squares = torch.stack([verifier.columns(t[k], slice(k, k + 1)) for k in range(len(t))])
    if not _too_large(form, effort) and len(form.units):
        for k in range(len(t)):
            one = form.rows(slice(k, k + 1))
            better = best_multipliers(one.reduced(), shared=True, tolerance=_TOLERANCE[effort])
            other = verifier.columns(better.t, slice(k, k + 1))
            if float(other.amax()) < float(squares[k].amax()):
                t[k] = better.t
            squares[k] = torch.minimum(squares[k], other)  # both hold
    slopes = squares.sqrt() * (1 + 1e-12)
    value = float(slopes.amax() if separate else slopes.sum(dim=0).amax() * (1 + 1e-12))
    return Certificate(value, form.units, t, w)


def _confirmed(verifier: Verifier, t: Tensor, w: Tensor, outputs: slice) -> float:
    """√Σw for the smallest raise of w that is proved; infinite without one."""
    if not bool(w.isfinite().all()):
        return math.inf
    for share in _RAISES:
        raised = (w * (1 + share)).clamp_min(1e-280)
        if verifier.holds(t, raised, outputs):
            return math.sqrt(float(raised.sum())) * (1 + 1e-12)
    return math.inf


def _too_large(form: Form, effort: Effort) -> bool:
    size = len(form.units) + min(form.zx.shape[1], len(form.units) + len(form.ox))
    return 20 * 25.0 * size**3 > _FLOPS[effort]
