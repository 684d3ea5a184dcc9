"""The mel contract: presets are what their toolkits compute, and nothing wrong passes in silence."""

from __future__ import annotations

import numpy as np
import pytest

from wavegen.audio import io, mel
from wavegen.audio.mel_check import check_mel
from wavegen.audio.mel_formats import PRESETS, convert_mel, mel_spec
from wavegen.config import MelSpec
from wavegen.errors import BadInputError, ConfigError, MelMismatch

LN = PRESETS["tacotron2"]
LOG10 = LN.model_copy(update={"log_base": "10", "floor": 1e-10})
DECIBELS = LN.model_copy(update={"log_base": "10", "mean": (-5.0,), "scale": (5.0,)})  # torchaudio's WaveRNN


def voice(rate=22050, seconds=0.8, level=0.8):
    """Harmonics of a gliding pitch under two formants, with a pause and a hiss: float32 (T,)."""
    time = np.arange(int(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(5 * time)) / rate
    wave = sum(np.sin(k * phase) / k / (1 + ((k * 120 - 700) / 400) ** 2) for k in range(1, 40))
    wave = wave * (np.sin(2 * np.pi * 2 * time) > -0.6) + 0.003 * np.random.default_rng(0).standard_normal(len(time))
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def test_every_preset_describes_itself_and_accepts_its_own():
    for name, spec in PRESETS.items():
        features = mel.log_mel(voice(spec.sample_rate), spec)
        assert np.array_equal(convert_mel(features, name, spec, layout="CT")[0], features), name


@pytest.mark.parametrize(("source", "target"), [(LN, LOG10), (LOG10, LN), (LN, DECIBELS), (DECIBELS, LN)])
def test_a_converted_mel_is_the_one_computed(source, target):
    # Above both floors, where nothing was cut off.
    spec = {"floor": 1e-5}
    source, target = source.model_copy(update=spec), target.model_copy(update=spec)
    given, wanted = mel.log_mel(voice(), source), mel.log_mel(voice(), target)
    np.testing.assert_allclose(convert_mel(given, source, target, layout="CT")[0], wanted, atol=2e-5)


def test_the_floor_of_the_target_holds():
    quiet = mel.log_mel(voice(level=1e-4), LOG10)
    assert quiet.min() < -5.5
    raised = convert_mel(quiet, LOG10, LN, layout="CT")
    assert raised.min() == np.float32(np.log(1e-5))


def test_statistics_of_each_band_are_undone():
    rng = np.random.default_rng(0)
    stats = {"mean": tuple(rng.normal(-2, 1, 80)), "scale": tuple(rng.uniform(0.3, 2, 80))}
    normalised = LOG10.model_copy(update=stats)
    given = mel.log_mel(voice(), normalised)
    np.testing.assert_allclose(convert_mel(given, normalised, LOG10, layout="CT")[0], mel.log_mel(voice(), LOG10),
                               atol=1e-5)


def test_every_layout_float_type_and_memory_order():
    features = mel.log_mel(voice(), LN)
    wanted = convert_mel(features[None], LN, LN)
    for given, layout in ((features, "CT"), (features.T, "TC"), (features.T[None], "BTC"),
                          (np.asfortranarray(features[None]), "BCT"), (features.astype(np.float64), "CT")):
        assert np.array_equal(convert_mel(given, LN, LN, layout=layout), wanted)
    half = convert_mel(features.astype(np.float16), LN, LN, layout="CT")
    np.testing.assert_allclose(half, wanted, atol=5e-3)
    assert wanted.flags.c_contiguous and not np.shares_memory(wanted, features)


def test_what_cannot_be_converted_is_named_with_both_values():
    given = mel.log_mel(voice(16000), PRESETS["speecht5"])
    with pytest.raises(MelMismatch) as error:
        convert_mel(given, "speecht5", "tacotron2", layout="CT")
    message = str(error.value)
    assert "sample_rate 16000 against 22050" in message and "fmin 80.0 against 0.0" in message
    assert "fmax 7600.0 against 8000.0" in message and "log_base" not in message
    with pytest.raises(MelMismatch, match="edge_padding 384 against 0"):
        convert_mel(mel.log_mel(voice(), PRESETS["hifigan"]), "hifigan", "tacotron2", layout="CT")


def test_fmax_none_is_half_the_rate():
    half = LN.model_copy(update={"fmax": 11025.0})
    features = mel.log_mel(voice(), half)
    assert np.array_equal(convert_mel(features, LN.model_copy(update={"fmax": None}), half, layout="CT")[0], features)


def test_a_mel_that_is_not_what_its_spec_says_is_refused():
    natural, base10 = mel.log_mel(voice(), LN), mel.log_mel(voice(), LN.model_copy(update={"log_base": "10"}))
    for given, spec, message in (
            (base10, LN, "looks like the logarithm to base 10"),
            (natural, LOG10, "looks like the natural logarithm"),
            (20 * base10, LN, "looks like decibels"),
            (np.exp(natural), LN, "without a logarithm"),
            ((base10 + 5) / 8, LN, "normalised to \\[0, 1\\]"),
            (natural + np.log(32768), LN, "16-bit samples")):
        with pytest.raises(BadInputError, match=message):
            convert_mel(given, spec, LN, layout="CT")


def test_swapped_axes_a_wrong_band_count_and_bad_numbers_are_refused():
    features = mel.log_mel(voice(), LN)
    with pytest.raises(BadInputError, match='look swapped: give layout="BTC"'):
        convert_mel(features.T[None], LN, LN)
    with pytest.raises(BadInputError, match='look swapped: give layout="CT"'):
        convert_mel(features, LN, LN, layout="TC")
    with pytest.raises(BadInputError, match="has 40 bands, 80 are wanted"):
        check_mel(features[:40], LN)
    for bad in (np.nan, np.inf):
        broken = features.copy()
        broken[3, 5] = bad
        with pytest.raises(BadInputError, match="NaN or infinity in 1 of"):
            convert_mel(broken, LN, LN, layout="CT")
    for empty in (np.zeros((80, 0)), np.zeros((0, 80, 5))):
        with pytest.raises(BadInputError, match="empty"):
            convert_mel(empty, LN, LN, layout="CT" if empty.ndim == 2 else "BCT")
    with pytest.raises(BadInputError, match="3 axes"):
        convert_mel(features, LN, LN)
    with pytest.raises(BadInputError, match="real numbers"):
        convert_mel(np.array([["a"]]), LN, LN, layout="CT")


def test_silence_one_frame_and_noise_pass():
    silence = mel.log_mel(np.zeros(8000, np.float32), LN)
    for features in (silence, mel.log_mel(voice(), LN)[:, :1],
                     mel.log_mel(voice(level=0.01), LN), mel.log_mel(voice(level=1.0), LN)):
        check_mel(features, LN)
    noise = (0.1 * np.random.default_rng(0).standard_normal(20000)).astype(np.float32)
    features = mel.log_mel(noise, LN)
    convert_mel(features, LN, LN, layout="CT", check=False)


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ConfigError, match='did you mean "hifigan"'):
        mel_spec("hifi-gan")
    with pytest.raises(ConfigError, match='no layout "CBT"'):
        convert_mel(np.zeros((80, 3)), LN, LN, layout="CBT")


def test_recordings_are_told_apart_by_their_logarithm(data_folder):
    for folder in ("kathleen/data", "ljspeech_excerpt/wavs"):
        for path in sorted((data_folder / folder).iterdir())[::16]:
            waveform, _ = io.load(path, 22050)
            waveform = waveform * (0.8 / np.abs(waveform).max())
            natural = mel.log_mel(waveform, LN)
            check_mel(natural, LN)
            check_mel(mel.log_mel(waveform, LOG10), LOG10)
            with pytest.raises(BadInputError, match="base 10"):
                check_mel(natural / np.log(10), LN)
            with pytest.raises(BadInputError, match="natural"):
                check_mel(natural, LOG10)


def test_a_spec_with_half_its_statistics_is_refused():
    with pytest.raises(ValueError, match="mean has 3 numbers"):
        MelSpec(sample_rate=16000, mean=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="edge_padding 5 needs center"):
        MelSpec(sample_rate=16000, edge_padding=5)
