"""Run a study into a folder, and read a folder back."""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from torch import Tensor

from smoothness.consistency import check_frame, check_twins, require
from smoothness.study.cells import COLUMNS, rehearse, versions
from smoothness.study.compute import Outcome, compute, record_death
from smoothness.study.config import StudyConfig, load_config
from smoothness.study.executor import Died, Executor, InProcess, Workers
from smoothness.study.folder import MANIFEST, SCHEMA, RunFolder
from smoothness.study.log import append_event
from smoothness.study.plan import Job, Preview, plan_jobs, preview, unfinished
from smoothness.study.shipped import find_study
from smoothness.study.store import StoreError
from smoothness.study.tensors import read_tensors

_DEATHS = 3
_POLL = 0.2  # seconds between looks at cells that another process has


@dataclass(frozen=True)
class Event:
    """What a run tells while it goes on.

    Attributes:
        kind: "started", "finished" or "failed" a cell; "busy": another process has it, later again.
        label: of the cell.
        done, failed, total: cells so far and in all.
        message: of the error.
    """

    kind: Literal["started", "finished", "failed", "busy"]
    label: str
    done: int
    failed: int
    total: int
    message: str = ""


Progress = Callable[[Event], None]


@dataclass(frozen=True, eq=False)
class Run:
    """A study's results as stored.

    Attributes:
        config: the validated configuration.
        frame: tidy rows of every finished cell; see `smoothness.study.cells.COLUMNS`.
        cells: what is to be known of each finished cell: gain, learning rate, versions, passes, ...
        missing: labels of the cells that are not finished, those that failed or are damaged among them.
        command: the command that makes this run.
        failed: label -> message of the cells that failed.
        damaged: labels of cells whose files are there and damaged; run the study again to redo them.
        example_files: label -> file of the cells that keep attacked examples.
    """

    config: StudyConfig
    frame: pd.DataFrame
    cells: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    command: str
    failed: dict[str, str] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    example_files: dict[str, Path] = field(default_factory=dict)

    def examples(self, label: str) -> dict[str, Tensor]:
        """The cell's attacked examples; empty when it keeps none.

        Raises:
            StoreError: the file was damaged since the run was read.
        """
        if label not in self.example_files:
            return {}
        found = read_tensors(self.example_files[label])
        if found is None:
            raise StoreError(f"{self.example_files[label].name} is damaged; run the study again to redo it")
        return found[1]


def run_study(
    study: str | Path,
    out: str | Path,
    *,
    scale: str = "quick",
    workers: int = 1,
    allow_import: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Run:
    """Compute every cell that `out` does not hold yet, then check the invariants.

    Models, analyzers and attacks are made once before anything is trained: what does not fit is refused then.
    A run that was interrupted at any moment continues where it stopped and ends with the same frame; several
    may work in one folder at once. A cell that fails is recorded in `Run.failed` and tried again by the next run.

    Args:
        study: name of a shipped study, or the path of a TOML file.
        out: run folder; new, empty, or of a study of this name and scale: what still fits is kept.
        scale: "quick" or "full".
        workers: processes that share the cells; the result does not depend on their number.
        allow_import: packages whose code the study may import, such as ("mypackage",).
        progress: called with an `Event` whenever a cell starts, finishes or fails.

    Raises:
        ConfigError: the study's settings cannot be used.
        StoreError: `out` belongs to another study, or cannot be written.
        ConsistencyError: the measurements contradict each other.
    """
    path = find_study(str(study))
    config = load_config(path, scale, allow_import=allow_import)
    rehearse(config, path)
    folder, jobs = RunFolder(Path(out)), plan_jobs(config)
    manifest = _manifest(config, path.name if str(study).endswith(".toml") else str(study), jobs)
    folder.claim(manifest)
    folder.remove_leftovers()
    todo, _ = unfinished(folder, jobs)
    if todo:
        _compute_all(folder, config, todo, len(jobs), workers, progress or (lambda _: None))
    run = _read(folder, manifest)
    require([*check_frame(run.frame, config.threat.norm), check_twins(run.cells)])
    return run


def preview_study(
    study: str | Path,
    out: str | Path,
    *,
    scale: str = "quick",
    workers: int = 1,
    allow_import: tuple[str, ...] = (),
) -> Preview:
    """What `run_study` would do with the same arguments; writes nothing into `out`.

    Raises:
        ConfigError, StoreError: as `run_study`.
    """
    path = find_study(str(study))
    config = load_config(path, scale, allow_import=allow_import)
    rehearse(config, path)
    folder = RunFolder(Path(out))
    folder.check_claim(_manifest(config, path.name, []))
    return preview(config, folder, workers)


def load_run(folder: str | Path) -> Run:
    """Read a run folder, finished or not: cells that failed, are damaged or not finished are listed as missing.

    Raises:
        StoreError: no run there, one made by another version, or files that cannot be opened.
    """
    place = RunFolder(Path(folder))
    manifest = place.read_manifest()
    if manifest is None:
        raise StoreError(f"{folder} holds no run (no {MANIFEST}); make one with: smoothness run NAME --out {folder}")
    return _read(place, manifest)


def load_frame(folder: str | Path) -> pd.DataFrame:
    """The tidy frame of a run folder: one row per example, quantity and coordinate."""
    return load_run(folder).frame


def _read(folder: RunFolder, manifest: dict[str, Any]) -> Run:
    labels: dict[str, str] = manifest["cells"]
    found = {name: folder.read_result(name) for name in labels}
    stored = {name: cell for name, cell in found.items() if cell is not None}
    missing = [name for name in labels if name not in stored]
    failures = {labels[name]: folder.read_failure(name) for name in missing}
    frames = [cell.rows for cell in stored.values()]
    return Run(
        config=StudyConfig.model_validate(manifest["config"]),
        frame=pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS)),
        cells=tuple(cell.facts for cell in stored.values()),
        missing=tuple(labels[name] for name in missing),
        command=manifest["command"],
        failed={label: record["message"] for label, record in failures.items() if record is not None},
        damaged=tuple(labels[name] for name in missing if folder.cell(name).exists()),
        example_files={labels[name]: folder.examples(name) for name, cell in stored.items() if cell.examples},
    )


