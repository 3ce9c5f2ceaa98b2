"""The commands: smoothness run, report, studies, activations."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="Name of a shipped study, or the path of a .toml file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    scale: Annotated[Scale, typer.Option(help="quick shows the way in minutes; full supports a claim.")] = Scale.quick,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cells.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Also write the report into this folder.")] = None,
) -> None:
    """Run a study; one that was interrupted continues where it stopped."""
    from smoothness.study import find_study, run_study

    folder = out if out is not None else Path("runs") / find_study(study).stem
    try:
        with _progress() as advance:
            result = run_study(study, folder, scale=scale.value, workers=workers, progress=advance)
    except KeyboardInterrupt:
        typer.echo("Interrupted; finished cells are kept. Run the same command again to continue.", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{len(result.cells)} cells in {folder}")
    if report is None:
        typer.echo(f"Next: smoothness report {folder} --out reports/{result.config.name}")
    else:
        _write(folder, report)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report; FOLDER/report by default.")] = None,
) -> None:
    """Write the comparison report of a run: HTML, Markdown and CSV."""
    _write(folder, out if out is not None else folder / "report")


@app.command()
def studies() -> None:
    """List the studies that ship with the package."""
    from smoothness.study import find_study, list_studies, load_config

    table = Table("study", "question", box=None)
    for name in list_studies():
        table.add_row(name, load_config(find_study(name)).question)
    Console().print(table)


@app.command()
def activations() -> None:
    """List the activations with their smoothness: order -1 value jump, 0 kink, 1 curvature jump, inf smooth."""
    from smoothness.activations import activation_facts, list_activations

    table = Table(box=None)
    for heading in ("activation", "order", "slope", "curvature", "value jumps", "kinks"):
        table.add_column(heading, no_wrap=heading == "activation")
    for name in list_activations():
        facts = activation_facts(name)
        orders = [b.order for b in facts.breakpoints]
        table.add_row(
            facts.name,
            f"{facts.smoothness_class:g}",
            f"{facts.slope_min:.4g} to {facts.slope_max:.4g}",
            f"{facts.curvature:.4g}",
            str(orders.count(-1)),
            str(orders.count(0)),
        )
    Console().print(table)


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


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A bar with the time left on a terminal; one plain line per cell elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        started = time.monotonic()

        def line(done: int, total: int, label: str) -> None:
            typer.echo(f"[{done}/{total}] {label} ({time.monotonic() - started:.0f} s)", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training and measuring", total=None)

        def advance(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield advance
