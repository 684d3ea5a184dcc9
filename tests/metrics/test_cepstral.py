"""Mel-cepstral distortion: answers that follow from the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.metrics import cepstral
from wavegen.metrics.cepstral import mel_cepstral_distortion


def noise(seed: int = 0, num_samples: int = 8000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * 0.3


def test_equal_clips_and_another_level_are_at_0():
    assert mel_cepstral_distortion(noise(), noise(), 8000) == 0
    assert mel_cepstral_distortion(noise() / 2, noise(), 8000) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("order", [1, 5, 24])
def test_one_cosine_in_the_log_spectrum_counts_with_its_height(monkeypatch, order):
    place = np.pi * (np.arange(80) + 0.5) / 80

    def bands(waveform, sample_rate):
        level = 0.3 * np.cos(order * place) if float(waveform[0, 0]) else np.zeros(80)
        return torch.from_numpy(level)[None, :, None].repeat(1, 1, 7)

    monkeypatch.setattr(cepstral, "log_mel", bands)
    # 0.3 nats are 2.6 dB; the root mean square of a cosine is its height over sqrt(2).
    found = mel_cepstral_distortion(np.ones(9, np.float32), np.zeros(9, np.float32), 8000)
    assert found == pytest.approx(10 * np.sqrt(2) / np.log(10) * 0.3)
    assert found == pytest.approx(20 / np.log(10) * 0.3 / np.sqrt(2))


def test_a_cosine_beyond_the_last_coefficient_does_not_count(monkeypatch):
    place = np.pi * (np.arange(80) + 0.5) / 80
    monkeypatch.setattr(cepstral, "log_mel", lambda waveform, rate: torch.from_numpy(
        float(waveform[0, 0]) * np.cos(25 * place))[None, :, None])
    assert mel_cepstral_distortion(np.ones(9, np.float32), np.zeros(9, np.float32), 8000) == pytest.approx(0, abs=1e-9)


def test_a_brighter_clip_is_further_the_brighter_it_is():
    bright = [np.append(noise(), 0)[:-1] - share * np.append(0, noise())[:-1] for share in (0.0, 0.3, 0.8)]
    found = [mel_cepstral_distortion(clip.astype(np.float32), noise(), 8000) for clip in bright]
    assert found == sorted(found) and found[2] > 2


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="of one length"):
        mel_cepstral_distortion(noise(num_samples=10), noise(num_samples=11), 8000)
