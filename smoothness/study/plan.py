"""What a study needs: its cells as jobs, which of them are done, and what the rest will take."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothness.study.cells import FACTORS, Cell, Excluded, cell_data, cell_key, excluded, grid, training_key
from smoothness.study.config import StudyConfig
from smoothness.study.folder import RunFolder
from smoothness.study.log import read_events

_SHORT = 10.0  # seconds; a cell this short is timed again, since a process's first one warms libraries up


@dataclass(frozen=True)
class Job:
    """One cell with the names of its files.

    Attributes:
        name: of the cell's files: its label and `key`.
        key: hash of everything that determines the rows.
        network: of the weights' file: the label of the first cell that uses them, and `training_key`.
        training_key: hash of everything that determines the weights.
    """

    cell: Cell
    name: str
    key: str
    network: str
    training_key: str

    @property
    def label(self) -> str:
        """The cell's."""
        return self.cell.label


def plan_jobs(config: StudyConfig) -> list[Job]:
    """Every cell of the study, in the grid's order."""
    jobs: list[Job] = []
    networks: dict[str, str] = {}
    for cell in grid(config):
        data = cell_data(config, cell)
        key, trained = cell_key(config, cell, data), training_key(config, cell, data)
        network = networks.setdefault(trained, f"{_plain(cell.label)}-{trained}")
        jobs.append(Job(cell, f"{_plain(cell.label)}-{key}", key, network, trained))
    return jobs


def unfinished(folder: RunFolder, jobs: list[Job]) -> tuple[list[Job], set[str]]:
    """The cells to compute, and the training keys of the networks that are stored whole.

    A cell is finished when its rows, its examples and its network are whole.
    """
    trained = {key for key in {job.training_key: None for job in jobs} if folder.read_weights(key) is not None}
    missing = [job for job in jobs if job.training_key not in trained or folder.read_result(job.name) is None]
    return missing, trained


@dataclass(frozen=True)
class Preview:
    """What a run would do.

    Attributes:
        levels: (factor, its levels, how many cells each level has), for the factors that vary.
        excluded: the combinations that the study leaves out, with reasons.
        cells, finished, failed: how many there are, are done, and failed in an earlier run.
        networks, trained: how many different networks the cells need, and how many are stored.
        seconds: estimate for what is missing; None when nothing is, or when the trial cell failed.
        basis: what the estimate rests on.
    """

    levels: list[tuple[str, list[str], list[int]]]
    excluded: list[Excluded]
    cells: int
    finished: int
    failed: int
    networks: int
    trained: int
    seconds: float | None
    basis: str


def preview(config: StudyConfig, folder: RunFolder, workers: int) -> Preview:
    """Look ahead without writing into the folder; computes one cell elsewhere when the log tells no times."""
    jobs = plan_jobs(config)
    missing, trained = unfinished(folder, jobs)
    networks = {job.training_key for job in jobs}
    seconds, basis = _estimate(config, folder, jobs, missing, trained, workers)
    return Preview(
        levels=_levels([job.cell for job in jobs]),
        excluded=excluded(config),
        cells=len(jobs),
        finished=len(jobs) - len(missing),
        failed=sum(folder.read_failure(job.name) is not None for job in missing),
        networks=len(networks),
        trained=len(trained),
        seconds=seconds,
        basis=basis,
    )


def _estimate(
    config: StudyConfig, folder: RunFolder, jobs: list[Job], missing: list[Job], trained: set[str], workers: int
) -> tuple[float | None, str]:
    if not missing:
        return None, "nothing is missing"
    names = {job.name for job in jobs} | {job.network for job in jobs}
    events = [event for event in read_events(folder.log) if event.get("file") in names]
    measured = [event["seconds"] for event in events if event["event"] == "cell finished"]
    training = [event["seconds"] for event in events if event["event"] == "network trained"]
    untrained = {job.training_key for job in missing} - trained
    if measured and (training or not untrained):
        basis = f"the {len(measured)} cells and {len(training)} trainings in the folder's log"
    else:
        trial = next((job for job in missing if job.training_key in untrained), missing[0])
        basis = f"one cell computed now ({trial.label}); others may take longer or shorter"
        events = _timed(config, trial)
        if sum(event.get("seconds", 0.0) for event in events) < _SHORT:
            events = _timed(config, trial)
        measured = [event["seconds"] for event in events if event["event"] == "cell finished"]
        training = [event["seconds"] for event in events if event["event"] == "network trained"]
        if not measured:
            error = next((event["error"] for event in events if "error" in event), "unknown")
            return None, f"no estimate: {trial.label} failed ({error})"
    total = len(missing) * statistics.fmean(measured) + len(untrained) * (statistics.fmean(training or [0.0]))
    return total / min(workers, len(missing)), basis


def _timed(config: StudyConfig, job: Job) -> list[dict[str, Any]]:
    from smoothness.study.compute import compute

    with tempfile.TemporaryDirectory(prefix="smoothness-") as elsewhere:
        folder = RunFolder(Path(elsewhere))
        compute(folder, config, job)
        return read_events(folder.log)


def _levels(cells: list[Cell]) -> list[tuple[str, list[str], list[int]]]:
    counted = []
    for factor in FACTORS:
        levels = Counter(str(getattr(value, "label", value)) for value in (getattr(cell, factor) for cell in cells))
        if len(levels) > 1 or factor == "activation":
            counted.append((factor, list(levels), list(levels.values())))
    return counted


def _plain(label: str) -> str:
    """A label as part of a file name; the key behind it keeps names apart."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in label)[:120]
