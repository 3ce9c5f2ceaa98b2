"""Where does a function of one variable break, as far as its values tell?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smoothness.analyzers.line_kinks import meetings

Values = NDArray[np.float64]
Function = Callable[[Values], Values]

_FINEST = 26  # positions are multiples of 2^-26
_COARSE, _BASE = 6, 8  # levels: spacing 2^-level
_DEPTH, _DEEPEST = 13, 22  # of the search; of the search between two lines that do not meet
_DECAY, _SLACK = 7.0, 0.3  # a smooth function's fourth difference falls by 16 a level, a curvature jump's by 4
_RIDGE = 0.4  # a gap stays while its difference is this share of its neighbours'
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_NOISE = 64 * np.finfo(np.float64).eps
_EXPONENT = 0.8  # |D^k(t + h) - D^k(t - h)| ~ h^a with a below this: D^k is no smooth function there
_SMOOTH = 2.6  # fourth differences ~ h^s: s is 0 for a value jump, 1, 2 for a curvature jump, 4 for smooth
_RESERVED = 18  # values kept for classifying each place
_LONG = 24  # gaps in a run, beyond which the function is taken for curved
_History = tuple[float, ...]
_WHOLE = 0.2  # an exponent this near 0 is a jump


@dataclass(frozen=True)
class Break:
    """One discontinuity.

    Attributes:
        position: t in [0, 1].
        width: uncertainty of the position.
        order: -1 value jump, 0 kink, 1 curvature jump; s - 1 for Hölder regularity s in between.
        size: of the jump of the derivative number order + 1 (l2 norm, per t), at the smallest distance; NaN where
            the place was too crowded, or the budget too small, to measure it.
        scales: smallest and largest distance at which it was seen as one, in t.
        spread: standard error of the exponent; 0 where values on both sides are exact lines that meet.
    """

    position: float
    width: float
    order: float
    size: float
    scales: tuple[float, float]
    spread: float


@dataclass(frozen=True)
class LineProbe:
    """What was found on one line.

    Attributes:
        breaks: by position.
        evaluations: of the function.
        exhausted: whether the budget ended the search.
    """

    breaks: tuple[Break, ...]
    evaluations: int
    exhausted: bool


@dataclass(frozen=True)
class _Track:
    """What is known of a gap: whether it lies in a curved run, and its fourth differences, level by level."""

    curved: bool
    history: _History


@dataclass(eq=False)
class _Samples:
    """Values at multiples of 2^-26, each evaluated once."""

    function: Function
    held: dict[int, Values] = field(default_factory=dict)
    largest: float = 0.0
    noise: float = 0.0
    extra: int = 0

    def need(self, indices: Iterable[int]) -> list[int]:
        return sorted({i for i in indices if 0 <= i <= 2**_FINEST} - self.held.keys())

    def fetch(self, indices: Iterable[int]) -> None:
        new = self.need(indices)
        if new:
            values = self.function(np.array(new, dtype=np.float64) / 2**_FINEST)
            self.held.update(zip(new, values, strict=True))
            self.largest = max(self.largest, float(np.abs(values).max()))

    def at(self, t: Values) -> Values:
        self.extra += len(t)
        return self.function(t)

    @property
    def evaluations(self) -> int:
        return len(self.held) + self.extra

    def fourth(self, level: int, gap: int) -> float:
        """Largest fourth difference of the two stencils that have the gap beside their middle."""
        step, last = 2 ** (_FINEST - level), 2**level - 4
        starts = {min(max(gap - 2, 0), last), min(max(gap - 1, 0), last)}
        rows = (np.stack([self.held[(start + i) * step] for i in range(5)]) for start in starts)
        return max(float(np.linalg.norm(_FOURTH @ row)) for row in rows)


def probe_line(function: Function, budget: int) -> LineProbe:
    """Find the breaks of t -> (outputs,) on [0, 1] from at most `budget` values.

    Where many of 257 values lie on lines, the kinks of a continuous chain of lines are where neighbouring lines meet
    (`meetings`). Of any other function, fourth differences at spacing 2^-6, 2^-7, 2^-8 show where it is not smooth at
    that scale: for a smooth one they fall by 16 a level, at a jump of the curvature, of the slope, of the value by 4,
    by 2 and not at all. Gaps where they fall too slowly are halved, down to 2^-16. Where both sides of a gap are lines
    that meet in a value of the function, that is a kink, and its search ends. Any other place that is left is
    classified by the exponent a of |D^k(t + h) - D^k(t - h)| ~ h^a (smallest k with a < 0.8), and dropped when
    there is none.

    >>> [(round(b.position, 9), b.order) for b in probe_line(lambda t: np.abs(t - 0.3)[:, None], 1000).breaks]
    [(0.3, 0.0)]
    """
    samples = _Samples(function)
    samples.fetch(range(0, 2**_FINEST + 1, 2 ** (_FINEST - _BASE)))
    samples.noise = max(_NOISE * samples.largest, 4 * _measured_noise(samples))
    chain = _chain(samples, budget)
    if chain is not None:
        return chain
    coarse = [samples.fourth(_COARSE, gap) for gap in range(2**_COARSE)]
    ratio = 2 ** (_BASE - _COARSE)
    around = {gap: coarse[max(gap // ratio - 1, 0) : gap // ratio + 2] for gap in range(2**_BASE)}
    found: list[Break] = []
    left: list[tuple[int, list[int], dict[int, _Track]]] = []
    active = _rough(samples, _BASE, {gap: _Track(False, (max(sizes),)) for gap, sizes in around.items()})
    level, exhausted = _BASE, False
    while active:
        going: list[int] = []
        clusters = _clusters(active)
        for cluster in clusters:
            room = samples.evaluations + 2 <= budget
            straight, kink = _meeting_lines(samples, level, cluster[0], cluster[-1] + 1) if room else (False, None)
            if kink is not None:
                found.append(kink)
            elif level < _DEPTH or (straight and level < _DEEPEST and _falls(active, cluster)):
                going += cluster
            else:
                left.append((level, cluster, active))
        level += 1
        children = {child: active[gap] for gap in going for child in (2 * gap, 2 * gap + 1)}
        wanted = _around(level, children)
        reserve = _RESERVED * (len(left) + sum(active[cluster[0]].curved for cluster in _clusters(going)))
        if samples.evaluations + len(samples.need(wanted)) + reserve > budget:
            exhausted = bool(going)
            left += [(level - 1, cluster, active) for cluster in _clusters(going)]
            break
        samples.fetch(wanted)
        active = _rough(samples, level, children)
    spans = [(cluster[0] / 2**depth, (cluster[-1] + 1) / 2**depth) for depth, cluster, _ in left]
    known = [b.position for b in found]
    for place, (_, cluster, tracks) in enumerate(left):
        ends = [t for other, span in enumerate(spans) if other != place for t in span]
        nearest = min((abs(t - sum(spans[place]) / 2) for t in known + ends), default=1.0)
        longest = max((tracks[gap].history for gap in cluster), key=lambda history: history[-1])
        broken = _classify(samples, *spans[place], nearest, longest, budget)
        if broken is not None:
            found.append(broken)
    return LineProbe(tuple(sorted(found, key=lambda b: b.position)), samples.evaluations, exhausted)


def _chain(samples: _Samples, budget: int) -> LineProbe | None:
    """All breaks, when the function is a continuous chain of lines with a stretch of grid on many of them."""
    step = 2 ** (_FINEST - _BASE)
    grid = np.stack([samples.held[k * step] for k in range(2**_BASE + 1)])
    found = meetings(samples.at, grid, samples.noise, budget - samples.evaluations)
    if found is None:
        return None
    kinks, spent = found
    breaks = (Break(m.position, m.width, 0.0, m.size, (m.width, 2.0**-_BASE), 0.0) for m in kinks)
    return LineProbe(tuple(breaks), samples.evaluations, spent)


def _falls(tracks: dict[int, _Track], cluster: list[int]) -> bool:
    """Whether the fourth differences still fall: those of a value jump do not."""
    return any(tracks[gap].history[-1] < tracks[gap].history[-5] / 4 for gap in cluster)


def _around(level: int, gaps: Iterable[int]) -> list[int]:
    """Samples that the fourth differences and the lines beside these gaps need."""
    step, last = 2 ** (_FINEST - level), 2**level
    indices = {i for gap in gaps for i in range(gap - 2, gap + 4)}
    indices |= {
        i for gap in gaps if not 2 <= gap <= last - 3 for start in (0, last - 4) for i in range(start, start + 5)
    }
    return [i * step for i in indices]


def _measured_noise(samples: _Samples) -> float:
    """Largest fourth difference where a smooth function has none: 2^-21 apart."""
    worst = 0.0
    for centre in (0.3183, 0.7071):
        row = samples.at(centre + np.arange(5.0) * 2.0**-21)
        # A break just here would be mistaken for noise: the smaller difference of both places counts.
        size = float(np.linalg.norm(_FOURTH @ row))
        worst = size if worst == 0 else min(worst, size)
    return worst


def _rough(samples: _Samples, level: int, tracks: dict[int, _Track]) -> dict[int, _Track]:
    """Gaps that are not smooth at this level, with their fourth differences from the coarse level on.

    Between lines every difference that is not noise comes from a kink or a jump. In a long run of such gaps the
    function is curved (or the kinks are dense): there, differences that fall as a smooth function's do, or that are
    the reach of a larger one next to them, are dropped; from level 9 on, when that can be told.
    """
    size = {gap: samples.fourth(level, gap) for gap in tracks}
    felt = {gap: s for gap, s in size.items() if s > 32 * samples.noise}
    curved = {gap for gap in felt if tracks[gap].curved}
    if level == _BASE + 1:
        curved |= {gap for run in _clusters(felt, apart=1) if len(run) > _LONG for gap in run}
    floor = _SLACK * _DECAY ** -(level - _COARSE)
    out = {}
    for gap, s in felt.items():
        beside = max(felt.get(gap + i, 0.0) for i in (-2, -1, 1, 2))
        if gap not in curved or (s >= floor * tracks[gap].history[0] and s >= _RIDGE * beside):
            out[gap] = _Track(gap in curved, (*tracks[gap].history, s))
    return out


def _clusters(gaps: Iterable[int], apart: int = 2) -> list[list[int]]:
    out: list[list[int]] = []
    for gap in sorted(gaps):
        if out and gap - out[-1][-1] <= apart:
            out[-1].append(gap)
        else:
            out.append([gap])
    return out


def _meeting_lines(samples: _Samples, level: int, first: int, last: int) -> tuple[bool, Break | None]:
    """Whether three points on each side are on a line, and the kink, when the lines meet in the function."""
    step = 2 ** (_FINEST - level)
    left = [samples.held.get((first - i) * step) for i in (0, 1, 2)]
    right = [samples.held.get((last + i) * step) for i in (0, 1, 2)]
    if any(value is None for value in (*left, *right)):
        return False, None
    l0, l1, l2 = (np.asarray(value) for value in left)
    r0, r1, r2 = (np.asarray(value) for value in right)
    tolerance = 16 * samples.noise
    if max(np.linalg.norm(l0 - 2 * l1 + l2), np.linalg.norm(r0 - 2 * r1 + r2)) > tolerance:
        return False, None
    before, after = l0 - l1, r1 - r0  # slopes, per step
    turn = after - before
    size = float(np.linalg.norm(turn))
    if size <= tolerance:
        return True, None
    # l0 + u · before = r0 - (width - u) · after, in the least squares sense.
    width = last - first
    u = float((l0 - r0 + width * after) @ turn) / size**2
    if not 0 <= u <= width:
        return True, None
    # The lines always meet in themselves: the function must leave one for the other just there, and in between.
    reach = max(1e-3 * width, 64 * tolerance / size)
    near = samples.at((first + np.array([u - reach, u + reach])) / 2**level)
    inside = [(i, samples.held[(first + i) * step]) for i in range(1, width) if (first + i) * step in samples.held]
    for place, value in [(u - reach, near[0]), (u + reach, near[1]), *inside]:
        line = l0 + place * before if place < u else r0 - (width - place) * after
        if np.linalg.norm(value - line) > tolerance * (1 + width):
            return True, None
    uncertain = samples.noise / size / 2**level
    return True, Break((first + u) / 2**level, uncertain, 0.0, size * 2**level, (uncertain, 2 / 2**level), 0.0)


def _classify(
    samples: _Samples, left: float, right: float, nearest: float, history: _History, budget: int
) -> Break | None:
    """Which derivative jumps between both ends, if any."""
    t, width = (left + right) / 2, right - left
    largest = min(nearest / 4, t / 3.01, (1 - t) / 3.01, 2.0**-4)
    h = width * 2.0 ** np.arange(8)
    h = h[h <= largest][: max((budget - samples.evaluations) // 6, 0)]
    if len(h) < 3:
        return _by_history(t, width, history)
    offsets = np.concatenate([side * k * h for k in (1, 2, 3) for side in (1, -1)])
    (r1, l1), (r2, l2), (r3, l3) = samples.at(t + offsets).reshape(3, 2, len(h), -1)
    slopes = ((r2 - r1) - (l1 - l2)) / h[:, None]
    bends = ((r3 - 2 * r2 + r1) - (l1 - 2 * l2 + l3)) / h[:, None] ** 2
    gaps = (r1 - l1, slopes, bends)
    if len(h) > 3:  # what a smooth function adds in proportion to h goes: a jump stays
        h, gaps = h[:-1], tuple(2 * gap[:-1] - gap[1:] for gap in gaps)
    sizes = [np.linalg.norm(gap, axis=1) for gap in gaps]
    for k, size in enumerate(sizes):
        seen = np.flatnonzero(size > 64 * samples.noise / h**k)[:4]
        # A jump of the next derivative, at a place known to within the width only, looks like one of this.
        if len(seen) < 3 or (k < 2 and size[seen[0]] <= 2 * width * sizes[k + 1][seen[0]]):
            continue
        fit, spread = _slope(np.log(h[seen]), np.log(size[seen]))
        if fit < _EXPONENT:  # below 0 where the derivative before is symmetric about t
            order = max(k - 1 + (0.0 if -1.5 * _WHOLE < fit < _WHOLE else fit), -1.0)
            return Break(t, width, order, float(size[seen[0]]), (float(h[seen[0]]), float(h[seen[-1]])), spread)
    return None


def _by_history(t: float, width: float, history: _History) -> Break | None:
    """Crowded by neighbours, or at the end of the budget: by how fast the fourth differences fell."""
    levels = np.array([_COARSE, *range(_BASE, _BASE + len(history) - 1)])
    sizes = np.maximum(history, np.finfo(np.float64).tiny)  # 0 on a plateau, before the grid met its edge
    regularity, spread = _slope(-levels * math.log(2), np.log(sizes))
    if regularity >= _SMOOTH:
        return None
    return Break(t, width, max(round(regularity), 0) - 1.0, math.nan, (width, 2.0**-_COARSE), spread)


def _slope(x: Values, y: Values) -> tuple[float, float]:
    """Least squares slope, and its standard error."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    return slope, float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / (centred @ centred)))
