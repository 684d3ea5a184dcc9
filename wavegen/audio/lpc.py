"""The signal path `lpc`: the network speaks mu-law codes of what a linear prediction leaves over.

    y[t] = x[t] - preemphasis * x[t-1]                              x: waveform
    p[t] = clip(a_1 s[t-1] + a_2 s[t-2] + .. + a_n s[t-n])          a: of frame t // hop_length
    e[t] = code(y[t] - p[t])                                        closed loop: predicted from s, not from y
    s[t] = clip(p[t] + decode(e[t]))                                what every listener has
    x[t] = s[t] + preemphasis * x[t-1]                              clipped to [-1, 1] where it leaves

The prediction is summed in float32 with i ascending, product and sum each rounded, and s is zero
before the start: so analysis, every engine and the synthesis here have the same bits. clip is to
[-1, 1]: no set of coefficients can make s grow, and the network can always bring it back.

Reference: LPCNet, section 2 (arXiv:1810.11846).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wavegen.audio.compiled import compiled
from wavegen.audio.mulaw import decode_table, silence_code, thresholds

LAG_WINDOW_HZ = 30.0  # the spectrum is smeared by so much, so that no pole is too sharp
WHITE_NOISE = 3e-4  # added to the spectrum, as a share of its power
MAX_COEFFICIENT = 1e6  # a stable prediction of order 16 has none above 13000; products stay far from overflow


@dataclass(frozen=True, eq=False)
class Analysis:
    """A signal as a network of the path lpc learns it.

    Attributes:
        codes: int64 (B, T), excitation e[t]: what the network predicts.
        inputs: int64 (B, T, 3), what it is told for it: the codes of s[t-1], of p[t], and e[t-1].
        signal: float32 (B, T), s[t] after coding.
    """

    codes: np.ndarray
    inputs: np.ndarray
    signal: np.ndarray


def emphasize(waveform: np.ndarray, preemphasis: float) -> np.ndarray:
    """y[t] = x[t] - preemphasis * x[t-1], the first sample as it is.

    Args:
        waveform: float (..., T).

    Returns:
        float32 (..., T); it can leave [-1, 1].
    """
    x = np.asarray(waveform, np.float32)
    y = x.copy()
    y[..., 1:] -= np.float32(preemphasis) * x[..., :-1]
    return y


def analyze(signal: np.ndarray, coefficients: np.ndarray, hop_length: int,
            quantization_channels: int = 256) -> Analysis:
    """Code a pre-emphasised signal in closed loop.

    Args:
        signal: float32 (B, T), from `emphasize`; beyond [-1, 1] it is coded as +-1.
        coefficients: float32 (B or 1, F, order); the last frame holds on.
        hop_length: samples a frame is held for.

    Raises:
        ValueError: wrong shapes, or a number that is not finite.
    """
    y = np.ascontiguousarray(signal, np.float32)
    if y.ndim != 2 or not np.isfinite(y).all():
        raise ValueError(f"a signal to analyse is finite and (B, T), found shape {y.shape}")
    a = _checked(coefficients, len(y))
    codes, inputs, out = np.zeros(y.shape, np.int64), np.zeros((*y.shape, 3), np.int64), np.zeros_like(y)
    _analyze(y, a, hop_length, decode_table(quantization_channels), thresholds(quantization_channels),
             silence_code(quantization_channels), codes, inputs, out)
    return Analysis(codes, inputs, out)


class Decoder:
    """Excitation codes to waveform, chunk by chunk; the chunks never change the audio.

    Args:
        batch_size: rows B.
        prediction: gives frames [start, stop) as float32 (B or 1, stop - start, order); what a frame
            holds must not depend on which others are asked for with it.
        hop_length: samples a frame is held for.
        preemphasis: of the signal that was coded.
    """

    def __init__(self, batch_size: int, prediction: Callable[[int, int], np.ndarray], hop_length: int,
                 preemphasis: float, quantization_channels: int = 256) -> None:
        self.prediction, self.hop_length = prediction, hop_length
        self.preemphasis, self.decode_table = np.float32(preemphasis), decode_table(quantization_channels)
        self.position, self.batch_size = 0, batch_size
        self._past: np.ndarray | None = None  # s newest first (B, order)
        self._last = np.zeros(batch_size, np.float32)  # x[t-1], before it was clipped

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The next samples of every row.

        Args:
            codes: integers (B, n) in [0, Q).

        Returns:
            float32 (B, n) in [-1, 1].
        """
        codes = np.ascontiguousarray(codes, np.int64)
        if codes.ndim != 2 or len(codes) != self.batch_size:
            raise ValueError(f"codes to decode must be ({self.batch_size}, n), found {codes.shape}")
        if codes.size and not 0 <= codes.min() <= codes.max() < len(self.decode_table):
            raise ValueError(f"codes must lie in [0, {len(self.decode_table)}), found {codes.min()} to {codes.max()}")
        waveform = np.zeros(codes.shape, np.float32)
        if codes.shape[1] == 0:
            return waveform
        first = self.position // self.hop_length
        last = (self.position + codes.shape[1] - 1) // self.hop_length
        a = _checked(self.prediction(first, last + 1), self.batch_size)
        if self._past is None:
            self._past = np.zeros((self.batch_size, a.shape[2]), np.float32)
        _synthesize(codes, a, self.hop_length, first, self.position, self.decode_table, self.preemphasis,
                    self._past, self._last, waveform)
        self.position += codes.shape[1]
        return waveform


