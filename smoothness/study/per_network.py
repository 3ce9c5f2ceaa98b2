"""One number for each network and coordinate: what a comparison pairs by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from smoothness._checks import check_choice
from smoothness.study.comparison import COORDINATES
from smoothness.study.reductions import KEYS, attack_rates, normalised, robust_curves, success_rates

PER_MARGIN = "/margin"


def chosen_quantities(frame: pd.DataFrame, wanted: str | Sequence[str] | None) -> list[str]:
    """Names as wanted, checked; every quantity of the frame when None."""
    present = list(dict.fromkeys(frame["quantity"]))
    if wanted is None:
        return present
    names = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    for name in names:
        if name != "robust_accuracy" and name.removesuffix(PER_MARGIN) not in present:
            check_choice("quantity", name, [*present, "robust_accuracy"])
    return names


def one_number_each(usable: pd.DataFrame, quantities: list[str]) -> pd.DataFrame:
    """One row per network and coordinate, from valid rows: KEYS, COORDINATES, value, unit, bound.

    Means over examples; attack success and robust accuracy as in the report; medians of what is divided by the
    margin. Attack and layer are "" and epsilon is NaN where they do not apply.
    """
    parts = []
    for name in quantities:
        rows = usable[usable["quantity"] == name.removesuffix(PER_MARGIN)]
        unit, bound = ("1", "upper") if rows.empty else (str(rows["unit"].iloc[0]), str(rows["bound"].iloc[0]))
        if name in ("attack_success", "robust_accuracy"):
            if "correct" not in set(usable["quantity"]):
                raise ValueError(f"{name} needs the quantity 'correct', which the frame does not hold")
            part = _success(usable) if name == "attack_success" else _robust(usable)
        elif name.endswith(PER_MARGIN):
            scaled = normalised(usable, name.removesuffix(PER_MARGIN)).groupby([*KEYS, "layer"], as_index=False)
            part, unit = pd.DataFrame(scaled["value"].median()), unit.replace("logit", "1", 1)
        else:
            part = pd.DataFrame(rows.groupby([*KEYS, *COORDINATES], as_index=False, dropna=False)["value"].mean())
        parts.append(part.assign(quantity=name, unit=unit, bound=bound))
    numbers = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    for column, default in (("attack", ""), ("layer", ""), ("epsilon", math.nan)):
        if column not in numbers:
            numbers[column] = default
        elif column != "epsilon":
            numbers[column] = numbers[column].astype(object).where(numbers[column].notna(), default)
    return numbers


def chosen_attacks(numbers: pd.DataFrame, attack: str | Sequence[str] | None, epsilon: float | None) -> pd.DataFrame:
    """Rows of the attacks and the radius wanted; quantities without an attack stay."""
    attacked = numbers["attack"] != ""
    if attack is not None:
        names = [attack] if isinstance(attack, str) else list(attack)
        for name in names:
            check_choice("attack", name, set(numbers.loc[attacked, "attack"]))
        numbers = numbers[~attacked | numbers["attack"].isin(names)]
    if epsilon is not None:
        radii = numbers["epsilon"].dropna().unique()
        if not np.isclose(radii, epsilon, rtol=0, atol=2e-9).any():
            known = ", ".join(f"{radius:.6g}" for radius in sorted(radii))
            raise ValueError(f"epsilon {epsilon:.6g} was not tested; known: {known or 'none'}")
        numbers = numbers[numbers["epsilon"].isna() | np.isclose(numbers["epsilon"], epsilon, rtol=0, atol=2e-9)]
    return numbers


def _success(usable: pd.DataFrame) -> pd.DataFrame:
    rates = success_rates(usable)
    union = rates[rates["family"] == "union"].rename(columns={"family": "attack"})
    return pd.concat([attack_rates(usable), union], ignore_index=True).rename(columns={"success": "value"})


def _robust(usable: pd.DataFrame) -> pd.DataFrame:
    return robust_curves(usable).rename(columns={"robust_accuracy": "value"}).assign(attack="union")
