"""Threads beside the caller's: a pool of them, the cores they may use, and which are idle.

A pool's threads wait for work without using the processor. They end with the pool and with the
interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from wavegen.errors import ConfigError

Threads = int | str  # a count, or "auto"
_CPUS = Path("/sys/devices/system/cpu")


class Pool:
    """Parked threads that run jobs beside their caller. They are made when they are first needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a job as soon as a thread is free."""
        if self._executor is None or self._process != os.getpid():
            # In a forked child the threads do not exist: an executor of the parent would wait forever.
            self._executor, self._process = ThreadPoolExecutor(self.count, "wavegen"), os.getpid()
        return self._executor.submit(job, *arguments)


def check_threads(threads: Threads) -> Threads:
    """The number of threads asked for, or "auto".

    Raises:
        ConfigError: neither "auto" nor a whole number of at least 1.
    """
    if isinstance(threads, str):
        if threads == "auto":
            return threads
        if threads.isdecimal():
            threads = int(threads)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f'threads must be "auto" or a whole number of at least 1, found {threads!r}')
    return threads


def cores() -> list[frozenset[int]]:
    """The cores the calling thread may use, each as the logical CPUs it shows itself as."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset([cpu]) for cpu in range(os.cpu_count() or 1)]
    allowed = os.sched_getaffinity(0)
    return sorted({siblings(cpu) & allowed for cpu in allowed}, key=min)


@cache
def siblings(cpu: int) -> frozenset[int]:
    """Logical CPUs of the same core, this one included."""
    try:
        return frozenset(_listed((_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text())) | {cpu}
    except (OSError, ValueError):
        return frozenset([cpu])


def _listed(text: str) -> list[int]:
    """CPUs of a list such as 0-3,8."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def idle_cores() -> int:
    """Cores this thread may use that nothing else seems to need, its own included."""
    count = len(cores())
    try:
        load = os.getloadavg()[0]
    except OSError:  # not known here
        return count
    # Part of the load may be this process itself, as when it has been speaking for a minute.
    return max(1, min(count, round(count + 1 - load)))


@contextlib.contextmanager
def pinned() -> Iterator[frozenset[int] | None]:
    """Keep the calling thread on the CPU it runs on; gives the CPUs of its other cores.

    The CPUs the thread was allowed are allowed again afterwards. Gives None where threads cannot
    be pinned; the set is empty where there is one core only.
    """
    cpu = _current_cpu()
    if cpu is None:
        yield None
        return
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        yield None
        return
    try:
        yield frozenset(allowed - siblings(cpu))
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def allow(cpus: frozenset[int] | None) -> None:
    """Let the calling thread run on these CPUs only; None leaves it as it is."""
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


def _current_cpu() -> int | None:
    tell = _sched_getcpu()
    if tell is None or not hasattr(os, "sched_setaffinity"):
        return None
    cpu = int(tell())
    return cpu if cpu >= 0 else None


@cache
def _sched_getcpu() -> Any:
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None
