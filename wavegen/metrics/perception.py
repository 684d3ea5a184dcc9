"""What models of hearing say: intelligibility (STOI) and quality of speech (PESQ), by the packages that have them."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np

from wavegen.audio.io import resample

PACKAGES = {"stoi": "pystoi", "pesq": "pesq"}  # of the extra `eval`
PESQ_RATE = 16_000  # Hz, of wide-band PESQ


def unavailable() -> dict[str, str]:
    """Which of the figures cannot be had here, and why: {"pesq": "the package pesq is not installed ..."}."""
    return {figure: f"the package {package} is not installed; pip install 'wavegen[eval]'"
            for figure, package in PACKAGES.items() if importlib.util.find_spec(package) is None}


def stoi(estimate: np.ndarray, target: np.ndarray, sample_rate: int) -> float | None:
    """Short-time objective intelligibility, 0 to 1: correlation of the envelopes of third-octave bands.

    Args:
        estimate, target: float32 (T,), aligned; the recording is the target.
        sample_rate: Hz; the package resamples to 10 kHz.

    Returns:
        None where there is less speech than 30 frames (0.4 s) and the measure is not defined.

    Raises:
        ModuleNotFoundError: pystoi is not installed, see `unavailable`.

    Reference: Taal et al., IEEE TASLP 19(7), 2011; package pystoi.
    """
    from pystoi import stoi as measure

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            value = float(measure(np.asarray(target, np.float64), np.asarray(estimate, np.float64), sample_rate))
        except (RuntimeWarning, ValueError):  # ValueError: shorter than a frame
            return None
    return value if np.isfinite(value) else None


def pesq(estimate: np.ndarray, target: np.ndarray, sample_rate: int) -> float | None:
    """Perceptual evaluation of speech quality, wide band: 1 (bad) to 4.64 (the same).

    Below 1.1 it tells nothing apart any more.

    Args:
        estimate, target: float32 (T,), aligned; the recording is the target.
        sample_rate: Hz, at least 16000; above, both are resampled to it.

    Returns:
        None where no speech is found in the recording, the clip is shorter than a quarter of a second, or
        the rate is below 16 kHz: wide-band figures of narrow-band speech would mean nothing.

    Raises:
        ModuleNotFoundError: pesq is not installed, see `unavailable`.

    Reference: ITU-T P.862.2; package pesq.
    """
    from pesq import PesqError
    from pesq import pesq as measure

    if sample_rate < PESQ_RATE or 4 * len(target) < sample_rate or not np.any(estimate):
        return None
    found, wanted = (resample(np.ascontiguousarray(x, np.float32), sample_rate, PESQ_RATE) for x in (estimate, target))
    try:
        return float(measure(PESQ_RATE, wanted, found, "wb"))
    except PesqError:
        return None
