"""Brings audio closer to the mel spectrogram it was made from, frame by frame, while it is being made.

    frame of samples -> spectrum -> bands -> (band wanted / band found) ** RELAXATION -> bins -> spectrum -> overlap-add

What a network draws has the right sound, at levels that scatter around the right ones. The mel says what level each
band is to have: every frame's spectrum keeps its phases, and its magnitudes move to where the mel wants them. That is
a step of Griffin and Lim (IEEE Trans. ASSP 32, 1984), begun at phases a network spoke instead of random ones, and
over-relaxed as in its fast variant (Perraudin et al., WASPAA 2013).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.compiled import compiled
from wavegen.audio.mel import edge_samples, mel_basis
from wavegen.config import MelSpec

RELAXATION = 1.25
LEAST, MOST = 10 ** (-30 / 20), 10 ** (20 / 20)  # what a pass multiplies the magnitude of a band with
# What a pass multiplies the power of a frame with, at most. A frame before an onset that was drawn late lacks the power
# at its end; to make all of it louder would be a noise in the pause.
LOUDER = 10 ** (3 / 10)
FAINT = 1e-8  # the magnitude of a band is never taken to be less
UNHEARD = 1e-3  # share of the windows' weight below which a sample is left as it was

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class MelMatch:
    """One utterance on its way from samples as drawn to samples with the levels of its mel; a value to be copied.

    The audio does not depend on the pieces it comes in, to the last bit. Samples leave `matching_delay` frames later
    than they come in.

    Args:
        spec: of the mel.
        passes: how often; 0 gives back what comes in.
        basis: float32 (n_mels, n_fft // 2 + 1) as stored with a model; None computes `mel_basis(spec)`.

    Raises:
        ValueError: the frames of the spec overlap by less than half, so that no audio can be put together from them.
    """

    def __init__(self, spec: MelSpec, passes: int = 1, basis: np.ndarray | None = None) -> None:
        if passes and spec.win_length < 2 * spec.hop_length:
            raise ValueError(f"frames of {spec.win_length} samples every {spec.hop_length} overlap by less than half")
        bands = _bands(spec, mel_basis(spec) if basis is None else basis) if passes else None
        self._passes = [_Pass(bands) for _ in range(passes)] if bands is not None else []

    def push(self, waveform: np.ndarray, features: np.ndarray) -> Floats:
        """The samples that are done once the next ones have come.

        Args:
            waveform: float32 (n * hop_length,), samples of the next n frames as they were drawn.
            features: float32 (n, n_mels), the mel of these frames.

        Returns:
            float32 (m,) in [-1, 1], whole frames.
        """
        samples = np.asarray(waveform, np.float64)
        for step in self._passes:
            step.want(features)
            samples = step.push(samples)
        return _clipped(samples)

    def finish(self) -> Floats:
        """The samples that were waiting for what comes after them, float32 (m,)."""
        rest = np.zeros(0)
        for step in self._passes:
            rest = np.concatenate([step.push(rest), step.finish()])
        return _clipped(rest)

    def copy(self) -> MelMatch:
        """An independent match with the same past."""
        other = copy.copy(self)
        other._passes = [copy.copy(step) for step in self._passes]
        return other


@dataclass(frozen=True, eq=False)
class _Bands:
    """A mel spec as the loops take it."""

    spec: MelSpec
    window: Doubles  # (n_fft,)
    basis: Doubles  # (n_mels, bins)
    spans: NDArray[np.int64]  # (n_mels, 2): first bin of each band, and the one behind its last
    nearest: NDArray[np.int64]  # (bins,): the bin itself, or the nearest that is in a band

    def magnitudes(self, features: np.ndarray) -> Doubles:
        """What log-mel frames (n, n_mels) say the bands hold."""
        spec = self.spec
        logarithm = np.asarray(features, np.float64) * np.array(spec.scale) + np.array(spec.mean)
        result: Doubles = np.exp(logarithm * (np.log(10.0) if spec.log_base == "10" else 1.0))
        return result


class _Pass:
    """One pass over an utterance. Its arrays are replaced and never written, so a shallow copy is a copy."""

    def __init__(self, bands: _Bands) -> None:
        self.bands = bands
        self._wanted = np.zeros((0, bands.spec.n_mels))  # of frames to come
        self._samples = np.zeros(0)  # from sample `_first` on
        self._first = self._frame = self._done = 0  # first sample kept; next frame; samples given back
        self._sum = self._weight = np.zeros(0)  # overlapping frames, from sample `_done` on

    def want(self, features: np.ndarray) -> None:
        self._wanted = np.concatenate([self._wanted, self.bands.magnitudes(features)])

    def push(self, samples: Doubles) -> Doubles:
        self._samples = np.concatenate([self._samples, samples])
        spec, edge = self.bands.spec, edge_samples(self.bands.spec)
        count = self._first + len(self._samples)
        whole = (count + edge - spec.n_fft) // spec.hop_length + 1  # frames whose samples are all there
        self._add(max(self._frame, whole))
        done = (self._frame * spec.hop_length - edge) // spec.hop_length * spec.hop_length
        return self._give(max(self._done, done))

    def finish(self) -> Doubles:
        count = self._first + len(self._samples)
        self._add(self._frame + len(self._wanted))
        return self._give(count)

    def _add(self, stop: int) -> None:
        """Frames up to `stop` become part of the sum."""
        spec, bands, edge, n = self.bands.spec, self.bands, edge_samples(self.bands.spec), stop - self._frame
        if n <= 0:
            return
        starts = np.arange(self._frame, stop) * spec.hop_length - edge
        place = starts[:, None] + np.arange(spec.n_fft)
        count = self._first + len(self._samples)
        outside = (place < 0) | (place >= count)
        # A frame that reaches over an end may have a mel of what was cut off there: it is made no louder.
        most = np.where(outside.any(axis=1), 1.0, MOST)
        place = np.where(place < 0, -place, np.where(place >= count, 2 * (count - 1) - place, place)) - self._first
        # What a mirror cannot reach, at the end of a very short utterance, is silence.
        outside = outside if spec.pad_mode == "zero" else (place < 0) | (place >= len(self._samples))
        segments = np.where(outside, 0.0, self._samples[np.clip(place, 0, len(self._samples) - 1)]) * bands.window
        spectrum = np.fft.rfft(segments)
        _match(spectrum, self._wanted[:n], most, bands.basis, bands.spans, bands.nearest, spec.power, LOUDER)
        segments = np.fft.irfft(spectrum, spec.n_fft) * bands.window
        size = max(len(self._sum), int(starts[-1]) + spec.n_fft - self._done)
        total, weight = (np.concatenate([old, np.zeros(size - len(old))]) for old in (self._sum, self._weight))
        _overlap_add(segments, bands.window, starts - self._done, total, weight)
        self._sum, self._weight, self._wanted, self._frame = total, weight, self._wanted[n:], stop

    def _give(self, stop: int) -> Doubles:
        """Samples up to `stop`, and forget what nothing depends on any more."""
        n, spec = stop - self._done, self.bands.spec
        drawn = self._samples[self._done - self._first :][:n]
        total, weight = self._sum[:n], self._weight[:n]
        if len(total) < n:  # no frame has reached them
            total, weight = (np.concatenate([old, np.zeros(n - len(old))]) for old in (total, weight))
        result: Doubles = np.where(weight > UNHEARD, total / np.maximum(weight, UNHEARD), drawn)
        self._sum, self._weight, self._done = self._sum[n:], self._weight[n:], stop
        # The next frame's samples, those to be given back, and what the end is mirrored in.
        first = max(self._first, min(self._frame * spec.hop_length - edge_samples(spec), self._done, stop) - spec.n_fft)
        self._samples, self._first = self._samples[first - self._first :], first
        return result


def _bands(spec: MelSpec, basis: np.ndarray) -> _Bands:
    weights = np.asarray(basis, np.float64)
    window = np.zeros(spec.n_fft)
    angle = 2 * np.pi * np.arange(spec.win_length) / (spec.win_length - (spec.window == "hann_symmetric"))
    left = (spec.n_fft - spec.win_length) // 2
    window[left : left + spec.win_length] = 0.5 - 0.5 * np.cos(angle)
    spans = np.array([(0, 0) if not row.any() else (row.nonzero()[0][0], row.nonzero()[0][-1] + 1) for row in weights])
    heard = np.flatnonzero(weights.sum(0) > 0)
    nearest = heard[np.abs(np.arange(weights.shape[1])[:, None] - heard).argmin(1)]
    return _Bands(spec, window, weights, spans.astype(np.int64), nearest.astype(np.int64))


def _clipped(samples: Doubles) -> Floats:
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


@compiled
def _match(spectrum: Any, wanted: Any, most: Any, basis: Any, spans: Any, nearest: Any, power: Any,
           louder: Any) -> None:
    """Scale each frame of a spectrum (n, bins) towards the bands wanted (n, n_mels).

    By at most `most` (n,) in a band, and to at most `louder` times its power as a whole.
    """
    ratio, gain = np.zeros(wanted.shape[1]), np.zeros(spectrum.shape[1])
    magnitude, weight = np.zeros(spectrum.shape[1]), np.zeros(spectrum.shape[1])
    for f in range(spectrum.shape[0]):
        for k in range(spectrum.shape[1]):
            value = spectrum[f, k]
            magnitude[k] = np.sqrt(value.real * value.real + value.imag * value.imag) ** power
            gain[k], weight[k] = 0.0, 0.0
        for band in range(wanted.shape[1]):
            found = 0.0
            for k in range(spans[band, 0], spans[band, 1]):
                found += basis[band, k] * magnitude[k]
            ratio[band] = (wanted[f, band] / max(found, FAINT)) ** (RELAXATION / power)
            ratio[band] = min(max(ratio[band], LEAST), most[f])
            for k in range(spans[band, 0], spans[band, 1]):
                gain[k] += basis[band, k] * ratio[band]
                weight[k] += basis[band, k]
        before, after = 0.0, 0.0
        for k in range(spectrum.shape[1]):
            scale = gain[nearest[k]] / weight[nearest[k]]
            before += spectrum[f, k].real ** 2 + spectrum[f, k].imag ** 2
            spectrum[f, k] *= scale
            after += spectrum[f, k].real ** 2 + spectrum[f, k].imag ** 2
        if after > louder * before:
            scale = np.sqrt(louder * before / after)
            for k in range(spectrum.shape[1]):
                spectrum[f, k] *= scale


@compiled
def _overlap_add(segments: Any, window: Any, starts: Any, total: Any, weight: Any) -> None:
    for f in range(segments.shape[0]):
        for i in range(max(0, -starts[f]), segments.shape[1]):
            total[starts[f] + i] += segments[f, i]
            weight[starts[f] + i] += window[i] * window[i]
