"""Worker processes for files that nobody has checked: one that crashes or hangs costs one file, not the run.

`concurrent.futures` gives up all work when a worker dies and cannot say which job killed it.
Here each worker has its own pipe and answers its jobs in order, so the oldest unanswered job is the culprit.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from wavegen.errors import WavegenError

logger = logging.getLogger(__name__)

AHEAD = 4  # jobs sent to a worker at once, so that it need not wait for us
WINDOW = 16  # finished jobs a worker that waits for a slower one may pile up, each worker
START_SECONDS = 120.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Crash:
    """What a job gives that killed its worker, or did not end."""

    reason: str


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    jobs: deque[int] = field(default_factory=deque)  # numbers of the jobs sent and not answered
    ready: bool = False
    since: float = 0.0  # on the pool's clock: when the oldest job was begun


def run_ordered(function: Callable[[Any], Any], jobs: Iterable[Any], num_workers: int,
                timeout_seconds: float) -> Generator[Any, None, None]:
    """Apply a function to each job in worker processes.

    Args:
        function: importable by name or picklable; gets a job, gives a picklable result. What it raises
            is raised here.
        jobs: picklable; drawn only a little ahead of the results.
        num_workers: processes, at least 1.
        timeout_seconds: a job that takes longer is killed.

    Returns:
        Results in the order of the jobs, `Crash` for a job that killed its worker or was killed.

    Raises:
        WavegenError: the workers cannot start at all.
    """
    pool = _Pool(function, num_workers, timeout_seconds)
    try:
        yield from pool.run(iter(jobs))
    finally:
        pool.close()


class _Pool:
    def __init__(self, function: Callable[[Any], Any], num_workers: int, timeout_seconds: float) -> None:
        # Not fork: a forked child inherits the locks of threads it does not have.
        self._context = multiprocessing.get_context("spawn")
        self._function = function
        self._num_workers = num_workers
        self._timeout = timeout_seconds
        self._clock = 0.0  # seconds spent waiting; stands still while we are suspended, as our workers may be
        self._workers: list[_Worker] = []
        self._pending: dict[int, Any] = {}  # jobs without a result
        self._waiting: deque[int] = deque()  # those of them no worker has
        self._results: dict[int, Any] = {}  # results that wait for an earlier one

    def run(self, jobs: Iterator[Any]) -> Iterator[Any]:
        drawn, given, exhausted = 0, 0, False
        while True:
            while not exhausted and drawn < given + self._num_workers * WINDOW:
                try:
                    self._pending[drawn] = next(jobs)
                except StopIteration:
                    exhausted = True
                    break
                self._waiting.append(drawn)
                drawn += 1
            if exhausted and given == drawn:
                return
            self._send()
            self._receive()
            while given in self._results:
                yield self._results.pop(given)
                given += 1

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle worker ends when its pipe does
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers = []

    def _send(self) -> None:
        """Hand waiting jobs to the workers with the fewest; start workers while there is work for them."""
        busy = sum(not worker.jobs for worker in self._workers)
        while len(self._workers) < self._num_workers and len(self._waiting) > busy:
            self._workers.append(self._start())
            busy += 1
        for _ in range(AHEAD):
            for worker in sorted(self._workers, key=lambda worker: len(worker.jobs)):
                if self._waiting and len(worker.jobs) < AHEAD and worker.process.is_alive():
                    self._assign(worker, self._waiting.popleft())

    def _assign(self, worker: _Worker, number: int) -> None:
        if not worker.jobs:
            worker.since = self._clock
        worker.jobs.append(number)
        try:
            worker.pipe.send(self._pending[number])
        except OSError:
            logger.debug("a worker is gone; its job is given to another one")  # `_receive` sees its end

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._function, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _receive(self) -> None:
        """Wait a little for answers, deaths and time limits."""
        ends: dict[Any, _Worker] = {}
        for worker in self._workers:
            ends[worker.pipe] = ends[worker.process.sentinel] = worker
        begun = time.monotonic()
        ready = wait(list(ends), POLL_SECONDS)
        self._clock += min(time.monotonic() - begun, 2 * POLL_SECONDS)
        for end in ready:
            worker = ends[end]
            if worker in self._workers and end is worker.pipe:
                self._read(worker)
            elif worker in self._workers and not worker.pipe.poll():
                self._lost(worker)
        for worker in list(self._workers):
            if worker.jobs and self._clock > worker.since + self._limit(worker):
                worker.process.kill()
                self._lost(worker, f"no result after {self._timeout:g} s")

    def _limit(self, worker: _Worker) -> float:
        return self._timeout if worker.ready else max(self._timeout, START_SECONDS)

    def _read(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        worker.since = self._clock
        if not worker.ready:
            worker.ready = True
            return
        number = worker.jobs.popleft()
        del self._pending[number]
        if isinstance(answer, BaseException):
            raise answer
        self._results[number] = answer

    def _lost(self, worker: _Worker, reason: str | None = None) -> None:
        """Blame the oldest job of a dead worker and give its other jobs back."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        if not worker.ready:
            raise WavegenError(f"a worker process ended before its first file (exit code {code}); a script "
                               'must call this below `if __name__ == "__main__":`, or with workers=0')
        if worker.jobs:
            number = worker.jobs.popleft()
            del self._pending[number]
            killed = code is not None and code < 0
            how = f"signal {signal.Signals(-(code or 0)).name}" if killed else f"exit code {code}"
            self._results[number] = Crash(reason or f"the process that read it died ({how})")
        self._waiting.extendleft(reversed(worker.jobs))


def _work(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Body of a worker: answer jobs until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    # C libraries warn on stderr by themselves, through the middle of a progress bar.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        pipe.send(None)
        while True:
            job = pipe.recv()
            try:
                answer = function(job)
            except Exception as error:
                answer = error
            pipe.send(answer)
    except (EOFError, OSError):
        return
