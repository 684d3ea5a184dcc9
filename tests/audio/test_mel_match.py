import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.audio.mel import log_mel, matching_delay
from wavegen.audio.mel_formats import PRESETS
from wavegen.audio.mel_match import MelMatch
from wavegen.config import MelSpec

SMALL = {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 20}
SPECS = {
    "centred": MelSpec(**SMALL),
    "half a hop later": MelSpec(**SMALL, center=False, edge_padding=96, pad_mode="zero", window="hann_symmetric"),
    "base 10, normalised": MelSpec(**SMALL, fmin=80, fmax=3600, log_base="10", floor=1e-10, mean=(-1.5,), scale=(0.6,)),
    "power, short window": MelSpec(**{**SMALL, "win_length": 160}, power=2.0),
}


def clip(frames=30, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(frames * 64) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 440 * t) * (1 + np.sin(2 * np.pi * 3 * t)) + 0.01 * rng.standard_normal(len(t))
    return tone.astype(np.float32)


def mel_of(waveform, spec):
    """One frame for each hop of samples, as a vocoder is given them."""
    frames = log_mel(waveform, spec).T[: len(waveform) // spec.hop_length]
    return np.concatenate([frames, frames[-1:].repeat(len(waveform) // spec.hop_length - len(frames), 0)])


def matched(waveform, features, spec, passes, cuts=()):
    match, hop = MelMatch(spec, passes), spec.hop_length
    borders = [0, *cuts, len(features)]
    parts = [match.push(waveform[a * hop : b * hop], features[a:b]) for a, b in itertools.pairwise(borders)]
    return np.concatenate([*parts, match.finish()])


@pytest.mark.parametrize("name", SPECS)
def test_audio_comes_closer_to_the_mel_pass_by_pass(name):
    spec, recording = SPECS[name], clip()
    features = mel_of(recording, spec)
    drawn = recording * np.linspace(0.6, 2.0, len(recording), dtype=np.float32)
    errors = [np.abs(mel_of(matched(drawn, features, spec, passes), spec) - features)[2:-2].mean()
              for passes in range(4)]
    assert errors[1] < 0.35 * errors[0]
    assert errors[3] < errors[1]


@pytest.mark.parametrize("name", SPECS)
def test_audio_that_has_its_mel_stays_as_it_is(name):
    spec, recording = SPECS[name], clip()
    found = matched(recording, mel_of(recording, spec), spec, 2)
    assert 20 * np.log10(np.abs(found - recording).max() / np.abs(recording).max()) < -100


def test_what_no_window_sees_stays_as_it_was_drawn():
    spec = MelSpec(**SMALL, center=False)  # the first sample lies where the first window is 0
    recording = 0.1 + clip()
    found = matched(recording, mel_of(recording, spec), spec, 1)
    assert recording[0] > 0.05 and abs(found[0] - recording[0]) < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.lists(st.integers(0, 17), max_size=6), st.integers(1, 3), st.integers(1, 17))
def test_pieces_change_nothing(name, cuts, passes, frames):
    spec = SPECS[name]
    waveform = clip(frames)
    features = mel_of(clip(frames, seed=1), spec)
    whole = matched(waveform, features, spec, passes)
    assert whole.shape == waveform.shape and whole.dtype == np.float32
    assert np.array_equal(matched(waveform, features, spec, passes, sorted(min(cut, frames) for cut in cuts)), whole)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_samples_leave_after_the_delay_and_not_before(name, passes):
    spec, delay = SPECS[name], matching_delay(SPECS[name], passes)
    match, waveform, features = MelMatch(spec, passes), clip(), mel_of(clip(), SPECS[name])
    given_back = 0
    for frame in range(30):
        given_back += len(match.push(waveform[frame * 64 : (frame + 1) * 64], features[frame : frame + 1]))
        assert given_back == max(0, frame + 1 - delay) * 64


def test_a_copy_has_the_same_future_and_its_own():
    spec, waveform = SPECS["centred"], clip()
    features = mel_of(waveform, spec)
    match = MelMatch(spec, 2)
    first = match.push(waveform[: 64 * 11], features[:11])
    other = match.copy()
    other.push(waveform[:128] * 0.1, features[:2])
    rest = [match.push(waveform[64 * 11 :], features[11:]), match.finish()]
    assert np.array_equal(np.concatenate([first, *rest]), matched(waveform, features, spec, 2))


def test_what_was_cut_off_before_the_start_and_behind_the_end_is_not_made_up_for():
    spec, loud = SPECS["centred"], clip(40)
    loud[: 64 * 12] *= 30
    loud[64 * 28 :] *= 30
    part, features = loud[64 * 12 : 64 * 28], mel_of(loud, spec)[12:28]
    found = matched(part, features, spec, 2)
    assert np.abs(found[:64]).max() < 2 * np.abs(part[:64]).max()
    assert np.abs(found[-64:]).max() < 2 * np.abs(part[-64:]).max()


@pytest.mark.parametrize("name", SPECS)
def test_a_pause_before_a_late_onset_stays_a_pause(name):
    spec, noise = SPECS[name], 1e-3 * np.random.default_rng(3).standard_normal(30 * 64)
    recording, late = noise + clip(), noise + clip()
    recording[: 64 * 15], late[: 64 * 16 + 32] = noise[: 64 * 15], noise[: 64 * 16 + 32]
    found = matched(late, mel_of(recording, spec), spec, 2)
    pause = slice(64 * 8, 64 * 14)
    louder = 20 * np.log10(np.abs(found[pause]).max() / np.abs(late[pause]).max())
    assert louder < 7


def test_silence_and_extremes_stay_finite_and_in_range():
    spec = SPECS["centred"]
    quiet, loud = np.full((30, 20), np.log(1e-5), np.float32), np.full((30, 20), 8.0, np.float32)
    for waveform in (np.zeros(30 * 64, np.float32), clip()):
        for features in (quiet, loud):
            found = matched(waveform, features, spec, 2)
            assert np.isfinite(found).all() and np.abs(found).max() <= 1
    assert np.abs(matched(clip(), quiet, spec, 2)[300:-300]).max() < 0.02


def test_frames_that_hardly_overlap_are_refused():
    with pytest.raises(ValueError, match="overlap by less than half"):
        MelMatch(MelSpec(sample_rate=8000, n_fft=256, win_length=100, hop_length=64))


def test_all_presets_can_be_matched():
    for name, spec in PRESETS.items():
        assert 0 < matching_delay(spec, 1) <= 4, name
        assert len(MelMatch(spec).finish()) == 0


@pytest.mark.parametrize("name", SPECS)
def test_a_pass_changes_levels_only_so_far(name):
    spec, recording = SPECS[name], 0.05 * clip()
    features, inside = mel_of(recording, spec), slice(512, -512)
    unit = spec.power / (np.log(10.0) * spec.scale[0] if spec.log_base == "10" else 1.0)
    for decibels, wanted in ((-60, -30), (2, 2.5), (40, 3)):  # over-relaxed, until the frame is at twice its power
        asked = features + np.float32(decibels / 20 * np.log(10.0) * unit)
        found = matched(recording, asked, spec, 1)
        gain = 20 * np.log10(np.std(found[inside]) / np.std(recording[inside]))
        assert abs(gain - wanted) < 1.5


def test_a_band_that_is_faint_in_its_frame_comes_up_by_twenty_decibels():
    spec, t = SPECS["centred"], np.arange(30 * 64) / 8000
    loud, faint = 0.3 * np.sin(2 * np.pi * 440 * t), 1e-4 * np.sin(2 * np.pi * 3000 * t)
    features = mel_of((loud + 1e3 * faint).astype(np.float32), spec)
    found = matched((loud + faint).astype(np.float32), features, spec, 1)
    high = np.abs(np.fft.rfft(found[512:-512] * np.hanning(len(t) - 1024)))[270:402].max()
    before = np.abs(np.fft.rfft(faint[512:-512] * np.hanning(len(t) - 1024))).max()
    assert 17 < 20 * np.log10(high / before) < 21
