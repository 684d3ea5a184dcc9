"""Pitch of a clip beside that of its recording: F0 error and voicing error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wavegen.audio.io import resample

SAMPLE_RATE = 8000  # Hz, at most: pitch needs no more, and the search costs a third of what it does at 16 kHz
FRAME, HOP = 512, 128  # samples at that rate: 64 ms every 16 ms
LOWEST, HIGHEST = 65.0, 600.0  # Hz


@dataclass(frozen=True)
class PitchError:
    """How well a pitch contour is kept.

    Attributes:
        cents: root mean square error in hundredths of a semitone, over frames voiced in both clips; None
            where there are none.
        hertz: the same in Hz.
        voicing: share of all frames that are voiced in one clip only.
    """

    cents: float | None
    hertz: float | None
    voicing: float


def pitch_error(estimate: np.ndarray, target: np.ndarray, sample_rate: int) -> PitchError:
    """Compare the pitch of a clip with that of its recording, frame by frame.

    An octave taken for another counts with 1200 cents: one such frame in ten is 380 cents.

    Args:
        estimate, target: float32 (T,), aligned.
        sample_rate: Hz.

    Reference: pYIN, Mauch and Dixon (ICASSP 2014), as `librosa.pyin`.
    """
    found, wanted = (track(waveform, sample_rate) for waveform in (estimate, target))
    return compare(found, wanted)


def compare(found: np.ndarray, wanted: np.ndarray) -> PitchError:
    """`pitch_error` of two contours float (F,) in Hz, NaN where a frame is unvoiced."""
    voiced, really = np.isfinite(found), np.isfinite(wanted)
    both = voiced & really
    if not both.any():
        return PitchError(None, None, _share(voiced != really))
    cents = 1200 * np.log2(found[both] / wanted[both])
    return PitchError(_rms(cents), _rms(found[both] - wanted[both]), _share(voiced != really))


def track(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Pitch contour float64 (F,) in Hz of a waveform float32 (T,), one frame each 16 ms; NaN is unvoiced.

    Pitch is looked for from 65 to 600 Hz, by `librosa.pyin` with its own settings, at 8 kHz.
    """
    import librosa

    rate = min(sample_rate, SAMPLE_RATE)
    samples = np.asarray(resample(np.ascontiguousarray(waveform, np.float32), sample_rate, rate), np.float64)
    scale = rate / SAMPLE_RATE
    frame, hop = 2 * math.ceil(FRAME * scale / 2), round(HOP * scale)
    # pYIN looks at shapes, not at levels, and finds pitch in rounding errors: what is 70 dB down is silence.
    quiet = float(np.abs(samples).max(initial=0.0)) * 10 ** (-70 / 20)
    samples = samples + max(quiet, 1e-9) * np.random.default_rng(0).standard_normal(len(samples))
    pitch, voiced, _ = librosa.pyin(samples, fmin=LOWEST, fmax=min(HIGHEST, rate / 4), sr=rate, frame_length=frame,
                                    hop_length=hop)
    contour: np.ndarray = np.where(voiced, pitch, np.nan)
    return contour


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _share(chosen: np.ndarray) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0
