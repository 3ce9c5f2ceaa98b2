"""Lipschitz constants from the slope-restricted quadratic form, each confirmed by the verifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smoothness._norms import Norm
from smoothness.bounds.chain import Chain, chain_multipliers, chain_of
from smoothness.bounds.forms import Form, Sectors, assemble
from smoothness.bounds.graph import Network
from smoothness.bounds.interior import best_multipliers
from smoothness.bounds.rows import row_multipliers
from smoothness.bounds.verify import Verifier
from smoothness.bounds.verify_chain import chain_constant, unit_constants

Effort = Literal["fast", "standard", "tight"]

# With more uncertain units than this only a chain gets a quadratic form.
_MOST_UNITS = {"fast": 600, "standard": 3000, "tight": 6000}
# Relative gap to the best multipliers at which to stop.
_TOLERANCE = {"standard": 1e-4, "tight": 1e-7}
# Floating-point operations beyond which the multipliers are those in closed form.
_FLOPS = {"fast": 0.0, "standard": 4e11, "tight": 3e12}
# Moves of the multipliers of a chain, and floating-point operations of one elimination beyond which it is not tried.
_ROUNDS = {"fast": 2, "standard": 8, "tight": 60}
_CHAIN_FLOPS = {"fast": 2e9, "standard": 2e11, "tight": 1e12}
# Floating-point operations of one elimination from which on proposals are made in float32.
_SINGLE = 5e8
# Uncertain units from which on the same holds of outputs one by one with effort "fast", and by how much such weights
# are raised at least.
_SINGLE_UNITS, _SINGLE_RAISE = 100, 1e-5
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
    count = sum(int((r[row] > 0).sum()) for r in found.radius)
    chain = chain_of(network, found, row, mix) if norm == "l2" and count else None
    outputs = network.output.width if mix is None else len(mix)
    large = _costs_too_much(count, min(network.entry, count + outputs), effort)
    if chain is not None and large and chain.flops <= _CHAIN_FLOPS[effort]:
        certificate = _by_chain(chain, separate, effort)
        if math.isfinite(certificate.value):
            return certificate
    if count > _MOST_UNITS[effort]:
        none = torch.zeros(0, dtype=torch.long)
        return Certificate(math.inf, none, none.double().unsqueeze(0), none.double().unsqueeze(0))
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

    def constants(rows: slice, t: Tensor, w: Tensor) -> Tensor:
        if norm != "l1":
            return _confirmed_each(verifier, t, w, rows)
        columns = [
            verifier.columns(t[k], slice(j, j + 1)).amax() for k, j in enumerate(range(*rows.indices(len(mix))))
        ]
        return torch.stack(columns).sqrt() * (1 + 1e-12)

    values = constants(slice(None), t, w)
    refined: set[int] = set()
    while effort != "fast" and len(form.units) and not _too_large(form, effort):
        k = int((margins / values.clamp_min(1e-300)).argmin())
        if k in refined:
            break
        refined.add(k)
        one = form.rows(slice(k, k + 1))
        shared = norm != "linf"
        better = best_multipliers(one.reduced() if norm == "l1" else one, shared=shared, tolerance=_TOLERANCE[effort])
        values[k] = torch.minimum(values[k], constants(slice(k, k + 1), better.t[None], better.w[None])[0])
    return values


def _by_chain(chain: Chain, separate: bool, effort: Effort) -> Certificate:
    """Of all outputs together, or (with the same multipliers for all) of each alone."""
    t = propose(chain, effort)
    own = torch.cat(chain.radius) > 0
    values = torch.full((1,), math.inf, dtype=torch.float64, device=own.device)
    if t is not None:
        layers = chain.weights, chain.centre, chain.radius, t
        values = values.fill_(chain_constant(*layers))
        if separate:
            values = torch.minimum(values, unit_constants(*layers))
    multipliers = torch.cat(t)[own] if t is not None else own.new_zeros(0, dtype=torch.float64)
    return Certificate(
        float(values.amax()), own.nonzero().squeeze(1), multipliers.expand(len(values), -1), values.unsqueeze(1) ** 2
    )


def propose(chain: Chain, effort: Effort) -> list[Tensor] | None:
    """Multipliers of a chain, found in float32 where that saves time."""
    dtype = torch.float32 if chain.flops > _SINGLE else torch.float64
    t = chain_multipliers(chain.to(dtype), _ROUNDS[effort])
    return None if t is None else [part.double() for part in t]


def _whole(form: Form, verifier: Verifier, effort: Effort) -> Certificate:
    steps = 0 if _too_large(form, effort) else 40
    tolerance = _TOLERANCE.get(effort, 1.0)
    found = best_multipliers(form, shared=True, tolerance=tolerance, most_steps=steps)
    value = _confirmed(verifier, found.t, found.w)
    return Certificate(value, form.units, found.t.unsqueeze(0), found.w.unsqueeze(0))


def _each(form: Form, verifier: Verifier, norm: Norm, effort: Effort) -> Certificate:
    """The largest over the outputs: only those whose quick bound exceeds the others' final one are refined."""
    t, w, quick = _quick(form, verifier, norm, single=effort == "fast" and len(form.units) >= _SINGLE_UNITS)
    values = quick.tolist()
    largest = 0.0  # of those refined; the others only need to be no larger
    left = set(range(len(values))) if len(form.units) and not _too_large(form, effort) else set()
    while left:
        k = max(left, key=lambda k: values[k])
        if values[k] <= largest:
            break
        left.remove(k)
        better = best_multipliers(
            form.rows(slice(k, k + 1)),
            shared=norm == "l2",
            tolerance=_TOLERANCE[effort],
            enough=largest**2 * (1 - 2e-9),
        )
        value = float(_confirmed_each(verifier, better.t[None], better.w[None], slice(k, k + 1)))
        if value < values[k]:
            values[k], t[k], w[k] = value, better.t, better.w
        largest = max(largest, values[k])
    return Certificate(max(values), form.units, t, w)