def _checked(coefficients: np.ndarray, batch_size: int) -> np.ndarray:
    a = np.ascontiguousarray(coefficients, np.float32)
    if a.ndim != 3 or 0 in a.shape or len(a) not in (1, batch_size):
        raise ValueError(f"prediction coefficients are (B or 1, frames, order), found {a.shape} for {batch_size} rows")
    if not np.abs(a).max() <= MAX_COEFFICIENT:
        raise ValueError("prediction coefficients are not finite, or larger than any of a stable prediction")
    return a


@compiled
def _predict(a: Any, past: Any) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * past[i]
    return min(max(total, np.float32(-1)), np.float32(1))


@compiled
def _push(past: Any, value: Any) -> None:
    for i in range(past.shape[0] - 1, 0, -1):
        past[i] = past[i - 1]
    past[0] = value


@compiled
def _clip(x: Any) -> Any:
    return min(max(x, np.float32(-1)), np.float32(1))


@compiled
def _analyze(y: Any, a: Any, hop: Any, decode: Any, table: Any, silence: Any, codes: Any, inputs: Any,
             out: Any) -> None:
    past = np.zeros(a.shape[2], np.float32)
    for row in range(y.shape[0]):
        frames = row if a.shape[0] > 1 else 0
        past[:] = 0
        before, code = silence, silence
        for t in range(y.shape[1]):
            p = _predict(a[frames, min(t // hop, a.shape[1] - 1)], past)
            inputs[row, t, 0] = before
            inputs[row, t, 1] = np.searchsorted(table, p, side="right")
            inputs[row, t, 2] = code
            code = np.searchsorted(table, y[row, t] - p, side="right")
            s = _clip(p + decode[code])
            before = np.searchsorted(table, s, side="right")
            codes[row, t] = code
            out[row, t] = s
            _push(past, s)


@compiled
def _synthesize(codes: Any, a: Any, hop: Any, first: Any, position: Any, decode: Any, preemphasis: Any, past: Any,
                last: Any, waveform: Any) -> None:
    for row in range(codes.shape[0]):
        frames = row if a.shape[0] > 1 else 0
        for i in range(codes.shape[1]):
            frame = min((position + i) // hop - first, a.shape[1] - 1)
            s = _clip(_predict(a[frames, frame], past[row]) + decode[codes[row, i]])
            _push(past[row], s)
            last[row] = s + preemphasis * last[row]
            waveform[row, i] = _clip(last[row])
