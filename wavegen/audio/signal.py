"""From a waveform to the codes a network speaks, and back: pre-emphasis and signal path in one place.

    direct    codes are mu-law of the pre-emphasised waveform
    lpc       codes are mu-law of what a linear prediction from the mel leaves over (`wavegen.audio.lpc`)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wavegen.audio import lpc, mulaw
from wavegen.config import AudioConfig

Prediction = Callable[[int, int], np.ndarray | None]


def prediction_coefficients(features: np.ndarray, audio: AudioConfig, basis: np.ndarray | None = None) -> np.ndarray:
    """Coefficients of the path lpc, from log-mel frames (..., n_mels, F) as a store holds them.

    Args:
        features: float (..., n_mels, F); a store's are rounded to float16, and so must these be.
        audio: with `mel`.
        basis: the mel basis if it is at hand.

    Returns:
        float32 (..., F, order).

    Raises:
        ValueError: `audio.mel` is not set, or the features do not fit it.
    """
    if audio.mel is None:
        raise ValueError("the signal path lpc predicts from a mel spectrogram, and audio.mel is not set")
    return lpc.mel_to_lpc(features, audio.mel, audio.lpc_order, audio.preemphasis, basis)


def encode_waveform(waveform: np.ndarray, audio: AudioConfig, features: np.ndarray | None = None,
                    basis: np.ndarray | None = None) -> np.ndarray:
    """The codes of a clip.

    Args:
        waveform: float32 (T,) in [-1, 1].
        audio: what a code means.
        features: float (n_mels, F), for the path lpc: see `prediction_coefficients`.
        basis: the mel basis if it is at hand.

    Returns:
        integers (T,) in [0, Q).

    Raises:
        ValueError: no features where the path lpc needs them, or samples that are not finite.
    """
    channels = audio.quantization_channels
    if audio.is_plain:
        return mulaw.encode(waveform, channels)
    signal = lpc.emphasize(waveform, audio.preemphasis)
    if audio.signal_path == "direct":
        return mulaw.encode(np.clip(signal, -1, 1), channels)
    coefficients = _coefficients(audio, features, basis)
    codes: np.ndarray = lpc.analyze(signal[None], coefficients[None], _hop(audio), channels).codes[0]
    return codes


def decode_codes(codes: np.ndarray, audio: AudioConfig, features: np.ndarray | None = None,
                 basis: np.ndarray | None = None) -> np.ndarray:
    """The waveform float32 (T,) of a clip's codes (T,); arguments as of `encode_waveform`."""
    prediction: Prediction | None = None
    if audio.signal_path == "lpc":
        coefficients = _coefficients(audio, features, basis)[None]
        prediction = _held(coefficients)
    hop = audio.mel.hop_length if audio.mel is not None else 1
    waveform: np.ndarray = SignalDecoder(audio, 1, prediction, hop).decode(np.asarray(codes)[None])[0]
    return waveform


class SignalDecoder:
    """Codes to waveform, chunk by chunk; the chunks never change the audio.

    Args:
        audio: what a code means.
        batch_size: rows B.
        prediction: for the path lpc: frames [start, stop) as float32 (B or 1, stop - start, order).
        hop_length: samples a frame of `prediction` is held for.
    """

    def __init__(self, audio: AudioConfig, batch_size: int = 1, prediction: Prediction | None = None,
                 hop_length: int = 1) -> None:
        self.audio, self._decoder = audio, None
        if audio.signal_path == "lpc" and prediction is None:
            raise ValueError("codes of the signal path lpc need prediction coefficients to become audio")
        if not audio.is_plain:
            if audio.signal_path == "direct":
                prediction, hop_length = _nothing, 1024
            assert prediction is not None
            self._decoder = lpc.Decoder(batch_size, prediction, hop_length, audio.preemphasis,
                                        audio.quantization_channels)

    def copy(self, prediction: Prediction | None = None) -> SignalDecoder:
        """An independent decoder with the same future, which may ask another for its coefficients."""
        other = object.__new__(SignalDecoder)
        other.audio, other._decoder = self.audio, None
        if self._decoder is not None:
            other._decoder = self._decoder.copy(prediction if self.audio.signal_path == "lpc" else None)
        return other

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The next samples of every row: integers (B, n) to float32 (B, n) in [-1, 1]."""
        if self._decoder is None:
            return mulaw.decode(codes, self.audio.quantization_channels)
        return self._decoder.decode(codes)


def _coefficients(audio: AudioConfig, features: np.ndarray | None, basis: np.ndarray | None) -> np.ndarray:
    if features is None:
        raise ValueError("codes of the signal path lpc need the mel features they were predicted from")
    return prediction_coefficients(features, audio, basis)


def _hop(audio: AudioConfig) -> int:
    assert audio.mel is not None
    return audio.mel.hop_length


def _held(coefficients: np.ndarray) -> Prediction:
    """Frames of (1, F, order), the last of which holds on."""
    return lambda start, stop: coefficients[:, np.minimum(np.arange(start, stop), coefficients.shape[1] - 1)]


def _nothing(start: int, stop: int) -> np.ndarray:
    return np.zeros((1, stop - start, 1), np.float32)
