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

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from wavegen.audio.compiled import compiled
from wavegen.audio.mel import mel_basis
from wavegen.audio.mulaw import decode_table, silence_code, thresholds
from wavegen.config import MelSpec

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


def mel_to_lpc(features: np.ndarray, spec: MelSpec, order: int = 16, preemphasis: float = 0.85,
               basis: np.ndarray | None = None) -> np.ndarray:
    """Coefficients of the linear prediction of a pre-emphasised signal, from its log-mel frames alone.

    mel -> pseudo-inverse -> power x |pre-emphasis|^2 -> autocorrelation, lag window -> Levinson

    Row f is for samples f * hop_length and on: between the two frames whose centres lie around the
    middle of that stretch, so a centred frame needs the next one. Each row depends on these frames
    only, to the last bit, so that frames may come in pieces.

    Args:
        features: float (..., n_mels, F), as `log_mel` gives them.
        spec: how they were computed.
        order: coefficients of a frame.
        preemphasis: of the signal to be predicted.
        basis: float32 (n_mels, n_fft // 2 + 1) as stored with a model; None computes `mel_basis(spec)`.

    Returns:
        float32 (..., F, order); the prediction is stable.

    Raises:
        ValueError: another number of bands than the spec's, no frames, or numbers that are not finite.
    """
    given = np.asarray(features)
    if given.ndim < 2 or given.shape[-2] != spec.n_mels or given.shape[-1] == 0:
        raise ValueError(f"features must be (..., {spec.n_mels}, frames), found {given.shape}")
    predictor, count = MelPredictor(spec, order, preemphasis, basis), given.shape[-1]
    out = np.zeros((int(np.prod(given.shape[:-2])), count, order), np.float32)
    for row, frames in enumerate(given.reshape(-1, *given.shape[-2:])):
        out[row] = predictor.coefficients(predictor.autocorrelation(frames), 0, count, 0, count)
    return out.reshape(*given.shape[:-2], count, order)


