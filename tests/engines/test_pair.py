"""Two threads for one stream: the samples of one thread, whatever becomes of the partner."""

from __future__ import annotations

import itertools
import os
import threading
import time

import numpy as np
import pytest

from networks import make_uniforms, make_wavenet, random_codes
from wavegen.engines import TableConditioning, build_engine, partner
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen.engines.ranges import ActivationRanges, ranges_of
from wavegen_kernels.cpu import host, pair
from wavegen_kernels.cpu.layout import make_shape

pytestmark = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
MODEL = make_wavenet(24, 37, 19, (1, 2, 4, 8, 3), 100, kernel_size=3, input_taps=5)
SMALL = make_wavenet(16, 16, 16, (1, 2, 4), 100)
OTHERS = {
    "one layer, path lpc": {"residual": 16, "skip": 16, "output": 16, "dilations": (2,), "signal_path": "lpc"},
}
SAMPLES = 400
_engines: dict = {}


def engines_of(name="f32"):
    """(one thread, two threads) in a precision, or of one of `OTHERS` in f32."""
    if name not in _engines:
        # Compiling takes the time of these tests: the larger network only in a float and an integer precision.
        model = make_wavenet(**OTHERS[name]) if name in OTHERS else MODEL if name in ("f32", "i8") else SMALL
        network, precision = network_of(model), name if name not in OTHERS else "f32"
        ranges = None if precision == "f32" else calibrate(model)
        _engines[name] = tuple(NumbaEngine(network, None, "vector", precision, ranges, threads) for threads in (1, 2))
    return _engines[name]


def calibrate(model) -> ActivationRanges:
    return ranges_of(build_engine(model, "reference", "f32").layers(random_codes(100, 1, 200)))


def table_of(network, num_frames=30):
    """Conditioning that changes every seven samples."""
    draws, shape = np.random.default_rng(1), (1, num_frames, network.num_layers, 2 * network.residual_channels)
    coefficients = draws.normal(0, 0.2, (1, num_frames, network.lpc_order)) if network.lpc_order else None
    return TableConditioning(draws.normal(0, 0.5, shape), 7, coefficients)


class Stand:
    """Stands in for the compiled partner: what a test does in its thread while the loop runs."""

    def __init__(self, engine, behave):
        self.partner, self.real = engine._partner, engine._partner._assist
        self.behave, self.state = behave, None

    def __enter__(self):
        self.partner._assist = lambda *arguments: self.behave(self.real, *arguments)
        return self

    def __exit__(self, *_):
        self.partner._assist = self.real


def step_until_together(engine, state, least=1):
    """Steps until both threads have made some samples together; the other one may have to wait for a core."""
    pieces = []
    for _ in range(100):
        pieces.append(engine.step(state, 5 * SAMPLES))
        if state.link.together >= least:
            return np.concatenate(pieces, 1)
    pytest.skip("no core was free for a second thread")


@pytest.mark.parametrize("name", ["f32", "i16", "i8x15", "i8", *OTHERS])
def test_two_threads_speak_the_samples_of_one(name):
    alone, both = engines_of(name)
    conditioning = table_of(alone.network)
    state = both.start(1, conditioning, seeds=4)
    codes = step_until_together(both, state, SAMPLES)
    assert np.array_equal(codes, alone.step(alone.start(1, conditioning, seeds=4), codes.shape[1]))
    assert len(np.unique(codes)) > 5
    forced = codes[:, :300]
    assert np.array_equal(both.logits(forced, conditioning), alone.logits(forced, conditioning))


def test_chunks_copies_and_uniforms():
    alone, both = engines_of()
    uniforms = make_uniforms(3, 1, 700)
    expected = alone.step(alone.start(), 700, uniforms)
    state, done, pieces = both.start(), 0, []
    for chunk in itertools.cycle([1, 100, 40, 7, 33]):
        if done + chunk > 700:
            break
        pieces.append(both.step(state, chunk, uniforms[:, done:done + chunk]))
        done += chunk
        state = state.copy()
    assert np.array_equal(np.concatenate(pieces, 1), expected[:, :done])


def test_a_partner_that_never_comes():
    alone, both = engines_of()
    state = both.start(seeds=1)
    with Stand(both, lambda real, *arguments: 0):
        codes = both.step(state, SAMPLES)
    assert np.array_equal(codes, alone.step(alone.start(seeds=1), SAMPLES))
    assert state.link.together == 0


