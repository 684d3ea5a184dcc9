from __future__ import annotations

import numpy as np
import pytest

from wavegen.audio.mel import log_mel
from wavegen.audio.mel_formats import PRESETS
from wavegen.metrics.bursts import MelCheck, burst_rates, check_against_mel

SPEC = PRESETS["speecht5"]


def clip(seed=0, num_samples=16000):
    return np.random.default_rng(seed).normal(scale=0.1, size=num_samples).astype(np.float32)


def test_a_clip_keeps_to_its_mel_and_bursts_are_counted():
    waveform = clip()
    features = log_mel(waveform, SPEC)
    good = check_against_mel(waveform, features, SPEC)
    assert good.seconds == 1.0 and good.bursts == 0 and not good.is_silent and good.worst < 0
    # The last frame holds on where no other follows.
    shorter = check_against_mel(waveform, features[:, : 16000 // 256], SPEC)
    assert shorter.bursts == 0 and abs(shorter.worst - good.worst) < 1
    for place in (3000, 9000, 9100):
        waveform[place : place + 40] = 0.9 * (-1) ** np.arange(40)
    bad = check_against_mel(waveform, features, SPEC)
    assert bad.bursts == 2 and bad.worst > 0


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_a_constant_clip_is_silent_unless_its_mel_is(value):
    features = log_mel(clip(), SPEC)
    stuck = np.full(16000, value, np.float32)
    assert check_against_mel(stuck, features, SPEC).is_silent
    assert check_against_mel(stuck[:2000], features, SPEC).is_constant  # too short for the quiet limit
    assert not check_against_mel(np.zeros(16000, np.float32), np.full((80, 63), -10.0), SPEC).is_silent


@pytest.mark.parametrize("num_samples", [0, 1, 255, 256])
def test_short_clips_are_judged_as_far_as_they_go(num_samples):
    waveform = clip(num_samples=num_samples)
    features = np.full((80, 1), -1.0, np.float32)
    found = check_against_mel(waveform, features, SPEC)
    assert found.seconds == num_samples / 16000 and found.bursts == 0


def test_rates_are_per_1000_seconds():
    checks = [MelCheck(2.0, 3, 0, 1.0, False), MelCheck(6.0, 0, 2, -1.0, False), MelCheck(2.0, 0, 0, -1.0, False)]
    assert burst_rates(checks) == {"clips": 3, "seconds": 10.0, "bursts": 3, "burst_clips": 1, "silent_clips": 1,
                                   "bursts_per_1000_s": 300.0, "silent_clips_per_1000_s": 100.0}
    assert burst_rates([])["bursts_per_1000_s"] == 0.0