class MelPredictor:
    """`mel_to_lpc` in two steps, for frames that arrive in pieces: what each frame says, and the rows between them.

    Attributes:
        lookahead: frames after its own that a row depends on.
        lookback: frames before its own.

    Args:
        spec, order, preemphasis, basis: as of `mel_to_lpc`.
        plain: lags of the signal without pre-emphasis that `autocorrelation` gives behind the others; one spectrum
            serves both.
    """

    def __init__(self, spec: MelSpec, order: int = 16, preemphasis: float = 0.85,
                 basis: np.ndarray | None = None, plain: int = 0) -> None:
        self.spec, self.order = spec, order
        weights = mel_basis(spec) if basis is None else np.asarray(basis)
        self._inverse, self._cosines = _inverse(weights.astype(np.float32).tobytes(), spec.n_mels, preemphasis, order,
                                                plain)
        # The least that a bin can hold when its bands are at the floor.
        least = spec.floor / float(weights.sum(1).mean())
        self._exponent, self._least = 2.0 / spec.power, least ** (2.0 / spec.power)
        lags = np.arange(order + 1)
        self._window = np.exp(-0.5 * (2 * np.pi * LAG_WINDOW_HZ / spec.sample_rate * lags) ** 2)
        self._window[0] += WHITE_NOISE
        edge = spec.n_fft // 2 if spec.center else spec.edge_padding
        # From the centre of frame f to the middle of stretch f, in frames.
        self._shift = ((spec.hop_length - spec.n_fft) / 2 + edge) / spec.hop_length
        self._mean, self._scale = (np.array(values)[:, None] for values in (spec.mean, spec.scale))
        self.lookahead, self.lookback = max(0, math.ceil(self._shift)), max(0, -math.floor(self._shift))

    def autocorrelation(self, features: np.ndarray) -> np.ndarray:
        """What each frame says of the signal's spectrum: float64 (F, order + 1 + plain), each frame by itself.

        Args:
            features: float (n_mels, F).

        Raises:
            ValueError: numbers that are not finite, or no logarithms.
        """
        logarithm = features.astype(np.float64) * self._scale + self._mean
        if self.spec.log_base == "10":
            logarithm *= np.log(10.0)
        if not np.abs(logarithm).max(initial=0.0) < 200:
            raise ValueError("features to predict from are not finite, or no logarithms")
        out = np.zeros((features.shape[1], self._cosines.shape[1]))
        _autocorrelations(np.ascontiguousarray(logarithm.T), self._inverse, self._cosines, self._exponent,
                          self._least, out)
        return out

    def coefficients(self, autocorrelation: np.ndarray, first: int, count: int, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop): float32 (stop - start, order).

        Args:
            autocorrelation: float64 (n, order + 1 or more) of the frames `first` to first + n - 1; no less than
                rows need, up to the last frame there is.
            first: number of its first frame.
            count: frames of the whole clip, or any larger number as long as that is not known; the last one holds on.
        """
        out = np.zeros((stop - start, self.order), np.float32)
        _coefficients(autocorrelation, first, count, start, self._window, self._shift, out)
        return out


def replay(codes: np.ndarray, coefficients: np.ndarray, hop_length: int,
           quantization_channels: int = 256) -> Analysis:
    """The inputs and the signal that go with excitation codes int64 (B, T): `analyze` with the codes given."""
    given = np.array(codes, np.int64, order="C")
    a = _checked(coefficients, len(given))
    inputs, out = np.zeros((*given.shape, 3), np.int64), np.zeros(given.shape, np.float32)
    _analyze(np.zeros((0, 0), np.float32), a, hop_length, decode_table(quantization_channels),
             thresholds(quantization_channels), silence_code(quantization_channels), given, inputs, out)
    return Analysis(given, inputs, out)


def retrace(signal: np.ndarray, coefficients: np.ndarray, hop_length: int, start: int, stop: int,
            noise: np.ndarray | None = None, quantization_channels: int = 256) -> Analysis:
    """A stretch of a coded signal as the network is taught it, if need be with errors in what is fed back.

    Without noise this is that stretch of `replay`. With it the codes fed back are off by `noise`, and the codes to be
    predicted lead the signal home again: the network learns to correct what it does wrong when it
    speaks freely (LPCNet, arXiv:1810.11846, section 3.4).

    Args:
        signal: float32 (T,), `Analysis.signal` of the whole clip.
        coefficients: float32 (F, order) of the whole clip; the last frame holds on.
        hop_length: samples a frame is held for.
        start, stop: samples of the stretch.
        noise: integers (stop - start,) added to the codes fed back.

    Returns:
        codes (1, n) to be predicted, inputs (1, n, 3) and signal (1, n) the network is told.
    """
    y, a = np.ascontiguousarray(signal, np.float32), _checked(np.asarray(coefficients)[None], 1)[0]
    n = stop - start
    if not 0 <= start <= stop <= len(y):
        raise ValueError(f"samples {start} to {stop} are not a stretch of a signal of {len(y)}")
    added = np.zeros(n, np.int64) if noise is None else np.ascontiguousarray(noise, np.int64)
    if added.shape != (n,):
        raise ValueError(f"noise for {n} samples has shape {added.shape}")
    codes, inputs, out = np.zeros(n, np.int64), np.zeros((n, 3), np.int64), np.zeros(n, np.float32)
    _retrace(y, a, hop_length, start, added, decode_table(quantization_channels), thresholds(quantization_channels),
             silence_code(quantization_channels), codes, inputs, out)
    return Analysis(codes[None], inputs[None], out[None])


@lru_cache(maxsize=8)
def _inverse(basis: bytes, n_mels: int, preemphasis: float, order: int, plain: int) -> tuple[np.ndarray, np.ndarray]:
    """Bands to bins float64 (n_mels, bins), and bins to autocorrelation (bins, order + 1 + plain)."""
    weights = np.frombuffer(basis, np.float32).reshape(n_mels, -1).astype(np.float64)
    bins = weights.shape[1]
    inverse = np.linalg.pinv(weights).T.copy()
    # A bin outside all bands, below fmin or above fmax, is taken to hold what the nearest one inside holds.
    heard = np.flatnonzero(weights.sum(0) > 0)
    nearest = heard[np.abs(np.arange(bins)[:, None] - heard).argmin(1)]
    angle = np.pi * np.arange(bins) / (bins - 1)
    emphasis = 1 + preemphasis**2 - 2 * preemphasis * np.cos(angle)
    emphasis[1:-1] *= 2  # the negative frequencies
    sides = np.ones(bins)
    sides[1:-1] = 2
    lags = emphasis[:, None] * np.cos(angle[:, None] * np.arange(order + 1))
    return inverse[:, nearest].copy(), np.hstack([lags, sides[:, None] * np.cos(angle[:, None] * np.arange(plain))])


class Decoder:
    """Excitation codes to waveform, chunk by chunk; the chunks never change the audio.

    Args:
        batch_size: rows B.
        prediction: gives frames [start, stop) as float32 (B or 1, stop - start, order); what a frame
            holds must not depend on which others are asked for with it.
        hop_length: samples a frame is held for.
        preemphasis: of the signal that was coded.
    """

    def __init__(self, batch_size: int, prediction: Callable[[int, int], np.ndarray | None], hop_length: int,
                 preemphasis: float, quantization_channels: int = 256) -> None:
        self.prediction, self.hop_length = prediction, hop_length
        self.preemphasis, self.decode_table = np.float32(preemphasis), decode_table(quantization_channels)
        self.position, self.batch_size = 0, batch_size
        self._past: np.ndarray | None = None  # s newest first (B, order)
        self._last = np.zeros(batch_size, np.float32)  # x[t-1], before it was clipped

    def copy(self, prediction: Callable[[int, int], np.ndarray | None] | None = None) -> Decoder:
        """An independent decoder with the same future, which may ask another for its coefficients."""
        other = object.__new__(Decoder)
        other.__dict__.update(self.__dict__)
        other.prediction = prediction or self.prediction
        other._past, other._last = None if self._past is None else self._past.copy(), self._last.copy()
        return other

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


def _checked(coefficients: np.ndarray | None, batch_size: int) -> np.ndarray:
    if coefficients is None:
        raise ValueError("no prediction coefficients were given")
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
    for row in range(codes.shape[0]):
        frames = row if a.shape[0] > 1 else 0
        past[:] = 0
        before, code = silence, silence
        for t in range(codes.shape[1]):
            p = _predict(a[frames, min(t // hop, a.shape[1] - 1)], past)
            inputs[row, t, 0] = before
            inputs[row, t, 1] = np.searchsorted(table, p, side="right")
            inputs[row, t, 2] = code
            code = codes[row, t]
            if y.shape[0] > 0:  # no signal: the codes are given
                code = np.searchsorted(table, y[row, t] - p, side="right")
            s = _clip(p + decode[code])
            before = np.searchsorted(table, s, side="right")
            codes[row, t] = code
            out[row, t] = s
            _push(past, s)


@compiled
def _retrace(y: Any, a: Any, hop: Any, start: Any, noise: Any, decode: Any, table: Any, silence: Any, codes: Any,
             inputs: Any, out: Any) -> None:
    past = np.zeros(a.shape[1], np.float32)
    # One sample earlier, whose code is the first that is fed back.
    for i in range(min(past.shape[0], max(start - 1, 0))):
        past[i] = y[start - 2 - i]
    before, fed = silence, silence
    if start > 0:
        p = _predict(a[min((start - 1) // hop, a.shape[0] - 1)], past)
        fed = np.searchsorted(table, y[start - 1] - p, side="right")
        before = np.searchsorted(table, y[start - 1], side="right")
        _push(past, y[start - 1])
    for i in range(codes.shape[0]):
        p = _predict(a[min((start + i) // hop, a.shape[0] - 1)], past)
        inputs[i, 0], inputs[i, 1], inputs[i, 2] = before, np.searchsorted(table, p, side="right"), fed
        codes[i] = np.searchsorted(table, y[start + i] - p, side="right")
        fed = min(max(codes[i] + noise[i], 0), decode.shape[0] - 1)
        s = _clip(p + decode[fed])
        before = np.searchsorted(table, s, side="right")
        out[i] = s
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


@compiled
def _autocorrelation(frame: Any, inverse: Any, cosines: Any, exponent: Any, least: Any, power: Any, out: Any) -> None:
    power[:] = 0
    for band in range(inverse.shape[0]):
        level = np.exp(frame[band])
        for k in range(power.shape[0]):
            power[k] += inverse[band, k] * level
    out[:] = 0
    for k in range(power.shape[0]):
        # The pseudo-inverse dips below zero beside a peak.
        value = max(power[k], 0.0)
        value = value * value if exponent == 2.0 else value**exponent
        value = max(value, least)
        for lag in range(out.shape[0]):
            out[lag] += cosines[k, lag] * value


@compiled
def _levinson(r: Any, a: Any, before: Any) -> None:
    """Coefficients a of the best prediction of a signal with autocorrelation r."""
    error = r[0]
    for i in range(a.shape[0]):
        reflection = r[i + 1]
        for j in range(i):
            reflection -= a[j] * r[i - j]
        reflection /= error
        before[:i] = a[:i]
        for j in range(i):
            a[j] = before[j] - reflection * before[i - 1 - j]
        a[i] = reflection
        error *= 1 - reflection * reflection


@compiled
def _autocorrelations(frames: Any, inverse: Any, cosines: Any, exponent: Any, least: Any, out: Any) -> None:
    power = np.zeros(inverse.shape[1])
    for f in range(frames.shape[0]):
        _autocorrelation(frames[f], inverse, cosines, exponent, least, power, out[f])


@compiled
def _coefficients(r: Any, first: Any, count: Any, start: Any, window: Any, shift: Any, out: Any) -> None:
    order = out.shape[1]
    mixed, a, before = np.zeros(order + 1), np.zeros(order), np.zeros(order)
    for f in range(out.shape[0]):
        place = start + f + shift
        lower = int(np.floor(place))
        weight = place - lower
        # A frame of weight 0 need not have arrived.
        upper = lower + 1 if weight > 0 else lower
        lower = min(max(lower, 0), count - 1) - first
        upper = min(max(upper, 0), count - 1) - first
        for lag in range(order + 1):
            mixed[lag] = (r[lower, lag] * (1 - weight) + r[upper, lag] * weight) * window[lag]
        _levinson(mixed, a, before)
        for i in range(order):
            out[f, i] = a[i]
