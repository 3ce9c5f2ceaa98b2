"""The commands: smoothness run, report, analyze, compare, studies, activations."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What does the smoothness of an activation function do to a network's robustness?",
)


class Scale(StrEnum):
    """How much to compute."""

    quick = "quick"
    full = "full"


class Norm(StrEnum):
    """How far an adversary may go is measured in this norm."""

    linf = "linf"
    l2 = "l2"
    l1 = "l1"


class Interval(StrEnum):
    """How intervals are made."""

    t = "t"
    bootstrap_t = "bootstrap-t"


class Test(StrEnum):
    """How p is found."""

    t = "t"
    bootstrap_t = "bootstrap-t"
    permutation = "permutation"


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="Name of a shipped study, or the path of a .toml file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    scale: Annotated[Scale, typer.Option(help="quick shows the way in minutes; full supports a claim.")] = Scale.quick,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cells.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Also write the report into this folder.")] = None,
    allow_import: Annotated[
        list[str] | None, typer.Option(help="Package whose code the study may import; repeat for several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be computed, and how long.")] = False,
) -> None:
    """Run a study; one that was interrupted continues where it stopped."""
    from smoothness.study import find_study, run_study
    from smoothness.study.display import show_preview, show_progress
    from smoothness.study.run import preview_study

    folder = out if out is not None else Path("runs") / find_study(study).stem
    allowed = tuple(allow_import or ())
    try:
        if dry_run:
            show_preview(
                Console(), preview_study(study, folder, scale=scale.value, workers=workers, allow_import=allowed)
            )
            return
        with show_progress(Console(stderr=True)) as advance:
            result = run_study(
                study, folder, scale=scale.value, workers=workers, allow_import=allowed, progress=advance
            )
    except KeyboardInterrupt:
        typer.echo("Interrupted; finished cells are kept. Run the same command again to continue.", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{len(result.cells)} cells in {folder}")
    if report is None:
        typer.echo(f"Next: smoothness report {folder} --out reports/{result.config.name}")
    else:
        _write(folder, report)
    if result.failed:
        failed = "".join(f"\n  {label}: {message}" for label, message in result.failed.items())
        _complain(RuntimeError(f"{len(result.failed)} cells failed; the same command tries them again{failed}"))
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report; FOLDER/report by default.")] = None,
) -> None:
    """Write the comparison report of a run: HTML, Markdown and CSV."""
    _write(folder, out if out is not None else folder / "report")


@app.command()
def analyze(
    factory: Annotated[str, typer.Argument(help="package.module:factory, your function that returns the model.")],
    data: Annotated[str, typer.Option(help="digits, fashion, gaussians, or a .npz or .safetensors file.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to load, a .safetensors file.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Radius, such as 8/255; that by default in [0, 1].")] = None,
    norm: Annotated[Norm, typer.Option(help="Norm of the ball.")] = Norm.linf,
    examples: Annotated[int, typer.Option(min=1, help="How many examples to measure.")] = 200,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run the standard panel on your own model. FACTORY's module is imported, which runs its code.

    A file holds arrays `inputs` and, unless only gradients are wanted, `labels`.
    """
    from smoothness.panel import analyze as run_panel
    from smoothness.panel.loading import importable_here, load_data, load_model, load_weights, read_threat

    try:
        with importable_here():
            inputs, labels, bounds = load_data(data, examples)
            threat = read_threat(epsilon, norm.value, bounds)
            model = load_model(factory)
            if weights is not None:
                load_weights(model, weights)
            panel = run_panel(model, inputs, labels, threat=threat, examples=examples)
        page = None if html is None else panel.to_html(html)
    except (ValueError, TypeError, OSError) as error:
        _complain(error)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(panel.to_json())
    else:
        Console(width=max(80, Console().width)).print(panel)
    if page is not None:
        typer.echo(f"Page: {html}", err=True)
    if not all(check.passed for check in panel.checks):
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folder; or several, labelled by their folders' names.")],
    baseline: Annotated[
        str | None, typer.Option(help="Level to compare with; relu, or the first of several runs.")
    ] = None,
    factor: Annotated[str | None, typer.Option(help="activation, or run for several runs.")] = None,
    quantity: Annotated[list[str] | None, typer.Option(help="One or more; each adds to the family of tests.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="One or more; union is all of them together.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="One radius, such as 8/255.")] = None,
    confidence: Annotated[float, typer.Option(help="Of each interval.")] = 0.95,
    method: Annotated[Interval, typer.Option(help="Of the interval.")] = Interval.t,
    test: Annotated[Test | None, typer.Option(help="Of p; as the method by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON instead.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write every number into this file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write a booktabs table into this file.")] = None,
) -> None:
    """Compare activations or runs, paired by seed, with intervals and Holm-adjusted p."""
    from smoothness import study

    try:
        found = study.compare(
            [str(folder) for folder in runs] if len(runs) > 1 else runs[0],
            baseline,
            factor=factor,
            quantity=quantity or None,
            attack=attack or None,
            epsilon=None if epsilon is None else float(Fraction(epsilon)),
            confidence=confidence,
            method=method.value,
            test=None if test is None else test.value,
        )
    except (ValueError, ZeroDivisionError) as error:
        _complain(error)
        raise typer.Exit(2) from None
    if csv is not None:
        found.to_csv(csv)
    if latex is not None:
        latex.write_text(found.to_latex(), encoding="utf-8")
    typer.echo(found.to_json() if as_json else str(found))


@app.command()
def studies() -> None:
    """List the studies that ship with the package."""
    from smoothness.study import find_study, list_studies, load_config

    table = Table("study", "question", box=None)
    for name in list_studies():
        table.add_row(name, load_config(find_study(name)).question)
    Console().print(table)


@app.command()
def activations(
    as_json: Annotated[bool, typer.Option("--json", help="Print every fact as JSON instead.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a page with figures into this folder instead.")] = None,
) -> None:
    """List the activations with their smoothness: order -1 value jump, 0 kink, 1 curvature jump, inf smooth."""
    from smoothness.report.catalogue import listing, records, write_catalogue

    if as_json and plot is not None:
        _complain(ValueError("give --json or --plot, not both"))
        raise typer.Exit(2)
    if as_json:
        typer.echo(json.dumps(records(), indent=2, allow_nan=False))
    elif plot is not None:
        typer.echo(f"Catalogue: {write_catalogue(plot)}")
    else:
        width = max(80, Console().width)  # narrower terminals wrap; nothing is cropped
        Console(width=width).print(listing(width))


def main() -> None:
    """Entry point: known errors become one readable message."""
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        from smoothness.consistency import ConsistencyError
        from smoothness.study import ConfigError
        from smoothness.training import TrainingDivergedError

        if not isinstance(error, (ConfigError, OSError, ConsistencyError, TrainingDivergedError)):
            raise
        _complain(error)
        sys.exit(1 if isinstance(error, ConsistencyError) else 2)


def _complain(error: Exception) -> None:
    text = re.sub(r"^\[Errno \d+\] ", "", str(error))
    Console(stderr=True).print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)


def _write(folder: Path, out: Path) -> None:
    from smoothness.report import write_report

    try:
        page = write_report(folder, out)
    except ValueError as error:  # a run without anything to report
        _complain(error)
        raise typer.Exit(2) from None
    typer.echo(f"Report: {page}")
