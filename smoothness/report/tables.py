"""Statistics of a study: aggregated over examples within a seed first, then mean and spread over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from smoothness.report.curves import smoothness_order
from smoothness.report.style import order_activations
from smoothness.report.success import (
    HEADLINE,
    KEYS,
    PRECISION,
    audits,
    nearest_epsilon,
    normalised,
    robust_curves,
    success_rates,
    tested_epsilons,
    zero_gradient_share,
)

COLUMNS = (*KEYS, "setting", "example", "quantity", "attack", "epsilon", "layer", "value", "bound", "unit", "valid")
ROUGHNESS = ("kink_density", "slope_jump", "value_jump")


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds.

    >>> Spread.of([0.5, 0.7]).percent()
    '60.0 ± 14.1'
    >>> Spread.of([2.0]).number()
    '2.00'
    """

    mean: float
    sd: float
    seeds: int

    @classmethod
    def of(cls, values: object) -> Spread:
        """Of one value per seed; the deviation divides by n - 1 and is NaN for a single seed."""
        array = np.asarray(values, dtype=float)
        array = array[np.isfinite(array)]
        mean = float(array.mean()) if len(array) else math.nan
        return cls(mean, float(array.std(ddof=1)) if len(array) > 1 else math.nan, len(array))

    def percent(self) -> str:
        """In percent, one decimal: "84.1 ± 0.6"; "–" when nothing was measured."""
        if not self.seeds:
            return "–"
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.sd:.1f}" if self.seeds > 1 else "")

    def number(self) -> str:
        """With three significant digits of the mean, and as many decimals of the deviation."""
        if not self.seeds:
            return "–"
        if self.mean == 0:
            return "0" if not self.sd > 0 else f"0 ± {self.sd:.2g}"
        decimals = 2 - math.floor(math.log10(abs(self.mean)))
        if not -3 <= decimals <= 6:
            return f"{self.mean:.2e}" + (f" ± {self.sd:.0e}" if self.seeds > 1 else "")
        decimals = max(decimals, 0)
        return f"{self.mean:.{decimals}f}" + (f" ± {self.sd:.{decimals}f}" if self.seeds > 1 else "")


def check_columns(frame: pd.DataFrame) -> None:
    """Raise when the frame lacks a column that a report needs.

    Raises:
        ValueError: naming the missing columns.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"the run's frame lacks the columns {', '.join(missing)}; run the study again")


def split_valid(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The valid rows, and how many were left out: quantity, excluded, rows."""
    usable = frame["valid"].astype(bool) & np.isfinite(frame["value"].astype(float))
    counts = frame.assign(excluded=~usable).groupby("quantity", as_index=False).agg(
        excluded=("excluded", "sum"), rows=("excluded", "size")
    )  # fmt: skip
    return frame[usable].reset_index(drop=True), counts[counts["excluded"] > 0].reset_index(drop=True)


def layer_roughness(frame: pd.DataFrame) -> pd.DataFrame:
    """Kinks and jumps of each layer, one row per seed: KEYS, layer, value, quantity, unit.

    Kink density: mean over examples. The two jump densities: divided by the margin, median over
    correctly classified examples (the margin comes close to zero, so a mean would follow a few examples).
    """
    parts = []
    for quantity in ROUGHNESS:
        if quantity == "kink_density":
            rows = frame[(frame["quantity"] == quantity) & frame["layer"].notna()]
            seeds = rows.groupby([*KEYS, "layer"], as_index=False)["value"].mean()
        else:
            rows = normalised(frame, quantity)
            seeds = rows[rows["layer"].notna()].groupby([*KEYS, "layer"], as_index=False)["value"].median()
        units = frame.loc[frame["quantity"] == quantity, "unit"]
        parts.append(seeds.assign(quantity=quantity, unit=str(units.iloc[0]) if len(units) else ""))
    roughness: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return roughness


