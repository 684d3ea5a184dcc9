"""Mel-cepstral distortion: how far two spectral envelopes lie apart, in decibels."""

from __future__ import annotations

import math

import numpy as np
import torch

from wavegen.metrics.spectral import log_mel

COEFFICIENTS = 24  # beside the zeroth, which is the level


def mel_cepstral_distortion(estimate: np.ndarray, target: np.ndarray, sample_rate: int,
                            coefficients: int = COEFFICIENTS) -> float:
    """Mel-cepstral distortion (MCD) of a clip that is aligned with its recording, in dB.

        c_m  = 2/N sum_n ln A_n cos(pi m (n + 1/2) / N)            A: the N mel bands of a frame
        MCD  = 10 sqrt(2) / ln 10 * mean over frames of sqrt(sum_m (c_m - c'_m)^2),  m = 1 .. `coefficients`

    The cepstrum is the cosine transform of the log-mel bands of `wavegen.metrics.spectral.distance_mel` (60 dB deep),
    not that of an all-pole or mel-generalised analysis: figures of other tools are of another size, and those that
    warp the time axis are smaller. No warping is done here: copy synthesis is aligned as it is. The level (c_0) does
    not count.

    Args:
        estimate, target: float32 (T,), waveforms of one length.
        sample_rate: Hz.
        coefficients: how many cosines.

    Returns:
        0 for equal clips, and for clips that differ in their level alone.

    Raises:
        ValueError: clips of different lengths, or empty ones.

    Reference: Kubichek, "Mel-cepstral distance measure for objective speech quality assessment" (PACRIM 1993).
    """
    found, wanted = (_cepstrum(clip, sample_rate, coefficients) for clip in _pair(estimate, target))
    distance = np.sqrt(((found - wanted) ** 2).sum(1))
    return float(10 * math.sqrt(2) / math.log(10) * distance.mean())


def _cepstrum(waveform: np.ndarray, sample_rate: int, coefficients: int) -> np.ndarray:
    """(F, coefficients), the zeroth left out."""
    bands = log_mel(torch.from_numpy(np.ascontiguousarray(waveform, np.float32))[None], sample_rate)[0].double().numpy()
    place = np.pi * (np.arange(len(bands)) + 0.5) / len(bands)
    cepstrum: np.ndarray = 2 / len(bands) * (bands.T @ np.cos(place[:, None] * np.arange(1, coefficients + 1)))
    return cepstrum


def _pair(estimate: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if estimate.shape != target.shape or estimate.ndim != 1 or len(estimate) == 0:
        raise ValueError(f"a distance between two clips needs waveforms (T,) of one length, found {estimate.shape} "
                         f"and {target.shape}")
    return estimate, target