def _quick(form: Form, verifier: Verifier, norm: Norm, *, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers, weights and confirmed values of each output; found in float32 where that does for all of them."""
    t, w = row_multipliers(form.single() if single else form, norm, rounds=1, share=0.25)
    t, w = t.double(), w.double() * (1 + _SINGLE_RAISE if single else 1)
    values = _confirmed_each(verifier, t, w)
    if single and bool(values.isinf().any()):
        return _quick(form, verifier, norm, single=False)
    return t, w, values


def _columns(form: Form, verifier: Verifier, separate: bool, effort: Effort) -> Certificate:
    t, w = row_multipliers(form, "l1", rounds=1)
    squares = torch.stack([verifier.columns(t[k], slice(k, k + 1)) for k in range(len(t))])
    if not _too_large(form, effort) and len(form.units):
        largest = 0.0  # with outputs apart, the others only need to be no larger
        for k in sorted(range(len(t)), key=lambda k: -float(squares[k].amax())):
            if separate and float(squares[k].amax()) <= largest:
                break
            one = form.rows(slice(k, k + 1))
            better = best_multipliers(one.reduced(), shared=True, tolerance=_TOLERANCE[effort], enough=largest)
            other = verifier.columns(better.t, slice(k, k + 1))
            if float(other.amax()) < float(squares[k].amax()):
                t[k] = better.t
            squares[k] = torch.minimum(squares[k], other)  # both hold
            largest = max(largest, float(squares[k].amax())) if separate else 0.0
    slopes = squares.sqrt() * (1 + 1e-12)
    value = float(slopes.amax() if separate else slopes.sum(dim=0).amax() * (1 + 1e-12))
    return Certificate(value, form.units, t, w)


def _confirmed(verifier: Verifier, t: Tensor, w: Tensor) -> float:
    """√Σw of all outputs together, for the smallest raise of w that is proved; infinite without one."""
    for share in _RAISES if bool(w.isfinite().all()) else ():
        raised = (w * (1 + share)).clamp_min(1e-280)
        if verifier.holds(t, raised):
            return math.sqrt(float(raised.sum())) * (1 + 1e-12)
    return math.inf


def _confirmed_each(verifier: Verifier, t: Tensor, w: Tensor, outputs: slice = slice(None)) -> Tensor:
    """(m,) the same of each output alone: t (m, N), w (m, d) or (m, 1)."""
    values = torch.full_like(w[:, 0], math.inf)
    index = torch.arange(len(verifier.o), device=w.device)[outputs]
    for share in _RAISES:
        left = (values.isinf() & w.isfinite().all(dim=1)).nonzero().squeeze(1)
        if not len(left):
            break
        raised = (w[left] * (1 + share)).clamp_min(1e-280)
        proved = verifier.hold(t[left], raised, index[left])
        values[left[proved]] = raised[proved].sum(dim=1).sqrt() * (1 + 1e-12)
    return values


def _too_large(form: Form, effort: Effort) -> bool:
    return _costs_too_much(len(form.units), min(form.zx.shape[1], len(form.units) + len(form.ox)), effort)


def _costs_too_much(units: int, inputs: int, effort: Effort) -> bool:
    return 20 * 25.0 * (units + inputs) ** 3 > _FLOPS[effort]
