"""How does the distance to the boundary change with the number of input dimensions? Slopes, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from smoothness.study import statistics

DIMENSIONS = "input_dimensions"
DISTANCE = "boundary_distance"
LINE = -0.05  # a slope above costs less than a fifth of the distance over a hundredfold number of dimensions
LEVEL = 0.05
_KEYS = ["way", "network", "activation", "norm"]


@dataclass(frozen=True)
class Slope:
    """Log distance on log dimension, for one way of adding dimensions, one kind of network and one norm.

    Attributes:
        way: the first word of the data levels' labels: "upsampled" of "upsampled n=256".
        network: architecture, with every other factor that varies but the data.
        activation: its label.
        norm: of the distance.
        dimensions: n, ascending.
        distances: per seed, in the seeds' order: the median distance at each n.
        accuracies: clean test accuracy at each n, mean over the seeds.
        slopes: per seed: the least-squares slope of log distance on log n.
        low, high: Student's 95 % interval of their mean; NaN below 2 seeds.
        p: two-sided, of a mean slope of `LINE`; NaN below 3 seeds.
        p_adjusted: Holm's, over all slopes of the norm.
    """

    way: str
    network: str
    activation: str
    norm: str
    dimensions: tuple[int, ...]
    distances: tuple[tuple[float, ...], ...]
    accuracies: tuple[float, ...]
    slopes: tuple[float, ...]
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_adjusted: float = math.nan

    @property
    def mean(self) -> float:
        """Mean slope."""
        return float(np.mean(self.slopes))

    @property
    def verdict(self) -> str:
        """Of the claim that the distance shrinks with n: "supported", "not supported", "inconclusive"."""
        if not self.p_adjusted <= LEVEL:
            return "inconclusive"
        return "supported" if self.mean < LINE else "not supported"


def dimension_slopes(frame: pd.DataFrame) -> list[Slope]:
    """Slopes of all networks that were measured at two or more numbers of dimensions.

    Per network the median over correctly classified examples; where no misclassified input was found the distance
    counts as infinite. One slope per seed that has every n; examples are crossed with seeds, and no replicates.

    Args:
        frame: of a study with the analyzer "dimension".

    Returns:
        In the order of the frame; empty where nothing fits.
    """
    rows = frame[frame["quantity"].str.startswith(f"{DISTANCE}_") & ~(frame["value"] == 0)]  # 0: misclassified
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return []
    keys = ["setting", "data", "activation", "seed"]
    facts = {
        name: frame[frame["quantity"] == quantity].groupby(keys)["value"].first()
        for name, quantity in (("n", DIMENSIONS), ("accuracy", "clean_accuracy"))
    }
    medians = rows.groupby([*keys, "quantity"], sort=False, as_index=False)["value"].median()
    medians = medians.join(pd.DataFrame(facts), on=keys)
    medians["norm"] = medians["quantity"].str.removeprefix(f"{DISTANCE}_")
    medians["way"] = medians["data"].str.split().str[0]
    pairs = zip(medians["setting"], medians["data"], strict=True)
    medians["network"] = [setting.replace(f" data={data}", "") for setting, data in pairs]
    several = [(key, own) for key, own in medians.groupby(_KEYS, sort=False) if len(set(own["n"])) > 1]
    found = [slope for key, own in several if (slope := _slope(key, own)).slopes]
    return [slope for norm in dict.fromkeys(s.norm for s in found) for slope in _adjusted(found, norm)]


def _slope(key: tuple[str, ...], rows: pd.DataFrame) -> Slope:
    table = rows.pivot_table(index="seed", columns="n", values="value", dropna=False).dropna()
    logs = np.log(table.to_numpy(dtype=float))
    x = np.log(table.columns.to_numpy(dtype=float))
    x -= x.mean()
    slopes = logs @ x / (x @ x)  # the weights of x sum to zero: no intercept is needed
    low = high = p = math.nan
    if len(slopes) > 1 and np.isfinite(slopes).all() and not statistics.spread_is_zero(slopes):
        low, high = statistics.t_interval(slopes)
        p = statistics.t_test(slopes - LINE) if len(slopes) > 2 else math.nan
    way, network, activation, norm = key
    return Slope(
        way,
        network,
        activation,
        norm,
        dimensions=tuple(int(n) for n in table.columns),
        distances=tuple(tuple(map(float, row)) for row in table.to_numpy()),
        accuracies=tuple(rows.groupby("n")["accuracy"].mean()),
        slopes=tuple(map(float, slopes)),
        low=low,
        high=high,
        p=p,
    )  # fmt: skip


def _adjusted(found: Sequence[Slope], norm: str) -> list[Slope]:
    own = [slope for slope in found if slope.norm == norm]
    adjusted = statistics.holm([slope.p for slope in own])
    return [replace(slope, p_adjusted=p) for slope, p in zip(own, adjusted, strict=True)]
