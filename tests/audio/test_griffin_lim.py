from __future__ import annotations

import numpy as np
import pytest

from wavegen.audio.griffin_lim import griffin_lim
from wavegen.audio.mel import log_mel
from wavegen.config import MelSpec

SPEC = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40)


def vowel(num_samples: int = 4000) -> np.ndarray:
    time = np.arange(num_samples) / 8000
    tones = sum(np.sin(2 * np.pi * 125 * k * time) / k for k in range(1, 20))
    return (0.2 * tones * np.hanning(num_samples)).astype(np.float32)


@pytest.mark.parametrize(
    "change", [{}, {"log_base": "10", "floor": 1e-10}, {"power": 2.0}, {"mean": (-4.0,), "scale": (2.0,)}])
def test_the_spectrogram_of_the_waveform_is_the_one_given(change):
    spec = SPEC.model_copy(update=change)
    features = log_mel(vowel(), spec)
    waveform = griffin_lim(features, spec)
    assert waveform.dtype == np.float32 and waveform.shape == (features.shape[1] * 64,)
    unit = np.log(10) if spec.log_base == "10" else 1.0
    again = log_mel(waveform[:4000], spec)
    loud = features > features.max() - 5 * spec.power / unit / spec.scale[0]  # 43 dB deep
    assert np.abs(again - features)[loud].mean() * unit * spec.scale[0] / spec.power < 0.25


@pytest.mark.parametrize("edge", [0, 96, 128])
def test_it_is_aligned_with_the_recording_whatever_the_framing(edge):
    click = np.zeros(4000, np.float32)
    click[2000:2040] = np.hanning(40)
    spec = SPEC.model_copy(update={"center": False, "edge_padding": edge})
    waveform = griffin_lim(log_mel(click, spec), spec)
    energy = waveform.astype(np.float64) ** 2
    assert abs((energy * np.arange(len(waveform))).sum() / energy.sum() - 2020) < 40


def test_the_same_seed_gives_the_same_waveform():
    features = log_mel(vowel(1000), SPEC)
    assert np.array_equal(griffin_lim(features, SPEC, 4), griffin_lim(features, SPEC, 4))
    assert not np.array_equal(griffin_lim(features, SPEC, 4), griffin_lim(features, SPEC, 4, seed=1))


@pytest.mark.parametrize("shape", [(39, 10), (40, 1), (1, 40, 10)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"needs features \(40, frames\)"):
        griffin_lim(np.zeros(shape, np.float32), SPEC)