def per_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, one column per statistic; every aggregation over examples happens here.

    Columns: KEYS, clean_accuracy (whole test set), clean_accuracy_attacked (attacked examples),
    robust_accuracy and robust_accuracy_precision (union of attacks at the headline and the precision ε),
    noise, native, surrogate, other, cascade, union (success at the headline ε), zero_gradient,
    gradient_masked and figure_trustworthy (the audit's verdicts, where it ran), margin_median,
    jacobian_raw and jacobian_normalised (medians over examples), kink_density (mean), slope_jump and
    value_jump (normalised, medians), slope_jump_raw and value_jump_raw (medians; summed over layers).
    """
    epsilons = tested_epsilons(frame)
    headline, precision = nearest_epsilon(epsilons, HEADLINE), nearest_epsilon(epsilons, PRECISION)
    columns: dict[str, pd.Series] = {}
    rows = frame[frame["quantity"] == "clean_accuracy"]
    columns["clean_accuracy"] = rows.groupby(KEYS)["value"].mean()
    curves, rates = robust_curves(frame), success_rates(frame)
    for name, epsilon in (
        ("clean_accuracy_attacked", 0.0),
        ("robust_accuracy", headline),
        ("robust_accuracy_precision", precision),
    ):
        columns[name] = curves[curves["epsilon"] == epsilon].set_index(KEYS)["robust_accuracy"]
    for name in ("noise", "native", "surrogate", "other", "cascade", "union"):
        chosen = rates[(rates["family"] == name) & (rates["epsilon"] == headline)]
        columns[name] = chosen.set_index(KEYS)["success"]
    columns["zero_gradient"] = zero_gradient_share(frame).set_index(KEYS)["share"]
    for name in ("gradient_masked", "figure_trustworthy"):
        columns[name] = audits(frame).set_index(KEYS)[name]
    for name, quantity in (("margin_median", "margin"), ("jacobian_raw", "jacobian_norm")):
        columns[name] = frame[frame["quantity"] == quantity].groupby(KEYS)["value"].median()
    columns["jacobian_normalised"] = normalised(frame, "jacobian_norm").groupby(KEYS)["value"].median()
    for name, quantity in (("kink_density", ROUGHNESS[0]), ("slope_jump", ROUGHNESS[1]), ("value_jump", ROUGHNESS[2])):
        raw = frame[frame["quantity"] == quantity].groupby([*KEYS, "example"])["value"].sum().groupby(KEYS)
        if name == "kink_density":
            columns[name] = raw.mean()
            continue
        columns[f"{name}_raw"] = raw.median()
        columns[name] = normalised(frame, quantity).groupby([*KEYS, "example"])["value"].sum().groupby(KEYS).median()
    cells = frame[KEYS].drop_duplicates().set_index(KEYS).index
    return pd.DataFrame({name: series.reindex(cells).astype(float) for name, series in columns.items()}).reset_index()


def statistics_of(seeds: pd.DataFrame) -> list[str]:
    """Names of the statistics in a frame of `per_seed`."""
    return [name for name in seeds.columns if name not in KEYS]


def groups(seeds: pd.DataFrame) -> list[tuple[str, str]]:
    """(architecture, activation) in reading order: by architecture, then from the roughest activation."""
    order = order_activations(seeds["activation"])
    pairs = set(zip(seeds["architecture"], seeds["activation"], strict=True))
    return sorted(pairs, key=lambda pair: (pair[0] != "mlp", pair[0], order.index(pair[1])))


def spreads(seeds: pd.DataFrame) -> dict[tuple[str, str], dict[str, Spread]]:
    """Mean and spread over seeds of each statistic, by (architecture, activation)."""
    found = {}
    for architecture, activation in groups(seeds):
        mine = seeds[(seeds["architecture"] == architecture) & (seeds["activation"] == activation)]
        found[architecture, activation] = {name: Spread.of(mine[name]) for name in statistics_of(seeds)}
    return found


def summary_frame(seeds: pd.DataFrame) -> pd.DataFrame:
    """The summary as a frame: one row per architecture and activation, `_mean` and `_sd` per statistic."""
    rows = []
    for (architecture, activation), values in spreads(seeds).items():
        mine = seeds[(seeds["architecture"] == architecture) & (seeds["activation"] == activation)]
        order = smoothness_order(activation)
        row: dict[str, object] = {
            "architecture": architecture,
            "activation": activation,
            "smoothness_order": math.nan if order is None else order,
            "seeds": mine["seed"].nunique(),
        }
        for name, spread in values.items():
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Difference:
    """Mean difference from the baseline over seeds that both have, with a simultaneous 95 % interval."""

    activation: str
    mean: float
    low: float
    high: float
    seeds: int


def differences(
    seeds: pd.DataFrame, architecture: str, statistic: str, baseline: str, level: float = 0.95
) -> list[Difference]:
    """Each activation minus the baseline, paired by seed (twins share their initial weights and batches).

    Student's t over the paired differences; Bonferroni over the activations compared, so that all
    intervals hold together. Activations with fewer than two common seeds are left out.
    """
    wide = seeds[seeds["architecture"] == architecture].pivot_table(
        index="seed", columns="activation", values=statistic
    )
    if baseline not in wide:
        return []
    pairs = {
        name: (wide[name] - wide[baseline]).dropna().to_numpy()
        for name in order_activations(map(str, wide.columns))
        if name != baseline
    }
    pairs = {name: d for name, d in pairs.items() if len(d) > 1}
    found = []
    for name, d in pairs.items():
        t = float(stats.t.ppf(1 - (1 - level) / (2 * len(pairs)), len(d) - 1))
        half, mean = t * float(d.std(ddof=1)) / math.sqrt(len(d)), float(d.mean())
        found.append(Difference(name, mean, mean - half, mean + half, len(d)))
    return found
