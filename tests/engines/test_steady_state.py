"""The generation loop in its steady state: it allocates nothing, and Python goes on beside it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numba.core.runtime import _nrt_python

from networks import make_coefficients, make_wavenet, random_codes
from wavegen.engines import PRECISIONS, TableConditioning, build_engine, partner
from wavegen.engines.calibration import measure_ranges
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen.errors import EngineUnavailableError
from wavegen_kernels.cpu import host

needs_vectors = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
FEW, MANY = 64, 2064  # samples of two calls that must allocate alike; fewer than 32 do without a second thread
HOP = 1_000_000  # one frame for all: fetching frames is Python's work, and is bounded elsewhere
PATIENCE = 6  # tries on a machine that others use too
BESIDE = 1.15  # seconds of processor time in a second that one core alone cannot give

MODELS = {"direct": make_wavenet(24, 40, 24, (1, 2, 4, 8), 100, input_taps=5, kernel_size=3),
          "lpc": make_wavenet(24, 40, 24, (1, 2, 4, 8), 100, signal_path="lpc")}


def told_of(model):
    layers, columns = model.config.num_layers, 2 * model.config.residual_channels
    coefficients = make_coefficients(0, 1, 1) if model.lpc_order else None
    return TableConditioning(np.zeros((1, 1, layers, columns)), HOP, coefficients)


def engine_of(path, precision, kernels, threads=1):
    network = network_of(MODELS[path])
    codes, told = random_codes(100, 1, 300), told_of(MODELS[path])
    try:
        return NumbaEngine(network, told, kernels, precision, measure_ranges(network, codes, told), threads)
    except EngineUnavailableError as error:
        pytest.skip(str(error))


def python_bytes(run: Callable[[], object]) -> int:
    """The most memory Python's allocators had given out while `run` ran, above what they had before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def numba_allocations(run: Callable[[], object]) -> int:
    """How often Numba's runtime was asked for memory while `run` ran."""
    _nrt_python.memsys_enable_stats()
    try:
        before = _nrt_python.memsys_get_stats_alloc(), _nrt_python.memsys_get_stats_mi_alloc()
        run()
        after = _nrt_python.memsys_get_stats_alloc(), _nrt_python.memsys_get_stats_mi_alloc()
        return sum(after) - sum(before)
    finally:
        _nrt_python.memsys_disable_stats()


@pytest.mark.skipif(not hasattr(_nrt_python, "memsys_enable_stats"), reason="this Numba does not count allocations")
@pytest.mark.parametrize(("kernels", "path", "precision", "batch", "threads"), [
    pytest.param("vector", "direct", "f32", 1, 1, marks=needs_vectors),
    pytest.param("vector", "direct", "i8", 2, 1, marks=needs_vectors),
    pytest.param("vector", "lpc", "i8x15", 1, 1, marks=needs_vectors),
    pytest.param("vector", "direct", "i8", 1, 2, marks=needs_vectors),
    pytest.param("vector", "lpc", "f32", 1, 2, marks=needs_vectors),
    pytest.param("vector", "direct", "i8", 4, 2, marks=needs_vectors),
    *(("plain", path, precision, 2, 1) for path in MODELS for precision in PRECISIONS["numba"][1:])])
def test_samples_cost_no_allocation(kernels, path, precision, batch, threads, monkeypatch):
    # A partner that is not wanted comes back after this many seconds, and coming back costs Numba a few
    # arrays' heads: seldom enough not to be taken for a cost of samples.
    monkeypatch.setattr(partner, "REST", 0.2)
    comings = 64 if threads == 2 and batch == 1 else 0
    engine = engine_of(path, precision, kernels, threads)
    state = engine.start(batch, told_of(MODELS[path]))

    def speak(count):
        return lambda: engine.step(state, count)

    speak(FEW)()
    few, many = numba_allocations(speak(FEW)), numba_allocations(speak(MANY))
    assert abs(many - few) <= comings, "the loop asks Numba for memory"
    # What is returned, and the part of it that one block of frames covers: int64 each, and a few small objects.
    grown = python_bytes(speak(MANY)) - python_bytes(speak(FEW))
    assert grown <= 3 * 8 * batch * (MANY - FEW) + 4096, f"{grown} bytes more for {MANY - FEW} samples more"


@dataclass
class Span:
    """When a thread ran something, and how much processor time it had for it."""

    begin: float = 0.0
    end: float = 0.0
    busy: float = 0.0

    def run(self, work: Callable[[], object]) -> None:
        start = time.thread_time()
        self.begin = time.perf_counter()
        work()
        self.end, self.busy = time.perf_counter(), time.thread_time() - start


def side_by_side(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Processor time two Python threads had together, per second of the time they took."""
    spans = [Span(), Span()]
    threads = [threading.Thread(target=span.run, args=(work,))
               for span, work in zip(spans, (first, second), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(span.busy for span in spans) / (max(span.end for span in spans) - min(span.begin for span in spans))


@pytest.fixture(scope="module")
def voices():
    """Two engines, and a number of samples that takes each about a tenth of a second."""
    engines = [build_engine(MODELS["direct"], "numba", "f32") for _ in range(2)]
    states = [engine.start(1) for engine in engines]
    start = time.thread_time()
    for engine, state in zip(engines, states, strict=True):
        engine.step(state, 2000)
    count = int(0.1 * 4000 / max(1e-3, time.thread_time() - start))
    return [lambda engine=engine, state=state: engine.step(state, count)
            for engine, state in zip(engines, states, strict=True)]


def test_python_goes_on_while_an_engine_speaks(voices):
    """On one core too: a loop that held the GIL would let no other thread in before it ends."""
    for _ in range(PATIENCE):
        span = Span()
        thread = threading.Thread(target=span.run, args=(voices[0],))
        ticks = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.002)
        inside = [tick for tick in ticks if span.begin < tick < span.end]
        if len(inside) >= 5:
            return
    pytest.fail(f"only {len(inside)} of {len(ticks)} ticks of another thread fell into {span.end - span.begin:.2f} s")


def test_two_engines_speak_side_by_side(voices):
    """Two threads have more than one core's time; hashing, known to release the GIL, shows if the machine has it."""
    if len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) < 2:
        pytest.skip("one core cannot run two threads side by side")
    block = bytes(2**22)

    def hash_for_a_while():
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            hashlib.sha256(block)

    best = {"engines": 0.0, "hashing": 0.0}
    for _ in range(PATIENCE):
        best["engines"] = max(best["engines"], side_by_side(*voices))
        if best["engines"] > BESIDE:
            return
        best["hashing"] = max(best["hashing"], side_by_side(hash_for_a_while, hash_for_a_while))
    if best["hashing"] < BESIDE:
        pytest.skip(f"this machine is too busy to give two threads more than {best['hashing']:.2f} cores")
    pytest.fail(f"two engines never had more than {best['engines']:.2f} cores, hashing had {best['hashing']:.2f}")
