"""Interleaved rounds: what is compared is timed in turns, so that a busy moment hits all alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

CLOCKS = ("wall", "cpu")
LONELY = 0.9  # share of a core below which the wall clock misleads


@dataclass(frozen=True)
class Timing:
    """Seconds per sample over the rounds: by the clock asked for, and of the thread itself."""

    seconds: np.ndarray
    cpu_seconds: np.ndarray

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
        The timings by name, and the share of a core this thread had meanwhile.
    """
    column = CLOCKS.index(clock)
    turns: dict[str, int] = {}
    for name, run in contenders.items():
        run(4)  # caches, lazy initialisation
        before = time.thread_time()
        run(16)
        turns[name] = max(4, int(seconds * 16 / max(time.thread_time() - before, 1e-9)))
    times: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
    begin = _now()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = _now()
            run(turns[name])
            times[name].append((_now() - start) / turns[name])
    wall, busy = _now() - begin
    if busy < LONELY * wall and clock == "wall":
        logger.warning("this process had %.0f %% of a core while it was timed: an idle machine is faster",
                       100 * busy / wall)
    measured = {name: np.stack(values) for name, values in times.items()}
    return {name: Timing(values[:, column], values[:, 1]) for name, values in measured.items()}, busy / wall


def _now() -> np.ndarray:
    """Seconds on both clocks."""
    return np.array([time.perf_counter(), time.thread_time()])
