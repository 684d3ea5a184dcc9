"""Griffin-Lim: a waveform from a log-mel spectrogram without any model, what every vocoder is compared with."""

from __future__ import annotations

import numpy as np

from wavegen.audio.mel import mel_basis
from wavegen.config import MelSpec

ITERATIONS = 64
MOMENTUM = 0.99


def griffin_lim(features: np.ndarray, spec: MelSpec, iterations: int = ITERATIONS, seed: int = 0) -> np.ndarray:
    """A waveform whose log-mel spectrogram is near the one given, from random phases.

    mel -> magnitudes by non-negative least squares -> `iterations` times: to the waveform and back, keeping the phases

    Args:
        features: float (n_mels, F), as `wavegen.audio.mel.log_mel` gives them; F >= 2.
        spec: how they were computed, hann window.
        iterations: of the search for phases.
        seed: of the phases it begins with.

    Returns:
        float32 (F * hop_length,), aligned with the recording the features are of, clipped to [-1, 1].

    Raises:
        ValueError: another shape.

    Reference: Griffin and Lim (IEEE TASSP 32(2), 1984); Perraudin et al. (WASPAA 2013) for the momentum; librosa.
    """
    import librosa

    if features.ndim != 2 or features.shape[0] != spec.n_mels or features.shape[1] < 2:
        raise ValueError(f"Griffin-Lim needs features ({spec.n_mels}, frames), at least 2 of them, "
                         f"found {features.shape}")
    held = np.pad(np.asarray(features, np.float64), ((0, 0), (0, 1)), mode="edge")  # F frames span (F - 1) hops
    logarithm = held * np.array(spec.scale)[:, None] + np.array(spec.mean)[:, None]
    mel = np.exp(logarithm) if spec.log_base == "e" else 10.0**logarithm
    magnitudes = librosa.util.nnls(mel_basis(spec), mel.astype(np.float32)) ** (1 / spec.power)
    size = features.shape[1] * spec.hop_length
    waveform = librosa.griffinlim(
        magnitudes.astype(np.float32), n_iter=iterations, hop_length=spec.hop_length, win_length=spec.win_length,
        n_fft=spec.n_fft, window="hann", center=True, pad_mode="constant", momentum=MOMENTUM, random_state=seed)
    # Frame f is centred on sample f * hop_length here, and `late` samples behind it in the recording.
    late = spec.n_fft // 2 - (spec.n_fft // 2 if spec.center else spec.edge_padding)
    aligned = np.pad(waveform[max(0, -late):], (max(0, late), max(0, -late)))[:size]
    return np.clip(aligned, -1, 1).astype(np.float32)
