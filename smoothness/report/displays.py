"""The tables as readers see them: text in cells, from frames of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from smoothness.analyzers.masking import Masking, family
from smoothness.report.answer import BASELINE, Answer, format_255
from smoothness.report.curves import describe_order, smoothness_order
from smoothness.report.success import attack_rates
from smoothness.report.tables import Spread, groups, spreads


@dataclass(frozen=True)
class Cell:
    """One cell; `tone` is "", "good", "bad" or "warn", and only repeats what the text says."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption. The first `heads` cells of each row are row headers.

    Attributes:
        caption: what the table holds, with units.
        columns: column headers.
        rows: cells, row by row.
        heads: how many leading columns name the row; the others are right-aligned unless in `prose`.
        prose: indices of columns that hold sentences.
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    heads: int = 2
    prose: tuple[int, ...] = ()


def _cells(texts: Iterable[str]) -> list[Cell]:
    return [Cell(text) for text in texts]


def masking_table(seeds: pd.DataFrame, masked: dict[tuple[str, str], Masking], headline: float | None) -> Table:
    """Native gradient or not: success by family of attacks, and the masking verdict."""
    at = f"at ε = {format_255(headline)}" if headline is not None else ""
    rows = []
    for (architecture, activation), values in spreads(seeds).items():
        verdict = masked[activation, architecture]
        native = values["native"].percent()
        rows.append(
            [
                *_cells([architecture, activation, values["noise"].percent()]),
                Cell(f"masked ({native})" if verdict.masked and values["native"].seeds else native,
                     "warn" if verdict.masked else ""),
                *_cells(values[name].percent() for name in ("surrogate", "other", "cascade", "union")),
                Cell("masked" if verdict.masked else "no", "warn" if verdict.masked else ""),
                _audited(values["gradient_masked"], values["figure_trustworthy"]),
                Cell(_why(verdict)),
            ]
        )  # fmt: skip
    columns = [
        "architecture", "activation", "noise", "native", "surrogate", "other", "cascade", "union (headline)",
        "masked?", "audit", "measured reason",
    ]  # fmt: skip
    caption = (
        f"Attack success {at} in % of the correctly classified examples, mean ± standard deviation over seeds: a "
        "lower bound on vulnerability. The headline figures use the union: every example that any attack fooled at "
        "this ε or a smaller one. “Others ahead”: the largest lead, over all ε, of attacks that do not use the native "
        "gradient. “Audit”, where it ran: separate attacks of every kind decide whether native gradients mislead, and "
        "whether twice the effort would still change the cascade's figure."
    )
    return _without_empty_columns(Table(caption, columns, rows, prose=(9, 10)), keep={2, 3, 4, 7, 8, 10})


def _audited(masked: Spread, trustworthy: Spread) -> Cell:
    """The audit's verdicts, over the seeds that were audited."""
    if not masked.seeds:
        return Cell("–")

    def share(verdict: Spread, yes: str, no: str) -> str:
        mixed = f"{yes} in {round(verdict.mean * verdict.seeds)} of {verdict.seeds}"
        return {0.0: no, 1.0: yes}.get(verdict.mean, mixed)

    text = (
        f"gradients {share(masked, 'masked', 'sound')}; figure {share(trustworthy, 'trustworthy', 'not trustworthy')}"
    )
    return Cell(text, "good" if trustworthy.mean == 1 else "warn")


def _why(verdict: Masking) -> str:
    reasons = []
    if verdict.zero_share > 0:
        reasons.append(f"gradient exactly 0 for {100 * verdict.zero_share:.0f} %")
    if verdict.contradicted > 0:
        reasons.append(f"gradient contradicts the forward pass for {100 * verdict.contradicted:.0f} %")
    if verdict.lead > 0:
        reasons.append(f"others ahead by {100 * verdict.lead:.0f} points at {format_255(verdict.lead_epsilon)}")
    return "; ".join(reasons) or "–"


