"""How many correctly classified examples did the attacks flip, and is that what the study's criterion asks for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from smoothness.report.answer import format_255
from smoothness.report.displays import Cell, Table
from smoothness.report.success import KEYS, first_success
from smoothness.report.tables import groups
from smoothness.study.config import Criterion

_ROUNDING = 1e-8  # of an ε


@dataclass(frozen=True)
class Flips:
    """One activation in one architecture.

    Attributes:
        shares: of the correctly classified examples that any attack flipped, one per seed, in the seeds' order.
        wanted: the criterion's share.
    """

    architecture: str
    activation: str
    shares: tuple[float, ...]
    wanted: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.shares))

    @property
    def verdict(self) -> str:
        """Supported: the mean over the seeds reaches the criterion's share; by the attacks that ran, otherwise not."""
        return "supported" if self.mean >= self.wanted else "not supported"


def flips(frame: pd.DataFrame, criterion: Criterion | None) -> list[Flips]:
    """From the valid rows of a frame; empty without a criterion."""
    if criterion is None:
        return []
    first = first_success(frame).groupby([*KEYS, "example"])["first"].min().reset_index()
    first["flipped"] = first["first"] <= criterion.epsilon + _ROUNDING
    shares = first.groupby(KEYS)["flipped"].mean()  # sorted by its keys, the seed last
    return [
        Flips(architecture, activation, tuple(shares[activation, architecture]), criterion.share)
        for architecture, activation in groups(first)
    ]


def criterion_met(found: Sequence[Flips], criterion: Criterion, *, whole: bool) -> str:
    """The verdict on all of them, in one sentence."""
    if not whole:
        return "No verdict on the criterion: it needs full scale and every cell."
    short = [f"{f.activation} in {f.architecture} ({100 * f.mean:.1f} %)" for f in found if f.verdict != "supported"]
    verdict = "not supported" if short else "supported"
    line = f"at least {100 * criterion.share:g} % of the correctly classified examples flipped"
    text = f"The claim: {verdict}. Its criterion is {line} at ε = {format_255(criterion.epsilon)} in every network"
    return f"{text}; short of that: {', '.join(short)}." if short else f"{text}."


def flip_table(found: Sequence[Flips], criterion: Criterion | None, claim: str | None, *, whole: bool) -> Table | None:
    """One row per network; None without a criterion or an attack."""
    if criterion is None or not found:
        return None
    rows = []
    for each in found:
        spread = f"{100 * min(each.shares):.1f} to {100 * max(each.shares):.1f}"
        verdict = Cell(each.verdict, "good" if each.verdict == "supported" else "bad") if whole else Cell("–")
        rows.append([*map(Cell, (each.architecture, each.activation, f"{100 * each.mean:.1f}", spread)), verdict])
    caption = (
        f"Share of the correctly classified examples that any attack flipped at ε = {format_255(criterion.epsilon)} "
        f"or less, a lower bound: mean and range over {len(found[0].shares)} seeds. A verdict compares the mean with "
        f"the {100 * criterion.share:g} % asked for before the run; a stronger attack might still reach them. "
    )
    columns = ["architecture", "activation", "flipped, %", "over seeds", "verdict"]
    return Table(caption + (f"{claim} " if claim else ""), columns, rows, 2, (4,))
