"""What a mel says of a waveform's level: recordings keep to it, bursts do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.audio import io, levels
from wavegen.audio.mel import log_mel, mel_basis
from wavegen.audio.mel_formats import PRESETS
from wavegen.audio.signal import decode_codes, encode_waveform
from wavegen.audio.watch import FRAME_LIMIT, PART_LIMIT, PARTS, VIEWS, Watch, _measure
from wavegen.config import AudioConfig, PrepareConfig

SPECS = {"speecht5": PRESETS["speecht5"], "hifigan": PRESETS["hifigan"].model_copy(update={"sample_rate": 16000})}


def voiced(num_samples=8192, level=0.2, sample_rate=16000):
    """A buzz of 120 Hz, its power low as that of a voice, that fades in and out twice."""
    t = np.arange(num_samples) / sample_rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k**2 for k in range(1, 40))
    return (level * buzz * (0.55 + 0.45 * np.cos(2 * np.pi * 4 * t))).astype(np.float32)


def verdict(waveform, features, spec, basis=None):
    watch, hop = Watch(spec, 1, basis), spec.hop_length
    frames = min(len(waveform) // hop, features.shape[1])
    return watch.judge(waveform[None, : frames * hop], watch.expected(watch.levels(features)[None], frames))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("level", [0.3, 0.01])
def test_a_waveform_keeps_to_its_own_mel(name, level):
    waveform, spec = voiced(level=level), SPECS[name]
    found = verdict(waveform, log_mel(waveform, spec), spec)
    assert found.fault.max() < 0 and found.burst.shape == (1, 32)


@pytest.mark.parametrize("base", ["e", "10"])
def test_expected_power_is_the_power(base):
    spec = PRESETS["speecht5"].model_copy(update={"log_base": base, "mean": (-3.0,), "scale": (2.0,)})
    noise = np.random.default_rng(0).normal(scale=0.1, size=16000).astype(np.float32)
    watch = Watch(spec)
    views = watch.expected(watch.levels(log_mel(noise, spec))[None], 50).mean(axis=(0, 1, 2))
    slope = np.diff(noise)
    for found, of in zip(views, (noise, slope, np.diff(slope)), strict=True):
        # A mean of magnitudes says a little less than the mean of powers.
        assert -3.0 < 10 * np.log10(found / np.mean(of**2)) < 0.5


BURSTS = {
    "a pop": lambda rng: rng.normal(scale=0.3, size=32),
    "a hiss": lambda rng: rng.normal(scale=0.2, size=320),
    "stuck at both ends": lambda rng: np.sign(np.sin(np.arange(80) * 2.0)),
    "a tone": lambda rng: 0.5 * np.sin(np.arange(320) * 1.2),
    "an offset": lambda rng: np.full(400, 0.9),
}


@pytest.mark.parametrize("kind", BURSTS)
@pytest.mark.parametrize("place", [1200, 2050, 6000])
def test_bursts_are_found_where_they_are(kind, place):
    waveform, spec = voiced(level=0.1), PRESETS["speecht5"]
    features = log_mel(waveform, spec)
    burst = BURSTS[kind](np.random.default_rng(1))
    waveform[place : place + len(burst)] += burst.astype(np.float32)
    found = verdict(np.clip(waveform, -1, 1), features, spec).burst[0]
    frames = np.flatnonzero(found > 0)
    first, last = place // 256, (place + len(burst)) // 256
    assert len(frames) and first <= frames[0] and frames[-1] <= last + 1


def test_silence_where_the_mel_speaks_is_found_after_a_while():
    waveform, spec = voiced(32768), PRESETS["speecht5"]
    features = log_mel(waveform, spec)
    silent = waveform.copy()
    silent[16000:] = 0.5  # stuck at one code
    found = verdict(silent, features, spec)
    quiet = np.flatnonzero(found.quiet[0] > 0)
    assert 16000 // 256 + 10 < quiet[0] < 16000 // 256 + 20 and found.quiet[0, -1] > 0
    nothing = np.zeros_like(waveform)
    assert verdict(nothing, features, spec).quiet.max() > 0
    # Where the mel is silent too, silence is as it should be.
    assert verdict(nothing, log_mel(nothing, spec), spec).fault.max() < 0


@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=6), rows=st.permutations([0, 1, 2]))
def test_neither_cuts_nor_company_change_a_verdict(cuts, rows):
    spec, frames = PRESETS["speecht5"], sum(cuts)
    rng = np.random.default_rng(2)
    waveforms = rng.normal(scale=0.1, size=(3, frames * 256)).astype(np.float32)
    features = rng.normal(-2, 0.5, size=(3, 80, frames + 1)).astype(np.float32)
    together = Watch(spec, 3)
    whole = together.judge(waveforms, together.expected(np.stack([*map(together.levels, features)]), frames))
    for row in rows:
        watch, start = Watch(spec), 0
        for cut in cuts:
            stop = start + cut
            expected = watch.expected(watch.levels(features[row, :, start : stop + 1])[None], cut)
            copy = watch.copy()
            part = watch.judge(waveforms[row : row + 1, start * 256 : stop * 256], expected)
            again = copy.judge(waveforms[row : row + 1, start * 256 : stop * 256], expected)
            assert part.worst == again.worst == part.fault.max()
            for found, of, other in zip(part[:2], whole[:2], again[:2], strict=True):
                assert np.array_equal(found[0], of[row, start:stop]) and np.array_equal(found, other)
            start = stop


def test_shapes_that_do_not_fit_are_named():
    watch = Watch(PRESETS["speecht5"])
    expected = watch.expected(watch.levels(np.zeros((80, 3), np.float32))[None], 2)
    with pytest.raises(ValueError, match="a stretch to judge is"):
        watch.judge(np.zeros((1, 500), np.float32), expected)
    with pytest.raises(ValueError, match="not finite"):
        watch.levels(np.full((80, 2), np.nan, np.float32))


def test_no_recording_is_taken_for_a_burst(kathleen_folder):
    """As a codec gives them, with 3 dB to spare; all 405 clips were judged once, see docs/guards.md."""
    spec, basis = PRESETS["speecht5"], mel_basis(PRESETS["speecht5"])
    audio = AudioConfig(sample_rate=16000, mel=spec, signal_path="lpc", preemphasis=0.85)
    worst = []
    for path in sorted(kathleen_folder.glob("**/*.flac"))[::58]:
        waveform, rate = io.read(path)
        waveform = levels.level(io.resample(waveform, rate, 16000), 16000, PrepareConfig(trim=None)).waveform
        features = log_mel(waveform, spec, basis)
        coded = decode_codes(encode_waveform(waveform, audio, features, basis), audio, features, basis)
        found = verdict(coded, features, spec, basis)
        assert found.quiet.max() < 0
        worst.append(found.burst.max())
    assert max(worst) < -2.0 and min(FRAME_LIMIT, PART_LIMIT) > 6


def test_a_quarter_of_a_frame_is_judged_by_itself():
    watch, out = Watch(PRESETS["speecht5"]), np.zeros((PARTS, len(VIEWS)))
    noise = np.random.default_rng(0).normal(scale=0.1, size=256).astype(np.float32)
    short = np.where((np.arange(256) >= 64) & (np.arange(256) < 128), noise, 0).astype(np.float32)
    for waveform, is_burst in ((short, True), (noise, False)):
        _measure(waveform, watch._pole, np.zeros(5), out)
        told = np.broadcast_to(out.mean(axis=0) * 10**-0.65, (1, 1, 2, 3))  # 6.5 dB less than comes
        assert (watch.copy().judge(waveform[None], told).burst[0, 0] > 0) == is_burst
