"""The signal path lpc in the engines: the same excitation, the same waveform, the laws bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import (
    assert_layers_agree,
    assert_same_codes,
    make_coefficients,
    make_wavenet,
    random_codes,
)
from wavegen.audio import lpc
from wavegen.engines import TableConditioning, build_engine
from wavegen.engines.calibration import measure_ranges
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen.errors import BadInputError, ConfigError
from wavegen_kernels.cpu import host

needs_vectors = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
fused = pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
every_engine = pytest.mark.parametrize(
    "name", [pytest.param("vector", marks=needs_vectors), pytest.param("vector i8x15", marks=needs_vectors), "plain",
             "plain i8", "reference"])
HOP, ROWS = 20, 3
MODEL = make_wavenet(24, 37, 19, (1, 2, 4, 8, 3), 100, kernel_size=3, signal_path="lpc", input_taps=20,
                     input_tanh=True)
COEFFICIENTS = make_coefficients(0, ROWS, 12)
_engines: dict = {}


def engine_of(name, model=MODEL):
    """One engine of a kind for all tests; the vector loop is compiled once."""
    if (name, id(model)) not in _engines:
        network, (kernels, _, precision) = network_of(model), name.partition(" ")
        ranges = measure_ranges(network, random_codes(100, ROWS, 200), conditioning((0, 1, 2), model))
        engine = (build_engine(model, "reference") if name == "reference"
                  else NumbaEngine(network, None, kernels, precision or "f32", ranges))
        engine.default_conditioning = conditioning((0, 1, 2), model)
        _engines[name, id(model)] = engine
    return _engines[name, id(model)]


def conditioning(rows=(0, 1, 2), model=MODEL, coefficients=COEFFICIENTS):
    config = model.config
    table = np.random.default_rng(5).normal(scale=0.3, size=(1, 12, config.num_layers, 2 * config.residual_channels))
    table = np.repeat(table, len(rows), axis=0)
    return TableConditioning(table, HOP, coefficients[list(rows), :, :model.lpc_order])


def start(name, rows=(0, 1, 2)):
    return engine_of(name).start(len(rows), conditioning(rows), seeds=4, streams=list(rows))


@fused
def test_layers_and_logits_agree_with_float64(kernels):
    codes = random_codes(100, ROWS, 150)
    assert_layers_agree(engine_of(kernels), engine_of("reference"), codes)


@pytest.mark.parametrize(
    ("name", "share"), [pytest.param("vector i8x15", 0.03, marks=needs_vectors), ("plain i8", 0.1)])
def test_integer_precisions_have_the_same_signal_and_nearly_the_same_logits(name, share):
    codes = random_codes(100, ROWS, 150)
    found, truth = engine_of(name).logits(codes), engine_of("reference").logits(codes)
    assert 0 < np.sqrt(np.square(found - truth).mean()) < share * truth.std()


@pytest.mark.parametrize(("order", "taps"), [(16, 0), (5, 0), (24, 3)])
def test_other_orders_agree_too(order, taps):
    model = make_wavenet(signal_path="lpc", lpc_order=order, input_taps=taps)
    codes, told = random_codes(64, 2, 60), conditioning((0, 1), model, make_coefficients(1, 2, 3, order))
    found = NumbaEngine(network_of(model), None, "plain").logits(codes, told)
    assert np.abs(found - build_engine(model, "reference").logits(codes, told)).max() < 1e-4


@fused
def test_free_running_codes_equal_the_reference(kernels):
    num_samples, reference = 400, engine_of("reference")
    uniforms = start("reference").rows.uniforms(0, num_samples)
    found = engine_of(kernels).step(start(kernels), num_samples)
    expected = reference.step(start("reference"), num_samples)
    assert_same_codes(found, expected, reference, uniforms)


@every_engine
def test_the_signal_of_the_engine_is_the_signal_of_the_decoder(name):
    engine, state, told = engine_of(name), start(name), conditioning()
    codes = engine.step(state, 150)
    waveform = lpc.Decoder(ROWS, told.prediction, HOP, 0.0, 100).decode(codes)
    if name == "reference":
        # Its newest sample is still to be made of prediction and code.
        assert np.array_equal(state.memories[0]["signal"][:ROWS, :15].numpy(), waveform[:, 148:133:-1])
    else:
        newest = engine.shape.history - 1 - 150 % engine.shape.history
        assert np.array_equal(state.history[:, newest:newest + 20], waveform[:, :129:-1])


@every_engine
@settings(max_examples=6)
@given(chunks=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_a_stream_is_the_whole(name, chunks):
    engine, state, told = engine_of(name), start(name), conditioning()
    decoder = lpc.Decoder(ROWS, told.prediction, HOP, 0.85, 100)
    pieces = np.concatenate([decoder.decode(engine.step(state, chunk)) for chunk in chunks], axis=1)
    whole = lpc.Decoder(ROWS, told.prediction, HOP, 0.85, 100)
    assert np.array_equal(pieces, whole.decode(engine.step(start(name), sum(chunks))))


@every_engine
@pytest.mark.parametrize("rows", [(0,), (2, 1)])
def test_a_batch_equals_its_rows(name, rows):
    together = engine_of(name).step(start(name), 120)
    assert np.array_equal(engine_of(name).step(start(name, rows), 120), together[list(rows)])


@every_engine
def test_a_copied_state_has_the_same_future(name):
    engine, state = engine_of(name), start(name)
    engine.step(state, 33)
    copy = state.copy()
    assert np.array_equal(engine.step(state, 50), engine.step(copy, 50))


@every_engine
def test_one_row_of_coefficients_serves_all(name):
    shared = conditioning()
    shared.coefficients = shared.coefficients[:1]
    repeated = conditioning()
    repeated.coefficients = np.repeat(shared.coefficients, ROWS, axis=0)
    codes = random_codes(100, ROWS, 60)
    assert np.array_equal(engine_of(name).logits(codes, shared), engine_of(name).logits(codes, repeated))


@every_engine
@pytest.mark.parametrize(("frame", "value"), [(3, np.nan), (3, np.inf), (3, 1e30), (700, -np.inf)])
def test_coefficients_that_are_not_finite_are_refused_before_the_loop(name, frame, value):
    told = conditioning()
    told.coefficients = np.repeat(told.coefficients, 70, axis=1)
    told.coefficients[1, frame, 4] = value
    engine = engine_of(name)
    with pytest.raises(BadInputError, match=f"of row 1 are not finite, or absurdly large, at frame {frame}"):
        state = engine.start(ROWS, told)
        state.position = frame * HOP  # as if all before had been spoken
        engine.step(state, 1)


@every_engine
def test_coefficients_that_are_missing_or_of_another_order_are_asked_for(name):
    told = conditioning()
    told.coefficients = None
    with pytest.raises(ConfigError, match="gives no coefficients"):
        engine_of(name).start(ROWS, told)
    told.coefficients = COEFFICIENTS[:, :, :8]
    with pytest.raises(ConfigError, match=r"coefficients \(3, 256, 8\), the model needs \(3, 256, 16\)"):
        engine_of(name).start(ROWS, told)
