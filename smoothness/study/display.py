"""What a terminal shows of a run: a live bar or plain lines, what failed, what is ahead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from smoothness.study.plan import Preview
from smoothness.study.run import Event

_LABELS = 3  # of the cells at hand, on one line


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Event], None]]:
    """A bar with the time left and the cells at hand on a terminal; one plain line per cell elsewhere."""
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training and measuring", total=None)
        at_hand: list[str] = []

        def advance(event: Event) -> None:
            if event.kind == "started":
                at_hand.append(event.label)
            else:
                at_hand.remove(event.label)
            if event.kind == "failed":
                bar.console.print(Text(f"failed: {event.label}: {event.message}", style="red"), soft_wrap=True)
            labels = ", ".join(at_hand[:_LABELS]) + (", ..." if len(at_hand) > _LABELS else "")
            failed = f" ({event.failed} failed)" if event.failed else ""
            bar.update(
                task, completed=event.done + event.failed, total=event.total, description=escape(labels + failed)
            )

        yield advance


def show_preview(console: Console, ahead: Preview) -> None:
    """Tables, not one line per cell."""
    levels = Table("factor", "levels", "cells per level", box=None)
    for factor, names, counts in ahead.levels:
        per = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        levels.add_row(factor, Text(f"{len(names)}: {', '.join(names)}"), per)
    lines: list[RenderableType] = [
        levels,
        Text(f"{ahead.cells} cells: {ahead.finished} finished, {ahead.cells - ahead.finished} to compute"),
        Text(
            f"{ahead.networks} networks: {ahead.trained} trained already, {ahead.networks - ahead.trained} to train"
            + (f"; {ahead.cells - ahead.networks} cells share another's" if ahead.cells > ahead.networks else "")
        ),
    ]
    if ahead.failed:
        lines.append(Text(f"{ahead.failed} cells failed before and are tried again"))
    if ahead.excluded:
        lines.append(Text(f"{len(ahead.excluded)} combinations excluded"))
        reasons = Counter(excluded.reason for excluded in ahead.excluded)
        lines += [Text(f"  {count}: {reason}") for reason, count in reasons.items()]
    if ahead.seconds is None:
        lines.append(Text(f"Time: {ahead.basis}"))
    else:
        lines.append(Text(f"Time: about {duration(ahead.seconds)}, from {ahead.basis}"))
    console.print(Group(*lines))


def duration(seconds: float) -> str:
    """Two figures are all an estimate bears.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _plain_lines(console: Console) -> Callable[[Event], None]:
    started = time.monotonic()

    def line(event: Event) -> None:
        if event.kind in ("finished", "failed"):
            told = f" failed: {' '.join(event.message.split())}" if event.kind == "failed" else ""
            place = f"[{event.done + event.failed}/{event.total}] {event.label}"
            print(f"{place}{told} ({time.monotonic() - started:.0f} s)", file=console.file, flush=True)

    return line
