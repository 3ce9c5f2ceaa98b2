"""Worker processes: they may die, and they never outlive their driver."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoothness.study.executor import Died, InProcess, Workers


def _act(job):
    """Jobs of these tests: ("die", marker) dies while the marker is absent, and so on."""
    kind, value = job
    if kind == "die":
        if not Path(value).exists():
            Path(value).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"
    if kind == "threads":
        return os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]
    return value


def _drain(executor):
    results = []
    while executor.running:
        results += executor.wait()
    return results


def test_in_process():
    executor = InProcess(_act)
    executor.start(("echo", 1))
    assert not executor.free
    assert _drain(executor) == [(("echo", 1), 1)]
    assert executor.free


def test_a_killed_worker_is_told_and_replaced(tmp_path):
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    workers = Workers(_act, 1, threads=3)
    try:
        job = ("die", str(tmp_path / "marker"))
        workers.start(job)
        ((back, death),) = _drain(workers)
        assert back == job
        assert isinstance(death, Died)
        assert death.begun
        workers.start(job)
        assert _drain(workers) == [(job, "survived")]
        workers.start(("threads", None))
        assert _drain(workers) == [(("threads", None), ("3", "3", "3"))]
        (idle,) = workers._idle
        os.kill(idle.process.pid, signal.SIGKILL)  # between two jobs: nobody is told
        idle.process.join()
        workers.start(("echo", 2))
        assert [result for _, result in _drain(workers)] == [2]
    finally:
        workers.close()
    assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before


def test_workers_that_cannot_start_end_the_run_with_the_reason(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from smoothness.study.executor import Workers\n"
        "workers = Workers(print, 1, threads=1)\n"
        "workers.start('job')\n"
        "print(workers.wait())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "must do so under `if __name__ == '__main__':`" in done.stderr


DRIVER = """
import sys, time
from smoothness.study.executor import Workers
if __name__ == "__main__":
    workers = Workers(time.sleep, 1, threads=1)
    workers.start(600)
    worker, _ = next(iter(workers._busy.values()))
    assert worker.connection.recv() == "ready"
    print(worker.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
def test_workers_end_with_a_killed_driver(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as driver:
        pid = int(driver.stdout.readline())
        driver.kill()
        driver.wait()
        killed = time.monotonic()
        while _runs(pid) and time.monotonic() - killed < 10:
            time.sleep(0.02)
        assert not _runs(pid)
        assert time.monotonic() - killed < 2


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
