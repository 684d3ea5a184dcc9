"""Log-mel spectrograms: `(log(max(basis @ |STFT(x)|^power, floor)) - mean) / scale`.

One path on every machine: `torch.stft` for the transform, `librosa.filters.mel` for the basis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wavegen.config import MelSpec

LN10 = float(np.log(10.0))


def log_mel(waveform: np.ndarray, spec: MelSpec, basis: np.ndarray | None = None) -> np.ndarray:
    """The log-mel spectrogram of a waveform.

    Frame f is centred on sample f * hop_length (`center`), or starts `edge_padding` samples before
    it. A waveform too short for one frame is filled up with zeros.

    Args:
        waveform: float32 (..., T), T >= 1, at `spec.sample_rate`.
        spec: what to compute.
        basis: float32 (n_mels, n_fft // 2 + 1) as stored with a model; None computes `mel_basis(spec)`.

    Returns:
        float32 (..., n_mels, F) with F = `num_frames(T, spec)`.

    Raises:
        ValueError: the waveform is empty or the basis does not fit.
    """
    import torch

    samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    weights = torch.from_numpy(np.array(mel_basis(spec) if basis is None else basis, dtype=np.float32))
    if samples.ndim == 0 or samples.shape[-1] == 0:
        raise ValueError(f"a spectrogram needs at least one sample, found shape {tuple(samples.shape)}")
    if tuple(weights.shape) != (spec.n_mels, spec.n_fft // 2 + 1):
        raise ValueError(f"the mel basis has shape {tuple(weights.shape)}, the spec needs "
                         f"{(spec.n_mels, spec.n_fft // 2 + 1)}")
    frames = num_frames(samples.shape[-1], spec)
    batch, samples = samples.shape[:-1], samples.reshape(-1, samples.shape[-1])
    # Reflection needs more samples than it adds, and a frame n_fft of them.
    edge = edge_samples(spec)
    missing = max(edge + 1, spec.n_fft - 2 * edge) - samples.shape[-1]
    samples = torch.nn.functional.pad(samples, (0, max(0, missing)))
    samples = torch.nn.functional.pad(samples, (edge, edge), mode="constant" if spec.pad_mode == "zero" else "reflect")
    window = torch.hann_window(spec.win_length, periodic=spec.window == "hann")
    spectrum = torch.stft(samples, spec.n_fft, spec.hop_length, spec.win_length, window, center=False,
                          return_complex=True)[..., :frames]
    mel = torch.matmul(weights, spectrum.abs() ** spec.power).clamp(min=spec.floor)
    logarithm = torch.log(mel) if spec.log_base == "e" else torch.log10(mel)
    logarithm = logarithm.reshape(*batch, spec.n_mels, frames)
    if (spec.mean, spec.scale) != ((0.0,), (1.0,)):
        logarithm = (logarithm - torch.tensor(spec.mean)[:, None]) / torch.tensor(spec.scale)[:, None]
    features: np.ndarray = logarithm.numpy()
    return features


def mel_basis(spec: MelSpec) -> np.ndarray:
    """Weights of each mel band: float32 (n_mels, n_fft // 2 + 1)."""
    import librosa

    basis: np.ndarray = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax,
        htk=spec.mel_scale == "htk", norm="slaney" if spec.norm == "slaney" else None)
    return basis.astype(np.float32)


def num_frames(num_samples: int, spec: MelSpec) -> int:
    """Number of frames F of a waveform of `num_samples` >= 1."""
    if spec.center:
        return 1 + num_samples // spec.hop_length
    return 1 + max(0, num_samples + 2 * spec.edge_padding - spec.n_fft) // spec.hop_length


def edge_samples(spec: MelSpec) -> int:
    """Samples frame f begins before sample f * hop_length."""
    return spec.n_fft // 2 if spec.center else spec.edge_padding


def matching_delay(spec: MelSpec, passes: int) -> int:
    """Frames by which samples leave `wavegen.audio.mel_match.MelMatch` later than they come in."""
    edge = edge_samples(spec)
    return passes * (-((edge - spec.n_fft) // spec.hop_length) - 1 - (-edge // spec.hop_length))


def unit(spec: MelSpec) -> float:
    """Natural logarithms in one unit of the spec's logarithm."""
    return 1.0 if spec.log_base == "e" else LN10


def column(values: tuple[float, ...]) -> NDArray[np.float64]:
    """Statistics of a spec beside (n_mels, F)."""
    return np.asarray(values, np.float64)[:, None]
