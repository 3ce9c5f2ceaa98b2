"""Linear relaxation through the Jacobian: every entry within a margin of an affine function of the input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothness._norms import Norm, operator_norm
from smoothness.activations.facts import ActivationFacts
from smoothness.bounds.balls import Ball
from smoothness.bounds.forms import Sectors
from smoothness.bounds.graph import Network
from smoothness.bounds.ranges import Interval, Ranges
from smoothness.bounds.slopes import Pairs

_EPS = sys.float_info.epsilon
_UP = 1 + 1e-10
# Parts of a range, on each of which the derivative is enclosed.
_PARTS = 64
# Floating-point operations and numbers of one example beyond which there is no such relaxation.
_FLOPS = {"standard": 2e10, "tight": 2e11}
_MOST_NUMBERS = 2e8


@dataclass(frozen=True, eq=False)
class _Enclosure:
    """value + slope δ ± error for every δ = x' - x of one ball: (..., ), (..., d), (...,)."""

    value: Tensor
    slope: Tensor
    error: Tensor

    def __add__(self, other: _Enclosure) -> _Enclosure:
        value, slope = self.value + other.value, self.slope + other.slope
        return _Enclosure(value, slope, (self.error + other.error) * (1 + 4 * _EPS) + 4 * _EPS * value.abs())


class _OneBall:
    """Reach of affine functions on ball `row`."""

    def __init__(self, ball: Ball, row: int) -> None:
        part = slice(row, row + 1)
        low, high = (None if e is None else e[part] for e in (ball.low, ball.high))
        self.ball = Ball(ball.centre[part], ball.norm, ball.radius[part], low, high)
        box_low, box_high = self.ball.box
        #: max |δ_i|, for the rounding of slopes.
        self.size = torch.maximum(box_high - ball.centre[part], ball.centre[part] - box_low).squeeze(0)

    def reach(self, slope: Tensor) -> Tensor:
        """Max |slope δ|: (..., d) -> (...)."""
        lower, upper = self.ball.reach(slope.reshape(-1, slope.shape[-1]))
        return torch.maximum(upper, -lower).reshape(slope.shape[:-1])


def relaxed_jacobian_constant(
    network: Network,
    ball: Ball,
    found: Ranges,
    at: Ranges,
    secants: Sectors,
    *,
    pairs: Pairs = "ball",
    mix: Tensor | None = None,
    separate: bool = False,
    effort: str = "standard",
) -> Tensor:
    """(n,) Lipschitz constants from J(x + δ) = A + B δ ± E on the ball, to first order in δ and E rigorous.

    The gradients are carried from the outputs to the input with affine dependence on δ, as in the bound propagation
    through the Jacobian of Shi et al. (2022, arXiv 2210.07394) and RecurJac (Zhang et al. 2019, arXiv 1810.11783): the
    derivative of every activation is enclosed by parallel lines of its pre-activation, the pre-activation by parallel
    planes of δ. E is of second order in the radius where φ' is smooth. For pairs with the centre, (f(x + δ) - f(x)) is
    the mean of J(x + s δ) δ over s in [0, 1]: A + B δ / 2 ± E.

    `secants` are the sectors of the centre pairs. Infinite where it would cost too much, and beside jumps.
    """
    n = len(ball.centre)
    values = torch.full((n,), torch.inf, dtype=torch.float64, device=ball.centre.device)
    if not network.hidden or _too_large(network, mix, effort) or not bool(ball.radius.isfinite().all()):
        return values
    derivatives = [
        _derivative_lines(layer.facts, interval, z)
        for layer, interval, z in zip(network.hidden, found.before, found.values, strict=True)
    ]
    for row in range(n):
        one = _OneBall(ball, row)
        features = _pre_activations(network, one, found, at, secants, row)
        lines = [(c[row], s[row], e[row]) for c, s, e in derivatives]
        jacobian = _backwards(network, one, features, lines, None if mix is None else mix[row])
        values[row] = _constant(jacobian, one, ball.norm, 0.5 if pairs == "centre" else 1.0, separate)
    return values.nan_to_num(torch.inf, posinf=torch.inf)


def _too_large(network: Network, mix: Tensor | None, effort: str) -> bool:
    rows = network.output.width if mix is None else mix.shape[1]
    d, weights = network.inputs, sum(w.numel() for affine in network.maps for _, w in affine.sources)
    widest = max([d, *(layer.width for layer in network.hidden)])
    return 4.0 * rows * weights * d > _FLOPS[effort] or 4.0 * rows * widest * d > _MOST_NUMBERS


