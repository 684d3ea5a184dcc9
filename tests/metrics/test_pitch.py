"""Pitch errors of tones whose pitch is known."""

from __future__ import annotations

import numpy as np
import pytest

from wavegen.metrics.pitch import compare, pitch_error, track


def voice(pitch: float, seconds: float = 0.5, sample_rate: int = 16000) -> np.ndarray:
    """A tone with overtones, and as much silence behind it."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 9))
    return np.concatenate([0.2 * tone, np.zeros(len(time))]).astype(np.float32)


@pytest.mark.parametrize(("pitch", "sample_rate"), [(110, 16000), (200, 8000), (430, 22050)])
def test_the_pitch_of_a_tone_is_found_and_silence_has_none(pitch, sample_rate):
    contour = track(voice(pitch, sample_rate=sample_rate), sample_rate)
    half = len(contour) // 2
    assert np.nanmedian(contour) == pytest.approx(pitch, rel=0.01)
    assert np.isfinite(contour[2 : half - 2]).mean() > 0.9 and np.isfinite(contour[half + 4 :]).mean() < 0.1


def test_a_semitone_is_100_cents():
    error = pitch_error(voice(150 * 2 ** (1 / 12)), voice(150), 16000)
    assert error.cents == pytest.approx(100, abs=12) and error.hertz == pytest.approx(8.9, abs=1.2)
    assert error.voicing < 0.05


def test_equal_clips_are_at_0():
    error = pitch_error(voice(150), voice(150), 16000)
    assert (error.cents, error.hertz, error.voicing) == (0, 0, 0)


def test_errors_count_where_both_are_voiced_and_voicing_everywhere():
    nan = np.nan
    error = compare(np.array([200.0, 200, nan, nan]), np.array([100.0, nan, 100, nan]))
    assert (error.cents, error.hertz, error.voicing) == (1200, 100, 0.5)
    nothing = compare(np.array([nan, 100]), np.array([100, nan]))
    assert (nothing.cents, nothing.hertz, nothing.voicing) == (None, None, 1)


@pytest.mark.parametrize("waveform", [np.zeros(4000), np.random.default_rng(0).standard_normal(4000)])
def test_what_has_no_pitch_has_no_pitch(waveform):
    assert np.isfinite(track(waveform.astype(np.float32), 8000)).mean() < 0.1
