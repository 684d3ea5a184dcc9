"""Stretches of a store's rows as a network is taught them, on either signal path."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from wavegen.audio import lpc, mulaw
from wavegen.audio.levels import fade
from wavegen.audio.mel import mel_basis
from wavegen.audio.signal import prediction_coefficients
from wavegen.config import AudioConfig
from wavegen.data.store import Store

CACHE_BYTES = 2**30  # of coded signals and coefficients kept from epoch to epoch
CUT_FADE_MS = 20.0  # at the end of a recording that was slowed down beyond its window
NOISE_SHAPE = (1.5, 0.5)  # of the spread of the noise over windows, see `draw_noise`


class Window(NamedTuple):
    """Samples [start, stop) of a row.

    Attributes:
        codes: int64 (n,), to be predicted.
        inputs: int64 (n, 3) on the path lpc, as `wavegen.audio.lpc.Analysis.inputs`; None on the path direct.
        signal: float32 (n,) on the path lpc, the coded signal; None on the path direct.
    """

    codes: np.ndarray
    inputs: np.ndarray | None
    signal: np.ndarray | None


class Windows:
    """Reads stretches of rows; keeps what had to be computed for them."""

    def __init__(self, store: Store) -> None:
        self.store, self.has_excitation = store, store.audio.signal_path == "lpc"
        mel = store.audio.mel
        self._basis = mel_basis(mel) if mel is not None and self.has_excitation else None
        self._coded: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._bytes = 0

    def read(self, row: int, start: int, stop: int, noise: np.ndarray | None = None) -> Window:
        """A stretch of a row; `noise` is added to the codes that are fed back (path lpc)."""
        if not self.has_excitation:
            return Window(self.store.codes(row)[start:stop].astype(np.int64), None, None)
        assert self.store.audio.mel is not None
        signal, coefficients = self._signal(row)
        traced = lpc.retrace(signal, coefficients, self.store.audio.mel.hop_length, start, stop, noise,
                             self.store.audio.quantization_channels)
        return Window(traced.codes[0], traced.inputs[0], traced.signal[0])

    def coefficients(self, row: int) -> np.ndarray:
        """Coefficients float32 (F, order) of a row of the path lpc."""
        return self._signal(row)[1]

    def _signal(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The coded signal float32 (T,) of a row and its coefficients (F, order)."""
        if row in self._coded:
            self._coded.move_to_end(row)
            return self._coded[row]
        store, mel = self.store, self.store.audio.mel
        features = store.features(row)
        assert mel is not None and features is not None
        coefficients = prediction_coefficients(features.T, store.audio, self._basis)
        signal = lpc.replay(store.codes(row)[None], coefficients[None], mel.hop_length,
                            store.audio.quantization_channels).signal[0]
        self._coded[row] = (signal, coefficients)
        self._bytes += signal.nbytes + coefficients.nbytes
        while self._bytes > CACHE_BYTES and len(self._coded) > 1:
            _, old = self._coded.popitem(last=False)
            self._bytes -= sum(array.nbytes for array in old)
        return signal, coefficients


def features_of(store: Store, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-mel frames float32 (B, n_mels, F) of rows, the last frame held on, and their numbers int64 (B,)."""
    if store.audio.mel is None:
        return None
    clips = [store.features(int(row)) for row in rows]
    counts = np.array([len(clip) for clip in clips if clip is not None], np.int64)
    frames = np.zeros((len(rows), store.audio.mel.n_mels, int(counts.max())), np.float32)
    for place, clip in enumerate(clips):
        assert clip is not None
        frames[place, :, : len(clip)] = clip.T
        frames[place, :, len(clip) :] = clip[-1][:, None]
    return frames, counts


def play(codes: np.ndarray, speed: float, max_samples: int, audio: AudioConfig) -> np.ndarray:
    """Codes (n,) of a recording played faster, and so higher, than it was: int64 (round(n / speed) or `max_samples`,).

    Resampled by a Fourier transform of the whole, which takes both ends for silent; what is cut off is faded out.
    """
    number = max(1, round(len(codes) / speed))
    if len(codes) == 0:
        return np.zeros(0, np.int64)
    spectrum = np.fft.rfft(mulaw.decode(codes.astype(np.int64), audio.quantization_channels).astype(np.float64))
    played = np.fft.irfft(spectrum, number) * (number / len(codes))
    waveform = np.clip(played[:max_samples], -1.0, 1.0).astype(np.float32)
    if number > max_samples:
        waveform = fade(waveform, audio.sample_rate, 0.0, CUT_FADE_MS)
    return mulaw.encode(waveform, audio.quantization_channels)


def draw_noise(generator: np.random.Generator, strength: float, num_samples: int) -> np.ndarray:
    """Errors of fed-back codes: whole numbers (n,), Laplacian, of a spread drawn for the window.

    As in LPCNet's training (arXiv:1810.11846): most windows have little noise, some much.
    """
    spread = strength * float(generator.gamma(*NOISE_SHAPE))
    noise: np.ndarray = np.rint(generator.laplace(0.0, max(spread, 1e-6) * np.sqrt(0.5), num_samples)).astype(np.int64)
    return noise