def _derivative_lines(facts: ActivationFacts, found: Interval, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c, s, e with φ'(t) in c + s (t - z) ± e for every t in the range, one-sided at kinks; all (n, width)."""
    lower, upper = torch.minimum(found.lower, z), torch.maximum(found.upper, z)
    share = torch.linspace(0, 1, _PARTS + 1, dtype=z.dtype, device=z.device).view(-1, 1, 1)
    cuts = lower + (upper - lower) * share
    cuts = torch.minimum(torch.maximum(cuts, lower), upper).cummax(dim=0).values
    cuts[-1] = upper
    low, high = facts.slope_range(cuts[:-1], cuts[1:])
    whole_low, whole_high = low.amin(dim=0), high.amax(dim=0)
    run = (cuts[-1] + cuts[-2]) / 2 - (cuts[1] + cuts[0]) / 2
    slope = ((low[-1] + high[-1]) / 2 - (low[0] + high[0]) / 2) / run
    slope = torch.where((run > 0) & slope.isfinite(), slope, 0.0)
    ends = slope * (cuts - z)
    above = (high - torch.minimum(ends[:-1], ends[1:])).amax(dim=0)
    below = (low - torch.maximum(ends[:-1], ends[1:])).amin(dim=0)
    plain = whole_high - whole_low <= above - below
    slope = torch.where(plain, 0.0, slope)
    above, below = torch.where(plain, whole_high, above), torch.where(plain, whole_low, below)
    centre = (above + below) / 2
    size = above.abs() + below.abs() + 2 * ends.abs().amax(dim=0)
    error = torch.maximum(above - centre, centre - below) + 16 * _EPS * size
    known = error.isfinite()  # not beside a jump
    return torch.where(known, centre, 0.0), torch.where(known, slope, 0.0), torch.where(known, error, torch.inf)


def _pre_activations(
    network: Network, one: _OneBall, found: Ranges, at: Ranges, secants: Sectors, row: int
) -> list[_Enclosure]:
    """Of every hidden layer, as offsets from its values at the centre (value 0): slope (width, d), error (width,)."""
    d = network.inputs
    centre = found.values
    eye = torch.eye(d, dtype=torch.float64, device=network.output.bias.device)
    slopes, errors, before = [eye], [eye.new_zeros(d)], []
    for k, layer in enumerate(network.hidden):
        slope, error = eye.new_zeros(layer.width, d), eye.new_zeros(layer.width)
        for j, weight in layer.affine.sources:
            size = weight.abs()
            slope = slope + weight @ slopes[j]
            error = error + size @ errors[j]
            error = error + 4 * (weight.shape[1] + d + 8) * _EPS * (size @ (slopes[j].abs() @ one.size + errors[j]))
        z = centre[k][row]
        error = error + (at.before[k].upper[row] - at.before[k].lower[row])  # the centre's own value, as computed
        before.append(_Enclosure(torch.zeros_like(z), slope, error))
        middle, spread = secants.centre[k][row], secants.radius[k][row]
        far = torch.maximum(found.before[k].upper[row] - z, z - found.before[k].lower[row]).clamp_min(0)
        far = far + (at.before[k].upper[row] - at.before[k].lower[row]) + 4 * _EPS * (z.abs() + far)
        slopes.append(middle.unsqueeze(1) * slope)
        rounding = 4 * (d + 8) * _EPS * middle.abs() * (slope.abs() @ one.size)
        errors.append(middle.abs() * error * (1 + 8 * _EPS) + spread * far + rounding)
    return before


def _backwards(
    network: Network,
    one: _OneBall,
    features: Sequence[_Enclosure],
    lines: Sequence[tuple[Tensor, Tensor, Tensor]],
    mix: Tensor | None,
) -> _Enclosure:
    """The Jacobian (outputs, inputs), with its slopes (outputs, inputs, d)."""
    d = network.inputs
    pending: dict[int, _Enclosure] = {}
    for j, weight in network.output.sources:
        first = weight if mix is None else mix @ weight
        rounding = 2 * _EPS * (weight.abs() if mix is None else (mix.shape[-1] + 8) * (mix.abs() @ weight.abs()))
        pending[j] = _Enclosure(first, first.new_zeros(*first.shape, d), rounding)
    for k in range(len(network.hidden), 0, -1):
        if k not in pending:
            continue
        gradient = _times_derivative(pending.pop(k), features[k - 1], lines[k - 1], one)
        for j, weight in network.hidden[k - 1].affine.sources:
            passed = _times_weight(gradient, weight, one)
            pending[j] = pending[j] + passed if j in pending else passed
    if 0 in pending:
        return pending[0]
    rows = network.output.width if mix is None else len(mix)
    none = network.output.bias.new_zeros(rows, d)
    return _Enclosure(none, none.new_zeros(rows, d, d), none)


def _times_derivative(
    gradient: _Enclosure, z: _Enclosure, line: tuple[Tensor, Tensor, Tensor], one: _OneBall
) -> _Enclosure:
    """The gradients g (m, width) times φ'(z) (width,): products of the parts that depend on δ go to the error."""
    centre, slope, error = line
    own = slope.unsqueeze(1) * z.slope
    error = error + slope.abs() * z.error
    moved = one.reach(own) * (1 + 1e-12)
    g_moved = one.reach(gradient.slope) * (1 + 1e-12)
    value = gradient.value * centre
    slopes = gradient.slope * centre.unsqueeze(1) + gradient.value.unsqueeze(2) * own
    largest = centre.abs() + moved + error
    g_largest = gradient.value.abs() + g_moved
    rest = g_moved * moved + gradient.error * largest + error * g_largest
    rounding = 16 * _EPS * ((g_largest + gradient.error) * largest + slopes.abs() @ one.size)
    return _Enclosure(value, slopes, rest * (1 + 1e-12) + rounding)


def _times_weight(gradient: _Enclosure, weight: Tensor, one: _OneBall) -> _Enclosure:
    m, width, d = gradient.slope.shape
    slopes = (weight.T @ gradient.slope.transpose(0, 1).reshape(width, m * d)).view(-1, m, d).transpose(0, 1)
    size = weight.abs()
    terms = 4 * (width + d + 8) * _EPS
    largest = gradient.value.abs() + gradient.slope.abs() @ one.size + gradient.error
    error = (gradient.error + terms * largest) @ size
    return _Enclosure(gradient.value @ weight, slopes, error * (1 + terms))


def _constant(found: _Enclosure, one: _OneBall, norm: Norm, share: float, separate: bool) -> Tensor:
    """The largest operator norm (of a row when `separate`) of A + share B δ ± E."""
    a, b, e = found.value, share * found.slope, found.error
    e = e + 4 * _EPS * (a.abs() + b.abs() @ one.size)
    if norm == "linf" or (norm == "l1" and not separate):
        rows = _Enclosure(a, b, e) if norm == "linf" else _Enclosure(a.T, b.transpose(0, 1), e.T)
        return _absolute_sums(rows, one).amax() * _UP
    if norm == "l1":
        largest: Tensor = (a.abs() + one.reach(b) + e).amax() * _UP
        return largest
    if separate:
        lengths: Tensor = (_lengths(a, b, one) + torch.linalg.vector_norm(e, dim=1)).amax() * _UP
        return lengths
    radius = one.ball.radius.squeeze()
    m, d = a.shape
    unfoldings = [b.reshape(1, m, d * d), b.reshape(1, m * d, d), b.transpose(0, 1).reshape(1, d, m * d)]
    bend = torch.stack([operator_norm(u @ u.mT if u.shape[1] < u.shape[2] else u.mT @ u, "l2") for u in unfoldings])
    spectral = operator_norm(a.unsqueeze(0), "l2") + radius * bend.amin().sqrt() + operator_norm(e.unsqueeze(0), "l2")
    return torch.squeeze(spectral) * _UP


def _absolute_sums(rows: _Enclosure, one: _OneBall) -> Tensor:
    """Max Σ_j |a_j + b_j δ| + e_j of each row: where a sign cannot change, the terms add up before δ is chosen."""
    single = one.reach(rows.slope) * (1 + 1e-12)
    settled = rows.value.abs() >= single
    sign = torch.where(settled, rows.value.sign(), 0.0)
    terms = rows.value.shape[1] + 8
    rounding = 4 * terms * _EPS * (sign.abs().unsqueeze(1) @ rows.slope.abs()).squeeze(1) @ one.size
    together = one.reach((sign.unsqueeze(1) @ rows.slope).squeeze(1)) * (1 + 1e-12) + rounding
    alone = torch.where(settled, 0.0, single) + rows.error
    return rows.value.abs().sum(dim=1) + together + alone.sum(dim=1)


def _lengths(a: Tensor, b: Tensor, one: _OneBall) -> Tensor:
    """Max |a + b δ|_2 of each row on an l2 ball, from |a|² + 2 (bᵀa) δ + |b δ|²."""
    size = torch.linalg.vector_norm(a, dim=1)
    bend = one.ball.radius.squeeze() * operator_norm(b, "l2")
    cross = one.reach((b.mT @ a.unsqueeze(2)).squeeze(2)) * (1 + 1e-10)
    return torch.minimum(size + bend, (size**2 + 2 * cross + bend**2).sqrt())
