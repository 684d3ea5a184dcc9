"""The codec: its values, its laws, its agreement with torchaudio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wavegen.audio import mulaw

GOLDEN = Path(__file__).parent / "golden"
PCM16 = (np.arange(-32768, 32768) / 32768).astype(np.float32)
CHANNELS = [2, 3, 16, 255, 256, 257, 1024, 65535, 65536]


def test_codes_are_those_of_the_golden_file():
    # Every 41st 16-bit value; made once, so that a store of today can be read in ten years.
    assert np.array_equal(mulaw.encode(PCM16[::41]), np.load(GOLDEN / "mulaw_codes.npy"))
    assert np.array_equal(mulaw.decode_table(256), np.load(GOLDEN / "mulaw_table.npy"))


def test_codes_follow_the_formula():
    mu = 255.0
    companded = np.sign(PCM16) * np.log1p(mu * np.abs(PCM16.astype(np.float64))) / np.log1p(mu)
    assert np.array_equal(mulaw.encode(PCM16), np.floor((companded + 1) / 2 * mu + 0.5))


def test_codes_are_those_of_torchaudio_on_every_16_bit_value(torchaudio):
    torch = pytest.importorskip("torch")
    theirs = torchaudio.functional.mu_law_encoding(torch.from_numpy(PCM16), 256).numpy()
    assert np.array_equal(mulaw.encode(PCM16), theirs)
    decoded = torchaudio.functional.mu_law_decoding(torch.arange(256), 256).numpy()
    np.testing.assert_allclose(mulaw.decode_table(256), decoded, atol=3e-7)


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_code_survives_decoding_and_encoding(channels):
    codes = np.arange(channels)
    assert np.array_equal(mulaw.encode(mulaw.decode(codes, channels), channels), codes)


@given(st.sampled_from(CHANNELS), hnp.arrays(np.float32, st.sampled_from([0, 1, 129]),
                                             elements=st.floats(-1, 1, width=32)))
def test_encoding_stays_in_range_keeps_order_and_is_near(channels, waveform):
    codes = mulaw.encode(waveform, channels)
    assert codes.dtype == np.int64 and codes.shape == waveform.shape
    assert ((codes >= 0) & (codes < channels)).all()
    assert (np.diff(codes[np.argsort(waveform, kind="stable")]) >= 0).all()
    companded = np.sign(waveform) * np.log1p((channels - 1) * np.abs(waveform.astype(np.float64)))
    error = np.abs(mulaw.to_companded(codes, channels) - companded / np.log1p(channels - 1))
    assert (error <= 1 / (channels - 1) + 1e-6).all()


@pytest.mark.parametrize("channels", CHANNELS)
def test_silence_is_the_code_of_zero(channels):
    assert mulaw.silence_code(channels) == channels // 2 == mulaw.encode(np.zeros(1), channels)[0]


def test_any_axes_and_strides_are_encoded():
    waveform = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12)
    assert np.array_equal(mulaw.encode(waveform[:, ::3]), mulaw.encode(waveform)[:, ::3])
    codes = mulaw.encode(waveform).astype(np.uint8)
    assert mulaw.decode(codes[::-1, ::5]).shape == (2, 3)
    assert mulaw.decode(codes).dtype == mulaw.to_companded(codes).dtype == np.float32


def test_the_ends_of_the_range_are_exact():
    assert mulaw.decode(np.array([0, 255])).tolist() == [-1.0, 1.0]
    assert mulaw.to_companded(np.array([0, 255])).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.0001, -2.0])
def test_a_sample_without_a_code_is_refused(wrong):
    with pytest.raises(ValueError, match="finite samples in"):
        mulaw.encode(np.array([0.0, wrong, 0.0], np.float32))


@pytest.mark.parametrize("wrong", [np.array([-1]), np.array([256]), np.array([0.5])])
def test_a_code_that_does_not_exist_is_refused(wrong):
    for function in (mulaw.decode, mulaw.to_companded):
        with pytest.raises(ValueError, match="codes must"):
            function(wrong)


@pytest.mark.parametrize("channels", [1, 0, 65537])
def test_a_number_of_channels_without_a_codec_is_refused(channels):
    with pytest.raises(ValueError, match="quantization_channels"):
        mulaw.silence_code(channels)


def test_the_table_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        mulaw.decode_table(256)[0] = 0.0


@pytest.mark.parametrize("quantization_channels", [2, 3, 30, 64, 256, 1024, 65536])
def test_the_thresholds_are_where_the_code_changes(quantization_channels):
    table = mulaw.thresholds(quantization_channels)
    assert table.dtype == np.float32 and len(table) == quantization_channels - 1 and (np.diff(table) > 0).all()
    assert np.array_equal(mulaw.encode(table, quantization_channels), np.arange(1, quantization_channels))
    below = np.nextafter(table, np.float32(-1))
    assert np.array_equal(mulaw.encode(below, quantization_channels), np.arange(quantization_channels - 1))
    x = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    assert np.array_equal(np.searchsorted(table, x, side="right"), mulaw.encode(x, quantization_channels))


@pytest.mark.parametrize("channels", [2, 16, 256, 1024])
def test_companded_amplitudes_become_the_waveform(channels):
    codes = np.arange(channels)
    waveform = mulaw.from_companded(mulaw.to_companded(codes, channels), channels)
    assert waveform.dtype == np.float32
    assert np.allclose(waveform, mulaw.decode(codes, channels), atol=1e-6)
    assert mulaw.from_companded(np.array([-3.0, 0.0, 3.0]), channels).tolist() == pytest.approx([-1, 0, 1])
    with pytest.raises(ValueError, match="must be finite"):
        mulaw.from_companded(np.array([0.0, np.nan]), channels)
