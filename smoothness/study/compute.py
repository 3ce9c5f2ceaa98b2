"""Compute one cell into a run folder, alone under its lock."""

from __future__ import annotations

import re
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from smoothness.study.cells import build_cell, cell_data, measure_cell, train_cell
from smoothness.study.classical import check_same_fit
from smoothness.study.config import StudyConfig
from smoothness.study.folder import RunFolder
from smoothness.study.log import append_event
from smoothness.study.plan import Job
from smoothness.study.store import StoreError, write_json


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: "finished"; "failed", recorded and the next cell's turn; "busy": another process is at it;
            "stopped": the folder cannot be written, no use to go on.
        message: of the error, or "".
    """

    status: Literal["finished", "failed", "busy", "stopped"]
    message: str = ""


class _BusyError(Exception):
    """Another process trains the network."""


def compute(folder: RunFolder, config: StudyConfig, job: Job) -> Outcome:
    """Train the cell's network unless it is stored, measure it, store the rows; or record why not."""
    try:
        with folder.lock(job.name) as held:
            if not held:
                return Outcome("busy")
            if folder.read_result(job.name) is not None and folder.read_weights(job.training_key) is not None:
                return Outcome("finished")  # by another process, since this one planned
            try:
                _compute(folder, config, job)
            except StoreError:
                raise
            except _BusyError:
                return Outcome("busy")
            except Exception as error:
                return _record(folder, job, error)
            return Outcome("finished")
    except StoreError as error:
        return Outcome("stopped", str(error))


def record_death(folder: RunFolder, job: Job, times: int) -> Outcome:
    """Give up a cell whose worker process died again and again; "busy" when another process tries it now."""
    message = f"the worker process died {times} times; it may have run out of memory; try fewer workers"
    try:
        with folder.lock(job.name) as held:
            return _record(folder, job, MemoryError(message)) if held else Outcome("busy")
    except StoreError as error:
        return Outcome("stopped", str(error))


def _compute(folder: RunFolder, config: StudyConfig, job: Job) -> None:
    model, facts = _network(folder, config, job)
    started = time.monotonic()
    result = measure_cell(config, job.cell, model, facts)
    folder.write_result(job.name, job.key, result)
    seconds = round(time.monotonic() - started, 3)
    append_event(folder.log, "cell finished", cell=job.label, seconds=seconds, file=job.name)


def _network(folder: RunFolder, config: StudyConfig, job: Job) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network, always as read from its file: later measurements see the same, to the bit."""
    stored = folder.read_weights(job.training_key)
    if stored is None:
        with folder.lock(job.network) as held:
            if not held:
                raise _BusyError
            stored = folder.read_weights(job.training_key) or _train(folder, config, job)
    facts, tensors = stored
    data = cell_data(config, job.cell)
    model = build_cell(config, job.cell, data)
    model.load_state_dict(tensors)
    check_same_fit(model, data, facts)
    return model, facts


def _train(folder: RunFolder, config: StudyConfig, job: Job) -> tuple[dict[str, Any], Any]:
    started = time.monotonic()
    model, facts = train_cell(config, job.cell)
    folder.write_weights(job.network, job.training_key, facts, model.state_dict())
    seconds = round(time.monotonic() - started, 3)
    append_event(folder.log, "network trained", cell=job.label, seconds=seconds, file=job.network)
    stored = folder.read_weights(job.training_key)
    if stored is None:
        raise StoreError(f"the weights of {job.label} cannot be read back; is the disk of {folder.path} sound?")
    return stored


def _record(folder: RunFolder, job: Job, error: Exception) -> Outcome:
    message = _without_folders(str(error)) or type(error).__name__
    trace = _without_folders("".join(traceback.format_exception(error)))
    record = {"label": job.label, "type": type(error).__name__, "message": message, "traceback": trace}
    write_json(folder.failure(job.name), record)
    append_event(folder.log, "cell failed", cell=job.label, error=message, file=job.name)
    return Outcome("failed", message)


def _without_folders(text: str) -> str:
    """Absolute paths reduced to file names: records hold no names of users and machines.

    >>> _without_folders('File "/home/ada/code/net.py", line 3; eps = 8/255')
    'File "net.py", line 3; eps = 8/255'
    """
    return re.sub(r"(?<![\w./\\])(?:[A-Za-z]:)?[/\\](?:[^/\\\s\"':;,]+[/\\])*(?=[^/\\\s])", "", text)
