"""What is refused cannot be what its spec says; what can be passes, if need be with a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from wavegen.audio import io, mel
from wavegen.audio.mel_check import FEW_FRAMES, MelCheck, check_mel
from wavegen.audio.mel_formats import PRESETS
from wavegen.config import MelSpec
from wavegen.errors import BadInputError

NATURAL = PRESETS["speecht5"].model_copy(update={"log_base": "e", "floor": 1e-5})
BASE10 = PRESETS["speecht5"]
# Bands of up to 28 bins, one FFT frame a second, power, bands that are not levelled: full scale differs for each.
SPECS = {
    "speech": NATURAL,
    "base 10": BASE10,
    "wide": NATURAL.model_copy(update={"n_mels": 8, "n_fft": 2048, "win_length": 2048}),
    "sum": NATURAL.model_copy(update={"n_mels": 20, "norm": "none"}),
    "power": NATURAL.model_copy(update={"power": 2.0, "n_mels": 40}),
    "cube": NATURAL.model_copy(update={"power": 3.0, "n_mels": 40}),
    "short window": NATURAL.model_copy(update={"win_length": 400}),
    "htk": NATURAL.model_copy(update={"mel_scale": "htk", "n_mels": 128, "fmin": 0.0, "fmax": 8000.0}),
}


def sounds(rate=16000):
    """Sounds at full scale, by what could be mistaken for something else: name to float32 (T,)."""
    time, rng = np.arange(rate // 2) / rate, np.random.default_rng(0)
    found = {f"tone of {f} Hz": np.sin(2 * np.pi * f * time) for f in (90, 700, 1003, 3000, 6100)}
    found |= {f"square of {f} Hz": np.sign(np.sin(2 * np.pi * f * time) + 1e-9) for f in (100, 1000, 3700)}
    found["noise of two values"] = rng.choice([-1.0, 1.0], len(time))
    found["sweep"] = np.sin(2 * np.pi * 7000 * time**2)
    found["clicks"] = (np.arange(len(time)) % 400 == 0).astype(float)
    found["silence"] = np.zeros(len(time))
    found["faint noise"] = 1e-4 * rng.standard_normal(len(time))
    found["noise in pieces"] = rng.standard_normal(len(time)).clip(-1, 1) * (np.sin(2 * np.pi * 7 * time) > 0)
    return {name: wave.astype(np.float32) for name, wave in found.items()}


@pytest.mark.parametrize("name", SPECS)
def test_no_sound_is_refused(name):
    spec = SPECS[name]
    for sound, wave in sounds(spec.sample_rate).items():
        try:
            check_mel(mel.log_mel(wave, spec), spec)
        except BadInputError as error:
            pytest.fail(f"{sound}: {error}")


@pytest.mark.parametrize("name", SPECS)
def test_no_frame_is_louder_than_full_scale(name):
    # The loudest of all waveforms in [-1, 1] for each band is near what the bound allows, and never above.
    spec = SPECS[name]
    check = MelCheck(spec)
    for wave in sounds(spec.sample_rate).values():
        check.observe(mel.log_mel(wave, spec))
    assert -4.0 < check._found[8] <= 0.0
    with pytest.raises(BadInputError, match="louder than full scale"):
        check_mel(mel.log_mel(100 * sounds(spec.sample_rate)["tone of 1003 Hz"], spec), spec)


def recorded(spec, top=None):
    """Partials that come and go over a noise, as the spec reads them; nothing but a trace above `top` Hz."""
    rng = np.random.default_rng(1)
    time = np.arange(3 * spec.sample_rate) / spec.sample_rate
    wave = sum(np.exp(2.2 * np.sin(2 * np.pi * (3 + k) * time + k)) * np.sin(2 * np.pi * 110 * k * time) / k
               for k in range(1, 12))
    wave = wave * np.exp(2 * np.sin(2 * np.pi * 1.3 * time)) + 0.02 * rng.standard_normal(len(time))
    if top is not None:
        spectrum = np.fft.rfft(wave)
        spectrum[int(top * 3) :] *= 1e-6
        wave = np.fft.irfft(spectrum, len(wave))
    return mel.log_mel((0.5 * wave / np.abs(wave).max()).astype(np.float32), spec)


def test_another_logarithm_is_told_by_its_texture():
    ln, ten = recorded(NATURAL), recorded(BASE10)
    for right, spec in ((ln, NATURAL), (ten, BASE10), (ln, SPECS["speech"])):
        check_mel(right, spec)
    with pytest.raises(BadInputError, match="looks like the logarithm to base 10"):
        check_mel(ten, NATURAL)
    assert ln.min() > -10.5, "the floor does not tell it"
    with pytest.raises(BadInputError, match="looks like the natural logarithm"):
        check_mel(ln, BASE10)


def test_a_band_limited_recording_in_base_10_is_told():
    # What is missing above 4 kHz lies as deep as natural logarithms do.
    ten = recorded(BASE10, top=4000)
    assert ten.min() < -6
    check_mel(recorded(NATURAL, top=4000), NATURAL)
    with pytest.raises(BadInputError, match="looks like the logarithm to base 10"):
        check_mel(ten, NATURAL)


def test_what_an_acoustic_model_draws_too_smoothly_passes():
    kernel, smooth = np.ones(5) / 5, recorded(NATURAL)
    smooth = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), 1, smooth)[:, 3:-3]
    check_mel(smooth, NATURAL)
    check_mel(smooth / np.log(10), BASE10)


def test_numbers_at_random_are_no_logarithm_of_another_base():
    # What people try first: it is not speech, but not what a warning would say either.
    check_mel(np.random.default_rng(0).uniform(-4, -1, (80, 100)), BASE10)
    check_mel(np.full((80, 100), -5.0), NATURAL)


def test_what_is_only_likely_is_a_warning(caplog):
    # Cut off at an integer: of base 10, or somebody's padding.
    padded = np.concatenate([(recorded(NATURAL) - 2).clip(-9), np.full((80, 9), -9.0)], axis=1)
    with caplog.at_level(logging.WARNING, logger="wavegen"):
        check_mel(padded, NATURAL)
    assert "may not be a natural logarithm" in caplog.text and "base 10" in caplog.text
    caplog.clear()
    check_mel(recorded(NATURAL), NATURAL)
    check_mel(padded + 4, NATURAL)  # as loud as no sound is were it of base 10
    assert not caplog.records


@pytest.mark.parametrize("base", ["natural", "base 10"])
def test_pieces_are_judged_as_the_whole_is(base):
    spec = NATURAL if base == "natural" else BASE10
    features = recorded(spec)
    whole, pieces = MelCheck(spec), MelCheck(spec)
    whole.observe(features)
    for start in (0, 1, 2, 9, 40):
        pieces.observe(features[:, start : {0: 1, 1: 2, 2: 9, 9: 40, 40: None}[start]])
        fork = pieces.copy()
    fork.observe(features + 5)  # a copy goes its own way
    assert np.array_equal(whole._found, pieces._found) and np.array_equal(whole._bands, pieces._bands)
    assert pieces.num_frames == features.shape[1] >= FEW_FRAMES


def test_rows_of_a_batch_are_not_each_others_past():
    features = recorded(NATURAL)
    both, one = MelCheck(NATURAL), MelCheck(NATURAL)
    both.observe(np.stack([features, features[::-1]]))
    one.observe(features)
    other = MelCheck(NATURAL)
    other.observe(features[::-1])
    np.testing.assert_allclose(both._found[3:8], one._found[3:8] + other._found[3:8])


def test_statistics_of_a_spec_are_undone_before_it_is_judged():
    spec = NATURAL.model_copy(update={"mean": (-4.0,), "scale": (2.0,)})
    plain, normalised = MelCheck(NATURAL), MelCheck(spec)
    plain.observe(recorded(NATURAL))
    normalised.observe(recorded(spec))
    np.testing.assert_allclose(plain._found, normalised._found, rtol=1e-4)


def test_recordings_of_every_kind_are_told(data_folder):
    paths = [path for folder in ("drums", "notes", "speech_commands", "fsdd/recordings", "kathleen/data")
             for path in sorted((data_folder / folder).rglob("*.*"))[::60] if path.suffix in (".wav", ".flac", ".ogg")]
    missed = 0
    for path in paths:
        waveform, _ = io.load(path, NATURAL.sample_rate)
        waveform = waveform[: 3 * NATURAL.sample_rate] * (0.8 / max(1e-9, np.abs(waveform).max()))
        ln, ten = mel.log_mel(waveform, NATURAL), mel.log_mel(waveform, BASE10)
        check_mel(ln, NATURAL)
        check_mel(ten, BASE10)
        for given, spec in ((ln, BASE10), (ten, NATURAL)):
            try:
                check_mel(given, spec)
                missed += given.shape[1] >= FEW_FRAMES
            except BadInputError:
                pass
    assert len(paths) > 50 and missed <= 0.1 * len(paths)


def test_a_spec_that_reads_whole_numbers_is_read_so():
    check_mel(np.zeros((80, 3), np.int32), MelSpec(sample_rate=16000))


def test_only_what_lies_at_the_lowest_of_all_counts_as_cut_off(caplog):
    # Many values at one integer, and a few below it: nothing was cut off there.
    features = (recorded(NATURAL) - 2).clip(-9)
    features[3, 50] = -10.0
    with caplog.at_level(logging.WARNING, logger="wavegen"):
        check_mel(features, NATURAL)
    assert not caplog.records