@pytest.mark.parametrize("filling", [0, 77, 255])
def test_a_partner_that_stops_in_the_middle(monkeypatch, filling):
    """It has said that it is ready and does nothing more; what it may have written is wrong."""
    alone, both = engines_of()
    state = both.start(seeds=2)
    real = partner.Link.open

    def open_ready(link):
        number = real(link)
        link.control[pair.READY // 8] = link.control[pair.EPOCH // 8]
        link.shared[pair.pair_places(both.packed.shape)["sums"]:] = filling
        return number

    monkeypatch.setattr(partner.Link, "open", open_ready)
    with Stand(both, lambda real, *arguments: 0):
        codes = np.concatenate([both.step(state, SAMPLES) for _ in range(3)], 1)
    assert state.link.together == 3  # one sample of each call: then it was waited for in vain
    assert state.link.control[pair.BACKOFF // 8] == pair.RETRY * 4**3
    monkeypatch.undo()
    more = both.step(state, SAMPLES)
    expected = alone.step(alone.start(seeds=2), 4 * SAMPLES)
    assert np.array_equal(np.concatenate([codes, more], 1), expected)


def test_a_partner_that_comes_late_takes_part():
    alone, both = engines_of()
    state = both.start(seeds=3)

    def late(real, *arguments):
        time.sleep(0.002)
        return real(*arguments)

    with Stand(both, late):
        codes = np.concatenate([both.step(state, 3000) for _ in range(3)], 1)
    assert np.array_equal(codes, alone.step(alone.start(seeds=3), 9000))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a partner that never runs beside the caller cannot fail")
def test_an_exception_in_the_partner_reaches_the_caller():
    _, both = engines_of()
    state = both.start()

    def fail(real, *arguments):
        raise MemoryError("beside")

    with Stand(both, fail), pytest.raises(MemoryError, match="beside"):
        for _ in range(100):  # at the end of the call, or before one that comes after it: the machine may be busy
            both.step(state, SAMPLES)
            time.sleep(0.1)
    both.step(state, SAMPLES)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_threads_are_pinned_apart_and_the_caller_gets_its_cpus_back():
    _, both = engines_of()
    allowed, seen = os.sched_getaffinity(0), []
    state, caller = both.start(), threading.get_native_id()

    def look(real, *arguments):
        seen.append((os.sched_getaffinity(0), os.sched_getaffinity(caller)))
        return real(*arguments)

    with Stand(both, look):
        step_until_together(both, state)
    assert os.sched_getaffinity(0) == allowed
    during = [pair for pair in seen if len(pair[1]) == 1]
    if len(allowed) > 1:
        assert during and all(not mine & callers for mine, callers in during)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_one_core_is_spoken_on_alone():
    alone, both = engines_of()
    allowed = os.sched_getaffinity(0)
    state = both.start(seeds=6)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        codes = both.step(state, SAMPLES)
    finally:
        os.sched_setaffinity(0, allowed)
    assert np.array_equal(codes, alone.step(alone.start(seeds=6), SAMPLES))
    assert state.link.together == 0


def test_two_streams_of_one_engine_in_two_python_threads():
    alone, both = engines_of()
    spoken = {}

    def speak(seed):
        state = both.start(seeds=seed)
        spoken[seed] = np.concatenate([both.step(state, SAMPLES) for _ in range(5)], 1)

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, codes in spoken.items():
        assert np.array_equal(codes, alone.step(alone.start(seeds=seed), 5 * SAMPLES))


def test_no_partner_where_none_is_needed(monkeypatch, caplog):
    caplog.set_level("INFO", "wavegen")
    network = network_of(MODEL)
    assert [engines_of()[1].threads_for(rows) for rows in (1, 2, 9)] == [2, 2, 2]
    assert NumbaEngine(network, None, "plain", threads=2).threads_for(1) == 1
    auto = NumbaEngine(network, None, "vector", threads="auto")
    assert auto.threads_for(1) == 1 and "leave room in its cache" in caplog.text
    monkeypatch.setattr(host, "cache_bytes", lambda level: 10_000)
    monkeypatch.setattr("wavegen.engines.numba_engine.idle_cores", lambda: 1)
    assert auto.threads_for(1) == 1 and "no other core is idle" in caplog.text
    monkeypatch.setattr("wavegen.engines.numba_engine.idle_cores", lambda: 4)
    assert auto.threads_for(1) == 2 and "two threads" in caplog.text
    assert auto.threads_for(3) == 3
    assert build_engine(MODEL, threads=2).start().link is not None


def test_short_calls_need_no_partner():
    _, both = engines_of()
    state = both.start()
    with Stand(both, lambda real, *arguments: pytest.fail("was called")):
        both.step(state, partner.LEAST - 1)
    assert state.link.job is None and state.position == partner.LEAST - 1


@pytest.mark.parametrize(("layers", "skip", "share"), [(20, 256, 7), (20, 64, 0), (1, 16, 0)])
def test_the_share_begins_where_both_sides_have_as_much_to_do(layers, skip, share):
    shape = make_shape(layers, 64, skip, 256 if skip == 256 else 64, 256, 2, 2, 0, False, 8)
    assert pair.make_control(shape)[pair.SHARE // 8] == share
