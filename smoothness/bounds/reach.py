"""How far can a unit move from its value at the centre? Its own certified constant, times the radius."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from smoothness._norms import Norm
from smoothness.bounds.balls import Ball
from smoothness.bounds.chain import chain_of
from smoothness.bounds.forms import Form, Sectors, assemble, sectors
from smoothness.bounds.graph import AffineSum, HiddenLayer, Network
from smoothness.bounds.interior import best_multipliers
from smoothness.bounds.quadratic import Effort, propose
from smoothness.bounds.ranges import Interval, Ranges, intersection
from smoothness.bounds.rows import row_multipliers
from smoothness.bounds.slopes import unit_slopes
from smoothness.bounds.verify import Verifier
from smoothness.bounds.verify_chain import unit_constants

# Floating-point operations an example and layer beyond which ranges stay as they are.
_FLOPS = {"fast": 0.0, "standard": 1e11, "tight": 1e12}
# The same of one elimination of a chain.
_CHAIN_FLOPS = {"fast": 0.0, "standard": 2e11, "tight": 1e12}
# The same of linear relaxation.
_RELAXATION_FLOPS = {"fast": 1e9, "standard": 2e11, "tight": 2e12}


def complete_ranges(network: Network, ball: Ball, effort: Effort) -> tuple[Ranges, Ranges]:
    """Ranges of all layers on the ball, and enclosures of their values at its centre, found when they are read.

    Layer by layer the smallest of interval propagation, of linear relaxation and (unless effort is "fast") of
    z(x) ± radius · L, where L is the unit's constant over centre pairs from the layers before it.
    """
    at = Ranges(network, _point(ball), relax=False)
    found = Ranges(network, ball)
    for k, layer in enumerate(network.hidden):
        interval = found.find(layer.affine, relax=_relaxation_flops(network, k) <= _RELAXATION_FLOPS[effort])
        if k and effort != "fast" and bool(ball.radius.isfinite().all()):
            interval = intersection(interval, _by_reach(network, k, layer, interval, found, at, effort))
        found.push(layer, interval)
    return found, at


def _relaxation_flops(network: Network, k: int) -> float:
    """Of both sides of all units of layer k, substituted back to the input."""
    earlier = sum(weight.numel() for layer in network.hidden[:k] for _, weight in layer.affine.sources)
    return 4.0 * network.hidden[k].width * earlier


def output_range(network: Network, found: Ranges, at: Ranges, mix: Tensor | None = None) -> Interval:
    """Of the outputs, or of combinations (n, m, outputs) of them, less their values at the centre."""
    whole, here = found.find(network.output, mix), at.complete().find(network.output, mix)
    return Interval(whole.lower - here.upper, whole.upper - here.lower)


def local_sectors(network: Network, found: Ranges, at: Ranges | None, first: int | None = None) -> Sectors:
    """Sectors of the `first` layers: of centre pairs with `at`, else of all pairs in the ball."""
    known = found.slopes.setdefault(at is not None, [])
    count = len(network.hidden) if first is None else first
    missing = range(len(known), count)
    for _, alike in groupby(missing, key=lambda k: id(network.hidden[k].facts)):  # searched for together
        layers = list(alike)
        here = None if at is None else _joined([at.complete().before[k] for k in layers])
        slopes = unit_slopes(network.hidden[layers[0]].facts, _joined([found.before[k] for k in layers]), here)
        widths = [network.hidden[k].width for k in layers]
        known += zip(*(torch.split(part, widths, dim=1) for part in slopes), strict=True)
    return sectors(known[:count])


def _joined(intervals: Sequence[Interval]) -> Interval:
    return Interval(*(torch.cat(ends, dim=1) for ends in zip(*intervals, strict=True)))


def _by_reach(
    network: Network, k: int, layer: HiddenLayer, interval: Interval, found: Ranges, at: Ranges, effort: Effort
) -> Interval:
    """Ranges of layer k from centre pairs of the layers before."""
    slopes = local_sectors(network, found, at, k)
    here = at.complete().find(layer.affine)
    alpha, beta = layer.facts.slope_range(*interval)
    wanted = (alpha < beta) & slopes.finite.unsqueeze(1)
    lower, upper = interval.lower.clone(), interval.upper.clone()
    norm, radius = found.ball.norm, found.ball.radius
    for row in range(len(lower)):
        units = wanted[row].nonzero().squeeze(1)
        if len(units) == 0:
            continue
        sub = Network(network.inputs, network.hidden[:k], _only(layer.affine, units))
        count = sum(int((r[row] > 0).sum()) for r in slopes.radius)
        d = min(sub.entry, count + len(units)) if norm == "l2" else network.inputs
        if len(units) * _operations(count, d) > _FLOPS[effort]:
            constant = _by_chain(sub, slopes, row, norm, effort)
            if constant is not None:
                reach = constant * radius[row] * (1 + 1e-12)
                lower[row, units] = torch.maximum(lower[row, units], here.lower[row, units] - reach)
                upper[row, units] = torch.minimum(upper[row, units], here.upper[row, units] + reach)
            continue
        form = assemble(sub, slopes, row)
        form = form.reduced() if norm == "l2" else form
        n = len(form.units)
        t, w = row_multipliers(form, norm, rounds=1)
        verifier = Verifier(sub, slopes, row)
        if effort == "tight" and norm != "l1" and n:
            _refine(form, t, w, norm == "l2")
        if norm == "l1":
            constant = torch.stack([verifier.columns(t[i], slice(i, i + 1)).amax() for i in range(len(t))]).sqrt()
        else:
            w = w * (1 + 1e-7)
            constant = torch.where(verifier.hold(t, w), w.sum(dim=1).sqrt(), torch.inf)
        reach = constant * radius[row] * (1 + 1e-12)
        lower[row, units] = torch.maximum(lower[row, units], here.lower[row, units] - reach)
        upper[row, units] = torch.minimum(upper[row, units], here.upper[row, units] + reach)
    return Interval(lower, upper)


def _operations(n: int, d: int) -> float:
    """Of finding and verifying one unit's multipliers, with n units before it and d inputs."""
    return 3.4 * n**3 + 4 * n * d * d + 12.0 * d**3


def _by_chain(sub: Network, slopes: Sectors, row: int, norm: Norm, effort: Effort) -> Tensor | None:
    """Constants of all outputs of a chain, in the 2-norm."""
    chain = chain_of(sub, slopes, row) if norm == "l2" else None
    if chain is None or chain.flops > _CHAIN_FLOPS[effort]:
        return None
    t = propose(chain, "fast")
    return None if t is None else unit_constants(chain.weights, chain.centre, chain.radius, t)


def _refine(form: Form, t: Tensor, w: Tensor, shared: bool) -> None:
    for i in range(len(t)):
        better = best_multipliers(form.rows(slice(i, i + 1)), shared=shared, tolerance=1e-3)
        if float(better.w.sum()) < float(w[i].sum()):
            t[i], w[i] = better.t, better.w


def _only(affine: AffineSum, units: Tensor) -> AffineSum:
    return AffineSum(tuple((j, weight[units]) for j, weight in affine.sources), affine.bias[units])


def _point(ball: Ball) -> Ball:
    return Ball(ball.centre, "linf", torch.zeros_like(ball.radius))
