from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks import make_coefficients
from wavegen.audio import lpc, mulaw
from wavegen.audio.io import load
from wavegen.audio.mel import log_mel
from wavegen.config import MelSpec


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


SPEC = MelSpec(sample_rate=16000, hop_length=200)
SPECS = [
    SPEC,
    MelSpec(sample_rate=22050, fmax=8000, mel_scale="htk", norm="none", power=2, log_base="10", mean=(-3.0,),
            scale=(2.0,)),
    MelSpec(sample_rate=22050, center=False, edge_padding=384, n_mels=100, fmin=60),
    MelSpec(sample_rate=8000, n_mels=20, n_fft=256, win_length=256, hop_length=64),
]


def wild_mels(spec, frames):
    """Nothing like speech: bands jump over the whole range from frame to frame."""
    rng = np.random.default_rng(0)
    logarithm = rng.uniform(np.log(spec.floor), 6, (2, spec.n_mels, frames)) / (1 if spec.log_base == "e" else 2.3)
    return ((logarithm - np.array(spec.mean)[:, None]) / np.array(spec.scale)[:, None]).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("order", [1, 16, 25])
def test_any_mel_gives_a_stable_prediction(spec, order):
    coefficients = lpc.mel_to_lpc(wild_mels(spec, 30), spec, order)
    assert coefficients.shape == (2, 30, order) and coefficients.dtype == np.float32
    radius = [np.abs(np.roots(np.concatenate([[1.0], -row]))).max() for row in coefficients.reshape(-1, order)]
    assert max(radius) < 1


def test_what_a_row_holds_does_not_depend_on_the_frames_beside_it():
    mels = wild_mels(SPEC, 40)
    whole = lpc.mel_to_lpc(mels, SPEC)
    assert np.array_equal(lpc.mel_to_lpc(mels[:, :, 10:23], SPEC)[:, :12], whole[:, 10:22])
    assert np.array_equal(lpc.mel_to_lpc(mels[1, :, 7:9].astype(np.float64), SPEC)[:1], whole[1, 7:8])
    between = MelSpec(sample_rate=22050, center=False, edge_padding=384)  # frames centred on their stretch
    mels = wild_mels(between, 9)
    assert np.array_equal(lpc.mel_to_lpc(mels[:, :, 4:5], between), lpc.mel_to_lpc(mels, between)[:, 4:5])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((30, 80)), r"\(..., 80, frames\), found \(30, 80\)"),
        (np.zeros((80, 0)), "frames"),
        (np.full((80, 3), np.nan), "not finite"),
        (np.full((80, 3), 1e4), "no logarithms"),
    ],
)
def test_features_that_cannot_be_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        lpc.mel_to_lpc(features, SPEC)


def test_speech_is_predicted_and_survives_the_codec(kathleen_folder):
    pesq = pytest.importorskip("pesq", reason="the package pesq judges the codec")
    x, rate = load(sorted(kathleen_folder.glob("data/*.flac"))[7], SPEC.sample_rate)
    x = x / np.abs(x).max() * 0.9
    y, coefficients = lpc.emphasize(x, 0.85)[None], lpc.mel_to_lpc(log_mel(x, SPEC), SPEC)[None]
    found = {}
    for name, rules in (("direct", np.zeros_like(coefficients)), ("lpc", coefficients)):
        analysis = lpc.analyze(y, rules, SPEC.hop_length)
        waveform = decoder(rules, SPEC.hop_length, 1, 0.85).decode(analysis.codes)[0]
        found[name] = pesq.pesq(rate, x, waveform, "wb")
    assert found["direct"] > 4.3 and found["lpc"] > 4.5  # six clips had 4.51 and 4.63 on average
    excitation = mulaw.decode(analysis.codes[0])
    assert np.square(excitation).mean() < 0.2 * np.square(y).mean(), "the prediction removes 7 dB"
