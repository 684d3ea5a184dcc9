"""Clips as log-mel pictures of one size, all at one level: what judges hear and distances between clips compare."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from wavegen.audio import levels
from wavegen.audio.mel import log_mel
from wavegen.config import Config, MelSpec, TrimConfig

MIN_PEAK = 1e-3  # a quieter clip is heard as it is: lifting it would invent a sound
BATCH_CLIPS = 128


class Ear(Config):
    """How clips become pictures: level, trimming, spectrogram, length."""

    mel: MelSpec
    num_frames: int = Field(80, ge=8)  # log-mel frames heard; a longer clip is cut
    peak: float = Field(0.9, gt=0, le=1)  # clips are brought to it before anything else
    trim: TrimConfig = TrimConfig(threshold=0.03)


def ear_mel(sample_rate: int) -> MelSpec:
    """The spectrogram an ear hears: 32 ms windows every 10 ms, with a floor above the faintest noise."""
    window, hop = 2 ** round(math.log2(0.032 * sample_rate)), round(0.01 * sample_rate)
    return MelSpec(sample_rate=sample_rate, n_fft=window, hop_length=hop, win_length=window, n_mels=40,
                   fmin=60.0, fmax=0.4875 * sample_rate, power=2.0, floor=1e-3)


def hear(waveforms: Sequence[np.ndarray], ear: Ear, basis: np.ndarray) -> np.ndarray:
    """Pictures of clips: float32 (N, n_mels, num_frames).

    Args:
        waveforms: float (T,) each, at the ear's sample rate; any level, any length.
        ear: how they are heard.
        basis: mel filters (n_mels, n_fft // 2 + 1).
    """
    num_samples = ear.num_frames * ear.mel.hop_length
    pictures = np.zeros((len(waveforms), ear.mel.n_mels, ear.num_frames), np.float32)
    for begin in range(0, len(waveforms), BATCH_CLIPS):
        batch = waveforms[begin : begin + BATCH_CLIPS]
        padded = np.zeros((len(batch), num_samples), np.float32)
        for row, waveform in enumerate(batch):
            shown = _levelled(np.asarray(waveform, np.float32), ear)[:num_samples]
            padded[row, : len(shown)] = shown
        pictures[begin : begin + len(batch)] = log_mel(padded, ear.mel, basis)[..., : ear.num_frames]
    return pictures


def _levelled(waveform: np.ndarray, ear: Ear) -> np.ndarray:
    if waveform.size == 0:
        return waveform
    waveform = levels.remove_dc(waveform)
    if float(np.abs(waveform).max()) <= MIN_PEAK:
        return waveform
    waveform, _ = levels.normalize_peak(waveform, ear.peak)
    start, stop = levels.trim_bounds(waveform, ear.mel.sample_rate, ear.trim)
    return waveform[start:stop]
