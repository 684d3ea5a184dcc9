"""What can go wrong with a generated clip and be seen without a classifier.

A clip is judged as it was generated, at its own level: the training clips of a levelled store
all peak at the same height, so a generated one should too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SILENT_PEAK = 0.1  # full scale 1
# White noise is near 0.56. Of the 2500 real spoken digits 2 lie above the limit (a 6 and a 7), so no label
# needs an exemption, not even one that is half fricatives.
NOISE_FLATNESS = 0.3
UNENDED_PEAK = 0.02  # full scale 1
UNENDED_SECONDS = 0.02  # at the end of the clip
FAULTS = ("silent", "noise_like", "unended")
FRAME_SECONDS = 0.032
QUIET_FRAME = 1e-4  # of the power of the loudest frame; a quieter frame has no say in the flatness


@dataclass(frozen=True)
class ClipCheck:
    """Measures of one clip and what they say.

    Attributes:
        peak: largest magnitude.
        flatness: mean spectral flatness of its frames, in [0, 1].
        end_peak: largest magnitude in the last `UNENDED_SECONDS`.
    """

    peak: float
    flatness: float
    end_peak: float

    @property
    def is_silent(self) -> bool:
        return self.peak < SILENT_PEAK

    @property
    def is_noise_like(self) -> bool:
        return not self.is_silent and self.flatness > NOISE_FLATNESS

    @property
    def is_unended(self) -> bool:
        return self.end_peak > UNENDED_PEAK

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of `FAULTS` it has."""
        return tuple(fault for fault in FAULTS if getattr(self, f"is_{fault}"))


def check_clip(waveform: np.ndarray, sample_rate: int) -> ClipCheck:
    """Measure one clip.

    Args:
        waveform: float (T,), amplitude in [-1, 1]; an empty clip counts as silence.
        sample_rate: Hz.
    """
    waveform = np.asarray(waveform, np.float64)
    if waveform.size == 0:
        return ClipCheck(0.0, 0.0, 0.0)
    end = waveform[-max(1, round(UNENDED_SECONDS * sample_rate)) :]
    flatness = spectral_flatness(waveform, sample_rate)
    return ClipCheck(float(np.abs(waveform).max()), flatness, float(np.abs(end).max()))


def spectral_flatness(waveform: np.ndarray, sample_rate: int) -> float:
    """Geometric over arithmetic mean of the power spectrum, averaged over the frames that sound.

    Args:
        waveform: float (T,).
        sample_rate: Hz.

    Returns:
        0 for a pure tone or silence, about 0.56 for white noise (1 would need infinite frames).
    """
    size = round(FRAME_SECONDS * sample_rate)
    centred = np.asarray(waveform, np.float64) - np.mean(waveform)
    padded = np.pad(centred, (0, max(0, size - len(centred))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: max(1, size // 2)]
    power = np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1])) ** 2
    power = power[:, 2:-2]  # an offset or the edge of the resampling filter is not noise
    energy = power.mean(1)
    sounding = power[energy > QUIET_FRAME * energy.max()]
    if len(sounding) == 0:
        return 0.0
    floor = np.finfo(np.float64).tiny
    return float(np.mean(np.exp(np.log(sounding + floor).mean(1)) / sounding.mean(1)))


def rates(checks: Sequence[ClipCheck]) -> dict[str, float]:
    """Share of clips that have each of `FAULTS`."""
    count = max(1, len(checks))
    return {fault: sum(fault in check.faults for check in checks) / count for fault in FAULTS}
