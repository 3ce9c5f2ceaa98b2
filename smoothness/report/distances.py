"""Distances to the boundary against those to the next class: family by family, with a verdict on the claim."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from smoothness.report.displays import Cell, Table

LINE = 0.1  # of the distance to the next class: the claim's


@dataclass(frozen=True)
class Family:
    """One family's ratios.

    Attributes:
        name: the architecture.
        medians: over correctly classified examples, one per seed, in the seeds' order.
        bound: "exact" or "upper".
        distance, other: median distances over all seeds, in input units.
        unit: theirs.
    """

    name: str
    medians: tuple[float, ...]
    bound: str
    distance: float
    other: float
    unit: str

    @property
    def verdict(self) -> str:
        """Supported: below the line in every seed; else not supported if exact, inconclusive if an upper bound."""
        if all(median < LINE for median in self.medians):
            return "supported"
        return "not supported" if self.bound == "exact" else "inconclusive"


def families(frame: pd.DataFrame) -> list[Family]:
    """From the valid rows of a frame; nearest first; empty where no distances were measured."""
    keys = ["architecture", "activation", "seed", "example"]
    near = frame[frame["quantity"] == "minimal_distance"].set_index(keys)
    far = frame[frame["quantity"] == "next_class_distance"].set_index(keys)["value"]
    if near.empty or far.empty:
        return []
    rows = near.assign(other=far.reindex(near.index))
    rows = rows[rows["value"] > 0].reset_index()  # 0: misclassified as it is
    rows["ratio"] = rows["value"] / rows["other"]
    found = []
    for name, mine in rows.groupby("architecture"):
        medians = tuple(float(value) for value in mine.groupby("seed")["ratio"].median())
        bound = "exact" if set(mine["bound"]) == {"exact"} else "upper"
        middle = float(mine["value"].median()), float(mine["other"].median())
        found.append(Family(str(name), medians, bound, *middle, str(mine["unit"].iloc[0])))
    return sorted(found, key=lambda family: (float(np.median(family.medians)), family.name))


def overall(found: list[Family], *, whole: bool) -> str:
    """The verdict on all of them, in one sentence."""
    if not whole:
        return "No verdict: it needs full scale and every cell."
    counts = {word: sum(f.verdict == word for f in found) for word in ("supported", "not supported", "inconclusive")}
    text = ", ".join(f"{word} for {count}" for word, count in counts.items() if count)
    word = next(w for w in ("not supported", "inconclusive", "supported") if counts[w])
    return f"Claim on any type of classifier: {word} ({text} of {len(found)} families)."


def distance_table(found: list[Family], claim: str | None, *, whole: bool) -> Table | None:
    """One row per family; None where nothing was measured."""
    if not found:
        return None
    tones = {"supported": "good", "not supported": "bad", "inconclusive": "warn"}
    rows = []
    for family in found:
        spread = f"{min(family.medians):.3f} to {max(family.medians):.3f}"
        texts = [f"{np.median(family.medians):.3f}", spread, f"{family.distance:.3g}", f"{family.other:.3g}"]
        kind = "exact" if family.bound == "exact" else "upper bound by attack"
        verdict = Cell(family.verdict, tones[family.verdict]) if whole else Cell("–")
        rows.append([Cell(family.name), *map(Cell, texts), Cell(kind), verdict])
    caption = (
        f"Distance to the nearest misclassified input over that to the nearest training example of another class "
        f"({found[0].unit}); median over correctly classified examples within a seed, then median and range over "
        f"{len(found[0].medians)} seeds. A family counts as not supported only where its distances are exact. "
    )
    columns = ["family", "ratio", "over seeds", "distance", "next class", "kind", "verdict"]
    return Table(caption + (f"{claim} " if claim else "") + overall(found, whole=whole), columns, rows, 1, (5, 6))


def listing(found: list[Family]) -> str:
    """The ratios in words."""
    return ", ".join(f"{f.name} {np.median(f.medians):.2g} ({f.bound})" for f in found if not math.isnan(f.distance))
