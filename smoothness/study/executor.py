"""Who computes the jobs: this process, or worker processes that may die without taking the run with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Generic, Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")

_START_DEATHS = 10  # in a row, before any worker came up: the machine cannot hold them
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Executor(Protocol[J, R]):
    """Takes jobs while `free`, gives results back in whatever order they come."""

    @property
    def free(self) -> bool:
        """Whether it takes one more job."""

    @property
    def running(self) -> bool:
        """Whether jobs are out."""

    def start(self, job: J) -> None:
        """Hand a job over."""

    def wait(self) -> list[tuple[J, R | Died]]:
        """At least one result, as soon as there is one."""

    def close(self) -> None:
        """Drop what is out and end the workers."""


class Died:
    """In place of a result: the worker process died; `begun` tells whether it had begun with the job."""

    def __init__(self, begun: bool) -> None:
        self.begun = begun


class InProcess(Generic[J, R]):
    """One job at a time, in this process."""

    def __init__(self, work: Callable[[J], R]) -> None:
        self._work = work
        self._job: list[J] = []

    @property
    def free(self) -> bool:
        """Whether it takes one more job."""
        return not self._job

    @property
    def running(self) -> bool:
        """Whether a job is out."""
        return bool(self._job)

    def start(self, job: J) -> None:
        """Keep the job for `wait`."""
        self._job.append(job)

    def wait(self) -> list[tuple[J, R | Died]]:
        """Do the job."""
        job = self._job.pop()
        return [(job, self._work(job))]

    def close(self) -> None:
        """Nothing to end."""


class Workers(Generic[J, R]):
    """Spawned processes with a pipe each; one that died is replaced when there is work for it.

    Args:
        work: called in the workers; has to pickle, as jobs and results do.
        size: processes at most.
        threads: of numerical libraries in each; read by them when they are imported.
    """

    def __init__(self, work: Callable[[J], R], size: int, threads: int) -> None:
        self._work, self._size, self._threads = work, size, threads
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, J]] = {}
        self._start_deaths = 0

    @property
    def free(self) -> bool:
        """Whether it takes one more job."""
        return len(self._busy) < self._size

    @property
    def running(self) -> bool:
        """Whether jobs are out."""
        return bool(self._busy)

    def start(self, job: J) -> None:
        """Send the job to an idle worker, or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.send(job):
                break
            worker.stop()
        else:
            worker = _Worker(self._work, self._threads)
            worker.send(job)  # a worker that is dead already is noticed in `wait`
        self._busy[worker.connection] = worker, job

    def wait(self) -> list[tuple[J, R | Died]]:
        """Results and deaths, at least one.

        Raises:
            RuntimeError: workers cannot start.
        """
        results: list[tuple[J, R | Died]] = []
        while not results:
            ready = wait(list(self._busy))
            for worker, job in [self._busy[connection] for connection in self._busy if connection in ready]:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    del self._busy[worker.connection]
                    results.append((job, self._buried(worker)))
                    continue
                if message == _READY:
                    worker.ready, self._start_deaths = True, 0
                    continue
                del self._busy[worker.connection]
                self._idle.append(worker)
                results.append((job, message))
        return results

    def close(self) -> None:
        """End all workers; those at work drop it."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.stop()
        self._idle.clear()
        self._busy.clear()

    def _buried(self, worker: _Worker) -> Died:
        code = worker.bury()
        if not worker.ready:
            self._start_deaths += 1
            if code is None or code > 0 or self._start_deaths >= _START_DEATHS:
                raise RuntimeError(
                    f"a worker process could not start (exit code {code}); a script that runs a study with workers "
                    "must do so under `if __name__ == '__main__':`; or use workers=1"
                )
        return Died(begun=worker.ready)


_READY = "ready"


class _Worker:
    """One process and this end of its pipe."""

    def __init__(self, work: Callable[[J], R], threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.ready = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _inherited(threads):
            self.process.start()
        theirs.close()  # theirs alone is open now: its end is the end of the pipe

    def send(self, job: object) -> bool:
        """Whether the process still takes jobs."""
        try:
            self.connection.send(job)
        except OSError:
            return False
        return True

    def bury(self) -> int | None:
        """Exit code of a process whose pipe has ended; negative when a signal killed it."""
        self.process.join(5)
        code = self.process.exitcode
        self.stop()
        return code

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.terminate()
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _serve(connection: Connection, work: Callable[[J], R]) -> None:
    """A worker's life: jobs until the pipe ends; gone at once when the parent is."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        connection.send(_READY)
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, OSError):
        os._exit(0)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What a process started inside begins with: its thread count, and deaf to the interrupt key.

    The key reaches the whole group of processes; the driver alone decides what it means.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    main = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if main:
            signal.signal(signal.SIGINT, handler)
