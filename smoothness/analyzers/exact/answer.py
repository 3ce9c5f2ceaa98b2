"""What an exact search gives for one input, and what all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from smoothness._norms import Norm

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest input of another class.

    Attributes:
        distance: infinite where there is none inside the bounds; NaN where the search did not finish.
        point: on the boundary or just beyond; None without one.
        beyond: an offset from `point` into the other class, along which a step of any small size is misclassified;
            None where the point itself is.
        reason: why the distance is NaN.
    """

    distance: float
    point: Array | None = None
    beyond: Array | None = None
    reason: str = ""


NOWHERE = Nearest(float("inf"))


def length(offset: Array, norm: Norm) -> Array:
    """Norm over the last axis.

    >>> float(length(np.array([3.0, -4.0]), "l2"))
    5.0
    """
    if norm == "l2":
        return np.asarray(np.sqrt((offset**2).sum(axis=-1)))
    size = np.abs(offset)
    return np.asarray(size.max(axis=-1, initial=0) if norm == "linf" else size.sum(axis=-1))