def _manifest(config: StudyConfig, study: str, jobs: list[Job]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": config.key,
        "command": (
            f"smoothness run {study} --scale {config.scale} --out runs/{config.name} --report reports/{config.name}"
        ),
        "versions": versions(),
        "config": config.model_dump(mode="json", exclude={"allow_import"}),  # a folder never allows code to run
        "cells": {job.name: job.label for job in jobs},
    }


def _compute_all(
    folder: RunFolder, config: StudyConfig, todo: list[Job], total: int, workers: int, progress: Progress
) -> None:
    work = functools.partial(compute, folder, config)
    executor: Executor[Job, Outcome] = (
        InProcess(work) if workers < 2 else Workers(work, min(workers, len(todo)), config.threads)
    )
    append_event(folder.log, "run started", cells=len(todo), workers=workers)
    event = "run stopped"
    try:
        _Schedule(folder, executor, total - len(todo), total, progress).run(todo)
        event = "run finished"
    except KeyboardInterrupt:
        event = "run interrupted"
        raise
    finally:
        executor.close()
        if event != "run stopped":  # on an unwritable folder, the first error is the one to tell
            folder.remove_leftovers()
            append_event(folder.log, event)


class _Schedule:
    """Hands jobs to an executor until each is finished or failed, by us or by another process."""

    def __init__(
        self, folder: RunFolder, executor: Executor[Job, Outcome], done: int, total: int, progress: Progress
    ) -> None:
        self._folder, self._executor, self._progress = folder, executor, progress
        self._done, self._failed, self._total = done, 0, total
        self._deaths: Counter[str] = Counter()

    def run(self, todo: list[Job]) -> None:
        """All of them.

        Raises:
            StoreError: the folder cannot be written.
        """
        waiting, later = deque(todo), deque[Job]()
        while waiting or later or self._executor.running:
            while waiting and self._executor.free:
                job = waiting.popleft()
                self._tell("started", job)
                self._executor.start(job)
            settled = False
            for job, result in self._executor.wait():
                outcome = self._after_death(job, result) if isinstance(result, Died) else result
                if outcome.status == "stopped":
                    raise StoreError(outcome.message)
                if outcome.status == "busy":
                    later.append(job)
                    self._tell("busy", job)
                    continue
                settled = True
                self._done += outcome.status == "finished"
                self._failed += outcome.status == "failed"
                self._tell(outcome.status, job, outcome.message)
            if not waiting:
                if later and not settled:
                    time.sleep(_POLL)
                waiting, later = later, waiting

    def _after_death(self, job: Job, death: Died) -> Outcome:
        append_event(self._folder.log, "worker died", cell=job.label)
        self._deaths[job.name] += death.begun
        if self._deaths[job.name] < _DEATHS:
            return Outcome("busy")  # back to those that wait
        return record_death(self._folder, job, _DEATHS)

    def _tell(self, kind: Literal["started", "finished", "failed", "busy"], job: Job, message: str = "") -> None:
        self._progress(Event(kind, job.label, self._done, self._failed, self._total, message))
