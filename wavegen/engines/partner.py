"""Two threads for one stream: the partner beside the generation loop, see `wavegen_kernels/cpu/loop_pair.py`."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from wavegen.engines.threads import Pool, allow, pinned
from wavegen_kernels.cpu import host, jit, pair
from wavegen_kernels.cpu.layout import Shape

LEAST = 32  # samples below which a call is over before a partner has woken
REST = 0.0005  # seconds a partner sleeps when it is not wanted
# Places in the arguments of the generation loop, see `wavegen_kernels/cpu/signature.py`.
WEIGHTS, DILATIONS, RINGS, TABLE, HOP, FIRST_FRAME, CODES = 1, 5, 7, 11, 13, 14, 22


class Link:
    """What the two threads of one state share. It is no part of the state's value."""

    def __init__(self, shape: Shape) -> None:
        self.control = pair.make_control(shape)
        self.shared = host.buffer(pair.pair_places(shape)["total"])
        self.calls = 0
        self.together = 0  # samples made by both threads, of all calls
        self.job: Future[None] | None = None

    def open(self) -> int:
        """Begin a call: its number, which a partner left over from another call does not know."""
        self.calls += 1
        self.control[pair.EPOCH // 8] = (self.calls << pair.CALL_BITS) + 1
        return self.calls

    def check(self) -> None:
        """Raise what the partner of an earlier call raised."""
        job = self.job
        if job is not None and job.done() and not job.cancelled():
            self.job = None
            job.result()


class Partner:
    """Advances one row on two threads, each kept on a core of its own meanwhile."""

    def __init__(self, shape: Shape) -> None:
        self._generate, self._assist = jit.load_pair(shape)
        # One thread, so that a partner that was held up has ended before the next one begins.
        self._pool = Pool(1)

    def advance(self, link: Link, arguments: list[Any]) -> None:
        """One call of the generation loop.

        Args:
            link: of the state.
            arguments: of `loop_vector.generate`, for one row.

        Raises:
            Whatever the partner raised, now or in the call before. The samples are there all the same.
        """
        link.check()
        if arguments[CODES].shape[1] < LEAST:
            self._generate(*arguments, link.shared, link.control, link.open())
            return
        with pinned() as others:
            number = link.open()
            if others is None or others:
                link.job = self._pool.submit(_assist, self._assist, others, arguments, link, number)
            link.together += self._generate(*arguments, link.shared, link.control, number)
        if link.job is not None:
            link.job.cancel()  # it may not even have begun
        link.check()


def _assist(assist: Any, cpus: frozenset[int] | None, arguments: list[Any], link: Link, number: int) -> None:
    """The partner's thread during one call."""
    allow(cpus)
    given = [arguments[place] for place in (WEIGHTS, DILATIONS, RINGS, TABLE, HOP, FIRST_FRAME)]
    while assist(*given, link.shared, link.control, number):
        time.sleep(REST)
