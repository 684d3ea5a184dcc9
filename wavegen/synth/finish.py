"""What is done to a clip between the model and its file: silence cut off, level, rate, depth.

    waveform (T,) -> resample -> offset, trim, peak, fades -> 16, 24 or 32 bits -> file
"""

from __future__ import annotations

import io as memory
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegen.audio import io, levels, wav
from wavegen.audio.atomic import atomic_write
from wavegen.config import TrimConfig
from wavegen.errors import AudioError, ConfigError

ENDINGS = {"wav": ".wav", "flac": ".flac"}
BITS = {"wav": (16, 24, 32), "flac": (16, 24)}
PEAK = 0.9  # of full scale, where recipes put it
# A one-shot begins with its attack and rings out: 50 dB below full scale it has.
TRIM = TrimConfig(threshold=0.003, frame_ms=5, keep_before_ms=1, keep_after_ms=20)
FADE_IN_MS, FADE_OUT_MS = 0.25, 5.0
# A sound is over where it has died away to DECAYED of its loudest frame; what then rises by RISE is another.
STROKE_FRAME_MS, DECAYED, RISE = 10.0, 10 ** (-30 / 20), 10 ** (10 / 20)


@dataclass(frozen=True)
class Finish:
    """How clips are finished; as it stands, not at all: 16 bits at the model's rate.

    Attributes:
        tidy: take the offset away, cut silence off at both ends, bring the peak to 0.9 and fade the ends in and out.
        one_shot: tidy, and cut off what sounds after the first sound has died away.
        sample_rate: Hz; None is the model's.
        bits: of a sample: 16, 24, or 32, which is floating point.
        kind: "wav" or "flac".

    Raises:
        ConfigError: a value none of these has.
    """

    tidy: bool = False
    sample_rate: int | None = None
    bits: int = 16
    kind: str = "wav"
    one_shot: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ENDINGS:
            raise ConfigError(f'a file of clips is wav or flac, found "{self.kind}"')
        if self.bits not in BITS[self.kind]:
            wanted = ", ".join(map(str, BITS[self.kind]))
            raise ConfigError(f"a {self.kind} file has {wanted} bits a sample, found {self.bits}")
        if self.sample_rate is not None:
            io.check_sample_rate(self.sample_rate)

    @property
    def is_plain(self) -> bool:
        """Whether a clip is written as the model gives it, in 16 bits."""
        return not (self.tidy or self.one_shot) and self.sample_rate is None and self.bits == 16

    def facts(self) -> dict[str, object]:
        """What a manifest says of it; nothing of what is plain."""
        told = {"tidy": self.tidy, "one_shot": self.one_shot}
        return {name: True for name, is_so in told.items() if is_so} | ({"bits": self.bits} if self.bits != 16 else {})

    def apply(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, int]:
        """float32 (T,) at `sample_rate` Hz, finished, and its rate. What is silent stays as long as it is."""
        if self.sample_rate is not None:
            waveform, sample_rate = io.resample(waveform, sample_rate, self.sample_rate), self.sample_rate
        if not (self.tidy or self.one_shot):
            return waveform, sample_rate
        waveform = levels.remove_dc(waveform)
        if self.one_shot:
            waveform = waveform[: first_sound(waveform, sample_rate)]
        if not np.abs(waveform).max(initial=0.0) > levels.SILENCE:
            return waveform, sample_rate
        waveform, _ = levels.normalize_peak(waveform, PEAK)
        start, stop = levels.trim_bounds(waveform, sample_rate, TRIM)
        return levels.fade(waveform[start:stop], sample_rate, FADE_IN_MS, FADE_OUT_MS), sample_rate

    def save(self, path: Path, waveform: np.ndarray, sample_rate: int) -> None:
        """Write float (T,) in [-1, 1], whole or not at all; the same samples give the same bytes.

        Raises:
            ConfigError: an ending the file's kind has not.
            AudioError: not one finite channel, or too long for a wav.
            WavegenError: the file cannot be written.
        """
        if self.bits == 16:
            io.save(path, waveform, sample_rate)
            return
        wav.to_pcm16(waveform)  # refuses what is no waveform
        content = _flac(waveform, sample_rate) if self.kind == "flac" else _wav(waveform, sample_rate, self.bits)
        with atomic_write(path) as file:
            file.write(content)


def first_sound(waveform: np.ndarray, sample_rate: int) -> int:
    """Samples of float (T,) up to where its first sound has died away, if another follows; else T."""
    power, width = levels.frame_power(waveform, sample_rate, STROKE_FRAME_MS)
    level = np.sqrt(power)
    loud = np.flatnonzero(level > DECAYED * level.max(initial=0.0))
    over, lowest = DECAYED * np.maximum.accumulate(level), None
    for frame in range(loud[0] if len(loud) else len(level), len(level)):
        if lowest is not None and level[frame] > max(RISE * level[lowest], over[frame]):
            return (lowest + 1) * width
        if level[frame] <= over[frame] and (lowest is None or level[frame] < level[lowest]):
            lowest = frame
    return len(waveform)


def _pcm24(waveform: np.ndarray) -> np.ndarray:
    """Rounded to 24 bits, in the upper three bytes of int32 (T,)."""
    rounded = np.rint(np.asarray(waveform, np.float64) * 2.0**23)
    return np.clip(rounded, -(2**23), 2**23 - 1).astype("<i4") << 8


def _flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    buffer = memory.BytesIO()
    soundfile.write(buffer, _pcm24(waveform), sample_rate, format="FLAC", subtype="PCM_24")
    return buffer.getvalue()


def _wav(waveform: np.ndarray, sample_rate: int, bits: int) -> bytes:
    """By hand, because libsndfile notes the time of day in a file of floating point."""
    if bits == 32:
        samples = np.clip(np.asarray(waveform, "<f4"), -1, 1).tobytes()
        about = struct.pack("<HHIIHHH", 3, 1, sample_rate, 4 * sample_rate, 4, 32, 0)
        about += struct.pack("<4sII", b"fact", 4, len(waveform))
        form = struct.pack("<4sI", b"fmt ", 18) + about
    else:
        samples = _pcm24(waveform).view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 3 * sample_rate, 3, 24)
    padding = b"\0" * (len(samples) % 2)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples + padding
    if len(body) > wav.MAX_WAV_BYTES:
        raise AudioError("the clip would exceed 4 GiB, the most a WAV can hold; write several files")
    return struct.pack("<4sI", b"RIFF", len(body)) + body
