"""Invariants that every set of measurements must keep: a violation is a bug, never a finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

CELL = ["activation", "setting", "seed"]  # one network


class ConsistencyError(RuntimeError):
    """Measurements contradict each other: the run must not be used."""


@dataclass(frozen=True)
class Check:
    """One invariant, whether it holds, and what was compared."""

    name: str
    passed: bool
    detail: str


def check_frame(frame: pd.DataFrame, norm: str | None = None) -> list[Check]:
    """Hard invariants within a study's frame.

    Args:
        frame: a study's.
        norm: of the attacks' threat model: certified radii in this norm are compared with what the attacks found.

    >>> check_frame(pd.DataFrame(columns=[*CELL, "example", "quantity", "attack", "epsilon", "value", "valid"]))[0]
    Check(name='robust accuracy never exceeds clean accuracy', passed=True, detail='0 pairs compared')
    """
    return [
        _robust_below_clean(frame),
        _values_in_range(frame),
        _margins_fit(frame),
        _one_row_each(frame),
        *_sides_in_order(frame),
        *_certified_hold(frame, norm),
    ]


def check_twins(cells: Sequence[dict[str, Any]]) -> Check:
    """Networks of one setting and seed start from the same weights, the declared gain divided out."""
    first: dict[tuple[str, int], Sequence[float]] = {}
    different = []
    for cell in cells:
        group, prints = (cell["setting"], cell["seed"]), cell["initial_weights"]
        expected = first.setdefault(group, prints)
        if len(prints) != len(expected) or not all(map(_close, prints, expected)):
            different.append(cell["cell"])
    return Check(
        "twins share their initial weights up to the declared gain",
        not different,
        f"different: {', '.join(different)}" if different else f"{len(cells)} networks in {len(first)} groups",
    )


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)


def require(checks: Sequence[Check]) -> None:
    """Raise ConsistencyError naming every check that failed."""
    failed = [f"{check.name} ({check.detail})" for check in checks if not check.passed]
    if failed:
        raise ConsistencyError(
            "measurements contradict each other, which is a bug in smoothness; do not use this run: "
            + "; ".join(failed)
        )


def _robust_below_clean(frame: pd.DataFrame) -> Check:
    """An example misclassified without any perturbation counts as a success of every attack."""
    clean = frame.loc[(frame["quantity"] == "correct") & frame["valid"], [*CELL, "example", "value"]]
    attacked = frame.loc[(frame["quantity"] == "attack_success") & frame["valid"]]
    pairs = attacked.merge(clean, on=[*CELL, "example"], suffixes=("", "_clean"))
    wrong = pairs[(pairs["value"] == 0) & (pairs["value_clean"] == 0)]
    return _check("robust accuracy never exceeds clean accuracy", len(wrong), f"{len(pairs)} pairs compared")


def _values_in_range(frame: pd.DataFrame) -> Check:
    shares = frame["quantity"].isin(["clean_accuracy", "correct", "attack_success"]) & frame["valid"]
    outside = shares & ~frame["value"].between(0, 1)
    kinds = frame["quantity"].astype(str).str.split(":").str[0]  # "kink_density:wide" is one, too
    sizes = kinds.isin(["jacobian_norm", "kink_density", "slope_jump", "value_jump", "certified_radius"])
    negative = sizes & frame["valid"] & ~(frame["value"] >= 0)
    detail = f"{int(shares.sum() + sizes.sum())} values compared"
    return _check(
        "shares lie in [0, 1], norms and densities are not negative", int((outside | negative).sum()), detail
    )


def _margins_fit(frame: pd.DataFrame) -> Check:
    keys = [*CELL, "example"]
    margin = frame.loc[(frame["quantity"] == "margin") & frame["valid"], [*keys, "value"]]
    correct = frame.loc[(frame["quantity"] == "correct") & frame["valid"], [*keys, "value"]]
    pairs = margin.merge(correct, on=keys, suffixes=("", "_correct"))
    wrong = ((pairs["value"] > 0) & (pairs["value_correct"] == 0)) | (
        (pairs["value"] < 0) & (pairs["value_correct"] == 1)
    )
    return _check(
        "the margin is positive exactly where the model is right", int(wrong.sum()), f"{len(pairs)} examples"
    )


def _sides_in_order(frame: pd.DataFrame) -> list[Check]:
    """Only where something was measured from both sides."""
    kinds = frame["quantity"].astype(str).str.extract(r"^(?P<what>.+)_(?P<side>lower|upper)(?P<label>:.*)?$")
    rows = frame.assign(**kinds.fillna("")).loc[kinds["side"].notna() & frame["valid"]]
    if rows.empty:
        return []
    keys = [c for c in (*CELL, "example", "what", "label", "epsilon", "layer") if c in rows]
    lower, upper = (rows.loc[rows["side"] == side, [*keys, "value"]] for side in ("lower", "upper"))
    pairs = lower.merge(upper, on=keys, suffixes=("", "_upper"))
    wrong = pairs["value"] > pairs["value_upper"] * (1 + 1e-9) + 1e-12
    return [_check("lower sides never exceed upper sides", int(wrong.sum()), f"{len(pairs)} pairs compared")]


def _certified_hold(frame: pd.DataFrame, norm: str | None) -> list[Check]:
    """An attack's success within ε puts an adversarial example at ε or nearer."""
    if norm is None or "unit" not in frame:
        return []
    kinds = frame["quantity"].astype(str).str.split(":").str[0]
    certified = frame.loc[(kinds == "certified_radius") & (frame["unit"] == f"input {norm}") & frame["valid"]]
    if certified.empty:
        return []
    keys = [*CELL, "example"]
    found = frame.loc[(frame["quantity"] == "attack_success") & frame["valid"] & (frame["value"] > 0.5)]
    pairs = certified[[*keys, "value"]].merge(found[[*keys, "epsilon"]], on=keys, suffixes=("", "_attack"))
    epsilon = pairs["epsilon_attack"] if "epsilon_attack" in pairs else pairs["epsilon"]
    wrong = pairs["value"] > epsilon.astype(float) * (1 + 1e-6)
    return [
        _check(
            "no adversarial example lies within its certified radius", int(wrong.sum()), f"{len(pairs)} pairs compared"
        )
    ]


def _one_row_each(frame: pd.DataFrame) -> Check:
    keys = [c for c in (*CELL, "example", "quantity", "attack", "epsilon", "layer") if c in frame]
    detail = f"{len(frame)} rows"
    return _check("no measurement is counted twice", int(frame.duplicated(subset=keys).sum()), detail)


def _check(name: str, violations: int, compared: str) -> Check:
    return Check(name, violations == 0, f"{violations} violations; {compared}" if violations else compared)
