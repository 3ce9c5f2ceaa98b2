"""From a frame to one number per network: who was fooled and at which ε, masking, division by the margin."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from smoothness.analyzers.masking import Masking, family

KEYS = ["activation", "architecture", "seed"]
PRECISION, HEADLINE = 1 / 255, 8 / 255
FAMILIES = ("noise", "native", "surrogate", "other", "cascade", "union")


def round_epsilon(epsilon: pd.Series) -> pd.Series:
    """ε on a grid of 1e-9, so that equal radii compare equal."""
    return epsilon.astype(float).round(9)


def first_success(frame: pd.DataFrame) -> pd.DataFrame:
    """The smallest tested ε at which each attack fooled each correctly classified example.

    Args:
        frame: a study's frame without invalid rows.

    Returns:
        KEYS, example, attack, family, first (infinity: never). Examples that the network gets wrong
        without any attack are left out: nothing was there to flip.
    """
    rows = frame.loc[frame["quantity"] == "attack_success", [*KEYS, "example", "attack", "epsilon", "value"]].copy()
    rows["first"] = np.where(rows["value"] > 0.5, round_epsilon(rows["epsilon"]), math.inf)
    first = pd.DataFrame(rows.groupby([*KEYS, "example", "attack"])["first"].min().reset_index())
    first = first.merge(_correct(frame), on=[*KEYS, "example"])
    first = first[first["correct"]].drop(columns="correct")
    first["family"] = first["attack"].map(family)
    return first.reset_index(drop=True)


def _correct(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame.loc[frame["quantity"] == "correct", [*KEYS, "example", "value"]]
    return rows.assign(correct=rows["value"] > 0.5).drop(columns="value")


def tested_epsilons(frame: pd.DataFrame) -> list[float]:
    """The radii of the attacks, ascending."""
    rows = frame.loc[frame["quantity"] == "attack_success", "epsilon"].dropna()
    return sorted(round_epsilon(rows).unique().tolist())


def nearest_epsilon(epsilons: list[float], wanted: float) -> float | None:
    """The largest tested radius up to `wanted`, or else the smallest one; None without any."""
    below = [e for e in epsilons if e <= wanted + 1e-8]
    return below[-1] if below else (epsilons[0] if epsilons else None)


def success_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Attack success per cell, family of attacks and ε: a lower bound on vulnerability.

    Within a family an example counts as fooled when any attack succeeded at this ε or a smaller one. The family
    "union" holds every attack; the others have rates at the radii at which one of them ran.

    Returns:
        KEYS, family, epsilon, success (share of the correctly classified examples), examples.
    """
    return _rates(frame, first_success(frame), "family")


def attack_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """As `success_rates`, for each single attack: KEYS, attack, epsilon, success, examples."""
    first = first_success(frame)
    rates = _rates(frame, first.assign(family=first["attack"]), "attack")
    return rates[rates["attack"] != "union"].reset_index(drop=True)


