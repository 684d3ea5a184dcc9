"""What this machine can do: read bandwidth of a buffer and multiply-add peak, on one core.

A generation step reads every weight once, so `weight bytes / read bandwidth of a buffer that
size` is the least time a sample can take; `multiply-adds / peak` is the other bound.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.host import aligned
from wavegen_kernels.cpu.lanes import VECTOR, Lanes, Value, address_kernel, constant

STREAMS = 16  # vectors read per turn
BLOCK = 64 * STREAMS  # vectors per call
CHAINS = 16  # independent multiply-add chains
TURNS = 4096


def _read(lanes: Lanes, source: Value, out: Value) -> None:
    def turn(index: Value, sums: list[Value]) -> list[Value]:
        base = lanes.at(source, lanes.scaled(index, STREAMS * VECTOR))
        return [lanes.add(total, lanes.load_weights(base, VECTOR * j)) for j, total in enumerate(sums)]

    sums = lanes.loop(BLOCK // STREAMS, turn, [constant(0.0)] * STREAMS)
    for total in sums[1:]:
        sums[0] = lanes.add(sums[0], total)
    lanes.store(sums[0], out)


def _multiply_add(lanes: Lanes, source: Value, out: Value) -> None:
    factor = lanes.load(source)
    sums = lanes.loop(TURNS, lambda _, held: [lanes.fma(factor, factor, x) for x in held],
                      [lanes.load(source, VECTOR * j) for j in range(CHAINS)])
    for total in sums[1:]:
        sums[0] = lanes.add(sums[0], total)
    lanes.store(sums[0], out)


_read_block = address_kernel(2, _read)
_multiply_add_block = address_kernel(2, _multiply_add)


@njit(nogil=True)
def _sweep(buffer: Any, out: Any, blocks: int, repeats: int) -> None:
    source, target = buffer.ctypes.data, out.ctypes.data
    for _ in range(repeats):
        for index in range(blocks):
            _read_block(source + index * BLOCK * VECTOR, target)


@njit(nogil=True)
def _compute(buffer: Any, out: Any, repeats: int) -> None:
    for _ in range(repeats):
        _multiply_add_block(buffer.ctypes.data, out.ctypes.data)


def read_bandwidth(num_bytes: int, seconds: float = 0.05, rounds: int = 7) -> float:
    """Bytes per second when a buffer of `num_bytes` is read over and over: median of `rounds`."""
    blocks = max(1, num_bytes // (BLOCK * VECTOR))
    buffer, out = aligned(blocks * BLOCK * VECTOR), aligned(VECTOR)
    _sweep(buffer, out, blocks, 1)
    repeats = max(1, int(seconds * 20e9 / buffer.nbytes))
    return buffer.nbytes * repeats / float(np.median(
        [_timed(_sweep, buffer, out, blocks, repeats) for _ in range(rounds)]))


def multiply_add_peak(seconds: float = 0.05, rounds: int = 7) -> float:
    """float32 multiply-adds per second in registers: median of `rounds`."""
    buffer, out = aligned(VECTOR * CHAINS), aligned(VECTOR)
    _compute(buffer, out, 1)
    repeats = max(1, int(seconds * 50e9 / (TURNS * CHAINS * 16)))
    return TURNS * CHAINS * 16 * repeats / float(np.median(
        [_timed(_compute, buffer, out, repeats) for _ in range(rounds)]))


def _timed(function: Any, *arguments: Any) -> float:
    start = time.thread_time()
    function(*arguments)
    return time.thread_time() - start
