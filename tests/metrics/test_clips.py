import numpy as np
import pytest

from wavegen.metrics.clips import check_clip, rates, spectral_flatness


def tone(num_samples=4000, level=0.5):
    return level * np.sin(2 * np.pi * 440 * np.arange(num_samples) / 8000)


def noise(num_samples=4000, level=0.1, seed=0):
    return level * np.random.default_rng(seed).standard_normal(num_samples)


def test_a_tone_is_far_from_noise():
    assert spectral_flatness(tone(), 8000) < 0.01
    assert spectral_flatness(noise(), 8000) == pytest.approx(0.56, abs=0.02)


def test_silence_around_a_clip_does_not_change_its_flatness():
    quiet = np.zeros(8000)
    alone = spectral_flatness(noise(), 8000)
    assert spectral_flatness(np.concatenate([quiet, noise(), quiet]), 8000) == pytest.approx(alone, abs=0.02)


def test_each_fault_is_found():
    good = check_clip(np.concatenate([tone(), np.zeros(400)]), 8000)
    assert not (good.is_silent or good.is_noise_like or good.is_unended)
    assert check_clip(tone(level=0.05), 8000).is_silent
    assert check_clip(noise(), 8000).is_noise_like
    assert check_clip(tone(), 8000).is_unended


def test_the_end_is_the_last_twenty_milliseconds():
    assert not check_clip(np.concatenate([tone(), np.zeros(160)]), 8000).is_unended
    assert check_clip(np.concatenate([tone(4019), np.zeros(159)]), 8000).is_unended


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros(1), np.zeros(4000), np.full(3, 0.01)])
def test_nothing_at_all_is_silence_and_not_noise(waveform):
    check = check_clip(waveform, 8000)
    assert check.is_silent and not check.is_noise_like and not check.is_unended


def test_rates_are_shares_of_the_clips():
    checks = [check_clip(clip, 8000) for clip in (tone(), np.zeros(800), noise(), np.zeros(800))]
    assert rates(checks) == {"silent": 0.5, "noise_like": 0.25, "unended": 0.5}
    assert rates([]) == {"silent": 0.0, "noise_like": 0.0, "unended": 0.0}