def _rates(frame: pd.DataFrame, first: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rates at the radii at which an attack of the family ran; the union's at all of them."""
    attacks = frame.loc[frame["quantity"] == "attack_success", ["attack", "epsilon"]].drop_duplicates()
    attacks = attacks.assign(family=attacks["attack"].map(family) if name == "family" else attacks["attack"])
    ran = set(zip(attacks["family"], round_epsilon(attacks["epsilon"]), strict=True))
    both = pd.concat([first, first.assign(family="union")])
    best = both.groupby([*KEYS, "family", "example"], as_index=False)["first"].min()
    parts = []
    for epsilon in tested_epsilons(frame):
        here = best[[label == "union" or (label, epsilon) in ran for label in best["family"]]]
        fooled = here.assign(epsilon=epsilon, fooled=here["first"] <= epsilon + 1e-9)
        groups = fooled.groupby([*KEYS, "family", "epsilon"], as_index=False)
        parts.append(groups.agg(success=("fooled", "mean"), examples=("fooled", "size")))
    columns = [*KEYS, "family", "epsilon", "success", "examples"]
    rates = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return rates.rename(columns={"family": name})


def robust_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per cell and ε under the union of attacks: an upper bound.

    The share of attacked examples that are classified correctly and that no attack fooled at this ε or
    a smaller one; ε = 0 is the clean accuracy on the same examples.

    Returns:
        KEYS, epsilon, robust_accuracy, examples.
    """
    attacked = frame.loc[frame["quantity"] == "attack_success", [*KEYS, "example"]].drop_duplicates()
    examples = attacked.merge(_correct(frame), on=[*KEYS, "example"])
    union = first_success(frame).groupby([*KEYS, "example"], as_index=False)["first"].min()
    examples = examples.merge(union, on=[*KEYS, "example"], how="left")
    parts = []
    for epsilon in [0.0, *tested_epsilons(frame)]:
        held = examples["correct"] & ~(examples["first"] <= epsilon + 1e-9)
        groups = examples.assign(epsilon=epsilon, held=held).groupby([*KEYS, "epsilon"], as_index=False)
        parts.append(groups.agg(robust_accuracy=("held", "mean"), examples=("held", "size")))
    return pd.concat(parts, ignore_index=True)


def zero_gradient_share(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of examples whose input gradient is exactly zero: KEYS, share."""
    rows = frame[frame["quantity"] == "jacobian_norm"]
    return rows.assign(share=rows["value"] == 0).groupby(KEYS)["share"].mean().reset_index()


def contradicted_share(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of examples with finite outputs whose gradient does not fit the forward pass: KEYS, share.

    Args:
        frame: a study's frame, invalid rows included: these are the ones that count.
    """
    finite = frame.loc[(frame["quantity"] == "correct") & frame["valid"], [*KEYS, "example"]]
    rows = frame[frame["quantity"] == "jacobian_norm"].merge(finite, on=[*KEYS, "example"])
    return rows.assign(share=~rows["valid"].astype(bool)).groupby(KEYS)["share"].mean().reset_index()


def masking(frame: pd.DataFrame, everything: pd.DataFrame | None = None) -> dict[tuple[str, str], Masking]:
    """The masking verdict of each (activation, architecture), from measurements only.

    Args:
        frame: the valid rows.
        everything: the invalid rows as well, which tell how many gradients are false.
    """
    by = ["activation", "architecture"]
    rates = success_rates(frame)
    wide = rates.pivot_table(index=[*KEYS, "epsilon"], columns="family", values="success")
    found: dict[tuple[str, str], Masking] = {}
    shares = zero_gradient_share(frame).groupby(by)["share"].mean()
    contradicted = contradicted_share(frame if everything is None else everything).groupby(by)["share"].mean()
    others = [name for name in ("noise", "surrogate", "other") if name in wide]
    leads: pd.DataFrame = pd.DataFrame()
    if "native" in wide and others:
        lead = (wide[others].max(axis=1) - wide["native"]).dropna()
        leads = lead.groupby([*by, "epsilon"]).mean().rename("lead").reset_index()
    for key, _ in frame.groupby(by):
        activation, architecture = str(key[0]), str(key[1])
        best, at = -math.inf, math.nan
        if len(leads):
            mine = leads[(leads["activation"] == activation) & (leads["architecture"] == architecture)]
            if len(mine):
                place = int(mine["lead"].to_numpy().argmax())
                best, at = float(mine["lead"].iloc[place]), float(mine["epsilon"].iloc[place])
        share = float(shares.get((activation, architecture), math.nan))
        false = float(contradicted.get((activation, architecture), math.nan))
        found[activation, architecture] = Masking(share, best, at, false)
    return found


def audits(frame: pd.DataFrame) -> pd.DataFrame:
    """The masking audit's verdicts: KEYS, gradient_masked and figure_trustworthy, 0 or 1; empty without an audit."""
    names = ["gradient_masked", "figure_trustworthy"]
    rows = frame[frame["quantity"].isin(names)]
    wide = rows.pivot_table(index=KEYS, columns="quantity", values="value").reindex(columns=names)
    return pd.DataFrame(wide.reset_index())


def normalised(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A quantity divided by the example's margin, over correctly classified examples: unit 1 / input.

    Dividing removes the scale of the logits. Returns KEYS, example, layer, value.
    """
    margin = frame.loc[frame["quantity"] == "margin", [*KEYS, "example", "value"]].rename(columns={"value": "margin"})
    rows = frame.loc[frame["quantity"] == quantity, [*KEYS, "example", "layer", "value"]]
    rows = rows.merge(margin[margin["margin"] > 0], on=[*KEYS, "example"])
    rows["value"] /= rows.pop("margin")
    return rows
