"""Arithmetic of polynomial pieces: (c0, c1, c2, ...) stands for c0 + c1 z + c2 z² + ..."""

from __future__ import annotations

import math
from itertools import pairwise, zip_longest

import numpy as np
import torch
from numpy.polynomial import polynomial as numpy_polynomial
from torch import Tensor

Polynomial = tuple[float, ...]
_FEW = 4  # positions up to which comparing is faster than searching


def derivative(c: Polynomial, order: int = 1) -> Polynomial:
    """Coefficients of the derivative of the given order.

    >>> derivative((1.0, 2.0, 3.0))
    (2.0, 6.0)
    """
    for _ in range(order):
        c = tuple(k * value for k, value in enumerate(c))[1:] or (0.0,)
    return c


def at(c: Polynomial, z: float) -> float:
    """Value at a point, or limit at an infinite one."""
    total = 0.0
    for coefficient in reversed(c):
        total = total * z + coefficient if total else coefficient
    return total


def taylor_jumps(position: float, left: Polynomial, right: Polynomial) -> Polynomial:
    """Jump of the value and of each derivative where two pieces meet; rounding noise counts as zero."""
    jumps = []
    for order in range(max(len(left), len(right))):
        a, b = derivative(left, order), derivative(right, order)
        noise = sum(abs(c * position**k) for piece in (a, b) for k, c in enumerate(piece) if k)
        jump = at(b, position) - at(a, position)
        jumps.append(jump if abs(jump) > 8 * np.finfo(float).eps * noise else 0.0)
    return tuple(jumps)


def roughest_jump(position: float, left: Polynomial, right: Polynomial) -> tuple[int, float] | None:
    """(order, jump) of the lowest derivative in which two pieces differ where they meet; None when equal."""
    for order, jump in enumerate(taylor_jumps(position, left, right)):
        if jump:
            return order - 1, jump
    return None


def sign_changes(c: Polynomial, low: float, high: float) -> list[float]:
    """Points strictly inside (low, high) where the polynomial changes sign, ascending.

    >>> sign_changes((0.5, 1 / 3), -3.0, 3.0)
    [-1.5]
    """
    while len(c) > 1 and c[-1] == 0:
        c = c[:-1]
    if len(c) < 3:
        roots = [-c[0] / c[1]] if len(c) == 2 else []
    else:
        found = numpy_polynomial.polyroots(c)
        roots = sorted(found.real[np.abs(found.imag) <= 1e-9 * (1 + np.abs(found.real))].tolist())
    inside = [z for z in roots if low < z < high]
    turns = []
    for i, z in enumerate(inside):
        before = inside[i - 1] if i else max(low, z - 1)
        after = inside[i + 1] if i + 1 < len(inside) else min(high, z + 1)
        if at(c, (before + z) / 2) * at(c, (z + after) / 2) < 0:
            turns.append(z)
    return turns


def path(c: Polynomial, low: float, high: float) -> list[float]:
    """Values at the ends of [low, high] and at the extremes between, in order."""
    return [at(c, z) for z in (low, *sign_changes(derivative(c), low, high), high)]


def normal_expectation(c: Polynomial, low: float, high: float, power: int = 1) -> float:
    """∫ P(u)^power pdf(u) du over [low, high], by integration by parts."""
    coefficients = numpy_polynomial.polypow(c, power)

    def boundary(u: float, k: int) -> float:
        return 0.0 if math.isinf(u) else u**k * math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    moments = [(math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2]
    for k in range(1, len(coefficients)):
        older = (k - 1) * moments[k - 2] if k > 1 else 0.0
        moments.append(older + boundary(low, k - 1) - boundary(high, k - 1))
    return float(sum(a * m for a, m in zip(coefficients, moments, strict=True)))


def evaluate(
    positions: tuple[float, ...], pieces: tuple[Polynomial, ...], z: Tensor, *, finite: bool = False
) -> Tensor:
    """The piecewise polynomial at z, elementwise; at a position, the piece to its left.

    Infinite z give limits; `finite` promises that there are none, which is faster.
    """
    table = list(zip_longest(*pieces, fillvalue=0.0))
    if len(positions) <= _FEW:
        right = [(z > t).to(z.dtype) for t in positions]
    else:
        piece = torch.bucketize(z, z.new_tensor(positions))

    def pick(row: tuple[float, ...]) -> Tensor:
        values = z.new_tensor(row)
        if len(set(row)) == 1:
            return values[0]
        if len(positions) > _FEW:
            return values[piece]
        chosen = values[0].expand(z.shape)
        for (old, new), value, weight in zip(pairwise(row), values[1:], right, strict=True):
            chosen = chosen if old == new else torch.lerp(chosen, value, weight)  # exact at weights 0 and 1
        return chosen

    value = pick(table[-1])
    for k in range(len(table) - 2, -1, -1):
        lower = pick(table[k])
        constant = tuple(float(not any(row[i] for row in table[k + 1 :])) for i in range(len(pieces)))
        if all(constant):
            value = lower
        elif any(constant) and not finite:  # 0 · inf must not arise
            value = torch.where(pick(constant) > 0, lower, torch.addcmul(lower, value, z))
        else:
            value = torch.addcmul(lower, value, z)
    return value if value.shape == z.shape and value.stride() == z.stride() else value.expand(z.shape).clone()
