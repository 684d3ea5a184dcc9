"""Interleaved rounds: what is compared is timed in turns, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}


@dataclass(frozen=True)
class Timing:
    """Seconds per sample over the rounds."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def samples_per_second(self) -> float:
        return 1 / self.median

    def spread(self) -> tuple[float, float]:
        """Samples per second at the 20 % and 80 % quantile."""
        slow, fast = np.quantile(self.seconds, [0.8, 0.2])
        return float(1 / slow), float(1 / fast)


def interleave(contenders: Mapping[str, Callable[[int], Any]], rounds: int = 15, seconds: float = 0.08,
               clock: str = "wall") -> tuple[dict[str, Timing], float]:
    """Time each contender in turns.

    Args:
        contenders: functions that make a given number of samples.
        rounds: turns of each.
        seconds: how long a turn should take; sets the samples per turn.
        clock: "wall", or "cpu" for the thread's own time on a machine that is shared.

    Returns:
        The timings by name, and the share of a core this thread had meanwhile: below 0.95 the
        wall clock says more about the machine's other work than about the contenders.
    """
    now = CLOCKS[clock]
    turns: dict[str, int] = {}
    for name, run in contenders.items():
        run(4)  # caches, lazy initialisation
        start = time.thread_time()
        run(16)
        turns[name] = max(4, int(seconds * 16 / max(time.thread_time() - start, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    wall, busy = time.perf_counter(), time.thread_time()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = now()
            run(turns[name])
            times[name].append((now() - start) / turns[name])
    share = (time.thread_time() - busy) / (time.perf_counter() - wall)
    return {name: Timing(np.array(values)) for name, values in times.items()}, share
