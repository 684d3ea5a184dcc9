"""What this machine can do: read bandwidth of a buffer and multiply-add peak, on one core.

A generation step reads every weight once, so `weight bytes / read bandwidth of a buffer that
size` is the least time a sample can take; `multiply-adds / peak` is the other bound. Times are the
thread's CPU time, so another process on the core does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.host import aligned
from wavegen_kernels.cpu.lanes import VECTOR, Lanes, Value, address_kernel, constant

STREAMS = 16  # vectors read per turn
BLOCK = 8 * STREAMS  # vectors per call
CHAINS = 16  # independent multiply-add chains
TURNS = 4096


def _reader(prefetch: int) -> Callable[..., None]:
    def read(lanes: Lanes, source: Value, out: Value) -> None:
        def turn(index: Value, sums: list[Value]) -> list[Value]:
            base = lanes.at(source, lanes.scaled(index, STREAMS * VECTOR))
            for j, total in enumerate(sums):
                if prefetch:
                    lanes.prefetch(base, VECTOR * j + prefetch)
                sums[j] = lanes.add(total, lanes.load_weights(base, VECTOR * j))
            return sums

        _store_sum(lanes, lanes.loop(BLOCK // STREAMS, turn, [constant(0.0)] * STREAMS), out)

    return read


def _multiply_add(lanes: Lanes, source: Value, out: Value) -> None:
    factor = lanes.load(source)
    sums = lanes.loop(TURNS, lambda _, held: [lanes.fma(factor, factor, x) for x in held],
                      [lanes.load(source, VECTOR * j) for j in range(CHAINS)])
    _store_sum(lanes, sums, out)


def _store_sum(lanes: Lanes, sums: list[Value], out: Value) -> None:
    for total in sums[1:]:
        sums[0] = lanes.add(sums[0], total)
    lanes.store(sums[0], out)


_read_block = address_kernel(2, _reader(0))
_read_block_ahead = address_kernel(2, _reader(4096))
_multiply_add_block = address_kernel(2, _multiply_add)


@njit(nogil=True)
def _sweep(buffer: Any, out: Any, blocks: int, repeats: int) -> None:
    source, target = buffer.ctypes.data, out.ctypes.data
    for _ in range(repeats):
        for index in range(blocks):
            _read_block(source + index * BLOCK * VECTOR, target)


@njit(nogil=True)
def _sweep_ahead(buffer: Any, out: Any, blocks: int, repeats: int) -> None:
    source, target = buffer.ctypes.data, out.ctypes.data
    for _ in range(repeats):
        for index in range(blocks):
            _read_block_ahead(source + index * BLOCK * VECTOR, target)


@njit(nogil=True)
def _compute(buffer: Any, out: Any, repeats: int) -> None:
    for _ in range(repeats):
        _multiply_add_block(buffer.ctypes.data, out.ctypes.data)


def read_bandwidth(num_bytes: int, seconds: float = 0.05, rounds: int = 7) -> float:
    """Bytes per second when a buffer of `num_bytes` is read over and over.

    Median of `rounds`, with plain loads or with lines asked for ahead, whichever is faster here.
    """
    blocks = max(1, round(num_bytes / (BLOCK * VECTOR)))
    buffer, out = aligned(blocks * BLOCK * VECTOR), aligned(VECTOR)
    repeats = max(1, int(seconds * 50e9 / buffer.nbytes))
    best = 0.0
    for sweep in (_sweep, _sweep_ahead):
        sweep(buffer, out, blocks, 1)
        times = [_timed(sweep, buffer, out, blocks, repeats) for _ in range(rounds)]
        best = max(best, buffer.nbytes * repeats / float(np.median(times)))
    return best


def multiply_add_peak(seconds: float = 0.05, rounds: int = 7) -> float:
    """float32 multiply-adds per second in registers: median of `rounds`."""
    buffer, out = aligned(VECTOR * CHAINS), aligned(VECTOR)
    _compute(buffer, out, 1)
    repeats = max(1, int(seconds * 100e9 / (TURNS * CHAINS * 16)))
    return TURNS * CHAINS * 16 * repeats / float(np.median(
        [_timed(_compute, buffer, out, repeats) for _ in range(rounds)]))


def _timed(function: Any, *arguments: Any) -> float:
    start = time.thread_time()
    function(*arguments)
    return time.thread_time() - start
