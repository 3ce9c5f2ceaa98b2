"""What stands on the page: everything a report says, gathered once for HTML, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from smoothness.consistency import Check
from smoothness.report.answer import Answer, answer
from smoothness.report.dimensions import dimension_answer, slope_table
from smoothness.report.displays import (
    Table,
    attack_table,
    comparison_table,
    excluded_table,
    masking_table,
    raw_table,
    summary_table,
)
from smoothness.report.distances import distance_table, families, overall
from smoothness.report.downloads import Download, render_latex, render_parquet
from smoothness.report.flips import criterion_met, flip_table, flips
from smoothness.report.gallery import RULE, Wall, walls
from smoothness.report.methods import methods
from smoothness.report.plate import Plate
from smoothness.report.plates import dimension_plates, plates, unmeasured
from smoothness.report.provenance import flatten, provenance, scrub
from smoothness.report.roughness_methods import measured_at
from smoothness.report.sentences import RULE as SENTENCE_RULE
from smoothness.report.sentences import SentenceWall, sentence_pages
from smoothness.report.slices import Film, films, slice_plates, slices
from smoothness.report.success import HEADLINE, PRECISION, masking, nearest_epsilon, tested_epsilons
from smoothness.report.tables import check_columns, per_seed, split_valid, summary_frame
from smoothness.study import Run, StudyConfig
from smoothness.study.cells import excluded as excluded_cells
from smoothness.study.escaping import render_csv
from smoothness.study.slopes import dimension_slopes


@dataclass(frozen=True)
class Page:
    """A report's content, before it is laid out."""

    name: str
    title: str
    question: str
    scale: str
    answer: Answer
    missing: list[str]
    errors: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    plates: list[Plate]
    films: list[Film]
    unmeasured: list[str]
    gallery: list[Wall]
    gallery_rule: str
    sentences: list[SentenceWall]
    sentence_rule: str
    masking: Table
    comparison: Table | None
    distances: Table | None
    slopes: Table | None
    flips: Table | None
    summary: Table
    raw: Table
    attacks: Table
    excluded: Table | None
    checks: list[tuple[str, bool, str]]
    methods: list[str]
    provenance: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    command: str
    downloads: list[Download]

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
    ordered = as_shown(run.frame, run.config).sort_values(order, kind="stable")
    frame, excluded = split_valid(ordered)
    if frame.empty:
        raise ValueError(
            f"the run holds no valid measurement ({len(run.missing)} cells not finished); run the study first"
        )
    seeds, masked, epsilons = per_seed(frame), masking(frame, ordered), tested_epsilons(frame)
    headline, precision = nearest_epsilon(epsilons, HEADLINE), nearest_epsilon(epsilons, PRECISION)
    found = answer(seeds, masked, scale=str(run.config.scale), headline=headline, missing=len(run.missing))
    measured, whole = families(frame), run.config.scale == "full" and not run.missing
    if measured:
        found.paragraphs.insert(0, ("", overall(measured, whole=whole)))
    flipped = flips(frame, run.config.criterion)
    if flipped and run.config.criterion is not None:
        found.paragraphs.insert(0, ("", criterion_met(flipped, run.config.criterion, whole=whole)))
    slopes = dimension_slopes(run.frame)
    if slopes:
        found.paragraphs[:] = [("", dimension_answer(slopes, whole=whole))]
    results = summary_frame(seeds)
    results.insert(0, "study", str(run.config.name))
    if headline is not None:
        results.insert(4, "headline_epsilon", headline)
    pairs = zip(results["activation"], results["architecture"], strict=True)
    results["masked"] = [masked[str(activation), str(architecture)].masked for activation, architecture in pairs]
    examples = {str(facts["cell"]): run.examples(str(facts["cell"])) for facts in run.cells}
    planes = slices(run.cells, examples, frame, shown_names(run.config))
    summary = summary_table(seeds, headline, precision)
    return Page(
        name=str(run.config.name),
        title=str(run.config.title),
        question=str(run.config.question),
        scale=str(run.config.scale),
        answer=found,
        missing=[scrub(label) for label in run.missing if label not in run.failed],
        errors=[(scrub(label), scrub(message)) for label, message in run.failed.items()],
        left_out=[(scrub(label), scrub(reason)) for label, reason in excluded_cells(run.config)],
        plates=[
            *dimension_plates(slopes),
            *plates(frame, seeds, headline, run.config.threat.norm, measured_at(run.config.analyzers)),
            *slice_plates(planes),
        ],
        films=films(planes),
        unmeasured=unmeasured(frame),
        gallery=walls(run.cells, examples),
        gallery_rule=RULE,
        sentences=sentence_pages(run.cells, examples),
        sentence_rule=SENTENCE_RULE,
        masking=masking_table(seeds, masked, headline),
        comparison=comparison_table(found),
        distances=distance_table(measured, run.config.claim, whole=whole),
        slopes=slope_table(slopes, run.config.claim, whole=whole),
        flips=flip_table(flipped, run.config.criterion, run.config.claim, whole=whole),
        summary=summary,
        raw=raw_table(seeds),
        attacks=attack_table(frame, seeds, headline),
        excluded=excluded_table(excluded),
        checks=[(check.name, bool(check.passed), scrub(check.detail)) for check in checks],
        methods=methods(run, frame),
        provenance=provenance(run),
        settings=flatten(run.config.model_dump()),
        command=scrub(run.command),
        downloads=[
            Download("results.csv", "the summary, for spreadsheets", "text/csv", render_csv(results).encode()),
            Download(
                "results.parquet", "the summary, typed", "application/vnd.apache.parquet", render_parquet(results)
            ),
            Download("results.tex", "the summary table, with booktabs", "text/x-tex", render_latex(summary).encode()),
        ],
    )


def as_shown(frame: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """The frame as the report groups it: by setting, and by labels that tell what they stand for.

    The setting takes the architecture's place: it is its name where nothing else varies.
    """
    names = shown_names(config)
    labels = frame["activation"].astype(str)
    return frame.assign(activation=labels.map(lambda label: names.get(label, label)), architecture=frame["setting"])


def shown_names(config: StudyConfig) -> dict[str, str]:
    """Label of an activation -> the same, followed by the spelling of its settings in brackets where that differs."""
    return {
        level.label: level.spec if level.label == level.spec else f"{level.label} [{level.spec}]"
        for level in config.factors.activation
    }
