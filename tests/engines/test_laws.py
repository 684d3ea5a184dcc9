"""What holds for every engine bit for bit: chunking, batching, copied states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import make_rnn, make_uniforms, make_wavenet
from wavegen.engines import ModelConditioning, build_engine
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs
from wavegen_kernels.cpu import host

MODEL = make_wavenet(24, 37, 19, (1, 2, 4, 8, 3), 100, kernel_size=3, input_taps=5, label=True)
RECURRENT = make_rnn(label=True)
LABELS, LENGTHS = torch.tensor([2, 0, 1]), torch.tensor([200, 300, 250])
_engines: dict = {}


def engine_of(name):
    """One engine for all tests; the vector loop is compiled once."""
    if name not in _engines:
        kernels = name.partition("-")[2]
        _engines[name] = (NumbaEngine(network_of(MODEL), None, kernels) if kernels in ("vector", "plain")
                          else build_engine(RECURRENT if kernels == "rnn" else MODEL, "reference"))
    return _engines[name]


ENGINES = [
    pytest.param("numba-vector", marks=pytest.mark.skipif(host.vector_target() is None, reason="no vector target")),
    "numba-plain", "reference-wavenet", "reference-rnn"]
every_engine = pytest.mark.parametrize("name", ENGINES)


def start(name, rows=(0, 1, 2)):
    """A state of these rows of one batch of three."""
    model = RECURRENT if name == "reference-rnn" else MODEL
    inputs = ConditioningInputs(label=LABELS[list(rows)], num_samples=LENGTHS[list(rows)])
    return engine_of(name).start(len(rows), ModelConditioning(model, inputs), seeds=9, streams=list(rows),
                                 temperature=[(1.0, 0.8, 1.3)[row] for row in rows])


@every_engine
@settings(max_examples=12)
@given(chunks=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_chunking_never_changes_the_audio(name, chunks):
    engine, state = engine_of(name), start(name)
    pieces = np.concatenate([engine.step(state, chunk) for chunk in chunks], axis=1)
    whole = start(name)
    assert np.array_equal(pieces, engine.step(whole, sum(chunks)))
    assert state.position == whole.position == sum(chunks)


@every_engine
@pytest.mark.parametrize("rows", [(0,), (1,), (2,), (2, 0)])
def test_a_batch_equals_its_rows(name, rows):
    engine = engine_of(name)
    together = engine.step(start(name), 120)
    assert np.array_equal(engine.step(start(name, rows), 120), together[list(rows)])


@every_engine
def test_a_row_does_not_depend_on_the_size_of_the_batch(name):
    engine = engine_of(name)
    alone = engine.step(start(name, (1,)), 60)
    crowd = engine.step(start(name, (0, 1, 2) * 6), 60)
    assert np.array_equal(crowd[[1, 4, 16]], np.repeat(alone, 3, axis=0))


@every_engine
@settings(max_examples=8)
@given(before=st.integers(0, 60), after=st.integers(1, 60))
def test_a_copied_state_has_the_same_future(name, before, after):
    engine, state = engine_of(name), start(name)
    engine.step(state, before)
    copy = state.copy()
    future = engine.step(state, after)
    assert copy.position == before and copy.batch_size == 3
    assert np.array_equal(engine.step(copy, after), future)


@every_engine
def test_a_copy_is_independent(name):
    engine, state = engine_of(name), start(name)
    engine.step(state, 30)
    kept = state.copy()
    expected = engine.step(kept.copy(), 50)
    engine.step(state, 50, make_uniforms(1, 3, 50))  # goes elsewhere
    assert np.array_equal(engine.step(kept, 50), expected)


@every_engine
def test_a_copy_may_be_written_over_an_earlier_one(name):
    engine, state = engine_of(name), start(name)
    place = state.copy()
    engine.step(place, 7)  # what it held is of no account
    for _ in range(2):
        engine.step(state, 30)
        place = state.save(place)
        assert place is not state and place.position == state.position
        expected = engine.step(state.copy(), 50)
        forked = place.copy()
        engine.step(forked, 50, make_uniforms(1, 3, 50))  # goes elsewhere
        engine.step(state, 20)
        assert np.array_equal(engine.step(place, 50), expected)


@every_engine
def test_rows_no_one_listens_to_change_nothing_for_the_others(name):
    engine, state = engine_of(name), start(name, (0, 1, 2, 0, 1, 2))
    engine.step(state, 20)
    kept = state.copy()
    expected = engine.step(state.copy(), 60)
    engine.retire(state, [4, 5])
    found = engine.step(state, 25)
    engine.retire(state, np.array([1, 5]))
    engine.retire(state, [])
    found = np.concatenate([found, engine.step(state, 35)], 1)
    assert np.array_equal(found[[0, 2, 3]], expected[[0, 2, 3]])
    if name.startswith("numba"):  # the last two rows are a tile, or two
        assert (found[4:] == engine.silence).all()
    assert np.array_equal(engine.step(kept, 60), expected)
    for rows in ([6], [-1], [0, 0], [0.5]):
        with pytest.raises(ConfigError, match=r"rows must be different whole numbers in \[0, 6\)"):
            engine.retire(state, rows)


@every_engine
def test_a_redraw_changes_the_future_of_its_rows_alone(name):
    """The detour of a row is what it would have been with that stream and temperature from there on."""
    engine, state = engine_of(name), start(name)
    engine.step(state, 30)
    kept, again = state.copy(), state.copy()
    future = engine.step(state, 50)
    again.redraw(streams=[0, 77, 2], temperature=[1.0, 0.5, 1.3])
    other = engine.step(again, 50)
    assert np.array_equal(other[[0, 2]], future[[0, 2]]) and not np.array_equal(other[1], future[1])
    rows = again.rows
    assert np.array_equal(engine.step(kept.copy(), 50, rows.uniforms(30, 50))[[0, 2]], other[[0, 2]])
    assert np.array_equal(engine.step(kept, 50), future)
    back = again.copy()
    back.redraw(streams=[0, 1, 2], temperature=[1.0, 0.8, 1.3])
    assert np.array_equal(back.rows.streams, kept.rows.streams)
    assert np.array_equal(again.rows.streams, [0, 77, 2])


@every_engine
def test_a_redraw_is_checked(name):
    state = start(name)
    for wrong in ({"temperature": 0.0}, {"temperature": [1.0]}, {"streams": [1, 2]}, {"streams": [0, -1, 0]}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            state.redraw(**wrong)


@every_engine
def test_two_voices_are_two_states(name):
    engine = engine_of(name)
    first, second = start(name, (0,)), start(name, (1,))
    turns = [(engine.step(first, 20), engine.step(second, 20)) for _ in range(3)]
    assert np.array_equal(np.concatenate([a for a, _ in turns], 1), engine.step(start(name, (0,)), 60))
    assert np.array_equal(np.concatenate([b for _, b in turns], 1), engine.step(start(name, (1,)), 60))


@every_engine
def test_draws_follow_seed_stream_and_time_only(name):
    engine = engine_of(name)
    uniforms = start(name).rows.uniforms(0, 80)
    assert np.array_equal(engine.step(start(name), 80, uniforms), engine.step(start(name), 80))
