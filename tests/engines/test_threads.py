"""Threads beside the caller's: they change nothing but the time, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from networks import make_rnn, make_uniforms, make_wavenet
from wavegen.engines import build_engine, threads
from wavegen.engines.numba_engine import split_rows
from wavegen.errors import ConfigError

MODEL = make_wavenet(24, 37, 19, (1, 2, 4, 8, 3), 100, kernel_size=3, input_taps=5, label=False)
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")


@pytest.fixture(scope="module")
def alone():
    return build_engine(MODEL, "numba")


@pytest.fixture(scope="module")
def together():
    return build_engine(MODEL, "numba", threads=3)


def settings(batch_size):
    return {"seeds": 5, "temperature": [0.7 + 0.1 * row for row in range(batch_size)]}


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("wavegen")]


@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_rows_are_the_same_whoever_speaks_them(alone, together, batch_size):
    expected = alone.step(alone.start(batch_size, **settings(batch_size)), 150)
    state = together.start(batch_size, **settings(batch_size))
    first, copy = together.step(state, 60), state.copy()
    assert np.array_equal(np.concatenate([first, together.step(state, 90)], 1), expected)
    assert np.array_equal(together.step(copy, 90), expected[:, 60:])


def test_given_uniforms_and_codes_are_spread_too(alone, together):
    uniforms = make_uniforms(1, 4, 50)
    codes = alone.step(alone.start(4), 50, uniforms)
    assert np.array_equal(together.step(together.start(4), 50, uniforms), codes)
    assert np.array_equal(together.logits(codes), alone.logits(codes))


@pytest.mark.parametrize(("rows", "count", "expected"), [
    (1, 2, [1]), (2, 2, [1, 1]), (7, 3, [2, 2, 3]), (5, 64, [1] * 5), (8, 1, [8])])
def test_every_row_belongs_to_one_thread(rows, count, expected):
    shares = split_rows(rows, count)
    assert [share.stop - share.start for share in shares] == expected
    assert [row for share in shares for row in range(rows)[share]] == list(range(rows))


def test_an_exception_beside_reaches_the_caller(together, monkeypatch):
    state, caller, generate = together.start(3), threading.get_ident(), together._generate

    def fail(*arguments):
        if threading.get_ident() != caller:
            raise MemoryError("beside")
        return generate(*arguments)

    monkeypatch.setattr(together, "_generate", fail)
    with pytest.raises(MemoryError, match="beside"):
        together.step(state, 5)


def test_helpers_end_with_their_engine():
    engine = build_engine(MODEL, "numba", threads=2)
    before = set(helpers())
    engine.step(engine.start(2), 5)
    (mine,) = set(helpers()) - before
    del engine
    gc.collect()
    mine.join(10)
    assert not mine.is_alive()


def test_a_forked_child_and_the_end_of_the_interpreter():
    script = """
import os, sys, warnings
sys.path[:0] = {paths!r}
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork beside threads, which is the point
from networks import make_wavenet
from wavegen.engines import build_engine
for rows in (1, 3):
    model = make_wavenet(24, 37, 19, (1, 2, 4, 8, 3), 100, kernel_size=3, input_taps=5)  # compiled before
    engine = build_engine(model, "numba", threads=2)
    state = engine.start(rows)
    engine.step(state, 100)
    child = os.fork()
    codes = engine.step(state, 100).sum()
    if child == 0:
        print(codes, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(codes, flush=True)
"""
    paths = [str(Path(__file__).parents[1]), *sys.path]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script.format(paths=paths)], capture_output=True,
                          text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert found[0] == found[1] and found[2] == found[3]


@pytest.mark.parametrize(("wanted", "message"), [(0, "at least 1"), ("two", '"auto" or a whole'), (1.5, "1.5")])
def test_a_number_of_threads_that_is_none(wanted, message):
    with pytest.raises(ConfigError, match=message):
        build_engine(MODEL, "numba", threads=wanted)


def test_threads_are_the_fused_engines():
    with pytest.raises(ConfigError, match="leave it out"):
        build_engine(make_rnn(), threads=2)
    assert build_engine(make_rnn(), threads="auto").name == "reference"


@needs_affinity
def test_a_pinned_thread_gets_its_cpus_back():
    allowed = os.sched_getaffinity(0)
    with pytest.raises(KeyError), threads.pinned() as others:
        mine = os.sched_getaffinity(0)
        assert len(mine) == 1 and mine <= allowed and others == allowed - threads.siblings(*mine)
        raise KeyError
    assert os.sched_getaffinity(0) == allowed


@needs_affinity
def test_cores_are_those_the_thread_may_use():
    allowed = os.sched_getaffinity(0)
    found = threads.cores()
    assert frozenset().union(*found) == allowed and sum(map(len, found)) == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert threads.cores() == [frozenset([min(allowed)])] and threads.idle_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("load", "expected"), [(0.0, 4), (1.2, 4), (2.0, 3), (3.6, 1), (30.0, 1)])
def test_busy_cores_are_left_alone(monkeypatch, load, expected):
    monkeypatch.setattr(threads, "cores", lambda: [frozenset([cpu]) for cpu in range(4)])
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert threads.idle_cores() == expected


def test_lists_of_cpus():
    assert threads._listed("0-2,8\n") == [0, 1, 2, 8]
