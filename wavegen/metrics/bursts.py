"""How often a vocoder breaks the word of its mel: bursts and silence in finished clips, per 1000 seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wavegen.audio.watch import Watch
from wavegen.config import MelSpec

STUCK = 1e-4  # a clip whose samples lie within so much of their middle says nothing


@dataclass(frozen=True)
class MelCheck:
    """What is wrong with a clip beside its mel; see `wavegen.audio.watch`.

    Attributes:
        seconds: of the clip.
        bursts: stretches of frames in a row that are louder than the mel can say.
        quiet_frames: at the end of a stretch that is silent where the mel speaks.
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


def burst_rates(checks: Sequence[MelCheck]) -> dict[str, float]:
    """Of a set of clips: bursts, and clips with a burst or with silence, per 1000 seconds and as counts."""
    seconds = sum(check.seconds for check in checks)
    scale = 1000 / seconds if seconds else 0.0
    bursts, silent = sum(check.bursts for check in checks), sum(check.is_silent for check in checks)
    return {"clips": len(checks), "seconds": round(seconds, 2), "bursts": bursts,
            "burst_clips": sum(check.bursts > 0 for check in checks), "silent_clips": silent,
            "bursts_per_1000_s": round(bursts * scale, 3), "silent_clips_per_1000_s": round(silent * scale, 3)}
