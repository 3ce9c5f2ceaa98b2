"""Runs in trouble: dying workers, full disks; and what a dry run says beforehand."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from smoothness.study import StoreError, load_run, run_study
from smoothness.study.compute import Outcome, compute
from smoothness.study.executor import Died
from smoothness.study.folder import RunFolder
from smoothness.study.log import read_events
from smoothness.study.plan import plan_jobs
from smoothness.study.run import _Schedule, preview_study

from .conftest import TINY

SMALL = TINY.replace('["mlp", "cnn"]', '["mlp"]').replace("[0, 1]", "[0]")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study of three cells, finished."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "tiny.toml").write_text(SMALL)
    return folder / "tiny.toml", folder / "run", run_study(folder / "tiny.toml", folder / "run")


class _Deadly:
    """An executor whose worker dies with one cell, every time."""

    def __init__(self, work, victim, begun=True):
        self.work, self.victim, self.begun, self.out, self.deaths = work, victim, begun, [], 0

    free = property(lambda self: not self.out)
    running = property(lambda self: bool(self.out))

    def start(self, job):
        self.out.append(job)

    def wait(self):
        job = self.out.pop()
        if job.label != self.victim:
            return [(job, self.work(job))]
        self.deaths += 1
        return [(job, Died(self.begun or self.deaths > 5))]


@pytest.mark.parametrize(("begun", "deaths"), [(True, 3), (False, 8)])
def test_a_cell_whose_worker_dies_three_times_is_given_up(small, tmp_path, begun, deaths):
    path, _, run = small
    folder, jobs = RunFolder(tmp_path / "out"), plan_jobs(run.config)
    folder.path.mkdir()
    shutil.copy(small[1] / "study.json", folder.path)
    executor = _Deadly(lambda job: compute(folder, run.config, job), "mlp/step/0", begun)
    events = []
    _Schedule(folder, executor, 0, 3, events.append).run(jobs)
    assert executor.deaths == deaths  # before a worker has begun, its death is not the cell's fault
    assert [event.kind for event in events].count("finished") == 2
    message = "the worker process died 3 times; it may have run out of memory; try fewer workers"
    assert load_run(folder.path).failed == {"mlp/step/0": message}
    assert run_study(path, folder.path).failed == {}


def test_an_unwritable_folder_stops_the_run_at_once(small, tmp_path):
    _, _, run = small
    started = []

    class Full(_Deadly):
        def start(self, job):
            started.append(job)
            super().start(job)

    executor = Full(lambda job: Outcome("stopped", "cannot write x (No space left on device)"), "")
    with pytest.raises(StoreError, match="No space left"):
        _Schedule(RunFolder(tmp_path), executor, 0, 3, lambda _: None).run(plan_jobs(run.config))
    assert len(started) == 1


def _smoothness(*arguments, cwd, before=None):
    return subprocess.run(
        [sys.executable, "-m", "smoothness", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, preexec_fn=before, timeout=300,
    )  # fmt: skip


@pytest.fixture
def little_disk(tmp_path):
    """A file system with room for some of a run's files."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_loses_nothing(small, little_disk, tmp_path, workers):
    path, _, run = small
    done = _smoothness("run", path, "--out", little_disk / "run", "--workers", workers, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert line.startswith("error: cannot write ")
    assert "finished cells are kept" in line
    kept = load_run(little_disk / "run")
    assert kept.missing
    assert kept.damaged == ()
    assert not list((little_disk / "run").rglob(".writing-*"))
    shutil.copytree(little_disk / "run", tmp_path / "roomy")
    again = run_study(path, tmp_path / "roomy")
    pd.testing.assert_frame_equal(run.frame, again.frame, check_exact=True)


@pytest.mark.slow
def test_the_command_names_failed_cells_and_still_reports(tmp_path):
    (tmp_path / "tiny.toml").write_text(
        SMALL.replace('"relu"', '{name = "leaky_relu", parameters = {negative_slope = 1e30}}')
    )
    done = _smoothness("run", "tiny.toml", "--out", "out", "--report", "page", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 cells failed; the same command tries them again" in done.stderr
    assert re.search(r"\[\d/3\] mlp/leaky_relu.*failed: ", done.stderr)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert (tmp_path / "page" / "index.html").is_file()


def _all_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_is_ahead_and_writes_nothing(small, tmp_path):
    path, folder, _ = small
    fresh = preview_study(path, tmp_path / "absent", workers=2)
    assert not (tmp_path / "absent").exists()
    assert (fresh.cells, fresh.finished, fresh.networks, fresh.trained) == (3, 0, 3, 0)
    assert ("activation", ["relu", "step", "softplus(beta=4)"], [1, 1, 1]) in fresh.levels
    assert fresh.seconds > 0
    assert fresh.basis.startswith("one cell computed now (mlp/relu/0)")
    before = _all_files(folder)
    done = preview_study(path, folder)
    assert (done.finished, done.trained, done.seconds) == (3, 3, None)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    next((copy / "cells").iterdir()).unlink()
    partly = preview_study(path, copy)
    assert (partly.finished, partly.trained) == (2, 3)
    assert partly.basis == "the 3 cells and 3 trainings in the folder's log"
    assert _all_files(folder) == before
    with pytest.raises(StoreError, match="holds another run"):
        preview_study(path, folder, scale="full")


def test_the_dry_run_command(small, tmp_path):
    path, folder, _ = small
    done = _smoothness("run", path, "--out", folder, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 cells: 3 finished, 0 to compute" in done.stdout
    assert "3 networks: 3 trained already, 0 to train" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_killed_worker_does_not_end_the_run(tmp_path):
    from .test_run import _children

    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "smoothness", "run", "tiny.toml", "--out", "out", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as driver:
        driver.stderr.readline()
        os.kill(_children(driver.pid)[0], signal.SIGKILL)
        driver.communicate(timeout=300)
        assert driver.returncode == 0
    run = load_run(tmp_path / "out")
    assert (run.missing, run.failed) == ((), {})
    assert [e["event"] for e in read_events(tmp_path / "out" / "log.jsonl")].count("worker died") == 1
