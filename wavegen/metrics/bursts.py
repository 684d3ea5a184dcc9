"""How often a vocoder breaks the word of its mel: bursts and silence in finished clips, per 1000 seconds.

Two witnesses: `check_against_mel` is the detector of the guard, `check_against_recording` knows neither mel nor guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wavegen.audio.watch import Watch
from wavegen.config import MelSpec

STUCK = 1e-4  # a clip whose samples lie within so much of their middle says nothing
# dB that a frame of a copy may be louder than the recording in it and in the frames beside it, and quieter over
# QUIET_SECONDS, where the recording is above SPEAKS.
LOUDER, QUIETER, QUIET_SECONDS = 12.0, 20.0, 0.25
FAINT, SPEAKS = 1e-6, 1e-5  # mean power: added to both before they are compared; of a recording that speaks


@dataclass(frozen=True)
class MelCheck:
    """What is wrong with a clip beside its mel (see `wavegen.audio.watch`), or beside its recording.

    Attributes:
        seconds: of the clip.
        bursts: stretches of frames in a row that are louder than the mel can say, or than the recording is.
        quiet_frames: at the end of a stretch that is silent where the mel, or the recording, speaks.
        worst: dB over the limit for bursts; below 0 in a good clip.
        is_constant: whether it holds one value throughout.
    """

    seconds: float
    bursts: int
    quiet_frames: int
    worst: float
    is_constant: bool

    @property
    def is_silent(self) -> bool:
        """Whether the clip is silent somewhere its mel speaks, or constant."""
        return self.quiet_frames > 0 or self.is_constant


def check_against_mel(waveform: np.ndarray, features: np.ndarray, spec: MelSpec, basis: np.ndarray | None = None,
                      ) -> MelCheck:
    """Compare a clip with the mel it was spoken from.

    Args:
        waveform: float32 (T,) at `spec.sample_rate`, its first sample that of frame 0; the last, incomplete frame is
            not judged.
        features: float (n_mels, F), F frames or more than the clip has.
        spec: of the mel.
        basis: the mel basis if it is at hand.

    Raises:
        ValueError: features that are not finite or do not fit the spec.
    """
    frames = min(len(waveform) // spec.hop_length, features.shape[-1])
    seconds = len(waveform) / spec.sample_rate
    constant = len(waveform) > 0 and float(np.ptp(waveform)) < STUCK
    if frames == 0:
        return MelCheck(seconds, 0, 0, -np.inf, constant)
    watch = Watch(spec, 1, basis)
    place = np.minimum(np.arange(frames + 1), features.shape[-1] - 1)  # the last frame holds on
    expected = watch.expected(watch.levels(np.asarray(features, np.float32)[:, place])[None], frames)
    found = watch.judge(np.asarray(waveform, np.float32)[None, : frames * spec.hop_length], expected)
    loud = found.burst[0] > 0
    # A constant clip is a fault only where the mel says something.
    speaks = bool((expected[0, :, 1, 1] > 1e-6).any())
    return MelCheck(seconds, int(loud[0]) + int((loud[1:] & ~loud[:-1]).sum()), int((found.quiet[0] > 0).sum()),
                    float(found.burst.max()), constant and speaks)


def check_against_recording(waveform: np.ndarray, recording: np.ndarray, sample_rate: int,
                            frame_samples: int) -> MelCheck:
    """Compare a copy with the recording it copies, frame by frame: its power, and the power of its differences.

    Args:
        waveform: float32 (T,), the copy.
        recording: float32 (T',), which begins where the copy does; what one has more of is not looked at.
        sample_rate: Hz, of both.
        frame_samples: of a frame; an incomplete one is not judged.
    """
    frames = min(len(waveform), len(recording)) // frame_samples
    seconds = len(waveform) / sample_rate
    constant = len(waveform) > 0 and float(np.ptp(waveform)) < STUCK
    if frames == 0:
        return MelCheck(seconds, 0, 0, -np.inf, constant)
    excess = np.full(frames, -np.inf)
    copy, wanted = (np.asarray(one[: frames * frame_samples], np.float64) for one in (waveform, recording))
    for view in (lambda x: x, lambda x: np.diff(x, prepend=x[:1])):
        came, allowed = ((view(one).reshape(frames, -1) ** 2).mean(1) for one in (copy, wanted))
        beside = np.pad(allowed, 1, mode="edge")
        allowed = np.maximum(np.maximum(beside[:-2], beside[2:]), allowed)
        excess = np.maximum(excess, 10 * np.log10((came + FAINT) / (allowed + FAINT)) - LOUDER)
    span = max(1, round(QUIET_SECONDS * sample_rate / frame_samples))
    came, spoken = (np.convolve((one.reshape(frames, -1) ** 2).mean(1), np.ones(span))[span - 1 : frames]
                    for one in (copy, wanted))
    quiet = (spoken > span * SPEAKS) & (came * 10 ** (QUIETER / 10) < spoken)
    loud = excess > 0
    return MelCheck(seconds, int(loud[0]) + int((loud[1:] & ~loud[:-1]).sum()), int(quiet.sum()),
                    float(excess.max()), constant and bool((wanted**2).mean() > SPEAKS))


def burst_rates(checks: Sequence[MelCheck]) -> dict[str, float]:
    """Of a set of clips: bursts, and clips with a burst or with silence, per 1000 seconds and as counts."""
    seconds = sum(check.seconds for check in checks)
    scale = 1000 / seconds if seconds else 0.0
    bursts, silent = sum(check.bursts for check in checks), sum(check.is_silent for check in checks)
    return {"clips": len(checks), "seconds": round(seconds, 2), "bursts": bursts,
            "burst_clips": sum(check.bursts > 0 for check in checks), "silent_clips": silent,
            "bursts_per_1000_s": round(bursts * scale, 3), "silent_clips_per_1000_s": round(silent * scale, 3)}
