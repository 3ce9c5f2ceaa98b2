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
_STEPS = (2.0**-9, 2.0**-13, 2.0**-17)  # of a line's three values, as shares of the stretch around it


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

    def through(self, t: float, value: Values, noise: float) -> _Line:
        """The same line, known better by a value farther away."""
        away = t - self.at
        if 2 * noise >= abs(away) * self.error:
            return self
        return _Line(self.at, self.value, (value - self.value) / away, 2 * noise / abs(away))


class _Unresolved(Exception):  # noqa: N818
    """A place where the function is no continuous chain of lines."""


class _Spent(Exception):  # noqa: N818
    """The budget is."""


def meetings(
    function: Callable[[Values], Values], grid: Values, noise: float, budget: int
) -> tuple[tuple[Meeting, ...], bool] | None:
    """Kinks of a continuous piecewise affine t -> (outputs,) on [0, 1], and whether the budget ended the search.

    None where the function seems to be none of that kind.

    A value that is on neither of two neighbouring lines belongs to a line between them, which two more values give; a
    value that is on one of them brings the place where that one ends nearer. Values just beside the place where both
    lines meet are asked for first: when each is on its line, that is the kink. So 2 values go for a kink, 2 or 3 for a
    line of which the grid has not three values, and few are spent otherwise. Two kinks between values that lie on one
    line are missed.

    Args:
        function: of (n,) positions; at most `budget` values are asked for.
        grid: (n + 1, outputs) values at k / n.
        noise: rounding of one value (l2 norm over the outputs).
        budget: of values.
    """
    bent = np.linalg.norm(grid[:-2] - 2 * grid[1:-1] + grid[2:], axis=1) > 16 * noise
    if (~bent).mean() < _STRAIGHT or not bent.any():
        return None
    return _Search(function, grid, noise, budget).run([k + 1 for k in range(len(bent)) if not bent[k]])


class _Search:
    def __init__(self, function: Callable[[Values], Values], grid: Values, noise: float, budget: int) -> None:
        self.function, self.grid, self.noise, self.left = function, grid, noise, budget
        self.count = len(grid) - 1
        self.found: list[Meeting] = []

    def run(self, straight: list[int]) -> tuple[tuple[Meeting, ...], bool] | None:
        """`straight`: grid points that are on one line with both neighbours."""
        spent = False
        last = self.count
        try:
            lines = [self._on_grid(k) for k in straight]
            if straight[0] > 1:
                lines.insert(0, self._at_end(0, 1))
            if straight[-1] < last - 1:
                lines.append(self._at_end(last, -1))
            for before, after in itertools.pairwise(lines):
                self._between(before, before.at, after, after.at)
        except _Unresolved:
            return None
        except _Spent:
            spent = True
        return tuple(sorted(self.found, key=lambda m: m.position)), spent

    def _at(self, *t: float) -> Values:
        self.left -= len(t)
        if self.left < 0:
            raise _Spent
        return self.function(np.array(t))

    def _on_grid(self, k: int) -> _Line:
        slope = (self.grid[k + 1] - self.grid[k - 1]) * (self.count / 2)
        return _Line(k / self.count, self.grid[k], slope, self.noise * self.count)

    def _at_end(self, k: int, side: int) -> _Line:
        """The line of the first, or last, grid point."""
        for share in _STEPS:
            step = side * share / self.count
            one, two = self._at(k / self.count + step, k / self.count + 2 * step)
            if np.linalg.norm(self.grid[k] - 2 * one + two) <= 16 * self.noise:
                return _Line(k / self.count, self.grid[k], (two - self.grid[k]) / (2 * step), self.noise / abs(step))
        raise _Unresolved

    def _through(self, t: float, value: Values, reach: float) -> _Line:
        """The line of a value, from two more around it."""
        for share in _STEPS:
            step = share * reach
            one, two = self._at(t - step, t + step)
            if np.linalg.norm(one - 2 * value + two) <= 16 * self.noise:
                return _Line(t, value, (two - one) / (2 * step), self.noise / step)
        raise _Unresolved

    def _on(self, line: _Line, t: float, value: Values) -> bool:
        return bool(np.linalg.norm(value - line(t)) <= 16 * self.noise + 4 * abs(t - line.at) * line.error)

    def _between(self, before: _Line, low: float, after: _Line, high: float) -> None:
        """All kinks between low and high, up to which and from which on the function is on these lines."""
        while True:
            low, high, known = self._narrowed(before, low, after, high)
            if known is None:
                gap = after(low) - before(low)
                turn = after.slope - before.slope
                size = float(np.linalg.norm(turn))
                slack = 16 * self.noise + 4 * (after.at - before.at) * max(before.error, after.error)
                if size * (high - low) <= slack and np.linalg.norm(gap) <= slack:
                    return  # one line
                if high - low < _NARROW:
                    raise _Unresolved
                known = self._beside_meeting(before, low, after, high, size, -float(gap @ turn) / max(size**2, 1e-300))
                if known is None:
                    return
            t, value = known
            if self._on(before, t, value):
                if t * self.count == int(t * self.count):  # values of the grid before it are off the line
                    self._between(before, low, before, t)
                before, low = before.through(t, value, self.noise), t
            elif self._on(after, t, value):
                if t * self.count == int(t * self.count):
                    self._between(after, t, after, high)
                after, high = after.through(t, value, self.noise), t
            else:
                middle = self._through(t, value, min(t - low, high - t))
                self._between(before, low, middle, t)
                before, low = middle, t

    def _beside_meeting(
        self, before: _Line, low: float, after: _Line, high: float, size: float, ahead: float
    ) -> tuple[float, Values] | None:
        """None where the lines meet in the function, which is a kink; else a value that tells more.

        `size` is that of the change of slope, and the lines meet `ahead` of low.
        """
        middle = (low + high) / 2
        t = low + ahead
        slack = 16 * self.noise + 4 * (after.at - before.at) * max(before.error, after.error)
        reach = max(1e-3 * min(t - low, high - t), 8 * slack / max(size, 1e-300))
        if not (low + reach < t < high - reach) or np.linalg.norm(before(t) - after(t)) > slack:
            return middle, self._at(middle)[0]
        value = self._at(t - reach)[0]
        if not self._on(before, t - reach, value):
            return t - reach, value
        before = before.through(t - reach, value, self.noise)
        value = self._at(t + reach)[0]
        if not self._on(after, t + reach, value):
            return t + reach, value
        after = after.through(t + reach, value, self.noise)
        gap, turn = after(t) - before(t), after.slope - before.slope
        size = float(np.linalg.norm(turn))
        error = float(4 * self.noise / size)
        self.found.append(Meeting(t - float(gap @ turn) / size**2, size, error))
        return None

    def _narrowed(
        self, before: _Line, low: float, after: _Line, high: float
    ) -> tuple[float, float, tuple[float, Values] | None]:
        """The stretch without the grid points that go on on its lines, and a grid point that is on neither."""
        inside = list(range(int(low * self.count) + 1, int(np.ceil(high * self.count))))
        while inside and self._on(before, inside[0] / self.count, self.grid[inside[0]]):
            low = inside.pop(0) / self.count
        while inside and self._on(after, inside[-1] / self.count, self.grid[inside[-1]]):
            high = inside.pop() / self.count
        if not inside:
            return low, high, None
        k = inside[len(inside) // 2]
        return low, high, (k / self.count, self.grid[k])
