"""What a comparison found, and how it is shown: 80 columns of text, LaTeX, CSV."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smoothness.study.escaping import escape_latex, render_csv

WIDTH = 80
COORDINATES = ("quantity", "attack", "epsilon", "layer")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Levels of one factor against a baseline, paired by seed.

    Attributes:
        frame: a row per comparison. The columns of `by`; level; quantity, attack, epsilon, layer; unit, bound;
            mean and baseline_mean over the paired seeds; difference (level minus baseline), low, high; p,
            p_adjusted (Holm), smallest_p_adjusted; pairs, unpaired (seeds left out); verdict: "higher", "lower",
            "not told apart" or "no verdict"; note: why something is missing, else "".
        factor, baseline, by: what was compared with what, within equal values of which columns.
        confidence: of each single interval; p_adjusted is judged at 1 - confidence.
        method, test: of the interval; of p.
        family_size: rows of `frame`; those that could not be tested count with p = 1.
        smallest_adjusted_p: the smallest adjusted p that any row could have reached, whatever the data;
            0 for Student's t, NaN when no row could be tested.
    """

    frame: pd.DataFrame
    factor: str
    baseline: str
    by: tuple[str, ...]
    confidence: float
    method: str
    test: str
    family_size: int
    smallest_adjusted_p: float

    def __str__(self) -> str:
        """A table in 80 columns; notes stand under their row."""
        lines = textwrap.wrap(f"{self.factor} against {self.baseline}: mean difference over paired seeds", WIDTH)
        for where, rows in self._blocks():
            lines += ["", *textwrap.wrap(where, WIDTH, subsequent_indent="  ")]
            lines.append(
                f"  {'':18} {'diff.':>9} {f'{100 * self.confidence:g} % interval':>22} {'n':>3} {'p adj.':>7}"
            )
            for row in rows:
                lines += _row_lines(row)
        return "\n".join([*lines, "", *(line for text in self._remarks() for line in textwrap.wrap(text, WIDTH))])

    def to_latex(self) -> str:
        """A booktabs table; names are escaped. Needs the package booktabs."""
        heads = [*self.by, self.factor, *COORDINATES, "difference", "interval", "$n$", "adjusted $p$", "verdict"]
        named = [head if "$" in head else escape_latex(head) for head in heads]
        lines = [rf"\begin{{tabular}}{{{'l' * (len(heads) - 5)}rrrrl}}", r"\toprule", _latex_row(named), r"\midrule"]
        for row in self.frame.to_dict("records"):
            names = [escape_latex(_text(row[name])) for name in (*self.by, "level", *COORDINATES)]
            numbers = [_math(_signed(row["difference"])), _math(_interval(row)), str(row["pairs"]), _math(_p(row))]
            lines.append(_latex_row([*names, *numbers, escape_latex(row["verdict"])]))
        remarks = [f"% {remark}" for remark in self._remarks()]
        return "\n".join([*remarks, *lines, r"\bottomrule", r"\end{tabular}", ""])

    def to_json(self) -> str:
        """Every field and row as strict JSON; null for what is missing."""
        fields = {name: value for name, value in vars(self).items() if name != "frame"}
        fields["rows"] = self.frame.to_dict("records")
        return json.dumps(_without_nan(fields), indent=1, allow_nan=False)

    def to_csv(self, path: str | Path) -> None:
        """Write `frame` as CSV, every digit kept; text that a spreadsheet would run as a formula is made harmless."""
        Path(path).write_text(render_csv(self.frame), encoding="utf-8")

    def _blocks(self) -> Iterator[tuple[str, list[dict[Any, Any]]]]:
        names = [*self.by, *COORDINATES]
        for key, rows in self.frame.groupby(names, dropna=False, sort=False):
            parts = [f"{name} {_text(value)}" for name, value in zip(names, key, strict=True) if _text(value)]
            unit = rows["unit"].iloc[0]
            yield ", ".join(parts) + (f" [{unit}]" if unit not in ("", "1") else ""), rows.to_dict("records")

    def _remarks(self) -> list[str]:
        alpha = 1 - self.confidence
        if self.method == "t":
            interval = "Student's t on paired differences (normal differences assumed)"
        else:
            interval = "bootstrap-t on paired differences (9,999 seeded resamples; erratic with few pairs)"
        remarks = [
            f"Interval: {interval}; each holds by itself, not all of them together.",
            f"p: {_TESTS[self.test]}, Holm-adjusted over the {self.family_size} comparisons of this table.",
        ]
        if self.smallest_adjusted_p > 0:
            reach = "" if self.smallest_adjusted_p <= alpha else f": no outcome at all could reach {alpha:.3g}"
            remarks.append(f"The smallest adjusted p that can be reached is {self.smallest_adjusted_p:.3g}{reach}.")
        elif self.smallest_adjusted_p == 0:
            remarks.append("The t-test has no smallest p in theory; with few seeds that rests on normality.")
        if (self.frame["bound"].isin(["lower", "upper"])).any():
            remarks.append("Attacks give bounds; a difference of two bounds is an estimate, not a bound.")
        dropped = sorted(
            {seed for seeds in self.frame["unpaired"] for seed in seeds.split()}, key=lambda s: (len(s), s)
        )
        if dropped:
            remarks.append(f"Seeds left out somewhere for want of a partner: {', '.join(dropped)}.")
        return remarks


_TESTS = {
    "t": "Student's paired t-test",
    "bootstrap-t": "bootstrap-t",
    "permutation": "exact sign-flip test (drawn flips beyond 20 pairs)",
}


def _row_lines(row: Mapping[Any, Any]) -> list[str]:
    level = str(row["level"])
    lines = [] if len(level) <= 18 else textwrap.wrap(level, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")
    name = level if len(level) <= 18 else ""
    numbers = f"{_signed(row['difference']):>9} {_interval(row):>22} {row['pairs']:>3} {_p(row):>7}"
    lines.append(f"  {name:<18} {numbers} {row['verdict']}")
    return lines + textwrap.wrap(row["note"], WIDTH, initial_indent="      ", subsequent_indent="      ")


def _text(value: Any) -> str:
    """A name or a radius; nothing for what does not apply."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}"


def _interval(row: Mapping[Any, Any]) -> str:
    return "-" if math.isnan(row["low"]) else f"[{row['low']:.3g}, {row['high']:.3g}]"


def _p(row: Mapping[Any, Any]) -> str:
    p = row["p_adjusted"]
    return "-" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _math(text: str) -> str:
    return "--" if text == "-" else f"${text}$"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
