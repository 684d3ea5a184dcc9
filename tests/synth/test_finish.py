"""Clips finished for a sampler: cut, level, rate and depth, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from wavegen.errors import AudioError, ConfigError
from wavegen.synth.finish import Finish


def one_shot(rate=16000):
    """0.1 s of silence, a decaying tone of 0.2 s, silence up to 1 s, with an offset."""
    time = np.arange(rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 400 * time) * np.exp(-30 * (time - 0.1)) * (time >= 0.1)
    return (tone + 0.01).astype(np.float32)


def test_tidy_cuts_silence_levels_and_fades():
    waveform, rate = Finish(tidy=True).apply(one_shot(), 16000)
    assert rate == 16000 and 0.15 < len(waveform) / rate < 0.35
    assert np.abs(waveform).max() == pytest.approx(0.9, abs=0.01)
    assert waveform[0] == 0 and waveform[-1] == 0
    assert abs(np.mean(waveform)) < 0.01


@pytest.mark.parametrize("after", [0.35, 0.8])
def test_a_one_shot_ends_before_the_second_stroke(after):
    first = one_shot()
    delay = round(after * 16000)
    twice = np.concatenate([first, np.full(delay, 0.01, np.float32)])
    twice[delay:] += 0.3 * (first - 0.01)
    alone, rate = Finish(tidy=True).apply(first, 16000)
    cut, _ = Finish(one_shot=True).apply(twice, 16000)
    kept, _ = Finish(tidy=True).apply(twice, 16000)
    assert len(kept) / rate > after and abs(len(cut) - len(alone)) / rate < 0.1
    together = min(len(cut), len(alone)) - 160
    np.testing.assert_allclose(cut[:together], alone[:together], atol=0.02)
    assert Finish(one_shot=True).facts() == {"one_shot": True} and not Finish(one_shot=True).is_plain


@pytest.mark.parametrize("silence", [0.0, 0.5])
def test_a_sound_that_dies_away_once_is_whole_as_a_one_shot(silence):
    time = np.arange(16000) / 16000
    late = np.concatenate([np.zeros(int(silence * 16000)), np.sin(2500 * time) * np.exp(-12 * time)]).astype(np.float32)
    beating = (late[-16000:] * (1 + 0.5 * np.sin(60 * time))).astype(np.float32)
    for waveform in (late, beating, np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)):
        tidy, once = (finish.apply(waveform, 16000)[0] for finish in (Finish(tidy=True), Finish(one_shot=True)))
        assert np.array_equal(tidy, once)


def test_silence_stays_silence():
    waveform, _ = Finish(one_shot=True).apply(np.zeros(100, np.float32), 8000)
    assert np.array_equal(waveform, np.zeros(100))


def test_a_rate_is_resampled_to():
    waveform, rate = Finish(sample_rate=44100).apply(one_shot(), 16000)
    assert rate == 44100 and len(waveform) == 44100


@pytest.mark.parametrize(("kind", "bits", "subtype"), [
    ("wav", 16, "PCM_16"), ("wav", 24, "PCM_24"), ("wav", 32, "FLOAT"), ("flac", 16, "PCM_16"), ("flac", 24, "PCM_24"),
])
@pytest.mark.parametrize("num_samples", [1, 129])
def test_a_file_holds_the_samples_in_its_depth(tmp_path, kind, bits, subtype, num_samples):
    waveform = np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)
    waveform[0] = -1.0
    finish, path = Finish(bits=bits, kind=kind), tmp_path / f"a.{kind}"
    finish.save(path, waveform, 44100)
    info = soundfile.info(path)
    assert (info.subtype, info.samplerate, info.frames) == (subtype, 44100, num_samples)
    read, _ = soundfile.read(path, dtype="float64")
    np.testing.assert_allclose(read, waveform, atol=2.0 ** (1 - bits) if bits < 32 else 0)
    first = path.read_bytes()
    finish.save(path, waveform, 44100)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_what_exceeds_full_scale_is_clipped_and_what_is_no_number_refused(tmp_path, bits):
    finish = Finish(bits=bits)
    finish.save(tmp_path / "a.wav", np.array([2.0, -2.0, 0.0], np.float32), 8000)
    read, _ = soundfile.read(tmp_path / "a.wav")
    np.testing.assert_allclose(read, [1, -1, 0], atol=1e-4)
    with pytest.raises(AudioError, match="NaN"):
        finish.save(tmp_path / "b.wav", np.array([np.nan], np.float32), 8000)
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.parametrize(("settings", "message"), [
    ({"bits": 20}, "a wav file has 16, 24, 32 bits a sample, found 20"),
    ({"bits": 32, "kind": "flac"}, "a flac file has 16, 24 bits"),
    ({"kind": "raw"}, 'wav or flac, found "raw"'),
    ({"sample_rate": 10}, "sample_rate must lie in"),
])
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Finish(**settings)
