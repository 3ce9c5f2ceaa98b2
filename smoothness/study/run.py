"""Run a study into a folder, and read a folder back."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from smoothness.consistency import check_frame, check_twins, require
from smoothness.study.cells import COLUMNS, Cell, cell_key, compute_cell, grid, rehearse, versions
from smoothness.study.config import StudyConfig, load_config
from smoothness.study.shipped import find_study
from smoothness.study.store import (
    StoreError,
    is_whole,
    read_note,
    read_rows,
    remove_leftovers,
    write_cell,
    write_whole,
)

SCHEMA = 1
_MANIFEST = "study.json"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Run:
    """A study's results as stored.

    Attributes:
        config: the validated configuration.
        frame: tidy rows of every finished cell; see `smoothness.study.cells.COLUMNS`.
        cells: what is to be known of each finished cell: gain, learning rate, versions, passes, ...
        missing: labels of the cells that are not finished.
        command: the command that makes this run.
    """

    config: StudyConfig
    frame: pd.DataFrame
    cells: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    command: str


def run_study(
    study: str | Path,
    out: str | Path,
    *,
    scale: str = "quick",
    workers: int = 1,
    progress: Progress | None = None,
) -> Run:
    """Compute every cell that `out` does not hold yet, then check the invariants.

    Models, analyzers and attacks are made once before anything is trained: what does not fit is refused then.
    A cell is one Parquet file, renamed into place when complete: a run that was interrupted at any
    moment continues where it stopped and ends with the same frame.

    Args:
        study: name of a shipped study, or the path of a TOML file.
        out: run folder; new, empty, or of the same study.
        scale: "quick" or "full".
        workers: processes that share the cells; the result does not depend on their number.
        progress: called with (cells done, cells in all, label) after each cell.

    Raises:
        ConfigError: the study's settings cannot be used.
        StoreError: `out` belongs to another study, or cannot be written.
        ConsistencyError: the measurements contradict each other.
    """
    path = find_study(str(study))
    config = load_config(path, scale)
    folder = Path(out)
    data = rehearse(config, path)
    work = {_file_name(cell, key): (cell, key) for cell in grid(config) for key in [cell_key(config, cell, data)]}
    _claim(folder, config, path.name if str(study).endswith(".toml") else str(study), work)
    cells = folder / "cells"
    remove_leftovers(folder)
    remove_leftovers(cells)
    todo = {name: (cell, key) for name, (cell, key) in work.items() if not is_whole(cells / name, key)}
    done = len(work) - len(todo)
    for finished in _compute_all(config, todo, cells, workers):
        done += 1
        if progress is not None:
            progress(done, len(work), finished.label)
    run = load_run(folder)
    require([*check_frame(run.frame), check_twins(run.cells)])
    return run


def load_run(folder: str | Path) -> Run:
    """Read a run folder, finished or not.

    Raises:
        StoreError: no run there, one made by a newer version, or a damaged cell.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    if manifest is None:
        raise StoreError(f"{folder} holds no run (no {_MANIFEST}); make one with: smoothness run NAME --out {folder}")
    notes = {name: read_note(folder / "cells" / name) for name in manifest["cells"]}
    finished = [name for name, note in notes.items() if note is not None]
    frames = [read_rows(folder / "cells" / name) for name in finished]
    return Run(
        config=StudyConfig.model_validate(manifest["config"]),
        frame=pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS)),
        cells=tuple(note["facts"] for note in notes.values() if note is not None),
        missing=tuple(label for name, label in manifest["cells"].items() if notes[name] is None),
        command=manifest["command"],
    )


def load_frame(folder: str | Path) -> pd.DataFrame:
    """The tidy frame of a run folder: one row per example, quantity and coordinate."""
    return load_run(folder).frame


def _compute_all(config: StudyConfig, todo: dict[str, tuple[Cell, str]], cells: Path, workers: int) -> Iterator[Cell]:
    if workers < 2 or len(todo) < 2:
        for name, (cell, key) in todo.items():
            _compute_and_store(config, cell, cells / name, key)
            yield cell
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
        with _no_interrupts():  # inherited by the workers: an interrupt lets them finish the cell at hand
            jobs = {
                pool.submit(_compute_and_store, config, cell, cells / name, key): cell
                for name, (cell, key) in todo.items()
            }
        try:
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignore the interrupt key; other threads than the main one cannot, and leave it as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _compute_and_store(config: StudyConfig, cell: Cell, path: Path, key: str) -> None:
    rows, facts = compute_cell(config, cell)
    write_cell(path, key, rows, facts)


def _file_name(cell: Cell, key: str) -> str:
    label = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in cell.label)
    return f"{label}-{key}.parquet"


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / _MANIFEST} cannot be read ({error})") from error
    if manifest.get("schema") != SCHEMA:
        raise StoreError(
            f"{folder} was written with schema {manifest.get('schema')}, this version reads {SCHEMA}; "
            "install the version that made it, or use another folder"
        )
    return manifest


def _claim(folder: Path, config: StudyConfig, study: str, work: dict[str, tuple[Cell, str]]) -> None:
    """Make the folder this study's, or refuse one that is another's."""
    existing = _manifest(folder)
    if existing is not None:
        if existing["key"] != config.key or existing["versions"] != versions():
            raise StoreError(
                f"{folder} holds another run: study {existing['config']['name']!r} at scale "
                f"{existing['config']['scale']!r} with other settings or versions; choose another --out folder"
            )
        return
    if folder.is_dir() and any(not path.name.startswith(".writing-") for path in folder.iterdir()):
        raise StoreError(f"{folder} is not empty and holds no run; choose another --out folder")
    manifest = {
        "schema": SCHEMA,
        "key": config.key,
        "command": (
            f"smoothness run {study} --scale {config.scale} --out runs/{config.name} --report reports/{config.name}"
        ),
        "versions": versions(),
        "config": config.model_dump(mode="json"),
        "cells": {name: cell.label for name, (cell, _) in work.items()},
    }
    text = json.dumps(manifest, indent=1)
    write_whole(folder / _MANIFEST, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