def summary_table(seeds: pd.DataFrame, headline: float | None, precision: float | None) -> Table:
    """The summary: accuracy, robustness (once where both radii are one), normalised smoothness."""
    both = precision != headline or headline is None
    shown = (*["robust_accuracy_precision"] * both, "robust_accuracy")
    rows = []
    for (architecture, activation), values in spreads(seeds).items():
        rows.append(
            _cells(
                [
                    architecture,
                    activation,
                    describe_order(smoothness_order(activation)),
                    values["clean_accuracy"].percent(),
                    *(values[name].percent() for name in shown),
                    _zero_aware(values["jacobian_normalised"], values["zero_gradient"]),
                    *(values[name].number() for name in ("kink_density", "slope_jump", "value_jump")),
                ]
            )
        )
    columns = [
        "architecture", "activation", "smoothness", "clean accuracy, %",
        *([f"robust at {format_255(precision)}, %" if precision is not None else "robust at precision, %"] * both),
        f"robust at {format_255(headline)}, %" if headline is not None else "robust, %",
        "Jacobian norm ÷ margin", "breaks, density", "slope jumps ÷ margin", "value jumps ÷ margin",
    ]  # fmt: skip
    caption = (
        "Mean ± standard deviation over seeds. Clean accuracy: whole test set. Robust accuracy: attacked examples, "
        "union of attacks, an upper bound. Normalised figures: medians over correctly classified examples; kinks "
        "and jumps are summed over layers, and are not measured (–) where the exact method does not reach. “0 (flat)” "
        "means a gradient of exactly 0 between jumps, which is not smoothness."
    )
    return _without_empty_columns(Table(caption, columns, rows, heads=3), keep=set(range(len(columns) - 4)))


def _zero_aware(norm: Spread, share: Spread) -> str:
    return "0 (flat)" if norm.seeds and norm.mean == 0 and share.mean > 0 else norm.number()


def raw_table(seeds: pd.DataFrame) -> Table:
    """Values before division by the margin."""
    names = {
        "margin_median": "margin, logit",
        "jacobian_raw": "Jacobian norm, logit / input l2",
        "kink_density": "density of breaks",
        "slope_jump_raw": "slope jumps",
        "value_jump_raw": "value jumps",
        "clean_accuracy_attacked": "clean accuracy on the attacked examples",
    }
    rows = [
        _cells([architecture, activation, *(values[name].number() for name in names)])
        for (architecture, activation), values in spreads(seeds).items()
    ]
    caption = (
        "Not divided by the margin: medians over all examples (density of breaks: mean), mean ± standard deviation "
        "over seeds. These follow the scale of the logits and do not compare activations."
    )
    return Table(caption, ["architecture", "activation", *names.values()], rows)


def attack_table(frame: pd.DataFrame, seeds: pd.DataFrame, headline: float | None) -> Table:
    """Success of each single attack at the headline ε."""
    rates = attack_rates(frame)
    rates = rates[rates["epsilon"] == headline]
    order = ("noise", "native", "surrogate", "other", "cascade")
    attacks = sorted(rates["attack"].unique(), key=lambda a: (order.index(family(a)), a))
    rows = []
    for architecture, activation in groups(seeds):
        mine = rates[(rates["architecture"] == architecture) & (rates["activation"] == activation)]
        values = [Spread.of(mine.loc[mine["attack"] == attack, "success"]).percent() for attack in attacks]
        rows.append(_cells([architecture, activation, *values]))
    at = f"at ε = {format_255(headline)}" if headline is not None else ""
    caption = (
        f"Success of each attack by itself {at}, in % of the correctly classified examples, carried forward in ε; "
        "mean ± standard deviation over seeds. Lower bounds."
    )
    return Table(caption, ["architecture", "activation", *attacks], rows)


def comparison_table(found: Answer) -> Table | None:
    """Differences from the baseline with their intervals; None without a verdict."""
    rows = [
        _cells(
            [
                architecture,
                d.activation,
                f"{100 * d.mean:+.1f}",
                f"{100 * d.low:+.1f} to {100 * d.high:+.1f}",
                str(d.seeds),
            ]
        )
        for architecture, differences in found.comparisons
        for d in differences
    ]  # fmt: skip
    if not rows:
        return None
    caption = (
        f"Robust accuracy minus that of {BASELINE}, in points, paired by seed; 95 % intervals (Student's t, "
        "Bonferroni over the activations of an architecture)."
    )
    return Table(caption, ["architecture", "activation", "difference", "95 % interval", "seeds"], rows)


def excluded_table(excluded: pd.DataFrame) -> Table | None:
    """Rows left out as invalid or not finite; None when there are none."""
    if excluded.empty:
        return None
    rows = [
        _cells([str(quantity), f"{count}", f"{total}"])
        for quantity, count, total in excluded[["quantity", "excluded", "rows"]].itertuples(index=False)
    ]
    return Table(
        "Rows left out because they are invalid or not finite.", ["quantity", "left out", "of"], rows, heads=1
    )


def _without_empty_columns(table: Table, keep: set[int]) -> Table:
    """The table without columns in which nothing was measured, except those to keep."""
    full = [
        i for i in range(len(table.columns))
        if i < table.heads or i in keep or any(row[i].text != "–" for row in table.rows)
    ]  # fmt: skip
    return Table(
        table.caption, [table.columns[i] for i in full], [[row[i] for i in full] for row in table.rows], table.heads,
        tuple(full.index(i) for i in table.prose if i in full),
    )  # fmt: skip
