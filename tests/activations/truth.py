"""What a piecewise analytic function's facts are, computed with 70 digits from its formula alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import mpmath
from mpmath.calculus.quadrature import GaussLegendre

mp: Any = mpmath.MPContext()
mp.dps = 70
NODES = GaussLegendre(mp).calc_nodes(4, mp.prec)
TINY = mp.mpf("1e-18")  # derivatives are accurate to this; smaller ones count as zero
FAR = mp.mpf("1e15")
_H = mp.mpf("1e-13")


def derivatives(f: Callable, z) -> tuple:
    """φ, φ', φ'', φ''' by central differences."""
    h = _H * max(1, abs(z)) if abs(z) > 1e6 else _H
    a, b, c, d, e = (f(z + k * h) for k in (-2, -1, 0, 1, 2))
    return c, (d - b) / (2 * h), (d - 2 * c + b) / h**2, (e - 2 * d + 2 * b - a) / (2 * h**3)


@dataclasses.dataclass(frozen=True)
class Truth:
    """φ as `pieces[i]` between `positions[i - 1]` and `positions[i]`, each analytic where it holds and beyond.

    It bends within some `width` of the `centres`.
    """

    name: str
    parameters: dict[str, Any]
    pieces: tuple[Callable, ...]
    positions: tuple = ()
    width: Any = 1
    centres: tuple = (0,)
    period: Any = None

    def piece(self, z) -> Callable:
        return self.pieces[sum(t < z for t in self.positions)]

    def __call__(self, z):
        return self.piece(z)(z)

    @property
    def jumps(self) -> list[tuple[Any, int, Any]]:
        """(position, order, jump) where something jumps."""
        found = []
        for t, (left, right) in zip(self.positions, pairwise(self.pieces), strict=True):
            gaps = [r - s for r, s in zip(derivatives(right, t), derivatives(left, t), strict=True)]
            order = next((k - 1 for k, gap in enumerate(gaps) if abs(gap) > TINY), None)
            if order is not None:
                found.append((t, order, gaps[order + 1]))
        return found

    @cached_property
    def samples(self) -> list[list[tuple]]:
        """(z, φ, φ', φ'', φ''') of each piece, ascending: over one period, or to where only tails are left."""
        edges = [-mp.inf, *map(mp.mpf, self.positions), mp.inf]
        if self.period is not None:
            grid = [self.period * (k + mp.mpf("0.37")) / 128 for k in range(129)]
        else:
            offsets = [(mp.mpf(k) + mp.mpf("0.37")) / 8 for k in range(96)] + [
                mp.mpf("12.1") * 2**k for k in range(12)
            ]
            centres = {*map(mp.mpf, self.centres), *edges[1:-1]}
            grid = sorted({c + s * self.width * o for c in centres for o in offsets for s in (-1, 1)})
        found = []
        for piece, low, high in zip(self.pieces, edges, edges[1:], strict=False):
            ends = [z for z in (low, high) if abs(z) < mp.inf]
            inside = sorted([*ends, *(z for z in grid if low < z < high)])
            if self.period is None:
                inside = [*([-FAR] if low == -mp.inf else []), *inside, *([FAR] if high == mp.inf else [])]
            found.append([(z, *derivatives(piece, z)) for z in inside])
        return found

    def turns(self, order: int) -> list:
        """Where the derivative changes sign within a piece."""
        largest = max([1, *(abs(row[order + 1]) for rows in self.samples for row in rows if abs(row[0]) < FAR)])
        found = []
        for piece, rows in zip(self.pieces, self.samples, strict=True):
            signed = [(row[0], row[order + 1]) for row in rows if abs(row[order + 1]) > TINY * largest]
            for (a, left), (b, right) in pairwise(signed):
                if left * right < 0:
                    root = mp.findroot(
                        lambda z, piece=piece: derivatives(piece, z)[order], (a, b), solver="anderson", verify=False
                    )
                    found.append(root if self.period is None else (root + TINY) % self.period - TINY)
        return sorted(found)

    def path(self, order: int) -> list:
        """φ' or φ'' at the ends of pieces, at infinity and at the extremes between, in order."""
        extremes = self.turns(order + 1)
        if self.period is not None:
            return [derivatives(self.pieces[0], z)[order] for z in extremes]
        found = []
        for piece, rows in zip(self.pieces, self.samples, strict=True):
            low, high = rows[0][0], rows[-1][0]
            at = [low, *(z for z in extremes if low < z < high), high]
            found += [derivatives(piece, z)[order] for z in at]
        return [v if abs(v) < 1e10 else mp.sign(v) * mp.inf for v in found]

    def moments(self) -> tuple:
        """E φ(u), E φ(u)², E φ'(u)² for a standard normal u."""
        positions, centres = list(map(mp.mpf, self.positions)), [*map(mp.mpf, self.centres), *self.positions]
        fine = [c + s * self.width * mp.mpf(2) ** k for c in centres for s in (-1, 1) for k in range(-1, 10)]
        cuts = sorted({*positions, *(mp.mpf(z) for z in (*centres, *fine, *range(-12, 13)) if abs(z) <= 12)})
        totals = [mp.mpf(0)] * 3
        for a, b in pairwise(cuts):
            piece = self.piece((a + b) / 2)
            for x, weight in NODES:
                u = (a + b + x * (b - a)) / 2
                value, slope = piece(u), (piece(u + _H) - piece(u - _H)) / (2 * _H)
                mass = weight * (b - a) / 2 * mp.npdf(u)
                totals = [t + mass * v for t, v in zip(totals, (value, value**2, slope**2), strict=True)]
        return tuple(totals)
