from __future__ import annotations

import numpy as np
import pytest

from wavegen.audio.mel import log_mel
from wavegen.audio.mel_formats import PRESETS
from wavegen.metrics.bursts import MelCheck, burst_rates, check_against_mel, check_against_recording

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


def test_a_copy_as_loud_as_its_recording_is_well():
    time = np.arange(16000) / 16000
    recording = (0.3 * np.sin(2 * np.pi * 200 * time) * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32)
    shifted, other = np.roll(recording, 100), recording + 0.0005 * np.random.default_rng(0).standard_normal(16000)
    for copy in (recording, 2 * recording, 0.2 * recording, shifted, other, recording[:5000]):
        found = check_against_recording(copy, recording, 16000, 256)
        assert found.bursts == 0 and not found.is_silent and found.worst < 0
    assert found.seconds == 5000 / 16000


@pytest.mark.parametrize("kind", ["pop in a pause", "hiss over a low voice", "clipped noise"])
def test_a_burst_is_louder_than_the_recording(kind):
    time = np.arange(16000) / 16000
    recording = 0.1 * np.sin(2 * np.pi * 120 * time)
    recording[8000:] = 0
    copy, noise = recording.copy(), np.random.default_rng(0).standard_normal(16000)
    place = slice(12000, 12040) if kind == "pop in a pause" else slice(3000, 3400)
    copy[place] += {"pop in a pause": 0.5, "hiss over a low voice": 0.1 * noise[place],
                    "clipped noise": noise[place].clip(-1, 1)}[kind]
    found = check_against_recording(copy, recording, 16000, 256)
    assert found.bursts == 1 and found.worst > 0 and not found.is_silent


def test_a_copy_that_falls_silent_is_told_if_its_recording_speaks():
    recording = clip()
    copy = recording.copy()
    copy[6000:12000] *= 0.01
    assert check_against_recording(copy, recording, 16000, 256).quiet_frames > 3
    assert not check_against_recording(copy, copy, 16000, 256).is_silent
    assert check_against_recording(np.full(16000, 0.3, np.float32), recording, 16000, 256).is_constant
    nothing = check_against_recording(recording[:100], recording, 16000, 256)
    assert nothing.bursts == 0 and nothing.worst == -np.inf
