from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks import make_coefficients
from wavegen.audio import lpc, mulaw


def noise(seed, batch, num_samples, level=0.1):
    return (np.random.default_rng(seed).standard_normal((batch, num_samples)) * level).astype(np.float32)


def decoder(coefficients, hop_length=50, batch=2, preemphasis=0.0):
    def prediction(start, stop):
        return coefficients[:, np.minimum(np.arange(start, stop), coefficients.shape[1] - 1)]

    return lpc.Decoder(batch, prediction, hop_length, preemphasis)


def test_synthesis_gives_the_signal_of_the_analysis_back_bit_for_bit():
    coefficients, y = make_coefficients(0, 2, 7), noise(0, 2, 400)
    analysis = lpc.analyze(y, coefficients, 50)
    assert np.array_equal(decoder(coefficients).decode(analysis.codes), analysis.signal)


def test_the_error_of_coding_does_not_build_up():
    coefficients = np.repeat(make_coefficients(0, 1, 1), 2, axis=0)
    y = decoder(coefficients).decode(mulaw.encode(noise(0, 2, 2000, 0.02)))  # a signal that suits the prediction
    analysis = lpc.analyze(y, coefficients, 50)
    assert np.abs(analysis.signal - y).max() < 0.01 < np.abs(y).max()


def test_the_inputs_are_what_is_known_before_each_sample():
    coefficients, y = make_coefficients(1, 1, 5), noise(1, 1, 230)
    analysis = lpc.analyze(y, coefficients, 50)
    inputs = analysis.inputs[0]
    assert inputs[0].tolist() == [128, 128, 128]
    assert np.array_equal(inputs[1:, 2], analysis.codes[0, :-1])
    assert np.array_equal(inputs[1:, 0], mulaw.encode(analysis.signal[0, :-1]))
    past = np.zeros(16, np.float32)
    for t in range(230):
        predicted = np.float32(0)
        for i in range(16):
            predicted = np.float32(predicted + np.float32(coefficients[0, min(t // 50, 4), i] * past[i]))
        assert inputs[t, 1] == mulaw.encode(np.clip(predicted, -1, 1))
        past = np.concatenate([analysis.signal[0, t : t + 1], past[:-1]])


@given(st.lists(st.integers(0, 130), min_size=1, max_size=8))
def test_chunks_never_change_the_audio(chunks):
    coefficients = make_coefficients(2, 1, 6)
    codes = np.random.default_rng(3).integers(0, 256, (2, sum(chunks)))
    whole, pieces = decoder(coefficients, preemphasis=0.85), decoder(coefficients, preemphasis=0.85)
    borders = np.cumsum([0, *chunks])
    found = [pieces.decode(codes[:, a:b]) for a, b in itertools.pairwise(borders)]
    assert np.array_equal(np.concatenate(found, axis=1), whole.decode(codes))


def test_no_coefficients_make_the_signal_grow():
    codes = np.random.default_rng(0).integers(0, 256, (2, 3000))
    wild = np.random.default_rng(1).normal(scale=100, size=(2, 60, 16)).astype(np.float32)
    waveform = decoder(wild, preemphasis=0.85).decode(codes)
    assert np.isfinite(waveform).all() and np.abs(waveform).max() <= 1


def test_emphasis_is_undone():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 300)).astype(np.float32)
    y = lpc.emphasize(x, 0.85)
    assert np.allclose(y[:, 1:], x[:, 1:] - 0.85 * x[:, :-1]) and np.array_equal(y[:, 0], x[:, 0])
    nothing = np.zeros((1, 1, 16), np.float32)
    found = decoder(nothing, preemphasis=0.85).decode(lpc.analyze(y, nothing, 50).codes)
    assert np.abs(found - x).max() < 0.1


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        (np.zeros((3, 1, 16)), r"are \(B or 1, frames, order\), found \(3, 1, 16\) for 2 rows"),
        (np.zeros((1, 0, 16)), "found"),
        (np.full((1, 1, 16), np.nan), "not finite"),
        (np.full((1, 1, 16), 1e9), "larger than any"),
    ],
)
def test_coefficients_that_cannot_be_are_refused(coefficients, message):
    with pytest.raises(ValueError, match=message):
        lpc.analyze(np.zeros((2, 10), np.float32), coefficients, 5)


def test_signals_and_codes_that_cannot_be_are_refused():
    nothing = np.zeros((1, 1, 16), np.float32)
    with pytest.raises(ValueError, match=r"finite and \(B, T\)"):
        lpc.analyze(np.full((1, 4), np.inf), nothing, 5)
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 256\), found 0 to 256"):
        decoder(nothing).decode(np.array([[0, 1], [2, 256]]))
    with pytest.raises(ValueError, match=r"must be \(2, n\)"):
        decoder(nothing).decode(np.zeros((1, 3), np.int64))
