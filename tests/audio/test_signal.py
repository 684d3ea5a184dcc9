import numpy as np
import pytest

from wavegen.audio import lpc, mulaw
from wavegen.audio.mel import log_mel
from wavegen.audio.signal import SignalDecoder, decode_codes, encode_waveform, prediction_coefficients
from wavegen.config import AudioConfig, MelSpec

MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
PATHS = {"plain": {}, "emphasised": {"preemphasis": 0.85},
         "lpc": {"signal_path": "lpc", "preemphasis": 0.85, "mel": MEL}}


def speechlike(num_samples=4000):
    """A buzz through two resonances, with pauses."""
    t = np.arange(num_samples) / 8000
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    return (0.3 * buzz / np.abs(buzz).max() * (np.sin(2 * np.pi * 2 * t) > -0.5)).astype(np.float32)


def features_of(waveform):
    return log_mel(waveform, MEL).astype(np.float16)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_encoded_is_heard_again(path):
    audio, waveform = AudioConfig(sample_rate=8000, **PATHS[path]), speechlike()
    codes = encode_waveform(waveform, audio, features_of(waveform))
    error = decode_codes(codes, audio, features_of(waveform)) - waveform
    assert codes.shape == waveform.shape
    assert 10 * np.log10((waveform**2).mean() / (error**2).mean()) > 25


@pytest.mark.parametrize("path", PATHS)
def test_a_decoder_gives_the_same_audio_whatever_the_chunks(path):
    audio, waveform = AudioConfig(sample_rate=8000, **PATHS[path]), speechlike()
    features = features_of(waveform)
    codes = encode_waveform(waveform, audio, features)
    prediction = None
    if path == "lpc":
        coefficients = prediction_coefficients(features, audio)[None]
        prediction = lambda start, stop: coefficients[:, start:stop]  # noqa: E731
    decoder = SignalDecoder(audio, 1, prediction, MEL.hop_length)
    pieces = [decoder.decode(piece[None])[0] for piece in np.split(codes, [1, 65, 1000, 1000])]
    assert np.array_equal(np.concatenate(pieces), decode_codes(codes, audio, features))


def test_plain_codes_are_mu_law():
    audio = AudioConfig(sample_rate=8000)
    assert np.array_equal(encode_waveform(speechlike(), audio), mulaw.encode(speechlike()))


def test_the_path_lpc_asks_for_what_it_needs():
    audio = AudioConfig(sample_rate=8000, signal_path="lpc")
    with pytest.raises(ValueError, match="need the mel features"):
        encode_waveform(speechlike(), audio)
    with pytest.raises(ValueError, match=r"audio\.mel is not set"):
        encode_waveform(speechlike(), audio, features_of(speechlike()))
    with pytest.raises(ValueError, match="need prediction coefficients"):
        SignalDecoder(audio)


def test_a_stretch_is_traced_as_the_whole_clip_is():
    audio, waveform = AudioConfig(sample_rate=8000, **PATHS["lpc"]), speechlike()
    coefficients = prediction_coefficients(features_of(waveform), audio)
    codes = encode_waveform(waveform, audio, features_of(waveform))
    whole = lpc.replay(codes[None], coefficients[None], MEL.hop_length)
    for start, stop in ((0, 4000), (0, 1), (1, 40), (5, 5), (777, 1500), (3999, 4000)):
        part = lpc.retrace(whole.signal[0], coefficients, MEL.hop_length, start, stop)
        assert np.array_equal(part.codes[0], codes[start:stop])
        assert np.array_equal(part.inputs[0], whole.inputs[0, start:stop])
        assert np.array_equal(part.signal[0], whole.signal[0, start:stop])
    with pytest.raises(ValueError, match="not a stretch"):
        lpc.retrace(whole.signal[0], coefficients, MEL.hop_length, 10, 4001)


def test_errors_in_what_is_fed_back_are_led_home():
    audio, waveform = AudioConfig(sample_rate=8000, **PATHS["lpc"]), speechlike()
    coefficients = prediction_coefficients(features_of(waveform), audio)
    signal = lpc.replay(encode_waveform(waveform, audio, features_of(waveform))[None], coefficients[None],
                        MEL.hop_length).signal[0]
    noise = np.zeros(2000, np.int64)
    noise[1000] = 9
    off = lpc.retrace(signal, coefficients, MEL.hop_length, 1000, 3000, noise)
    clean = lpc.retrace(signal, coefficients, MEL.hop_length, 1000, 3000)
    assert np.array_equal(off.inputs[0, :1001], clean.inputs[0, :1001])
    assert off.inputs[0, 1001, 2] == clean.codes[0, 1000] + 9
    error = np.abs(off.signal[0] - signal[1000:3000])
    # The code to be predicted next answers the error: a sample later it is within a bin or two again.
    assert error[1000] > 10 * error[1001:].max()
    with pytest.raises(ValueError, match="noise for 10 samples"):
        lpc.retrace(signal, coefficients, MEL.hop_length, 0, 10, noise)


def test_what_pre_emphasis_lifts_above_full_scale_is_cut():
    waveform = (0.95 * (-1.0) ** np.arange(40)).astype(np.float32)
    audio = AudioConfig(sample_rate=8000, preemphasis=0.85)
    codes = encode_waveform(waveform, audio)
    assert set(codes[1:].tolist()) == {0, 255}
