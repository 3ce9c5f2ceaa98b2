"""What stands on the page: everything a report says, gathered once for HTML, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from smoothness.consistency import Check
from smoothness.report.answer import Answer, answer
from smoothness.report.displays import (
    Table,
    attack_table,
    comparison_table,
    excluded_table,
    masking_table,
    raw_table,
    summary_table,
)
from smoothness.report.methods import methods, norm_name
from smoothness.report.plates import Plate, plates
from smoothness.report.provenance import flatten, provenance, scrub
from smoothness.report.success import HEADLINE, PRECISION, masking, nearest_epsilon, tested_epsilons
from smoothness.report.tables import check_columns, per_seed, split_valid, summary_frame
from smoothness.study import Run, StudyConfig


@dataclass(frozen=True)
class Page:
    """A report's content, before it is laid out."""

    name: str
    title: str
    question: str
    scale: str
    answer: Answer
    missing: list[str]
    plates: list[Plate]
    masking: Table
    comparison: Table | None
    summary: Table
    raw: Table
    attacks: Table
    excluded: Table | None
    checks: list[tuple[str, bool, str]]
    methods: list[str]
    provenance: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    command: str
    results: pd.DataFrame

    @property
    def failed(self) -> int:
        """How many hard invariants are violated."""
        return sum(not passed for _, passed, _ in self.checks)


def build_page(run: Run, checks: Sequence[Check]) -> Page:
    """Everything the report says about a run.

    Raises:
        ValueError: a frame without the needed columns, or without a valid row.
    """
    check_columns(run.frame)
    order = ["architecture", "activation", "seed", "quantity", "attack", "epsilon", "layer", "example"]
    # Sorted, so that the order in which cells finished cannot reach the page.
    ordered = named_by_spec(run.frame, run.config).sort_values(order, kind="stable")
    frame, excluded = split_valid(ordered)
    if frame.empty:
        raise ValueError(
            f"the run holds no valid measurement ({len(run.missing)} cells not finished); run the study first"
        )
    seeds, masked, epsilons = per_seed(frame), masking(frame, ordered), tested_epsilons(frame)
    headline, precision = nearest_epsilon(epsilons, HEADLINE), nearest_epsilon(epsilons, PRECISION)
    found = answer(seeds, masked, scale=str(run.config.scale), headline=headline, missing=len(run.missing))
    results = summary_frame(seeds)
    results.insert(0, "study", str(run.config.name))
    if headline is not None:
        results.insert(4, "headline_epsilon", headline)
    pairs = zip(results["activation"], results["architecture"], strict=True)
    results["masked"] = [masked[str(activation), str(architecture)].masked for activation, architecture in pairs]
    return Page(
        name=str(run.config.name),
        title=str(run.config.title),
        question=str(run.config.question),
        scale=str(run.config.scale),
        answer=found,
        missing=[scrub(label) for label in run.missing],
        plates=plates(frame, seeds, headline, norm_name(run.config.threat.norm)),
        masking=masking_table(seeds, masked, headline),
        comparison=comparison_table(found),
        summary=summary_table(seeds, headline, precision),
        raw=raw_table(seeds),
        attacks=attack_table(frame, seeds, headline),
        excluded=excluded_table(excluded),
        checks=[(check.name, bool(check.passed), scrub(check.detail)) for check in checks],
        methods=methods(run, frame),
        provenance=provenance(run),
        settings=flatten(run.config.model_dump()),
        command=scrub(run.command),
        results=results,
    )


def named_by_spec(frame: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """The frame with each label that is not the catalogue's spelling followed by it in brackets."""
    names = {}
    for level in config.factors.activation:
        values = ",".join(f"{key}={value:g}" for key, value in level.parameters.items())
        spec = f"{level.name}({values})" if values else level.name
        names[level.label] = spec if level.label == spec else f"{level.label} [{spec}]"
    labels = frame["activation"].astype(str)
    return frame.assign(activation=labels.map(lambda label: names.get(label, label)))
