"""What this machine can do: read bandwidth of a buffer and peak of the multiply-adds, on one core or several.

A generation step reads every weight once, so `weight bytes / read bandwidth of a buffer that
size` is the least time a sample can take; `multiply-adds / peak` is the other bound. On one core
times are the thread's CPU time, so another process on the core does not count; on several they
are wall time, as what the cores share is part of what is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numba import njit

from wavegen_kernels.cpu.host import aligned
from wavegen_kernels.cpu.lanes import INTS, VECTOR, Lanes, Value, address_kernel, constant

STREAMS = 16  # vectors read per turn
BLOCK = 8 * STREAMS  # vectors per call
CHAINS = 16  # independent multiply-add chains
TURNS = 4096
GROUPS = {"f32": 1, "i16": 2, "i8": 4}  # multiply-adds in a lane


def _reader(prefetch: int) -> Callable[..., None]:
    def read(lanes: Lanes, source: Value, out: Value) -> None:
        def turn(index: Value, sums: list[Value]) -> list[Value]:
            base = lanes.at(source, lanes.scaled(index, STREAMS * VECTOR))
            for j, total in enumerate(sums):
                if prefetch:
                    lanes.prefetch(base, VECTOR * j + prefetch)
                sums[j] = lanes.add(total, lanes.load_weights(base, VECTOR * j))
            return sums

        _store_sum(lanes, lanes.loop(BLOCK // STREAMS, turn, [constant(0.0)] * STREAMS), out, lanes.add)

    return read


def _multiplier(kind: str) -> Callable[..., None]:
    def multiply_add(lanes: Lanes, source: Value, out: Value) -> None:
        def start(place: int) -> Value:
            return lanes.load_weights(source, place, INTS) if GROUPS[kind] > 1 else lanes.load(source, place)

        factor = start(0)

        def step(x: Value) -> Value:
            if kind == "f32":
                return lanes.fma(factor, factor, x)
            return (lanes.dot2 if kind == "i16" else lanes.dot4)(x, factor, factor)

        sums = lanes.loop(TURNS, lambda _, held: [step(x) for x in held], [start(VECTOR * j) for j in range(CHAINS)])
        _store_sum(lanes, sums, out, lanes.add_ints if GROUPS[kind] > 1 else lanes.add)

    return multiply_add


def _store_sum(lanes: Lanes, sums: list[Value], out: Value, add: Callable[[Value, Value], Value]) -> None:
    for total in sums[1:]:
        sums[0] = add(sums[0], total)
    lanes.store(sums[0], out)


_read_block = address_kernel(2, _reader(0))
_read_block_ahead = address_kernel(2, _reader(4096))
_multiply_add_f32 = address_kernel(2, _multiplier("f32"))
_multiply_add_i16 = address_kernel(2, _multiplier("i16"))
_multiply_add_i8 = address_kernel(2, _multiplier("i8"))


@njit(nogil=True)
def _sweep(buffer: Any, out: Any, repeats: int) -> None:
    source, target = buffer.ctypes.data, out.ctypes.data
    for _ in range(repeats):
        for place in range(0, buffer.size, BLOCK * VECTOR):
            _read_block(source + place, target)


@njit(nogil=True)
def _sweep_ahead(buffer: Any, out: Any, repeats: int) -> None:
    source, target = buffer.ctypes.data, out.ctypes.data
    for _ in range(repeats):
        for place in range(0, buffer.size, BLOCK * VECTOR):
            _read_block_ahead(source + place, target)


@njit(nogil=True)
def _compute_f32(buffer: Any, out: Any, repeats: int) -> None:
    for _ in range(repeats):
        _multiply_add_f32(buffer.ctypes.data, out.ctypes.data)


@njit(nogil=True)
def _compute_i16(buffer: Any, out: Any, repeats: int) -> None:
    for _ in range(repeats):
        _multiply_add_i16(buffer.ctypes.data, out.ctypes.data)


@njit(nogil=True)
def _compute_i8(buffer: Any, out: Any, repeats: int) -> None:
    for _ in range(repeats):
        _multiply_add_i8(buffer.ctypes.data, out.ctypes.data)


_COMPUTE = {"f32": _compute_f32, "i16": _compute_i16, "i8": _compute_i8}


def read_bandwidth(num_bytes: int, threads: int = 1, seconds: float = 0.02, rounds: int = 5) -> float:
    """Bytes per second a thread reads when each of `threads` reads a buffer of `num_bytes` over and over.

    Best of `rounds`, as it is a limit; with plain loads or with lines asked for ahead, whichever is faster here.
    """
    size = max(1, round(num_bytes / (BLOCK * VECTOR))) * BLOCK * VECTOR
    return max(size * _rate(sweep, size, 50e9 / size, threads, seconds, rounds) for sweep in (_sweep, _sweep_ahead))


def multiply_add_peak(kind: str = "f32", threads: int = 1, seconds: float = 0.02, rounds: int = 5) -> float:
    """Multiply-adds per second of a thread in registers, when `threads` do nothing else: best of `rounds`.

    Args:
        kind: "f32"; "i16" and "i8" are products of integers summed in int32.
    """
    amount = TURNS * CHAINS * 16 * GROUPS[kind]
    return amount * _rate(_COMPUTE[kind], VECTOR * CHAINS, 100e9 * GROUPS[kind] / amount, threads, seconds, rounds)


def _rate(function: Any, num_bytes: int, guess: float, threads: int, seconds: float, rounds: int) -> float:
    """Repeats per second of each thread; `guess` is about how many a second they are."""
    arguments = [(aligned(num_bytes), aligned(VECTOR)) for _ in range(threads)]
    repeats = max(1, int(seconds * guess))
    for pair in arguments:
        function(*pair, 1)
    if threads == 1:
        return repeats / min(_timed(time.thread_time, function, *arguments[0], repeats) for _ in range(rounds))
    gate = threading.Barrier(threads)

    def run(pair: tuple[Any, Any]) -> float:
        gate.wait()
        return _timed(time.perf_counter, function, *pair, repeats)

    with ThreadPoolExecutor(threads) as pool:
        times = [max(pool.map(run, arguments)) for _ in range(rounds)]
    return repeats / min(times)


def _timed(clock: Callable[[], float], function: Any, *arguments: Any) -> float:
    start = clock()
    function(*arguments)
    return clock() - start
