"""Offset, gain, trimming, fades."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.audio import levels
from wavegen.config import PrepareConfig, TrimConfig
from wavegen.errors import AudioError


def burst(before=1000, loud=800, after=2000, rate=8000, amplitude=0.5):
    """Silence, a tone, silence: float32 (before + loud + after,)."""
    tone = amplitude * np.sin(2 * np.pi * 440 * np.arange(loud) / rate)
    return np.concatenate([np.zeros(before), tone, np.zeros(after)]).astype(np.float32)


def test_a_clip_is_levelled_in_one_known_way():
    waveform, gain, peak = levels.level(burst() + np.float32(0.1), 8000, PrepareConfig())
    # Frames of 80 samples: the first loud one starts at 960, the last ends at 1840.
    assert len(waveform) == (1840 + 400) - (960 - 80)
    assert np.abs(waveform).max() == pytest.approx(0.9, abs=1e-3)
    assert gain == pytest.approx(0.9 / peak) and peak == pytest.approx(0.5, abs=0.01)
    assert waveform[0] == waveform[-1] == 0.0
    assert waveform.dtype == np.float32


def test_every_step_can_be_left_out():
    config = PrepareConfig(normalize="none", remove_dc=False, trim=None, fade_in_ms=0, fade_out_ms=0)
    clip = burst() + np.float32(0.1)
    waveform, gain, peak = levels.level(clip, 8000, config)
    assert np.array_equal(waveform, clip) and gain == 1.0 and peak == np.abs(clip).max()


def test_a_long_clip_is_cut_and_fades_out():
    config = PrepareConfig(trim=None, fade_in_ms=0, fade_out_ms=0, crop_seconds=0.1, crop_fade_ms=50)
    clip = burst(before=0, loud=4000, after=0)
    waveform = levels.level(clip, 8000, config).waveform
    assert len(waveform) == 800 and waveform[-1] == 0.0
    assert np.abs(waveform[:400]).max() == pytest.approx(0.9, abs=1e-3)
    assert np.abs(waveform[700:]).max() < 0.25 < np.abs(waveform[400:500]).max()
    short = levels.level(clip[:800], 8000, config).waveform
    assert len(short) == 800 and np.abs(short[700:]).max() > 0.8  # nothing is cut, so nothing fades


def test_what_exceeds_full_scale_is_cut_only_without_normalising():
    config = PrepareConfig(normalize="none", trim=None, fade_in_ms=0, fade_out_ms=0)
    assert np.abs(levels.level(burst(amplitude=1.5), 8000, config).waveform).max() == 1.0
    assert levels.level(burst(amplitude=1.5), 8000, PrepareConfig()).gain == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("clip", [np.zeros(500), np.full(500, 0.3), np.full(1, 0.5), np.zeros(0),
                                  1e-5 * np.sin(np.arange(500))])
def test_silence_is_named(clip):
    with pytest.raises(AudioError, match="silent"):
        levels.level(clip.astype(np.float32), 8000, PrepareConfig())


def test_the_threshold_is_of_the_rms():
    clip = burst(amplitude=0.03 * 2**0.5)
    assert levels.trim_bounds(clip, 8000, TrimConfig(threshold=0.025)) == (1040 - 80, 1760 + 400)
    assert levels.trim_bounds(clip, 8000, TrimConfig(threshold=0.035)) == (0, len(clip))


def test_a_clip_without_a_loud_frame_is_kept_whole():
    quiet = 0.001 * burst()
    assert levels.trim_bounds(quiet, 8000, TrimConfig()) == (0, len(quiet))
    assert levels.trim_bounds(quiet[:10], 8000, TrimConfig()) == (0, 10)


@given(before=st.integers(0, 500), loud=st.integers(200, 900), after=st.integers(0, 900))
def test_trimming_never_cuts_into_the_sound(before, loud, after):
    clip = burst(before, loud, after)
    start, stop = levels.trim_bounds(clip, 8000, TrimConfig())
    assert 0 <= start <= before and before + loud - 80 <= stop <= len(clip)
    assert before - start <= 80 + 80 and stop - (before + loud) <= 80 + 400


@given(st.integers(0, 300))
def test_fades_of_a_short_clip_do_not_overlap(length):
    faded = levels.fade(np.ones(length, np.float32), 8000, 3.0, 10.0)
    assert faded.shape == (length,) and faded.dtype == np.float32
    rise, fall = (np.linspace(0, 1, min(samples, length // 2), dtype=np.float32) for samples in (24, 80))
    wanted = np.concatenate([rise, np.ones(length - len(rise) - len(fall)), 1 - fall])
    np.testing.assert_allclose(faded, wanted, atol=1e-6)


def test_a_fade_leaves_its_input_alone():
    clip = np.ones(300, np.float32)
    levels.fade(clip, 8000, 3.0, 10.0)
    assert (clip == 1).all()


def test_silence_has_no_gain():
    with pytest.raises(ValueError, match="silent"):
        levels.normalize_peak(np.zeros(3, np.float32), 0.9)


def test_clipped_samples_are_counted():
    assert levels.count_clipped(np.array([1.0, -1.0, 0.5, 1.2, 0.99], np.float32)) == 3


def test_dither_is_faint_noise_and_always_the_same():
    silence, tone = np.zeros(8000, np.float32), np.sin(np.arange(8000)).astype(np.float32)
    noise = levels.dither(silence, 1e-4)
    assert noise.dtype == np.float32 and 0.9e-4 < noise.std() < 1.1e-4
    assert np.array_equal(noise, levels.dither(silence, 1e-4))
    other = levels.dither(tone / 2, 1e-4) - tone / 2
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1, "another recording has another noise"
    assert np.abs(levels.dither(tone, 1e-2)).max() <= 1
    assert levels.dither(tone, 0.0) is tone
