"""What a log-mel spectrogram says about the level of a waveform, and where a waveform breaks it.

    frame -> pseudo-inverse -> power spectrum -> mean power expected of three views of the waveform
        low     without what lies below 120 Hz, of which a mel says little
        middle  x[t] - x[t-1]
        high    the difference of that again

    samples of frame f -> mean power of each view, over the frame and over each quarter of it
        fault, in dB, is what the loudest of them exceeds its limit by over the louder of frames f and f + 1

A frame of n_fft samples sees every sample near its centre, so no short stretch can hold more power
than the frame says, times the share of it that the stretch is: a pop can hide below the voice it
interrupts but not above the mel. The difference and its difference again make broadband pops loud
against a voice, whose power lies low.

All is summed row by row in a fixed order: a verdict never depends on the company in a batch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.compiled import compiled
from wavegen.audio.lpc import MelPredictor
from wavegen.config import MelSpec

VIEWS = ("low", "middle", "high")
LAGS = 3  # of the autocorrelation that the views are read from
EDGE_HZ = 120.0  # below, the view "low" does not see
PARTS = 4  # stretches of a frame that are judged by themselves
# dB over what the mel says. 20 minutes of one reader, coded and decoded, reach 8.7 and 3.8.
PART_LIMIT, FRAME_LIMIT = 12.0, 7.0
FLOOR = 2e-6  # mean power added to what is expected: -57 dB of full scale is no burst
QUIET_LIMIT = 20.0  # dB below what the mel says, over QUIET_FRAMES; the same recordings reach 17
QUIET_FRAMES = 16
QUIET_FLOOR = 1e-5  # mean power of the view "middle" below which silence is as it should be

Floats = NDArray[np.float64]


class Verdict(NamedTuple):
    """What is wrong with some frames, in dB: float64 (B, n) each.

    Attributes:
        burst: over the limit for what the mel says; at most 0 is well.
        quiet: under the limit for what the mel says of this and earlier frames; at most 0 is well.
        worst: the largest of all; a number.
    """

    burst: Floats
    quiet: Floats
    worst: float

    @property
    def fault(self) -> Floats:
        """The worse of both; above 0 is a fault."""
        return np.maximum(self.burst, self.quiet)

    def part(self, start: int, stop: int) -> Verdict:
        """Of frames [start, stop) of these."""
        burst, quiet = self.burst[:, start:stop], self.quiet[:, start:stop]
        return Verdict(burst, quiet, float(np.maximum(burst, quiet).max(initial=-np.inf)))


class Watch:
    """Compares a waveform with its mel, stretch by stretch; how it is cut never changes a frame's verdict.

    Args:
        spec: how the frames were computed.
        batch_size: rows B.
        basis: the mel basis if it is at hand; None computes `mel_basis(spec)`.
    """

    def __init__(self, spec: MelSpec, batch_size: int = 1, basis: np.ndarray | None = None) -> None:
        self.spec, self.batch_size = spec, batch_size
        self._pole = math.exp(-2 * math.pi * EDGE_HZ / spec.sample_rate)
        self._spectrum = MelPredictor(spec, order=LAGS - 1, preemphasis=0.0, basis=basis)
        # From sums over the two-sided spectrum of a windowed frame to a mean over its samples.
        self._scale = 1 / (spec.n_fft * 0.375 * spec.win_length)
        self._memory = np.zeros((batch_size, 5))  # past of the filters, see `_measure`
        # Of the view "middle" in the latest frames, what came and what was expected.
        self._latest = np.zeros((batch_size, QUIET_FRAMES, 2))
        self._count = 0  # frames judged

    def copy(self) -> Watch:
        """An independent watch with the same past."""
        other = object.__new__(Watch)
        other.__dict__.update(self.__dict__)
        other._memory, other._latest = self._memory.copy(), self._latest.copy()
        return other

    def levels(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Autocorrelations (F, LAGS) that log-mel frames (n_mels, F) say, each frame by itself; as of `MelPredictor`.

        Raises:
            ValueError: numbers that are not finite, or no logarithms.
        """
        return self._spectrum.autocorrelation(features)

    def expected(self, levels: Floats, num_frames: int) -> Floats:
        """What frames say of the samples they are held for: mean power of each view, full scale 1.

        Args:
            levels: (B, num_frames or more, LAGS): a frame's samples lie between its centre and the next one's, so
                give one more where it is known; without it each frame stands for itself.
            num_frames: n.

        Returns:
            float64 (B, n, 2, 3): the louder and the quieter of both frames.
        """
        out = np.zeros((len(levels), num_frames, 2, 3))
        _expect(np.ascontiguousarray(levels), self._scale, out)
        return out

    def judge(self, waveform: np.ndarray, expected: Floats) -> Verdict:
        """The verdict on the next frames.

        Args:
            waveform: float32 (B, n * hop_length), the samples of n frames.
            expected: (B, n, 2, 3), from `expected`.

        Raises:
            ValueError: shapes that do not fit.
        """
        hop = self.spec.hop_length
        rows, samples = waveform.shape
        if rows != self.batch_size or samples % hop or expected.shape != (rows, samples // hop, 2, 3):
            raise ValueError(f"a stretch to judge is ({self.batch_size}, frames * {hop}), with what is expected of "
                             f"each frame; found {waveform.shape} and {expected.shape}")
        burst, quiet = np.zeros((rows, samples // hop)), np.zeros((rows, samples // hop))
        worst = _judge(np.ascontiguousarray(waveform, np.float32), expected, hop, self._pole, self._memory,
                       self._latest, self._count, burst, quiet)
        self._count += samples // hop
        return Verdict(burst, quiet, worst)


@compiled
def _expect(r: Any, scale: Any, out: Any) -> None:
    """Louder and quieter of each frame and the next, (B, n, 2, 3), from autocorrelations (B, n or n + 1, 3)."""
    # Without the frame after the last none is compared with its next: it must not matter how frames arrive.
    ahead = 1 if r.shape[1] > out.shape[1] else 0
    for row in range(out.shape[0]):
        for f in range(out.shape[1]):
            for side in range(2):
                a, b, c = r[row, f + side * ahead]
                for view in range(3):
                    power = a if view == 0 else (2 * (a - b) if view == 1 else 6 * a - 8 * b + 2 * c)
                    power = max(power * scale, 0.0)
                    if side == 0 or power > out[row, f, 0, view]:
                        out[row, f, 0, view] = power
                    if side == 0 or power < out[row, f, 1, view]:
                        out[row, f, 1, view] = power


@compiled
def _measure(x: Any, pole: Any, memory: Any, out: Any) -> None:
    """Mean power of the views over the parts of a frame; `memory`: x before, d before, and the filter's past."""
    gain, length = (1 + pole) / 2, x.shape[0]
    parts = out.shape[0]
    before, slope, first, second, third = memory[0], memory[1], memory[2], memory[3], memory[4]
    for part in range(parts):
        start, stop = part * length // parts, (part + 1) * length // parts
        low, middle, high = 0.0, 0.0, 0.0
        for t in range(start, stop):
            d = x[t] - before
            before = np.float64(x[t])
            filtered = gain * d + pole * first
            third = gain * (filtered - second) + pole * third
            first, second = filtered, filtered
            low += third * third
            middle += d * d
            high += (d - slope) * (d - slope)
            slope = d
        count = max(stop - start, 1)
        out[part, 0], out[part, 1], out[part, 2] = low / count, middle / count, high / count
    memory[0], memory[1], memory[2], memory[3], memory[4] = before, slope, first, second, third


@compiled
def _judge(waveform: Any, expected: Any, hop: Any, pole: Any, memory: Any, latest: Any, count: Any, burst: Any,
           quiet: Any) -> Any:
    """Write burst and quiet (B, n), and give the largest of them."""
    power, largest = np.zeros((PARTS, 3)), -1e3
    for row in range(waveform.shape[0]):
        told = expected[row]
        for f in range(waveform.shape[1] // hop):
            worst, least = -1e3, -1e3
            _measure(waveform[row, f * hop:(f + 1) * hop], pole, memory[row], power)
            for view in range(3):
                limit = told[f, 0, view] + FLOOR
                mean, peak = 0.0, 0.0
                for part in range(PARTS):
                    mean += power[part, view] / PARTS
                    peak = max(peak, power[part, view])
                worst = max(worst, 10 * np.log10(mean / limit + 1e-12) - FRAME_LIMIT,
                            10 * np.log10(peak / limit + 1e-12) - PART_LIMIT)
                if view == 1:
                    place = (count + f) % QUIET_FRAMES
                    latest[row, place, 0], latest[row, place, 1] = mean, told[f, 1, view]
            came, wanted = 0.0, 0.0
            for place in range(QUIET_FRAMES):
                came += latest[row, place, 0]
                wanted += latest[row, place, 1]
            if wanted > QUIET_FRAMES * QUIET_FLOOR:
                least = -10 * np.log10(came / wanted + 1e-12) - QUIET_LIMIT
            burst[row, f], quiet[row, f] = worst, least
            largest = max(largest, worst, least)
    return largest
