"""Where do the lines of a piecewise affine function of one variable meet?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_STRAIGHT = 0.2  # share of triples of the grid on a line from which on the function is taken for piecewise affine
_NARROW = 2.0**-24
_EDGE = 0.05  # no cut nearer to an end, as a share of the stretch
_TRIES = (0.5, 0.38, 0.66, 0.27, 0.79)  # places of a cut, in a stretch


@dataclass(frozen=True)
class Meeting:
    """Two lines that meet in a value of the function: position, |change of slope| and uncertainty of the position."""

    position: float
    size: float
    width: float


@dataclass(frozen=True)
class _Line:
    """Values value + (t - at) · slope, known to `error` in the slope."""

    at: float
    value: Values
    slope: Values
    error: float

    def __call__(self, t: float) -> Values:
        return self.value + (t - self.at) * self.slope


class _Unresolved(Exception):  # noqa: N818
    """A place where the function is no continuous chain of lines."""


class _Spent(Exception):  # noqa: N818
    """The budget is."""


def meetings(
    function: Callable[[Values], Values], grid: Values, noise: float, budget: int
) -> tuple[tuple[Meeting, ...], bool] | None:
    """Kinks of a continuous piecewise affine t -> (outputs,) on [0, 1], and whether the budget ended the search.

    None where the function seems to be none of that kind.

    Between two lines, known from values at both ends, values just beside the place where they meet are compared
    with them. When they differ, a line is measured there, and both halves are searched in the same way: 2 values for
    a kink, and about 3 for each time that two must be told apart. Two kinks between values that lie on one line are
    missed.

    Args:
        function: of (n,) positions; at most `budget` values are asked for.
        grid: (n + 1, outputs) values at k / n.
        noise: rounding of one value (l2 norm over the outputs).
        budget: of values.
    """
    last = len(grid) - 1
    bent = np.linalg.norm(grid[:-2] - 2 * grid[1:-1] + grid[2:], axis=1) > 16 * noise
    if (~bent).mean() < _STRAIGHT or not bent.any():
        return None
    return _Search(function, grid, noise, budget).run([k + 1 for k in range(last - 1) if not bent[k]])


class _Search:
    def __init__(self, function: Callable[[Values], Values], grid: Values, noise: float, budget: int) -> None:
        self.function, self.grid, self.noise, self.left = function, grid, noise, budget
        self.count = len(grid) - 1
        self.found: list[Meeting] = []

    def run(self, straight: list[int]) -> tuple[tuple[Meeting, ...], bool] | None:
        """`straight`: grid points that are on one line with both neighbours."""
        spent = False
        try:
            lines = [(k, self._on_grid(k)) for k in straight]
            if straight[0] > 1:
                lines.insert(0, (-1, self._measured(0.0, 1 / self.count, (0.02, 0.004, 0.0008, 0.11))))
            if straight[-1] < self.count - 1:
                lines.append((-1, self._measured(1 - 1 / self.count, 1.0, (0.98, 0.996, 0.9992, 0.89))))
            for (_, before), (_, after) in itertools.pairwise(lines):
                self._between(before, after)
        except _Unresolved:
            return None
        except _Spent:
            spent = True
        return tuple(sorted(self.found, key=lambda m: m.position)), spent

    def _at(self, t: Values) -> Values:
        self.left -= len(t)
        if self.left < 0:
            raise _Spent
        return self.function(t)

    def _on_grid(self, k: int) -> _Line:
        slope = (self.grid[k + 1] - self.grid[k - 1]) * (self.count / 2)
        return _Line(k / self.count, self.grid[k], slope, self.noise * self.count)

    def _measured(self, low: float, high: float, tries: tuple[float, ...], first: Values | None = None) -> _Line:
        """A line from three values near a place inside; `first` is the value at the first of them, if known."""
        width = high - low
        for share in tries:
            step = width * min(1 / 256, share / 2, (1 - share) / 2)
            t = low + share * width
            if first is None:
                one, two, three = self._at(t + step * np.array([-1.0, 0.0, 1.0]))
            else:
                two, first = first, None
                one, three = self._at(t + step * np.array([-1.0, 1.0]))
            if np.linalg.norm(one - 2 * two + three) <= 16 * self.noise:
                return _Line(t, two, (three - one) / (2 * step), self.noise / step)
        raise _Unresolved

    def _between(self, before: _Line, after: _Line) -> None:
        width = after.at - before.at
        if width < _NARROW:
            raise _Unresolved
        gap = after(before.at) - before.value  # of the lines, at the left end
        turn = after.slope - before.slope
        size = float(np.linalg.norm(turn))
        slack = 16 * self.noise + 4 * width * max(before.error, after.error)
        if np.linalg.norm(gap) <= slack and np.linalg.norm(before(after.at) - after.value) <= slack:
            inside = self._inside(before, after)
            if all(np.linalg.norm(value - before(t)) <= slack for t, value in inside):
                return
        elif size * width <= slack:
            raise _Unresolved  # parallel lines: a value jump
        share, value = 0.5, None
        if size * width > slack:
            share = -float(gap @ turn) / size**2 / width
            if 0.0 < share < 1.0:
                met, share, value = self._meet(before, after, share, size, slack)
                if met:
                    return
            if not _EDGE <= share <= 1 - _EDGE:
                share, value = min(max(share, _EDGE), 1 - _EDGE), None
        middle = self._measured(before.at, after.at, (share, *_TRIES), value)
        self._between(before, middle)
        self._between(middle, after)

    def _meet(
        self, before: _Line, after: _Line, share: float, size: float, slack: float
    ) -> tuple[bool, float, Values | None]:
        """Whether the function leaves one line for the other just there; else a place that tells so, and its value."""
        width = after.at - before.at
        t = before.at + share * width
        if np.linalg.norm(before(t) - after(t)) > slack or any(
            np.linalg.norm(y - (before if at < t else after)(at)) > slack for at, y in self._inside(before, after)
        ):
            return False, share, None
        reach = max(1e-3 * min(share, 1 - share) * width, 8 * slack / size)
        if reach >= min(share, 1 - share) * width:
            return False, 0.5, None
        for at, line in ((t - reach, before), (t + reach, after)):
            value = self._at(np.array([at]))[0]
            if np.linalg.norm(value - line(at)) > slack:
                return False, (at - before.at) / width, value
        self.found.append(Meeting(t, size, slack / size))
        return True, share, None

    def _inside(self, before: _Line, after: _Line) -> list[tuple[float, Values]]:
        first, stop = int(before.at * self.count) + 1, int(np.ceil(after.at * self.count))
        return [(k / self.count, self.grid[k]) for k in range(first, stop)]
