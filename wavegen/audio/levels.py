"""Levels of a clip: offset, gain, trimming of silence, cropping, fades. Each is one step of `wavegen prepare`."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from wavegen.config import PrepareConfig, TrimConfig
from wavegen.errors import AudioError

SILENCE = 1e-4  # a clip whose peak lies below holds three steps of 16 bits at most
CLIPPED = 0.999  # a sample at least this large has probably met the limit of its recorder


class Levelled(NamedTuple):
    """A clip at the level a recipe asks for."""

    waveform: np.ndarray  # float32 (T,), in [-1, 1]
    gain: float  # what the recording was multiplied by
    peak: float  # largest magnitude before that, without the offset


def level(waveform: np.ndarray, sample_rate: int, config: PrepareConfig) -> Levelled:
    """Offset, gain, trimming, cropping and fades, in this order.

    Args:
        waveform: float32 (T,), finite.
        sample_rate: Hz.
        config: which steps, and how far.

    Raises:
        AudioError: the clip is silent.
    """
    if config.remove_dc:
        waveform = remove_dc(waveform)
    peak = float(np.max(np.abs(waveform))) if waveform.size else 0.0
    if not peak > SILENCE:
        raise AudioError(f"silent: its peak is {peak:.2g} of full scale")
    gain = 1.0
    if config.normalize == "peak":
        waveform, gain = normalize_peak(waveform, config.peak)
    if config.trim is not None:
        start, stop = trim_bounds(waveform, sample_rate, config.trim)
        waveform = waveform[start:stop]
    fade_out_ms = config.fade_out_ms
    if config.crop_seconds is not None and len(waveform) > round(config.crop_seconds * sample_rate):
        waveform = waveform[: round(config.crop_seconds * sample_rate)]
        fade_out_ms = max(fade_out_ms, config.crop_fade_ms)
    waveform = fade(waveform, sample_rate, config.fade_in_ms, fade_out_ms)
    return Levelled(np.clip(waveform, -1.0, 1.0), gain, peak)


def count_clipped(waveform: np.ndarray) -> int:
    """Number of samples at or beyond full scale, to be asked before anything else is done."""
    return int(np.count_nonzero(np.abs(waveform) >= CLIPPED))


def remove_dc(waveform: np.ndarray) -> np.ndarray:
    """Subtract the mean: float32 (T,) to float32 (T,)."""
    mean = np.mean(waveform, dtype=np.float64) if waveform.size else 0.0
    return np.subtract(waveform, mean, out=np.empty(waveform.shape, np.float32), casting="same_kind")


def normalize_peak(waveform: np.ndarray, peak: float) -> tuple[np.ndarray, float]:
    """Scale a clip so that its largest magnitude is `peak`.

    Args:
        waveform: float32 (T,), not all zero.
        peak: wanted largest magnitude, in (0, 1].

    Returns:
        float32 (T,) and the gain it was multiplied by.

    Raises:
        ValueError: if the waveform is silent, because no gain exists then.
    """
    largest = float(np.max(np.abs(waveform))) if waveform.size else 0.0
    if not largest > 0.0:
        raise ValueError("a silent waveform cannot be normalised")
    gain = peak / largest
    scaled = np.empty(waveform.shape, np.float32)
    np.multiply(waveform, np.float64(gain), out=scaled, casting="same_kind")
    return np.clip(scaled, -1.0, 1.0, out=scaled), gain


def frame_power(waveform: np.ndarray, sample_rate: int, frame_ms: float) -> tuple[np.ndarray, int]:
    """Mean power of the whole frames of float (T,), float64 (n,), and the samples of one."""
    width = max(1, round(frame_ms * sample_rate / 1000))
    num_frames = len(waveform) // width
    frames = waveform[: num_frames * width].reshape(num_frames, width)
    return np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / width, width


def trim_bounds(waveform: np.ndarray, sample_rate: int, trim: TrimConfig) -> tuple[int, int]:
    """Where a clip begins and ends once the silence at both ends is gone.

    A frame is loud if its RMS exceeds `trim.threshold`; only whole frames are judged.

        |..before..|LOUD| quiet |LOUD|....after....|
        ^start                                     ^stop

    Args:
        waveform: float32 (T,), at the level the threshold is meant for.
        sample_rate: Hz.
        trim: threshold and margins.

    Returns:
        (start, stop) in samples; (0, T) if no frame is loud.
    """
    power, width = frame_power(waveform, sample_rate, trim.frame_ms)
    loud = np.flatnonzero(power > trim.threshold**2)
    if len(loud) == 0:
        return 0, len(waveform)
    start = int(loud[0]) * width - round(trim.keep_before_ms * sample_rate / 1000)
    stop = (int(loud[-1]) + 1) * width + round(trim.keep_after_ms * sample_rate / 1000)
    return max(0, start), min(len(waveform), stop)


def dither(waveform: np.ndarray, level: float) -> np.ndarray:
    """Add white noise: float32 (T,) to float32 (T,) in [-1, 1].

    The noise is a function of the waveform, so that the same recording is always the same.

    Args:
        waveform: float32 (T,).
        level: RMS of the noise, full scale 1; 0 adds none.
    """
    if level == 0:
        return waveform
    seed = hashlib.sha256(np.ascontiguousarray(waveform, np.float32).tobytes()).digest()
    noise = np.random.default_rng(list(seed)).standard_normal(len(waveform), np.float32)
    dithered: np.ndarray = np.clip(waveform + np.float32(level) * noise, -1.0, 1.0, dtype=np.float32)
    return dithered


def fade(waveform: np.ndarray, sample_rate: int, fade_in_ms: float, fade_out_ms: float) -> np.ndarray:
    """Ramp both ends linearly to zero, over at most half of the clip each: float32 (T,) to float32 (T,)."""
    faded: np.ndarray = np.array(waveform, dtype=np.float32)
    num_in = min(round(fade_in_ms * sample_rate / 1000), len(faded) // 2)
    num_out = min(round(fade_out_ms * sample_rate / 1000), len(faded) // 2)
    if num_in:
        faded[:num_in] *= np.linspace(0.0, 1.0, num_in, dtype=np.float32)
    if num_out:
        faded[-num_out:] *= np.linspace(1.0, 0.0, num_out, dtype=np.float32)
    return faded
